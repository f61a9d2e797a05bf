import errno
import json
import math
import os
import threading
import time

import pytest
import torch

from src.runs import record as record_module
from src.runs.process import LOST_AFTER, fate, this_process
from src.runs.record import Record, find_records, read_record, write_json

ATTEMPT = {"start": "2026-01-01T00:00:00+00:00", "end": None, "status": "running"}


def running(folder, **owner):
    Record(folder, {"attempts": [{**ATTEMPT, **this_process(), **owner}]}).update(status="running")
    (folder / "heartbeat").touch()


def silent_for(folder, seconds):
    for name in ("heartbeat", "record.json"):
        os.utime(folder / name, (time.time() - seconds,) * 2)


def test_reads_back_what_was_written(tmp_path):
    Record(tmp_path, {"name": "a", "seed": 0}).update(status="finished", metrics={"test/acc1": 0.5})
    read = read_record(tmp_path)
    assert read["status"] == "finished" and read["metrics"] == {"test/acc1": 0.5} and read["name"] == "a"
    assert read["folder"] == str(tmp_path)


def test_no_record_is_none(tmp_path):
    assert read_record(tmp_path) is None
    assert read_record(tmp_path / "nothing") is None


DAMAGED = [
    "",
    "{",
    '{"status": "fin',
    "[]",
    "null",
    "{}",
    '{"status": "running"}',
    '{"status": "odd"}',
    "\0\0",
]


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_record_is_a_status(tmp_path, content):
    (tmp_path / "record.json").write_text(content)
    read = read_record(tmp_path)
    assert read["status"] == "damaged" and "not a whole record" in read["error"]["message"]


@pytest.mark.parametrize("broken", ["os.replace", "os.fsync"])
def test_a_full_disk_leaves_the_old_record(tmp_path, monkeypatch, broken):
    record = Record(tmp_path, {"seed": 0})
    record.update(status="finished")

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(record_module.os, broken.removeprefix("os."), full)
    with pytest.raises(OSError, match="No space"):
        record.update(status="failed")
    monkeypatch.undo()
    assert read_record(tmp_path)["status"] == "finished"
    assert [p.name for p in tmp_path.iterdir()] == ["record.json"], "half-written files are removed"


def test_a_reader_never_sees_half_a_record(tmp_path):
    record = Record(tmp_path, {"filler": "x" * 100_000})
    record.update(status="finished", count=0)
    done = threading.Event()

    def write():
        for count in range(100):
            record.update(count=count)
        done.set()

    threading.Thread(target=write).start()
    seen = set()
    while not done.is_set():
        seen.add(read_record(tmp_path)["status"])
    assert seen == {"finished"}


def test_writes_tensors_and_has_no_word_for_infinity(tmp_path):
    write_json(tmp_path / "x.json", {"a": torch.tensor(0.5), "b": math.nan, "c": (1, math.inf), "d": True})
    assert json.loads((tmp_path / "x.json").read_text()) == {"a": 0.5, "b": None, "c": [1, None], "d": True}


def test_this_process_is_running(tmp_path):
    running(tmp_path)
    silent_for(tmp_path, 10 * LOST_AFTER)  # suspended, perhaps; but it is there
    assert read_record(tmp_path)["status"] == "running"


def test_a_reused_process_number_is_not_the_run(tmp_path):
    running(tmp_path, started="1")
    assert read_record(tmp_path)["status"] == "interrupted"


def test_another_machine_is_judged_by_its_heartbeat(tmp_path):
    running(tmp_path, host="elsewhere", pid=1)
    assert read_record(tmp_path)["status"] == "running"
    silent_for(tmp_path, LOST_AFTER + 5)
    assert read_record(tmp_path)["status"] == "lost"


def test_a_restart_of_this_machine_interrupts(tmp_path):
    running(tmp_path, boot="before the power cut")
    silent_for(tmp_path, LOST_AFTER + 5)
    assert read_record(tmp_path)["status"] == "interrupted"


def test_without_proc_the_number_decides(monkeypatch):
    monkeypatch.setattr("src.runs.process._started", lambda pid: None)
    monkeypatch.setattr("src.runs.process.Path.exists", lambda self: False)
    owner = {**this_process(), "started": None}
    assert fate(owner, 0.0) == "running"
    assert fate({**owner, "pid": 2**22 + 1}, 0.0) == "interrupted"  # above every process number


def test_find_records(tmp_path):
    for name in ("b/x/seed0-1", "a/x/seed1-2", "a/x/seed0-1", "a/x/seed0-1-old-20260101T000000"):
        folder = tmp_path / name
        (folder / "checkpoints").mkdir(parents=True)
        Record(folder, {}).update(status="finished")
    (tmp_path / "a" / "empty").mkdir()
    found = [os.path.relpath(r["folder"], tmp_path) for r in find_records(tmp_path)]
    assert found == ["a/x/seed0-1", "a/x/seed1-2", "b/x/seed0-1"]
    assert len(list(find_records(tmp_path, old=True))) == 4
    assert list(find_records(tmp_path / "missing")) == []
