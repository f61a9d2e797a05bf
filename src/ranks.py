"""Jobs of several processes, kept from disturbing one another."""

import signal
import subprocess
import sys
from typing import TYPE_CHECKING, Any

from src.pins import fingerprint_of, pinned
from src.runs.identity import identity, run_folder
from src.runs.record import read_record
from src.runs.session import JobFailed, Terminated, sigterm_interrupts

if TYPE_CHECKING:
    import lightning as L


def train_apart(cfg: dict[str, Any], overrides: list[str]) -> float:
    """Trains a job of a multirun by a command of its own, and returns its best validation accuracy.

    Training with several processes wants a process for itself: Lightning repeats its command for the other ranks,
    leaves a process group and an environment behind that the next job would take for its own, and kills the process
    when another rank dies.
    """
    cfg = pinned(cfg, fingerprint_of(cfg["data"]))  # as the command will, to find its record
    command = [sys.executable, "-m", "src.train", *overrides]
    # In a session of its own, or Ctrl-C would reach it twice, once from the terminal.
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)
    with sigterm_interrupts():
        try:
            code = child.wait()
        except KeyboardInterrupt as stop:
            child.send_signal(signal.SIGTERM if isinstance(stop, Terminated) else signal.SIGINT)
            child.wait()
            raise
    record = read_record(run_folder(cfg["runs"], cfg["study"], cfg["name"], cfg["seed"], identity(cfg)))
    if code or record is None:
        raise JobFailed(f"{cfg['name']} seed {cfg['seed']} ended with exit code {code}")
    return record["metrics"]["val/acc1"]


def end_other_ranks(trainer: "L.Trainer") -> None:
    """After an error here. Lightning leaves them waiting for this rank, or kills this rank once they are dead."""
    launched: list[subprocess.Popen[bytes]] = getattr(trainer.strategy.launcher, "procs", [])
    processes = list(launched)
    launched.clear()  # Lightning's watch sees none any more
    for process in processes:
        try:
            process.wait(timeout=5)  # one that failed itself may still be writing that down
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
