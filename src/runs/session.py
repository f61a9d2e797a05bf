"""Take a run, resume it if it was begun, and leave a true status behind whatever happens.

with claim(cfg, root="results") as run:
    run.update(params=..., macs=...)
    trainer.fit(..., ckpt_path=run.resume_from)
    run.finish({"test/acc1": 0.93})
"""

import logging
import os
import shutil
import signal
import threading
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from src.runs import claims
from src.runs.identity import identity, run_folder
from src.runs.process import HEARTBEAT_EVERY, rank, this_process
from src.runs.provenance import provenance
from src.runs.record import ADDED, COPY, HEARTBEAT, OLD, RECORD, Record, plain, read_record, utc, write_atomically

log = logging.getLogger(__name__)

CHECKPOINT = Path("checkpoints") / "last.ckpt"
PREVIOUS = CHECKPOINT.with_name("previous.ckpt")  # the one before it
BEST = CHECKPOINT.with_name("best.ckpt")  # the weights that validation chose; a resumed run needs them at its end
CONCLUSIONS = ("failed", "diverged", "interrupted", "lost")  # what can be said of an attempt that said nothing
_SECRETS = ("api_key", "apikey", "password", "passwd", "secret", "access_token")
_JOIN_WITHIN = 120.0  # seconds that the other ranks wait for rank zero's claim


class AlreadyFinished(RuntimeError):
    """There is nothing to do; `record` holds the result."""

    def __init__(self, record: dict[str, Any]):
        super().__init__(f"{record['folder']} is finished; to compute it once more, set rerun=true")
        self.record = record


class RunningElsewhere(RuntimeError):
    """Another process is at it."""


class ClaimLost(RuntimeError):
    """This process was silent for so long that another one took the run over."""


class Diverged(RuntimeError):
    """The loss or the weights are not finite: what would be computed from here on means nothing."""


class JobFailed(RuntimeError):
    """A job has no result; its own output said why."""


class Terminated(KeyboardInterrupt):
    """SIGTERM. A KeyboardInterrupt, so that whoever ends in order on Ctrl-C does so here too."""


class Run:
    """A run that this process owns.

    Args:
        folder: where everything about it goes.
        record: its record, with this attempt begun.
        resume_from: the last whole checkpoint of an earlier attempt that didn't finish.
        owned: the claim; None in the ranks above zero, which compute but write nothing down.
    """

    def __init__(self, folder: Path, record: Record, resume_from: Path | None, owned: claims.Claim | None):
        self.folder, self.record, self.resume_from = folder, record, resume_from
        self.finished = False
        self._claim = owned
        self._since = time.monotonic()
        self._seconds_before = record.data.get("wall_seconds") or 0.0

    def update(self, **fields: Any) -> None:
        """Puts `fields` into the record, in place of what they were.

        Raises:
            ClaimLost: another process writes this record now.
            OSError: it could not be written; the record on disk is the one before.
        """
        if self._claim is None:
            return
        if not self._claim.holds():
            raise ClaimLost(f"{self.folder} was taken over by another process; this one writes nothing more")
        seconds = self._seconds_before + time.monotonic() - self._since
        self.record.update(**fields, wall_seconds=round(seconds, 3))

    def finish(self, metrics: Mapping[str, Any], **fields: Any) -> None:
        """The result. The status becomes "finished" on leaving, unless something still goes wrong."""
        self.update(metrics=plain(metrics), **fields)
        self.finished = True

    def end(self, status: str, error: BaseException | None = None) -> None:
        """Closes this attempt; `claim` calls it."""
        attempts = self.record.data["attempts"]
        last = {**attempts[-1], "end": utc(), "status": status}
        self.update(
            status=status,
            error=None if error is None else _describe(error),
            ended=last["end"],
            attempts=[*attempts[:-1], last],
        )
        self.record.copy()


