import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

import pytest
import torch

from src.runs import claims
from src.runs import record as record_module
from src.runs.claims import Held, take
from src.runs.identity import identity, run_folder
from src.runs.process import LOST_AFTER
from src.runs.record import find_records, read_record
from src.runs.session import (
    AlreadyFinished,
    ClaimLost,
    Diverged,
    RunningElsewhere,
    Terminated,
    claim,
    conclude,
    status_of,
)

ROOT = Path(__file__).parents[2]
CFG = {"study": "s", "name": "v", "seed": 0, "lr": 0.1}

# A job: claims, says so, does what it is told, and says how it left.
JOB = """
import json, signal, sys, time
from src.runs.session import claim, AlreadyFinished, RunningElsewhere
cfg, root, what = json.loads(sys.argv[1]), sys.argv[2], sys.argv[3]
signal.signal(signal.SIGINT, signal.default_int_handler)  # background shells have it ignored
if what != "raise":  # without the seconds that importing torch takes, jobs race more closely
    import src.runs.session
    git = {"commit": None, "dirty": None, "untracked": []}
    src.runs.session.provenance = lambda: {"git": git, "diff": "", "versions": {}, "hardware": {}}
try:
    with claim(cfg, root=root, rerun=what == "rerun") as run:
        print("claimed", flush=True)
        if what == "sleep":
            time.sleep(60)
        if what == "brief":
            time.sleep(1.0)
        if what == "raise":
            raise ValueError("diverged at step 3")
        if what == "exit":
            sys.exit(0)
        if what == "like lightning":  # which ends so on Ctrl-C
            try:
                time.sleep(60)
            except KeyboardInterrupt:
                sys.exit(1)
        run.finish({"test/acc1": 0.5})
except (AlreadyFinished, RunningElsewhere) as refusal:
    print(type(refusal).__name__, flush=True)
"""


def folder_of(root, cfg=CFG):
    return run_folder(root, cfg["study"], cfg["name"], cfg["seed"], identity(cfg))


def start(root, what, cfg=CFG):
    command = [sys.executable, "-c", JOB, json.dumps(cfg), str(root), what]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def start_and_wait(root, what):
    job = start(root, what)
    assert job.stdout.readline() == "claimed\n", job.stderr.read()
    return job


def ended(job):
    """The exit code of a job that ends now, and what it said; closes its pipes, which wait() alone would leave open."""
    _, said = job.communicate(timeout=60)
    return job.returncode, said


def checkpoint(folder, name="last.ckpt", value=0.0):
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    torch.save({"weights": torch.full((100,), value)}, folder / "checkpoints" / name)


