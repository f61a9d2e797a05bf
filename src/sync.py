"""Uploads to W&B what was logged offline.

python -m src.sync                     # all below runs/
python -m src.sync runs/demo           # a study, or one run
python -m src.sync --dry-run           # only says what it would send

Attempts of one run are sent in the order of their starts, and the studies' reports last. What was sent is not sent
again: `wandb sync` leaves a file `.wandb.synced` beside what has arrived. That is all that counts here, since it ends
with code 0 whatever happens. A run that is still being computed is left for later, or it would count as sent for good.
What a rerun has replaced isn't sent.
"""

import argparse
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.commands import command
from src.runs.record import find_records
from src.runs.session import BEST, CHECKPOINT
from src.runs.wandb_logger import REPORTS, find_offline_runs, has_key

RUNS = Path("runs")
LOGS = ".sync"  # below the folder that is synced; `wandb sync` would put its logs into the working directory
TRIES = 5  # of a request to a server that doesn't answer: half a minute; W&B alone goes on for many
GIVE_UP_AFTER = 3  # failures in a row are the server's, not the runs'


@dataclass(frozen=True)
class Logged:
    """What W&B wrote about one run, or about one report.

    Attributes:
        files: .wandb files written offline, one per attempt, in the order of their starts.
        running: its process is still at it.
        lost: checkpoints that it logged and that are no longer there; W&B would say nothing about them.
    """

    folder: Path
    files: tuple[Path, ...]
    running: bool = False
    lost: tuple[str, ...] = ()

    @property
    def unsent(self) -> tuple[Path, ...]:
        return tuple(file for file in self.files if not is_sent(file))


@command(interrupted="what was sent stays, and the same command sends the rest")
def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code: 0 if all is there, 1 if something could not be sent."""
    parser = argparse.ArgumentParser(
        prog="python -m src.sync", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, nargs="?", default=RUNS, help=f"a run, a study or all runs ({RUNS})")
    parser.add_argument("--dry-run", action="store_true", help="send nothing")
    options = parser.parse_args(arguments)
    if not options.folder.is_dir():
        raise ValueError(f"{options.folder} is no folder; give that of a run, of a study or of all runs")
    if not (options.dry_run or has_key()):
        raise ValueError("not logged in to W&B: run `wandb login`, then this once more")
    return sync(options.folder, dry_run=options.dry_run)


def sync(folder: Path, *, dry_run: bool) -> int:
    """Sends what is below `folder`, a line for each run; the exit code."""
    counts: Counter[str] = Counter()
    in_a_row = 0
    for logged in find_logged(folder):
        if in_a_row == GIVE_UP_AFTER:
            if logged.unsent:
                counts["not tried"] += 1
            continue
        said, why = _send(logged, folder / LOGS, dry_run=dry_run)
        counts[said] += 1
        if said != "already there":
            print(f"{said}: {logged.folder}" + (f" ({why})" if why else ""), flush=True)
        if said in ("sent", "failed"):
            in_a_row = in_a_row + 1 if said == "failed" else 0
    if counts["not tried"]:
        print(f"given up after {GIVE_UP_AFTER} failures in a row; run this again once W&B answers")
    print(", ".join(f"{number} {said}" for said, number in counts.items()) or f"nothing was logged offline in {folder}")
    return 1 if counts["failed"] else 0


def find_logged(folder: Path) -> Iterator[Logged]:
    """Everything below `folder` that W&B logged offline: runs in the order of their folders, then reports."""
    for record in find_records(folder):
        at = Path(record["folder"])
        files = _offline(at)
        if files:
            yield Logged(at, files, record["status"] == "running", _lost(at, record))
    for at in sorted([*folder.glob(REPORTS), *folder.glob(f"*/{REPORTS}")]):
        for file in _offline(at):  # each is a run of its own
            yield Logged(file.parent, (file,))


def is_sent(file: Path) -> bool:
    """Whether W&B has all of a .wandb file."""
    return file.with_name(f"{file.name}.synced").exists()


def upload(file: Path, logs: Path) -> str | None:
    """Sends one .wandb file by `wandb sync`.

    Args:
        logs: where it puts its own.

    Returns:
        Why it could not be sent; None if it was.
    """
    logs.mkdir(exist_ok=True)
    # WANDB_MODE=offline, which made the run offline, would still hold.
    environment = {key: value for key, value in os.environ.items() if key != "WANDB_MODE"}
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", str(file)],
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        env={"WANDB__GRAPHQL_RETRY_MAX": str(TRIES - 1), **environment, "WANDB_DIR": str(logs)},
    )
    if is_sent(file):
        return None
    said = (done.stderr + done.stdout).splitlines()
    errors = [line.partition("ERROR ")[2] for line in said if "ERROR " in line]
    return " ".join(errors or said[-1:]) or f"`wandb sync` ended with code {done.returncode} and said nothing"


def _send(logged: Logged, logs: Path, *, dry_run: bool) -> tuple[str, str]:
    """What became of it, and what else there is to say."""
    if not logged.unsent:
        return "already there", ""
    if logged.running:
        return "still running", "sent once it has ended"
    without = f"without {' and '.join(logged.lost)}, no longer there" if logged.lost else ""
    if dry_run:
        return "to be sent", without
    for file in logged.unsent:
        why = upload(file, logs)
        if why is not None:
            return "failed", why  # nor are later attempts sent: they would come before this one
    return "sent", without


def _offline(folder: Path) -> tuple[Path, ...]:
    # What was logged online has its own upload; W&B marks it in no way.
    return tuple(file for file in find_offline_runs(folder) if file.parent.name.startswith("offline-"))


def _lost(folder: Path, record: dict) -> tuple[str, ...]:
    logger = (record.get("config") or {}).get("logger") or {}
    if record["status"] != "finished" or not logger.get("checkpoints"):
        return ()
    return tuple(path.name for path in (BEST, CHECKPOINT) if not (folder / path).exists())


if __name__ == "__main__":
    sys.exit(main())