@contextmanager
def claim(cfg: Mapping[str, Any], *, root: str | Path, rerun: bool = False) -> Iterator[Run]:
    """Owns the run of `cfg` while the block runs; the record says how it ended.

    An exception gives "failed", `Diverged` "diverged", Ctrl-C and SIGTERM "interrupted", all re-raised; `error.txt`
    has the traceback. A killed process gives nothing, and readers notice. Ranks above zero join rank zero's run.

    Args:
        cfg: the resolved config as plain data, with `study`, `name` and `seed`.
        root: the folder of all studies.
        rerun: start anew; what is there is moved aside, not deleted.

    Raises:
        AlreadyFinished: the result is there.
        RunningElsewhere: a living process computes it.
        RuntimeError: the block ended without `run.finish(metrics)`.
    """
    _refuse_secrets(cfg, "")
    key = identity(cfg)
    folder = run_folder(root, cfg["study"], cfg["name"], cfg["seed"], key)
    if rank() > 0:
        with _joined(folder, rerun) as run:
            yield run
        return

    owned, earlier = _own(folder, rerun)
    try:
        run = _begin(folder, cfg, key, owned, earlier)
        with _heartbeat(folder / HEARTBEAT), sigterm_interrupts():
            try:
                yield run
                if not run.finished:
                    raise RuntimeError(f"{folder} was left without run.finish(metrics): no result")
            except BaseException as error:
                _end_badly(run, error)
                raise
            run.end("finished")
    finally:
        owned.release()


def conclude(folder: Path, status: str, error_type: str, message: str) -> bool:
    """Closes the last attempt in `folder` for a process that has died without closing it.

    It ends at its last sign of life. Whoever starts a new attempt meanwhile is told that the run is held, so
    conclude first.

    Returns:
        Whether it was written: not if somebody is at the run, the attempt has ended itself, or there is no record.

    Raises:
        ValueError: `status` is no way for an attempt to die.
        OSError: the disk is full or gone; the record is the one before.
    """
    if status not in CONCLUSIONS:
        raise ValueError(f"status={status!r} cannot be concluded; choose one of {', '.join(CONCLUSIONS)}")
    if read_record(folder) is None:
        return False  # before `take` makes a folder for it
    try:
        owned = claims.take(folder)
    except claims.Held:
        return False
    try:
        record = read_record(folder)
        if record is None or record["status"] == "damaged" or record["attempts"][-1]["end"] is not None:
            return False
        if record.get("recovered"):
            _put_record_aside(folder, owned.token)
        *before, last = _closed(record)
        attempts = [*before, {**last, "status": status}]
        concluded = Record(folder, {key: value for key, value in record.items() if key not in ADDED})
        concluded.update(
            status=status,
            error={"type": error_type, "message": message, "traceback": ""},
            ended=last["end"],
            wall_seconds=sum(_seconds(attempt) for attempt in attempts),
            attempts=attempts,
        )
        concluded.copy()
        return True
    finally:
        owned.release()


def status_of(error: BaseException) -> str:
    """ "interrupted" if somebody or the scheduler stopped the run, "diverged" if it did, else "failed"."""
    if isinstance(error, Diverged):
        return "diverged"
    cause: BaseException | None = error
    while cause is not None:
        # Lightning turns Ctrl-C into sys.exit(1), and SIGTERM between batches into a SystemExit of its own.
        if isinstance(cause, KeyboardInterrupt) or type(cause).__name__ == "SIGTERMException":
            return "interrupted"
        # What is being saved at that moment fails too, with an error of its own.
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "failed"


# --------------------------------------------------------------------------------------------- begin


def _own(folder: Path, rerun: bool) -> tuple[claims.Claim, dict[str, Any] | None]:
    """The claim on a run that is still to be computed, and its record so far."""
    while True:
        earlier = read_record(folder)
        if earlier and earlier["status"] == "finished" and not rerun:
            if earlier.get("recovered"):
                _repair(folder)
            raise AlreadyFinished(earlier)
        try:
            owned = claims.take(folder)
        except claims.Held as held:
            raise RunningElsewhere(
                f"{folder} is being computed by {held}; wait for it, or choose another seed"
            ) from None
        try:
            earlier = read_record(folder)  # again: only now nobody else can change it
            if earlier and earlier["status"] == "finished" and not rerun:
                raise AlreadyFinished(earlier)
            if not (earlier and rerun):
                return owned, earlier
            # Only its owner moves a run, so two reruns at once cannot move each other's fresh folder.
            aside = set_aside(folder, owned)
        except BaseException:
            owned.release()
            raise
        aside.release()
        rerun = False