def damage(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def fail(root, *checkpoints, damaged=()):
    """A run that failed with these checkpoints, some of them damaged since."""
    with pytest.raises(ValueError), claim(CFG, root=root) as run:
        for number, name in enumerate(checkpoints):
            checkpoint(run.folder, name, float(number))
        raise ValueError("the cause")
    for name in damaged:
        damage(run.folder / "checkpoints" / name)
    return run.folder


def finish(root):
    with claim(CFG, root=root) as run:
        run.finish({"test/acc1": 0.5})
    return run.folder


# ------------------------------------------------------------------------------- how a run can end


def test_success(tmp_path):
    with claim(CFG, root=tmp_path) as run:
        assert run.resume_from is None
        assert read_record(run.folder)["status"] == "running"
        run.update(params=10, macs=20, data_fingerprint="abc")
        run.finish({"test/acc1": 0.5}, best={"val/acc1": 0.6})
        assert read_record(run.folder)["status"] == "running", "not before it has left"
    record = read_record(run.folder)
    assert record["status"] == "finished" and record["error"] is None
    assert record["metrics"] == {"test/acc1": 0.5} and record["best"] == {"val/acc1": 0.6}
    assert (record["params"], record["macs"], record["data_fingerprint"]) == (10, 20, "abc")
    assert (record["study"], record["name"], record["seed"], record["config"]) == ("s", "v", 0, CFG)
    assert record["identity"] == identity(CFG)
    assert record["started"] < record["ended"] and record["wall_seconds"] > 0
    [attempt] = record["attempts"]
    assert attempt["status"] == "finished" and attempt["pid"] == os.getpid() and attempt["end"]
    assert record["versions"]["torch"] and record["hardware"]["cores"]
    assert record["heartbeat"] >= record["started"]


def test_exception(tmp_path):
    job = start(tmp_path, "raise")
    code, said = ended(job)
    assert code == 1 and "diverged" in said, "it is raised again"
    record = read_record(folder_of(tmp_path))
    assert record["status"] == "failed" and record["attempts"][0]["status"] == "failed"
    assert record["error"]["type"] == "ValueError" and record["error"]["message"] == "diverged at step 3"
    assert "Traceback" in record["error"]["traceback"]
    assert "diverged at step 3" in (folder_of(tmp_path) / "error.txt").read_text()


@pytest.mark.parametrize("what", ["sleep", "like lightning"])
@pytest.mark.parametrize("sent", [signal.SIGINT, signal.SIGTERM])
def test_being_stopped(tmp_path, sent, what):
    job = start_and_wait(tmp_path, what)
    job.send_signal(sent)
    assert ended(job)[0] != 0
    record = read_record(folder_of(tmp_path))
    assert record["status"] == record["attempts"][0]["status"] == "interrupted"
    assert record["attempts"][0]["end"] and record["wall_seconds"] > 0


def test_being_killed_and_gone_on_with(tmp_path):
    job = start_and_wait(tmp_path, "sleep")
    folder = folder_of(tmp_path)
    checkpoint(folder)
    assert read_record(folder)["status"] == "running"
    time.sleep(0.2)
    job.kill()
    while read_record(folder)["status"] == "running":  # a zombie until it is waited for: gone all the same
        time.sleep(0.01)
    assert read_record(folder)["status"] == "interrupted"
    assert json.loads((folder / "record.json").read_text())["status"] == "running", "it could not say so"
    ended(job)

    os.utime(folder / "heartbeat", (time.time() + 100,) * 2)  # as if it had worked for longer
    with claim(CFG, root=tmp_path) as run:
        assert run.resume_from == folder / "checkpoints" / "last.ckpt"
        run.finish({})
    record = read_record(folder)
    first, second = record["attempts"]
    assert (first["status"], second["status"]) == ("interrupted", "finished")
    assert first["pid"] == job.pid and first["end"] and second["resume_from"] == "checkpoints/last.ckpt"
    assert record["started"] == first["start"]
    assert 95 < record["wall_seconds"] < 130, "the seconds of both attempts"


def test_sys_exit_is_no_success(tmp_path):
    assert ended(start(tmp_path, "exit"))[0] == 0
    assert read_record(folder_of(tmp_path))["status"] == "failed"


def test_leaving_without_a_result_is_an_error(tmp_path):
    with pytest.raises(RuntimeError, match=r"without run\.finish"), claim(CFG, root=tmp_path):
        pass
    assert read_record(folder_of(tmp_path))["status"] == "failed"


def test_an_error_after_the_result_counts(tmp_path):
    with pytest.raises(ValueError), claim(CFG, root=tmp_path) as run:
        run.finish({"test/acc1": 0.5})
        raise ValueError
    assert read_record(folder_of(tmp_path))["status"] == "failed"


def test_status_of():
    def from_ctrl_c():
        try:
            raise Terminated
        except KeyboardInterrupt:
            sys.exit(1)

    def from_a_failure():
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            raise OSError from None

    def from_a_stop_while_saving():
        try:
            raise Terminated
        finally:
            raise RuntimeError("unexpected pos 704 vs 598")  # torch.save's, whose file isn't whole

    def from_divergence():
        raise Diverged("the loss is not finite")

    acts = {from_ctrl_c: "interrupted", from_a_failure: "failed", sys.exit: "failed", from_divergence: "diverged"}
    acts[from_a_stop_while_saving] = "interrupted"
    for act, status in acts.items():
        with pytest.raises(BaseException) as caught:
            act()
        assert status_of(caught.value) == status


def test_sigterm_handler_is_given_back_and_workers_die_as_they_would(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    with claim(CFG, root=tmp_path) as run:
        assert signal.getsignal(signal.SIGTERM) is not before
        ready, say = os.pipe()
        worker = os.fork()
        if worker == 0:
            os.write(say, b"1")
            time.sleep(60)
            os._exit(0)
        os.read(ready, 1)  # Python drops signals that arrive before a forked process is set up
        os.kill(worker, signal.SIGTERM)
        assert os.waitstatus_to_exitcode(os.waitpid(worker, 0)[1]) == -signal.SIGTERM
        run.finish({})
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_second_sigterm_does_not_disturb_the_ending(tmp_path):
    ended = False
    with pytest.raises(Terminated), claim(CFG, root=tmp_path):
        try:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)
        finally:
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(0.05)
            ended = True
    assert ended
    assert read_record(folder_of(tmp_path))["status"] == "interrupted"


def test_works_in_a_thread(tmp_path):
    def work():
        with claim(CFG, root=tmp_path) as run:
            run.finish({})

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert read_record(folder_of(tmp_path))["status"] == "finished"


def full_disk(monkeypatch):
    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record_module.os, "fsync", full)


