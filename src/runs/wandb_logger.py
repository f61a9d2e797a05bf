"""One W&B run per run: its own id, the resolved config, best-of summaries and the true exit code.

    with logged_to_wandb(cfg, run) as logger:
        Trainer(logger=logger).fit(...)

What goes wrong without this file: all jobs of a multirun land in the first one's run, failed jobs are shown
as finished, a resumed run starts a second one, and a machine without network or account hangs or asks.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import wandb
from wandb.sdk.lib import wbauth

from src.runs.process import rank, this_process
from src.runs.session import Run, status_of

if TYPE_CHECKING:  # Lightning takes seconds to import, which those who only read W&B's files needn't
    from lightning.pytorch.loggers import WandbLogger

log = logging.getLogger(__name__)

# What W&B's own hooks report: 255 for Ctrl-C (the shell's 130 would be one more code to know). Only 0 shows
# as finished; the record tells a failed run from an interrupted one.
EXIT_CODES = {"finished": 0, "failed": 1, "diverged": 1, "interrupted": 255}

STEP = "trainer/global_step"  # what Lightning logs beside every metric
# The number in the runs table: W&B would take the last, which is neither the best nor what papers report.
# Whole names only: of two patterns that both match, W&B takes now one and now the other.
SUMMARIES = {"val/acc1": "max", "val/loss": "min", "train/loss": "min"}

REPORTS = ".report"  # below a study's folder: W&B's files of its reports; hidden, so that nobody looks for runs there

INIT_TIMEOUT = 30.0  # seconds until a missing network is taken for one
FINISH_TIMEOUT = 300.0  # seconds for the last uploads; what is left stays on disk for `wandb sync`
FLUSH_EVERY = 2.0  # seconds, instead of 15; what W&B has not written when the process is killed is lost
MODES = ("auto", "online", "offline", "disabled")


@contextmanager
def logged_to_wandb(cfg: Mapping[str, Any], run: Run) -> "Iterator[WandbLogger]":
    """A logger for `run`, closed with the exit code of the block."""
    logger = wandb_logger(cfg, run)
    try:
        yield logger
    except BaseException as error:
        finish_wandb(logger, exit_code(error))
        raise
    finish_wandb(logger, 0)


def wandb_logger(cfg: Mapping[str, Any], run: Run) -> "WandbLogger":
    """Starts the W&B run of `run`, or goes on with it if an earlier attempt began it.

    Args:
        cfg: the resolved config. `logger` holds `project` and may hold `entity` and `mode` ("auto", the
            default: online if W&B has a key and WANDB_MODE doesn't say otherwise).
        run: its record gets the id before anything is computed; W&B's files go into its folder.

    Raises:
        ValueError: `logger.mode` is not one of `MODES`.
    """
    from lightning.pytorch.loggers import WandbLogger

    settings = cfg["logger"]
    project, entity = settings["project"], settings.get("entity")
    if rank() > 0:  # Lightning silences it there; starting a run would show one per GPU
        return WandbLogger(project=project, save_dir=run.folder)

    attempts = run.record.data["attempts"]
    known = run.record.data.get("wandb") or {"id": f"{run.record.data['identity']}-{attempts[0]['token']}"}
    mode = effective_mode(settings.get("mode", "auto"))
    run.update(wandb={**known, "project": project, "entity": entity, "mode": mode})

    code = {key: run.record.data["git"][key] for key in ("commit", "dirty")}

    def init(mode: str) -> wandb.Run:
        return wandb.init(
            project=project,
            entity=entity,
            id=known["id"],
            name=f"{cfg['name']}-s{cfg['seed']}",
            group=cfg["name"],
            job_type="train",
            tags=tags_of(cfg),
            dir=run.folder,
            config={**cfg, "identity": run.record.data["identity"], "git": code},
            resume="allow",
            reinit="create_new",  # never the run of a job before, not even of one that wasn't finished
            settings=wandb_settings(mode),
        )

    # Read before the new file exists, and only where no server knows how far the run got.
    done = _steps_on_disk(run.folder) if len(attempts) > 1 else 0
    experiment, used = started(init, mode)
    if used != mode:
        mode = used
        run.update(wandb={**known, "project": project, "entity": entity, "mode": mode})

    # As WandbLogger does for runs that it starts itself: everything over the trainer's steps. W&B's own steps
    # count the calls, and begin at zero in every offline attempt.
    experiment.define_metric(STEP)
    experiment.define_metric("*", step_metric=STEP, step_sync=True)
    for metric, summary in SUMMARIES.items():
        experiment.define_metric(metric, step_metric=STEP, summary=summary)
    if mode == "offline" and done:
        # Behind the attempts on disk, or the upload would put these rows in place of theirs.
        experiment.log({"attempt": len(attempts)}, step=done)
    if mode == "online":
        log.info("W&B: %s", experiment.url)
    return WandbLogger(project=project, name=experiment.name, save_dir=run.folder, experiment=experiment)


def started(init: Callable[[str], wandb.Run], mode: str) -> tuple[wandb.Run, str]:
    """The W&B run that `init(mode)` starts, offline if there is no way to be online, and the mode that it has."""
    try:
        return init(mode), mode
    except (wandb.Error, TimeoutError) as error:
        if mode != "online":
            raise
        reason = str(error).partition("\n")[0]
    log.warning("W&B cannot be reached (%s); logged offline, python -m src.sync sends it later", reason)
    wandb.teardown()  # its service would still hold the id: "run ID ... is in use"
    return init("offline"), "offline"


def finish_wandb(logger: "WandbLogger", exit_code: int) -> None:
    """Closes the W&B run, so that the next job gets its own. A second call does nothing."""
    if rank() == 0:
        logger.experiment.finish(exit_code=exit_code)


def exit_code(error: BaseException | None) -> int:
    """0 for no error, 1 for a failure, 255 for Ctrl-C and SIGTERM."""
    return EXIT_CODES["finished" if error is None else status_of(error)]


# -------------------------------------------------------------------------------------------- reading


def find_offline_runs(folder: str | Path) -> list[Path]:
    """W&B's files of a run, one per attempt, the oldest first."""
    files = Path(folder).glob("wandb/*run-*/run-*.wandb")
    # The folder's name holds the second it was made; links such as latest-run show the same files again.
    return sorted((f for f in files if not f.parent.is_symlink()), key=lambda f: (f.stat().st_mtime, f.name))


def read_offline_run(folder: str | Path) -> dict[str, Any]:
    """A run as W&B wrote it to disk: the last attempt's `config`, `summary`, `state`, `exit_code`, ...

    `history` holds the rows of all attempts. An attempt that was killed may lack its last `FLUSH_EVERY` s.

    Raises:
        FileNotFoundError: nothing was logged there.
        ValueError: W&B cannot read its file.
    """
    files = find_offline_runs(folder)
    if not files:
        raise FileNotFoundError(f"{folder} holds no wandb/*run-*/run-*.wandb; was the run logged to W&B?")
    history = [row for file in files for row in _history(file)]
    return {**json.loads(inspect_file(files[-1], "--summary")), "history": history}


def _history(file: Path) -> list[dict[str, Any]]:
    records = map(json.loads, inspect_file(file).splitlines())
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def inspect_file(file: Path, *options: str) -> str:
    """What `wandb leet inspect --json` prints about a .wandb file: a record per line, or as `options` say.

    Raises:
        ValueError: W&B cannot read it.
    """
    command = [sys.executable, "-m", "wandb", "leet", "inspect", "--json", *options, str(file)]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, timeout=120)
    if done.returncode != 0:
        raise ValueError(f"W&B cannot read {file}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def _steps_on_disk(folder: Path) -> int:
    """How many of W&B's own steps the earlier attempts took."""
    last = -1
    for file in find_offline_runs(folder):
        try:
            last = max([last, *(row["_step"] for row in _history(file))])
        except (ValueError, KeyError, subprocess.SubprocessError, OSError) as error:
            log.warning("earlier W&B file ignored: %s", error)
    return last + 1


# ------------------------------------------------------------------------------------------- settings


def effective_mode(wanted: str) -> str:
    """The mode that W&B is started in: "online", "offline" or "disabled".

    Raises:
        ValueError: `wanted` is not one of `MODES`.
    """
    if wanted not in MODES:
        raise ValueError(f"logger.mode={wanted!r} is unknown; choose one of {', '.join(MODES)}")
    if wanted == "auto":
        # "dryrun" and "run" are W&B's older words, which it still accepts.
        said = os.environ.get("WANDB_MODE", "").lower()
        wanted = {"dryrun": "offline", "run": "online"}.get(said, said)
        if wanted not in ("online", "offline", "disabled"):
            return "online" if has_key() else "offline"
    if wanted == "online" and not has_key():
        log.warning("W&B has no key, so it logs offline; `wandb login`, then python -m src.sync sends it")
        return "offline"  # rather than asking for one on a machine where nobody answers
    return wanted


def has_key() -> bool:
    """Whether W&B could log in without asking. Doesn't use the network, so the key may still be wrong."""
    host = wandb.Settings().base_url
    try:
        return bool(os.environ.get("WANDB_API_KEY") or wbauth.read_netrc_auth(host=host))
    except wandb.Error as error:
        log.warning("the W&B key is not usable: %s", str(error).partition("\n")[0])
        return False


def wandb_settings(mode: str) -> wandb.Settings:
    """Of every run that is logged here, whatever it holds."""
    return wandb.Settings(
        mode=cast(Any, mode),
        silent=True,
        console="off",  # log.txt has it; W&B would have to redirect stdout, and progress bars with it
        disable_code=True,
        disable_git=True,  # it would send the remote's address; the commit is in the config
        disable_job_creation=True,
        host=this_process()["host"],  # instead of the machine's name
        init_timeout=INIT_TIMEOUT,
        finish_timeout=FINISH_TIMEOUT,
        login_timeout=INIT_TIMEOUT,
        x_transaction_log_flush_interval=FLUSH_EVERY,
    )


def tags_of(cfg: Mapping[str, Any]) -> list[str]:
    """What runs are filtered by: study, data, model, and the axes on which the variant differs."""
    names = []
    for group in ("data", "model"):
        part = cfg.get(group) or {}
        names.append(part.get("name") or str(part.get("_target_", "")).rpartition(".")[2])
    tags = [cfg["study"], *names, *(cfg.get("axes") or [])]
    return list(dict.fromkeys(str(tag)[:64] for tag in tags if tag))  # W&B: at most 64 characters, no repeats