def set_aside(folder: Path, owned: claims.Claim) -> claims.Claim:
    """Moves a run out of the way, for its owner only; the claim on it where it is now."""
    aside = folder.with_name(f"{folder.name}{OLD}{utc()[:26].replace(':', '').replace('-', '')}")
    folder.rename(aside)
    log.info("the earlier run is kept in %s", aside)
    return owned.moved_to(aside)


def _repair(folder: Path) -> None:
    """Puts a finished run's copy in place of its damaged record. Whoever comes next may do it as well as this one."""
    try:
        owned = claims.take(folder)
    except (claims.Held, OSError) as problem:
        log.warning("%s is left as it is (%s)", folder / RECORD, problem)
        return
    try:
        if (read_record(folder) or {}).get("recovered"):
            _put_record_aside(folder, owned.token)
            write_atomically(folder / RECORD, (folder / COPY).read_text(encoding="utf-8"))
            log.info("%s is repaired from %s", folder / RECORD, COPY)
    except OSError as problem:
        log.warning("%s is left as it is (%s)", folder / RECORD, problem)
    finally:
        owned.release()


def _put_record_aside(folder: Path, token: str) -> None:
    # Copied: were it moved, and this process killed, the run would look as if it had never been begun.
    with suppress(FileNotFoundError):
        shutil.copyfile(folder / RECORD, folder / f"record-damaged-{token}.json")


def _begin(
    folder: Path,
    cfg: Mapping[str, Any],
    key: str,
    owned: claims.Claim,
    earlier: dict[str, Any] | None,
) -> Run:
    damaged = earlier is not None and earlier["status"] == "damaged"
    if earlier is not None and (damaged or earlier.get("recovered")):
        _put_record_aside(folder, owned.token)
    attempts = [] if earlier is None or damaged else _closed(earlier)
    resume_from = None if earlier is None else _checkpoint(folder, owned.token)

    made_by = provenance()
    number = len(attempts) + 1
    if made_by["diff"]:
        name = "git.diff" if number == 1 else f"git-attempt{number}.diff"
        write_atomically(folder / name, made_by["diff"])
    now = utc()
    attempt = {
        "start": now,
        "end": None,
        "status": "running",
        **this_process(),
        "token": owned.token,
        "commit": made_by["git"]["commit"],
        "resume_from": None if resume_from is None else str(resume_from.relative_to(folder)),
    }
    if attempts and attempts[-1]["commit"] != attempt["commit"]:
        log.warning("%s goes on with another commit than it was begun with; see its attempts", folder)

    fields: dict[str, Any] = {
        "status": "running",
        "name": cfg["name"],
        "study": cfg["study"],
        "seed": cfg["seed"],
        "identity": key,
        "config": plain(cfg),
        "git": made_by["git"],
        "versions": made_by["versions"],
        "hardware": made_by["hardware"],
        "metrics": None,
        "best": None,
        "wall_seconds": sum(_seconds(attempt) for attempt in attempts),
        "started": attempts[0]["start"] if attempts else now,
        "ended": None,
        "attempts": [*attempts, attempt],
        "error": None,
    }
    # What an earlier attempt found out, such as its W&B id, stays.
    found = dict.fromkeys(("data_fingerprint", "params", "macs")) | ({} if damaged else earlier or {})
    fields |= {key: value for key, value in found.items() if key not in (*fields, *ADDED)}
    run = Run(folder, Record(folder, fields), resume_from, owned)
    run.update()
    run.record.copy()
    return run


def _closed(earlier: dict[str, Any]) -> list[dict[str, Any]]:
    """The earlier attempts, the last with the end it could not write itself."""
    *before, last = earlier["attempts"]
    if last["end"] is None:
        last = {**last, "end": earlier["heartbeat"], "status": earlier["status"]}
    return [*before, last]


def _seconds(attempt: Mapping[str, Any]) -> float:
    if attempt["end"] is None:
        return 0.0
    seconds = datetime.fromisoformat(attempt["end"]) - datetime.fromisoformat(attempt["start"])
    return max(0.0, seconds.total_seconds())