def test_a_full_disk_hides_no_error_and_keeps_the_record(tmp_path, monkeypatch):
    with pytest.raises(ValueError, match="the cause"), claim(CFG, root=tmp_path) as run:
        run.update(params=1)
        full_disk(monkeypatch)
        raise ValueError("the cause")
    monkeypatch.undo()
    assert read_record(run.folder)["params"] == 1
    with claim(CFG, root=tmp_path) as run:  # the claim was given back nevertheless
        run.finish({})


def test_a_result_that_could_not_be_written_is_an_error(tmp_path, monkeypatch):
    with pytest.raises(OSError, match="No space"), claim(CFG, root=tmp_path) as run:
        run.finish({})
        full_disk(monkeypatch)
    monkeypatch.undo()
    assert read_record(run.folder)["status"] != "finished"


FIT = """
import json, sys
import lightning as L, torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset
from src.runs.session import claim
class Module(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Linear(1, 1)
    def training_step(self, batch, batch_idx):
        if self.global_step == 20:
            print("step 20", flush=True)
        return self.net(batch[0]).mean()
    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)
cfg, root, max_steps = json.loads(sys.argv[1]), sys.argv[2], int(sys.argv[3])
with claim(cfg, root=root) as run:
    saved = ModelCheckpoint(run.folder / "checkpoints", save_last=True, enable_version_counter=False)
    quiet = dict(logger=False, enable_progress_bar=False, enable_model_summary=False, default_root_dir=root)
    trainer = L.Trainer(accelerator="cpu", max_steps=max_steps, max_epochs=-1, callbacks=[saved], **quiet)
    data = DataLoader(TensorDataset(torch.zeros(4, 1)), batch_size=1)
    trainer.fit(Module(), data, ckpt_path=run.resume_from)
    run.finish({"steps": trainer.global_step})
"""


def test_a_stopped_training_is_resumed(tmp_path):
    def fit(max_steps):
        command = [sys.executable, "-c", FIT, json.dumps(CFG), str(tmp_path), str(max_steps)]
        return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)

    job = fit(10**9)
    assert job.stdout.readline() == "step 20\n"
    job.terminate()
    assert ended(job)[0] == 1, "Lightning's"
    assert read_record(folder_of(tmp_path))["status"] == "interrupted"

    job = fit(5)  # fewer steps than are done already: it only has to notice
    ended(job)
    record = read_record(folder_of(tmp_path))
    assert record["status"] == "finished" and record["metrics"]["steps"] > 5
    assert record["attempts"][1]["resume_from"] == "checkpoints/last.ckpt"


# ------------------------------------------------------------------------------- who may begin


def test_finished_is_finished(tmp_path):
    with claim(CFG, root=tmp_path) as run:
        run.finish({"test/acc1": 0.5})
    with pytest.raises(AlreadyFinished, match="rerun=true") as refusal, claim(CFG, root=tmp_path):
        pass
    assert refusal.value.record["metrics"] == {"test/acc1": 0.5}
    assert read_record(run.folder)["status"] == "finished"


@pytest.mark.parametrize("ending", ["finished", "failed"])
def test_rerun_starts_anew_and_keeps_the_old(tmp_path, ending):
    try:
        with claim(CFG, root=tmp_path) as run:
            checkpoint(run.folder)
            if ending == "failed":
                raise ValueError
            run.finish({"test/acc1": 0.5})
    except ValueError:
        pass
    with claim(CFG, root=tmp_path, rerun=True) as again:
        assert again.folder == run.folder and again.resume_from is None
        again.finish({"test/acc1": 0.75})
    assert [r["metrics"]["test/acc1"] for r in find_records(tmp_path)] == [0.75]
    [old] = [r for r in find_records(tmp_path, old=True) if "-old-" in r["folder"]]
    assert old["status"] == ending and (Path(old["folder"]) / "checkpoints" / "last.ckpt").exists()


