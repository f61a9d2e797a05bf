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
from src.runs.record import Record, find_records, read_progress, read_record, replacing, write_json

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


def test_a_flipped_bit_is_noticed_wherever_it_is(tmp_path):
    """Or the values are the same, as when one blank becomes another."""
    Record(tmp_path, {"seed": 0, "note": "é"}).update(status="finished", metrics={"test/acc1": 0.5, "epochs": 12})
    path, whole = tmp_path / "record.json", read_record(tmp_path)
    content, unnoticed = path.read_bytes(), 0
    for position in range(len(content)):
        for bit in (1, 2, 4, 16):
            path.write_bytes(content[:position] + bytes([content[position] ^ bit]) + content[position + 1 :])
            read = read_record(tmp_path)
            if read["status"] != "damaged":
                unnoticed += 1
                # A checksum under another name is that of a record of before there were checksums.
                assert {key: read[key] for key in whole if key != "heartbeat"} == {
                    key: value for key, value in whole.items() if key != "heartbeat"
                }
    assert unnoticed < len(content) / 4


def test_a_record_from_before_there_were_checksums_is_read(tmp_path):
    write_json(tmp_path / "record.json", {"status": "finished", "metrics": {"test/acc1": 0.5}})
    assert read_record(tmp_path)["metrics"] == {"test/acc1": 0.5}


def test_the_checksum_holds_for_what_json_cannot_say(tmp_path):
    Record(tmp_path, {}).update(status="finished", a=torch.tensor(0.1), b=math.nan, c=(1, 1e300), d={1: "é"})
    assert read_record(tmp_path)["status"] == "finished"


@pytest.mark.parametrize("content", [*DAMAGED, None])
def test_the_copy_stands_in(tmp_path, content, caplog):
    record = Record(tmp_path, {"attempts": [{**ATTEMPT, "end": "then"}]})
    record.update(status="finished", metrics={"test/acc1": 0.5})
    record.copy()
    assert "recovered" not in read_record(tmp_path)
    if content is None:
        record.path.unlink()
    else:
        record.path.write_text(content)
    for _ in range(2):
        read = read_record(tmp_path)
        assert read["status"] == "finished" and read["metrics"] == {"test/acc1": 0.5} and read["recovered"] is True
    assert caplog.text.count("record-copy.json is read instead") == 1
    assert [r["folder"] for r in find_records(tmp_path)] == [str(tmp_path)]
    (tmp_path / "record-copy.json").write_text(content or "{")
    assert read_record(tmp_path)["status"] == "damaged"


def test_a_copy_of_a_running_attempt_is_corrected_too(tmp_path):
    record = Record(tmp_path, {"attempts": [{**ATTEMPT, **this_process(), "started": "1"}]})
    record.update(status="running")
    record.copy()
    record.path.write_text("")
    assert read_record(tmp_path)["status"] == "interrupted"


def test_replacing_keeps_what_was_there(tmp_path):
    path, kept = tmp_path / "new", tmp_path / "old"
    for content in (b"1", b"2", b"3"):
        with replacing(path, keep=kept) as file:
            file.write(content)
            file.flush()
            assert path.exists() == (content != b"1"), "until the block is done"
    assert path.read_bytes() == b"3" and kept.read_bytes() == b"2"
    with pytest.raises(ValueError), replacing(path, keep=kept) as file:
        file.write(b"4")
        raise ValueError
    assert path.read_bytes() == b"3" and kept.read_bytes() == b"2" and len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("content", [None, "", "{", "[]", "\udc80"])
def test_no_whole_progress_is_none(tmp_path, content):
    if content is not None:
        (tmp_path / "progress.json").write_bytes(content.encode(errors="surrogateescape"))
    assert read_progress(tmp_path) is None
    write_json(tmp_path / "progress.json", {"epoch": 1}, durable=False)
    assert read_progress(tmp_path) == {"epoch": 1}


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