def _checkpoint(folder: Path, token: str) -> Path | None:
    """The last whole checkpoint to go on from, or None to begin anew; what is damaged is put aside, not deleted."""
    from src.runs.checkpoint_io import whole  # torch takes seconds to import, which only a resumed run needs

    for unfinished in (folder / CHECKPOINT).parent.glob(".*.ckpt.*"):  # of a process killed while it saved
        unfinished.unlink(missing_ok=True)

    # The weights that validation chose lie nowhere else. Last, or a run cut off here would go on without them.
    if (folder / BEST).exists() and not whole(folder / BEST):
        for path in (folder / CHECKPOINT, folder / PREVIOUS):
            if path.exists():
                path.rename(path.with_name(f"unused-{token}-{path.name}"))
        aside = _put_damaged_aside(folder / BEST, token)
        log.warning("%s is damaged, kept as %s; no other file has its weights, so the run begins anew", BEST, aside)
        return None

    for path, other in ((folder / CHECKPOINT, PREVIOUS), (folder / PREVIOUS, None)):
        if not path.exists():
            continue
        if whole(path):
            log.info("goes on from %s", path)
            return path
        aside = _put_damaged_aside(path, token)
        then = f"{other} is tried instead" if other and (folder / other).exists() else "the run begins anew"
        log.warning("%s is not a whole checkpoint, kept as %s; %s", path, aside, then)
    return None


def _put_damaged_aside(path: Path, token: str) -> str:
    aside = path.with_name(f"damaged-{token}-{path.name}")
    path.rename(aside)
    return aside.name


def _refuse_secrets(value: Any, where: str) -> None:
    if isinstance(value, Mapping):
        for key, child in value.items():
            if str(key).lower() in _SECRETS and child:
                raise ValueError(
                    f"{where}{key} is in the config, which is recorded and logged; secrets go into the "
                    f"environment (W&B: WANDB_API_KEY, or `wandb login` once)"
                )
            _refuse_secrets(child, f"{where}{key}.")


@contextmanager
def _joined(folder: Path, rerun: bool) -> Iterator[Run]:
    """The same run in a rank above zero: it waits for rank zero's claim, and writes only its own error."""
    until = time.monotonic() + _JOIN_WITHIN
    while (record := read_record(folder)) is None or record["status"] != "running":
        if record and record["status"] == "finished" and not rerun:
            raise AlreadyFinished(record)
        if time.monotonic() > until:
            raise RuntimeError(f"rank {rank()} waited {_JOIN_WITHIN:.0f} s for rank zero to begin {folder}")
        time.sleep(0.2)
    resume_from = record["attempts"][-1]["resume_from"]
    run = Run(folder, Record(folder, record), resume_from and folder / resume_from, None)
    try:
        yield run
    except BaseException as error:
        _append_error(folder / f"error-rank{rank()}.txt", error)
        raise


# ----------------------------------------------------------------------------------------- meanwhile


@contextmanager
def _heartbeat(path: Path) -> Iterator[None]:
    """Touches `path` now, and from a thread; its time is all that other machines see of this process."""
    done = threading.Event()

    def beat() -> None:
        with suppress(OSError):  # a full or stuttering disk; a few beats may be missed
            path.touch()

    def go_on() -> None:
        while not done.wait(HEARTBEAT_EVERY):
            beat()

    beat()  # not by the thread, which a busy machine may let wait
    thread = threading.Thread(target=go_on, name="heartbeat", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join(timeout=5)


@contextmanager
def sigterm_interrupts() -> Iterator[None]:
    """SIGTERM raises `Terminated`, once; further ones don't disturb the ending."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread gets signals
        return
    owner, received = os.getpid(), False

    def stop(signum: int, frame: Any) -> None:
        nonlocal received
        if os.getpid() != owner:  # a forked data worker inherits this handler, but dies as workers do
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)
        elif not received:
            received = True
            raise Terminated("SIGTERM")

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


# ----------------------------------------------------------------------------------------------- end


def _end_badly(run: Run, error: BaseException) -> None:
    """Writes down what it can; whatever fails here must not hide `error`."""
    try:
        run.end(status_of(error), error)
        _append_error(run.folder / "error.txt", error)
    except (OSError, ClaimLost) as problem:
        log.error("could not record how %s ended: %s", run.folder, problem)


def _append_error(path: Path, error: BaseException) -> None:
    with path.open("a", encoding="utf-8") as file:
        file.write(f"--- {utc()} {status_of(error)}\n{_describe(error)['traceback']}\n")


def _describe(error: BaseException) -> dict[str, str]:
    return {
        "type": type(error).__name__,
        "message": str(error),
        "traceback": "".join(traceback.format_exception(error)),
    }