def test_rerun_with_nothing_there(tmp_path):
    with claim(CFG, root=tmp_path, rerun=True) as run:
        run.finish({})
    assert len(list(find_records(tmp_path, old=True))) == 1


def test_a_running_run_is_left_alone(tmp_path):
    job = start_and_wait(tmp_path, "sleep")
    try:
        for rerun in (False, True):
            refused = pytest.raises(RunningElsewhere, match=f"process {job.pid} of this machine")
            with refused as refusal, claim(CFG, root=tmp_path, rerun=rerun):
                pass
            assert "\n" not in str(refusal.value)
        with claim({**CFG, "seed": 1}, root=tmp_path) as other:  # another run is free
            other.finish({})
        assert read_record(folder_of(tmp_path))["status"] == "running"
    finally:
        job.kill()
        ended(job)


def test_the_same_process_cannot_take_a_run_twice(tmp_path):
    with claim(CFG, root=tmp_path) as run:
        with pytest.raises(RunningElsewhere), claim(CFG, root=tmp_path):
            pass
        run.finish({})


def test_a_run_that_another_finished_meanwhile_is_finished(tmp_path, monkeypatch):
    take_now = claims.take

    def after_another(folder):
        monkeypatch.setattr(claims, "take", take_now)
        with claim(CFG, root=tmp_path) as run:
            run.finish({})
        return take_now(folder)

    monkeypatch.setattr(claims, "take", after_another)
    with pytest.raises(AlreadyFinished), claim(CFG, root=tmp_path):
        pass
    with pytest.raises(AlreadyFinished), claim(CFG, root=tmp_path):  # and the claim was given back
        pass


@pytest.mark.parametrize("before", ["nothing", "dead", "finished"])
def test_of_many_at_once_one_wins(tmp_path, before):
    if before == "dead":
        job = start_and_wait(tmp_path, "sleep")
        job.kill()
        ended(job)
    if before == "finished":
        with claim(CFG, root=tmp_path) as run:
            run.finish({})
    # Reruns that come one after the other may each win, so they must overlap: they hold on for a second.
    script = JOB if before != "finished" else JOB.replace('what == "rerun"', "True")
    command = [sys.executable, "-c", script, json.dumps(CFG), str(tmp_path), "brief"]
    jobs = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(5)]
    said = [job.communicate(timeout=120)[0].split() for job in jobs]
    if before != "finished":
        assert [words[0] for words in said].count("claimed") == 1, said
    assert all(words[0] in ("claimed", "RunningElsewhere", "AlreadyFinished") for words in said)
    won = [words[0] for words in said].count("claimed")
    records = list(find_records(tmp_path, old=True))
    assert {r["status"] for r in records} <= {"finished", "interrupted"}
    assert len(records) == won + (before == "finished"), "nothing was lost, nothing is double"


