"""How commands end: a line for what can be put right, an exit code, and not a word to a reader that has gone."""

import os
import subprocess
import sys

import pytest
from hydra.errors import HydraException
from omegaconf.errors import OmegaConfBaseException

from src.commands import command
from src.config import CONF

# All command lines; what each may load before it answers is in test_imports.py.
COMMANDS = (
    *("benchmark", "checkpoint", "demo", "evaluate", "export", "points", "report", "study", "sync", "table", "train"),
    *("visualize", "where_it_looks"),
)
LINES = """
import sys
from src.commands import command
@command()
def main():
    for number in range(100_000):
        print(number, flush=sys.argv[1:] == ["now"])
    raise RuntimeError("nobody reads, and it still goes on")
sys.exit(main())
"""


def raising(error):
    @command(interrupted="what is there stays")
    def main():
        raise error

    return main


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        (ValueError("dim 7 must be\n   a multiple of 2"), 2, "dim 7 must be a multiple of 2"),
        (FileNotFoundError(2, "not there", "here.csv"), 2, "[Errno 2] not there: 'here.csv'"),
        (OSError(), 2, "OSError"),
        (HydraException("no model 'x'"), 2, "no model 'x'"),
        (OmegaConfBaseException("no key 'y'"), 2, "no key 'y'"),
        (BrokenPipeError(32, "Broken pipe"), 2, "[Errno 32] Broken pipe"),  # not of stdout, which is read
        (KeyboardInterrupt(), 130, "interrupted; what is there stays"),
        (KeyboardInterrupt("out/ keeps the rows so far"), 130, "interrupted; out/ keeps the rows so far"),
    ],
)
def test_what_the_user_can_put_right_is_a_line_and_a_code(error, code, line, capfd):
    assert raising(error)() == code
    assert capfd.readouterr() == ("", line + "\n")


@pytest.mark.parametrize("error", [RuntimeError("ours"), KeyError("ours"), SystemExit(5)])
def test_what_is_wrong_with_the_program_is_not_hidden(error):
    with pytest.raises(type(error)):
        raising(error)()


@pytest.mark.parametrize("code", [None, 0, 1])
def test_what_main_returns_is_the_exit_code(code):
    assert command()(lambda: code)() == (code or 0)


def without_reader(*arguments, **env):
    """(exit code, stderr) of Python whose stdout nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    kept = {key: value for key, value in os.environ.items() if key != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=CONF.parent,
        env={**kept, **env},
        stdout=writer,
        stderr=subprocess.PIPE,
        text=True,
    )
    os.close(writer)
    return done.returncode, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_help_that_nobody_reads_is_no_error(name):
    assert without_reader("-m", f"src.{name}", "--help")[1] == ""


@pytest.mark.parametrize("env", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("when", ["at_once", "now"])
def test_a_reader_that_has_gone_ends_a_command_without_a_word(when, env):
    assert without_reader("-c", LINES, when, **env) == (0, "")


JOB = """
import logging, sys
from src.commands import one_line_errors
logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stdout)
with one_line_errors(several=False, again="goes on"):
    try:
        for number in range(100_000):
            logging.info(number) if sys.argv[1:] == ["logs"] else print(number)
    except Exception as error:
        raise RuntimeError("this would be recorded as a failure") from error
    raise RuntimeError("nobody reads, and it still goes on")
"""


@pytest.mark.parametrize("env", [{}, {"PYTHONUNBUFFERED": "1"}])
@pytest.mark.parametrize("how", ["logs", "prints"])
def test_a_job_whose_reader_has_gone_is_interrupted_without_a_word(how, env):
    assert without_reader("-c", JOB, how, **env) == (130, "")


def test_a_full_disk_is_told_of():
    if not os.path.exists("/dev/full"):
        pytest.skip("the system has no /dev/full")
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", LINES, "at_once"], cwd=CONF.parent, stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode and done.stderr.startswith("[Errno 28] No space left on device\n")
    assert "nobody reads" not in done.stderr