def test_claiming_is_exclusive_under_a_tight_race(tmp_path):
    """Threads reach the decisive call closer together than processes can."""
    for round_ in range(30):
        folder, won, barrier = tmp_path / str(round_), [], threading.Barrier(8)

        def compete(folder=folder, won=won, barrier=barrier):
            barrier.wait()
            with suppress(Held):
                won.append(take(folder))

        threads = [threading.Thread(target=compete) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(won) == 1


def test_a_claim_does_not_land_in_the_fresh_folder_of_a_rerun(tmp_path, monkeypatch):
    folder = tmp_path / "run"
    take(folder).release()
    create = claims._create

    def moved_away_in_between(path, content):
        monkeypatch.setattr(claims, "_create", create)
        folder.rename(tmp_path / "aside")
        rivals.append(take(folder))
        return create(path, content)

    rivals = []
    monkeypatch.setattr(claims, "_create", moved_away_in_between)
    with pytest.raises(Held):
        take(folder)
    assert rivals[0].holds() and [p.name for p in (folder / "claims").iterdir()] == ["0001-first.json"]


def test_without_hard_links(tmp_path, monkeypatch):
    def unsupported(*args):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr("src.runs.claims.os.link", unsupported)
    with claim(CFG, root=tmp_path) as run:
        with pytest.raises(RunningElsewhere), claim(CFG, root=tmp_path):
            pass
        run.finish({})


def test_a_damaged_claim_is_respected_while_it_is_fresh(tmp_path):
    (tmp_path / "claims").mkdir()
    path = tmp_path / "claims" / "0001-first.json"
    path.write_text("")
    with pytest.raises(Held):
        take(tmp_path)
    os.utime(path, (time.time() - LOST_AFTER - 5,) * 2)
    assert take(tmp_path).holds()


def test_who_was_given_up_writes_nothing_more(tmp_path, monkeypatch):
    with pytest.raises(ClaimLost), claim(CFG, root=tmp_path) as slow:
        # Seen from another machine, this one has been silent for long.
        monkeypatch.setattr("src.runs.claims.fate", lambda owner, silence: "lost")
        monkeypatch.setattr("src.runs.record.fate", lambda owner, silence: "lost")
        with claim(CFG, root=tmp_path) as other:
            monkeypatch.undo()
            assert [a["status"] for a in other.record.data["attempts"]] == ["lost", "running"]
            with pytest.raises(ClaimLost):
                slow.update(params=1)
            other.finish({"test/acc1": 1.0})
        slow.finish({"test/acc1": 0.0})
    assert read_record(slow.folder)["metrics"] == {"test/acc1": 1.0}


# ------------------------------------------------------------------------------- what is kept


def test_a_damaged_record_is_put_aside_and_the_checkpoint_used(tmp_path):
    with pytest.raises(ValueError), claim(CFG, root=tmp_path) as run:
        checkpoint(run.folder)
        raise ValueError
    (run.folder / "record.json").write_text('{"status": "fin')
    (run.folder / "record-copy.json").unlink()
    with claim(CFG, root=tmp_path) as again:
        assert again.resume_from is not None
        again.finish({})
    assert read_record(run.folder)["status"] == "finished"
    [aside] = run.folder.glob("record-damaged-*.json")
    assert aside.read_text() == '{"status": "fin'


@pytest.mark.parametrize(
    ("there", "damaged", "resumed", "aside"),
    [
        (["last.ckpt"], ["last.ckpt"], None, ["damaged-*-last.ckpt"]),
        (["last.ckpt", "previous.ckpt"], [], "last.ckpt", []),
        (["last.ckpt", "previous.ckpt"], ["last.ckpt"], "previous.ckpt", ["damaged-*-last.ckpt"]),
        (["previous.ckpt"], [], "previous.ckpt", []),  # killed between two renamings
        (
            ["last.ckpt", "previous.ckpt"],
            ["last.ckpt", "previous.ckpt"],
            None,
            ["damaged-*-last.ckpt", "damaged-*-previous.ckpt"],
        ),
        (["best.ckpt", "last.ckpt"], [], "last.ckpt", []),
        (
            ["best.ckpt", "last.ckpt", "previous.ckpt"],
            ["best.ckpt"],
            None,
            ["damaged-*-best.ckpt", "unused-*-last.ckpt", "unused-*-previous.ckpt"],
        ),
    ],
)
def test_only_whole_checkpoints_are_resumed(tmp_path, caplog, there, damaged, resumed, aside):
    folder = fail(tmp_path, *there, damaged=damaged)
    before = {name: (folder / "checkpoints" / name).read_bytes() for name in there}
    with claim(CFG, root=tmp_path) as again:
        assert again.resume_from == (resumed and folder / "checkpoints" / resumed)
        again.finish({})
    assert read_record(folder)["attempts"][-1]["resume_from"] == (resumed and f"checkpoints/{resumed}")
    left = set((folder / "checkpoints").iterdir())
    found = {pattern: list((folder / "checkpoints").glob(pattern)) for pattern in aside}
    for pattern, paths in found.items():
        assert [path.read_bytes() for path in paths] == [before[pattern.rpartition("-")[2]]], "kept as it was"
    others = left - {path for paths in found.values() for path in paths}
    assert {path.name for path in others} == {name for name in there if not any(p.endswith(name) for p in aside)}
    assert [f"{name} is " in caplog.text for name in damaged] == [True] * len(damaged)
    assert ("begins anew" in caplog.text) == (resumed is None)


def test_after_a_damaged_best_checkpoint_nothing_old_is_resumed_ever(tmp_path):
    """Not by an attempt after the one that began anew, either."""
    folder = fail(tmp_path, "best.ckpt", "last.ckpt", damaged=["best.ckpt"])
    fail(tmp_path)
    with claim(CFG, root=tmp_path) as again:
        assert again.resume_from is None
        again.finish({})
    assert [attempt["resume_from"] for attempt in read_record(folder)["attempts"]] == [None] * 3


def test_what_a_killed_process_was_saving_is_removed(tmp_path):
    folder = fail(tmp_path, "last.ckpt")
    (folder / "checkpoints" / ".last.ckpt.abcd1234").write_bytes(b"PK")
    with claim(CFG, root=tmp_path) as again:
        assert [path.name for path in (folder / "checkpoints").iterdir()] == ["last.ckpt"]
        again.finish({})


# ------------------------------------------------------------------------------- a damaged record


def test_a_finished_run_outlives_its_record(tmp_path):
    folder = finish(tmp_path)
    whole = (folder / "record.json").read_bytes()
    damaged = whole.replace(b'"test/acc1": 0.5', b'"test/acc1": 0.7')
    (folder / "record.json").write_bytes(damaged)
    assert read_record(folder)["recovered"] and (folder / "record.json").read_bytes() == damaged, "readers don't write"
    with pytest.raises(AlreadyFinished) as refusal, claim(CFG, root=tmp_path):
        pass
    assert refusal.value.record["metrics"] == {"test/acc1": 0.5}
    assert (folder / "record.json").read_bytes() == whole and "recovered" not in read_record(folder)
    [aside] = folder.glob("record-damaged-*.json")
    assert aside.read_bytes() == damaged
    with pytest.raises(AlreadyFinished), claim(CFG, root=tmp_path):  # the claim was given back
        pass
    with claim(CFG, root=tmp_path, rerun=True) as run:
        run.finish({})


def test_a_finished_run_is_finished_where_its_record_cannot_be_repaired(tmp_path, monkeypatch):
    folder = finish(tmp_path)
    (folder / "record.json").write_text("")
    full_disk(monkeypatch)
    with pytest.raises(AlreadyFinished), claim(CFG, root=tmp_path):
        pass
    monkeypatch.undo()
    assert (folder / "record.json").read_text() == ""


def test_an_unfinished_run_goes_on_from_the_copy_of_its_record(tmp_path):
    folder = fail(tmp_path, "last.ckpt")
    (folder / "record.json").write_text('{"status": "finished"')
    assert read_record(folder)["status"] == "failed"
    with claim(CFG, root=tmp_path) as again:
        assert again.resume_from is not None
        (folder / "record.json").write_text("")  # the copy is not that of the first attempt any more
        assert read_record(folder)["status"] == "running" and len(read_record(folder)["attempts"]) == 2
        again.finish({})
    record = read_record(folder)
    assert [attempt["status"] for attempt in record["attempts"]] == ["failed", "finished"]
    assert "recovered" not in record and "checksum" not in record
    assert [aside.read_text() for aside in folder.glob("record-damaged-*.json")] == ['{"status": "finished"']


def test_a_killed_run_with_a_damaged_record_is_interrupted(tmp_path):
    job = start_and_wait(tmp_path, "sleep")
    folder = folder_of(tmp_path)
    (folder / "record.json").write_text("")
    assert read_record(folder)["status"] == "running"
    job.kill()
    ended(job)
    assert read_record(folder)["status"] == "interrupted"


def test_a_disk_without_room_for_the_copy_fails_no_run(tmp_path, monkeypatch, caplog):
    def full(path, *args, **kwargs):
        if path.name == "record-copy.json":
            raise OSError(errno.ENOSPC, "No space left on device")
        write_json(path, *args, **kwargs)

    write_json = record_module.write_json
    monkeypatch.setattr(record_module, "write_json", full)
    folder = finish(tmp_path)
    assert read_record(folder)["status"] == "finished" and "has no copy" in caplog.text


# ------------------------------------------------------------------------------- said for the dead


def kill(job, folder):
    job.kill()
    ended(job)
    assert read_record(folder)["status"] == "interrupted"


def test_a_supervisor_concludes_what_became_of_a_killed_process(tmp_path):
    job, folder = start_and_wait(tmp_path, "sleep"), folder_of(tmp_path)
    assert not conclude(folder, "failed", "OutOfMemory", "killed"), "it lives"
    assert read_record(folder)["status"] == "running"
    kill(job, folder)
    os.utime(folder / "heartbeat", (time.time() + 100,) * 2)
    assert conclude(folder, "failed", "OutOfMemory", "the kernel killed it")

    record = read_record(folder)
    assert record["status"] == record["attempts"][0]["status"] == "failed"
    assert record["error"] == {"type": "OutOfMemory", "message": "the kernel killed it", "traceback": ""}
    assert record["ended"] == record["attempts"][0]["end"] and 95 < record["wall_seconds"] < 130
    written = json.loads((folder / "record.json").read_text())
    assert "folder" not in written and "heartbeat" not in written
    assert json.loads((folder / "record-copy.json").read_text()) == written

    assert not conclude(folder, "lost", "Other", "said once already")
    assert read_record(folder)["error"]["type"] == "OutOfMemory"
    with claim(CFG, root=tmp_path) as run:
        run.finish({})
    assert [attempt["status"] for attempt in read_record(folder)["attempts"]] == ["failed", "finished"]


def test_a_concluded_run_whose_record_was_damaged_is_whole_again(tmp_path):
    job, folder = start_and_wait(tmp_path, "sleep"), folder_of(tmp_path)
    kill(job, folder)
    (folder / "record.json").write_text("")
    assert conclude(folder, "failed", "OutOfMemory", "killed")
    assert read_record(folder)["status"] == "failed" and "recovered" not in read_record(folder)
    assert len(list(folder.glob("record-damaged-*.json"))) == 1


@pytest.mark.parametrize("ending", [finish, fail])
def test_an_attempt_that_ended_itself_is_never_rewritten(tmp_path, ending):
    folder = ending(tmp_path)
    before = (folder / "record.json").read_bytes()
    assert not conclude(folder, "lost", "Silent", "gone")
    assert (folder / "record.json").read_bytes() == before


def test_where_there_is_no_run_there_is_nothing_to_conclude(tmp_path):
    assert not conclude(tmp_path / "nowhere", "failed", "Odd", "gone")
    assert not list(tmp_path.iterdir())


def test_nobody_concludes_a_success(tmp_path):
    with pytest.raises(ValueError, match="status='finished' cannot be concluded; choose one of failed"):
        conclude(tmp_path, "finished", "", "")


# ------------------------------------------------------------------------------- what else is kept


def test_what_an_attempt_found_out_stays_but_its_result_does_not(tmp_path):
    with pytest.raises(ValueError), claim(CFG, root=tmp_path) as run:
        run.update(params=3, wandb={"id": "x"})
        run.finish({"test/acc1": 0.1})
        raise ValueError
    with claim(CFG, root=tmp_path) as again:
        assert again.record.data["params"] == 3 and again.record.data["wandb"] == {"id": "x"}
        assert again.record.data["metrics"] is None and again.record.data["error"] is None
        again.finish({"test/acc1": 0.2})
    assert (run.folder / "error.txt").read_text().count("---") == 1


def test_the_diff_lies_beside_the_record(tmp_path, monkeypatch):
    git = {"commit": "c" * 40, "dirty": True, "untracked": []}
    made_by = {"git": git, "diff": "+x", "versions": {}, "hardware": {}}
    monkeypatch.setattr("src.runs.session.provenance", lambda: made_by)
    with claim(CFG, root=tmp_path) as run:
        run.finish({})
    assert (run.folder / "git.diff").read_text() == "+x"
    assert "diff" not in read_record(run.folder) and read_record(run.folder)["git"] == git


@pytest.mark.parametrize("key", ["api_key", "password", "API_KEY"])
def test_refuses_secrets(tmp_path, key):
    cfg = {**CFG, "logger": {key: "hunter2"}}
    with pytest.raises(ValueError, match=f"logger.{key}") as error, claim(cfg, root=tmp_path):
        pass
    assert "hunter2" not in str(error.value) and not list(tmp_path.iterdir())


def test_other_ranks_join_and_write_nothing(tmp_path, monkeypatch):
    with claim(CFG, root=tmp_path) as run:
        before = (run.folder / "record.json").read_bytes()
        monkeypatch.setenv("RANK", "1")
        with pytest.raises(ValueError), claim(CFG, root=tmp_path) as joined:
            assert joined.folder == run.folder and joined.resume_from == run.resume_from
            joined.update(params=5)
            joined.finish({"test/acc1": 0.0})
            raise ValueError("only here")
        monkeypatch.delenv("RANK")
        assert (run.folder / "record.json").read_bytes() == before
        assert "only here" in (run.folder / "error-rank1.txt").read_text()
        run.finish({})
    monkeypatch.setenv("RANK", "1")
    with pytest.raises(AlreadyFinished), claim(CFG, root=tmp_path):
        pass
