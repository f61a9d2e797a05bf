import errno
import gzip
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest

from src import table
from src.runs.claims import take
from src.runs.identity import identity, run_folder
from src.runs.record import Record, find_records, read_record
from src.runs.session import AlreadyFinished, claim
from src.studies import archive as archive_module
from src.studies.archive import ArchiveError, Merged, pack, unpack
from src.studies.states import states
from src.studies.table import Table, Variant, find_tables, jobs_of, read_table

ROOT = Path(__file__).parents[2]
CFG = {
    "study": "s",
    "name": "v",
    "seed": 0,
    "lr": 0.1,
    "data": {"name": "digits"},
    "model": {"name": "micro"},
    "published": None,
}
METRICS = {
    "val/acc1": 0.5,
    "test/acc1": 0.25,
    "test/loss": 1.5,
    "best_epoch": 3,
    "test/acc1_per_class": [0.0, 0.5],
    "images_per_second": 100.0,
    "peak_memory_mb": 10.0,
}
OWNED = ("record.json", "predictions.npz", "log.txt", "git.diff", "git-attempt2.diff", "curves/attempt-1/metrics.csv")


@pytest.fixture(autouse=True)
def known_code(monkeypatch):
    """Without the seconds that asking git takes."""
    git = {"commit": None, "dirty": None, "untracked": []}
    hardware = {"cpu": "a", "gpus": [], "threads": 1}
    made_by = {"git": git, "diff": "", "versions": {"torch": "2"}, "hardware": hardware}
    monkeypatch.setattr("src.runs.session.provenance", lambda: made_by)


def finished(root, metrics=METRICS, **changes):
    """A finished run with everything that a real one leaves behind."""
    with claim({**CFG, **changes}, root=root) as run:
        run.update(params=1, macs=2, data_fingerprint="abc")
        for name in (*OWNED[2:], "wandb/run-1/run-1.wandb", "checkpoints/last.ckpt", "error.txt"):
            (run.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (run.folder / name).write_text(f"{name} of seed {run.record.data['seed']}\n")
        np.savez(run.folder / "predictions.npz", label=[0, 1], predicted=[1, 1])
        run.finish(metrics)
    return run.folder


def unfinished(root, **changes):
    with pytest.raises(ValueError), claim({**CFG, **changes}, root=root) as run:
        (run.folder / "notes.txt").write_text("ours")
        raise ValueError
    return run.folder


def named(root, folder):
    return folder.relative_to(root).as_posix()


@pytest.fixture
def packed(tmp_path):
    """An honest archive of one run, the root it comes from, and its name there."""
    there = tmp_path / "there"
    folder = finished(there)
    assert pack([folder], there, tmp_path / "runs.tar.gz") == 1
    return tmp_path / "runs.tar.gz", there, named(there, folder)


def contents(archive):
    with tarfile.open(archive) as tar:
        return {member.name: tar.extractfile(member).read() for member in tar}


def write(archive, members):
    """Whatever is asked for: pairs of a header, or the name of a regular file, and its bytes."""
    with tarfile.open(archive, "w:gz") as tar:
        for header, content in members:
            if isinstance(header, str):
                header = tarfile.TarInfo(header)
                header.size = len(content)
            tar.addfile(header, io.BytesIO(content))


def forge(archive, *, files, runs=None):
    """An archive with a manifest whose hashes are right."""
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    runs = json.loads(contents(archive)["manifest.json"])["runs"] if runs is None else runs
    manifest = {"format": 1, "files": hashes, "runs": runs}
    write(archive, [("manifest.json", json.dumps(manifest).encode()), *files.items()])


def refused(archive, runs, match, **options):
    before = sorted(runs.rglob("*"))
    with pytest.raises(ArchiveError, match=match) as refusal:
        unpack(archive, runs, **options)
    assert "\n" not in str(refusal.value)
    after = [path for path in sorted(runs.rglob("*")) if "claims" not in path.parts]
    assert after == [path for path in before if "claims" not in path.parts], "nothing was merged, nothing is left over"


# ---------------------------------------------------------------------------------------------- pack


def test_packs_results_and_leaves_out_the_rest(packed):
    archive, there, folder = packed
    files = contents(archive)
    assert list(files) == ["manifest.json", *sorted(f"{folder}/{name}" for name in OWNED)]
    manifest = json.loads(files.pop("manifest.json"))
    assert manifest["format"] == 1
    assert manifest["files"] == {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    assert manifest["runs"] == [
        {"folder": folder, "identity": identity(CFG), "name": "v", "seed": 0, "test/acc1": 0.25},
    ]
    assert all(content == (there / name).read_bytes() for name, content in files.items())


def test_the_same_runs_give_the_same_bytes(tmp_path):
    folders = [finished(tmp_path / "there", seed=seed) for seed in (0, 1)]
    pack(folders, tmp_path / "there", tmp_path / "a.tar.gz")
    for path in (tmp_path / "there").rglob("*"):
        os.utime(path, (1, 1))
    pack([*folders[::-1], folders[0]], tmp_path / "there", tmp_path / "elsewhere" / "b.tar.gz")
    assert (tmp_path / "a.tar.gz").read_bytes() == (tmp_path / "elsewhere" / "b.tar.gz").read_bytes()
    with tarfile.open(tmp_path / "a.tar.gz") as tar:
        assert {(m.mtime, m.uid, m.gid, m.uname, m.gname) for m in tar} == {(0, 0, 0, "", "")}


def test_packs_only_what_is_finished(tmp_path):
    folders = [unfinished(tmp_path, seed=0), finished(tmp_path, seed=1), tmp_path / "s" / "v" / "seed2-0000000000"]
    assert pack(folders, tmp_path, tmp_path / "runs.tar.gz") == 1
    [run] = json.loads(contents(tmp_path / "runs.tar.gz")["manifest.json"])["runs"]
    assert run["seed"] == 1


def test_refuses_to_pack_nothing(tmp_path):
    for folders in ([], [unfinished(tmp_path)]):
        with pytest.raises(ValueError, match="nothing to pack"):
            pack(folders, tmp_path, tmp_path / "runs.tar.gz")
    assert not (tmp_path / "runs.tar.gz").exists()


@pytest.mark.parametrize("place", ["s/v", "s/v/evaluate-0123456789", "../s/v/seed0-0123456789", "s/v/seed0-01-old-2"])
def test_refuses_to_pack_what_is_no_run(tmp_path, place):
    with pytest.raises(ArchiveError, match="is no run"):
        pack([tmp_path / "runs" / place], tmp_path / "runs", tmp_path / "runs.tar.gz")


def test_refuses_to_pack_what_no_archive_may_hold(tmp_path, monkeypatch):
    small, long = finished(tmp_path), finished(tmp_path, name="v" * 128, study="s" * 100)
    with pytest.raises(ArchiveError, match="shorter names"):
        pack([long], tmp_path, tmp_path / "runs.tar.gz")
    for limit, match in (("MAX_FILES", "pack fewer"), ("MAX_TOTAL", "pack fewer"), ("MAX_FILE", "the limit")):
        with monkeypatch.context() as patch, pytest.raises(ArchiveError, match=match):
            patch.setattr(archive_module, limit, 1)
            pack([small], tmp_path, tmp_path / "runs.tar.gz")
    assert not list(tmp_path.glob("*.tar.gz")) + list(tmp_path.glob(".*.tar.gz*")), "no half archive is left"


def test_a_full_disk_leaves_the_archive_of_before(packed, monkeypatch):
    archive, there, folder = packed
    before = archive.read_bytes()

    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(archive_module.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        pack([there / folder], there, archive)
    assert archive.read_bytes() == before and not list(archive.parent.glob(".*"))


def test_a_record_read_from_its_copy_travels_whole(packed, tmp_path):
    archive, there, folder = packed
    (there / folder / "record.json").write_text('{"status": "fin')
    assert pack([there / folder], there, archive) == 1
    assert unpack(archive, tmp_path / "here").added == [folder]


# -------------------------------------------------------------------------------------------- unpack


def test_what_came_in_counts_as_done(packed, tmp_path):
    archive, there, folder = packed
    here = tmp_path / "here"
    assert unpack(archive, here) == Merged(added=[folder], known=[], contradictions=[])
    files = sorted(path.relative_to(here / folder).as_posix() for path in (here / folder).rglob("*") if path.is_file())
    assert files == sorted(OWNED)
    assert all((here / folder / name).read_bytes() == (there / folder / name).read_bytes() for name in OWNED)
    assert os.listdir(here) == ["s"], "nothing else is left"

    with pytest.raises(AlreadyFinished) as done, claim(CFG, root=here):
        pass
    assert done.value.record["metrics"] == METRICS
    assert table.rows(here) == table.rows(there) != []
    assert unpack(archive, here) == Merged(added=[], known=[folder], contradictions=[]), "a second time"


def test_two_halves_of_a_study_become_one(tmp_path):
    """Seeds 0 and 1 here, 1 and 2 there; speed differs between machines, the result doesn't."""
    here, there = tmp_path / "here", tmp_path / "there"
    for seed in (0, 1):
        finished(here, seed=seed)
    folders = [finished(there, {**METRICS, "images_per_second": 7.0}, seed=seed) for seed in (1, 2)]
    pack(folders, there, tmp_path / "runs.tar.gz")
    one, two = (named(there, folder) for folder in folders)
    assert unpack(tmp_path / "runs.tar.gz", here) == Merged(added=[two], known=[one], contradictions=[])
    assert [(row["seed"], row["images_per_second"]) for row in table.rows(here)] == [(0, 100.0), (1, 100.0), (2, 7.0)]


@pytest.mark.parametrize("key", ["val/acc1", "test/acc1", "test/loss", "best_epoch", "test/acc1_per_class"])
def test_another_result_is_a_contradiction(tmp_path, key, caplog):
    here, there = tmp_path / "here", tmp_path / "there"
    ours = finished(here, {**METRICS, key: 0.125}, seed=1)
    folders = [finished(there, seed=seed) for seed in (0, 1)]
    pack(folders, there, tmp_path / "runs.tar.gz")
    zero, one = (named(there, folder) for folder in folders)
    values = str(METRICS[key]).replace("[", r"\[").replace("]", r"\]")
    refused(tmp_path / "runs.tar.gz", here, f"{one} .*{key} is 0.125 here and {values} there")

    merged = unpack(tmp_path / "runs.tar.gz", here, keep_ours=True)
    assert merged == Merged(added=[zero], known=[], contradictions=[one])
    assert read_record(ours)["metrics"][key] == 0.125 and f"{key} is 0.125 here" in caplog.text


@pytest.mark.parametrize("left", ["failed", "killed", "waiting", "damaged"])
def test_a_finished_run_replaces_one_that_is_unfinished_here(packed, tmp_path, left):
    archive, _, folder = packed
    here = tmp_path / "here"
    if left == "waiting":  # claimed once, but nothing was begun
        take(here / folder).release()
        (here / folder / "notes.txt").write_text("ours")
    else:
        unfinished(here)
    if left == "killed":
        dead = subprocess.Popen(["true"])
        dead.wait()
        record = json.loads((here / folder / "record.json").read_text())
        attempt = {**record["attempts"][-1], "end": None, "pid": dead.pid, "started": "1"}
        Record(here / folder, {**record, "attempts": [attempt]}).update(status="running")
    if left == "damaged":
        (here / folder / "record-copy.json").unlink(missing_ok=True)
        (here / folder / "record.json").write_text("{")
    assert unpack(archive, here).added == [folder]
    assert read_record(here / folder)["metrics"] == METRICS and not (here / folder / "notes.txt").exists()
    [aside] = (here / folder).parent.glob("*-old-*")
    assert (aside / "notes.txt").read_text() == "ours"
    assert len(table.rows(here)) == 1
    assert take(aside), "it was given back"


# A job in another process, as the one in this process would count as ours.
JOB = """
import json, sys
from src.runs.session import claim
with claim(json.loads(sys.argv[1]), root=sys.argv[2]) as run:
    print("claimed", flush=True)
    sys.stdin.read()
"""


def test_a_run_that_is_being_computed_is_left_alone(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    folders = [finished(there, seed=seed) for seed in (0, 1)]
    pack(folders, there, tmp_path / "runs.tar.gz")
    command = [sys.executable, "-c", JOB, json.dumps({**CFG, "seed": 1}), str(here)]
    job = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        assert job.stdout.readline() == b"claimed\n"
        refused(tmp_path / "runs.tar.gz", here, f"computed by process {job.pid} of this machine", keep_ours=True)
        assert read_record(here / named(there, folders[1]))["status"] == "running"
    finally:
        job.communicate()
    assert len(unpack(tmp_path / "runs.tar.gz", here).added) == 2, "and afterwards merged"


def test_a_run_that_begins_at_the_last_moment_is_left_alone(packed, tmp_path, monkeypatch):
    archive, _, folder = packed
    rename = Path.rename

    def begun_before(self, target):
        take(Path(target))
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", begun_before)
    with pytest.raises(ArchiveError, match="begun at this moment"):
        unpack(archive, tmp_path / "here")
    assert os.listdir(tmp_path / "here" / folder) == ["claims"] and os.listdir(tmp_path / "here") == ["s"]


def test_a_full_disk_merges_nothing(packed, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
        patch.setattr(archive_module.os, "fsync", full)
        unpack(packed[0], tmp_path / "here")
    assert os.listdir(tmp_path / "here") == []


def test_what_is_being_verified_is_not_found_as_a_run(packed, tmp_path, monkeypatch):
    here, seen, merge = tmp_path / "here", [], archive_module._merge

    def look(*arguments):
        seen.append((len(list(here.rglob("record.json"))), len(list(find_records(here)))))
        return merge(*arguments)

    monkeypatch.setattr(archive_module, "_merge", look)
    unpack(packed[0], here)
    assert seen == [(1, 0)]


# ------------------------------------------------------------------------------------------- hostile


@pytest.mark.parametrize(
    "name",
    [
        "../escaped/log.txt",
        "s/../../escaped/log.txt",
        "s/v/../log.txt",
        "/escaped/v/seed0-0123456789/log.txt",
        "s/v/seed0-0123456789/../log.txt",
        "s/v/seed0-0123456789/curves/../../metrics.csv",
        "s/v/seed0-0123456789/checkpoints/last.ckpt",
        "s/v/seed0-0123456789/claims/0001-first.json",
        "s/v/seed0-0123456789/sub/record.json",
        "s/v/seed0-0123456789/log.txt\n",
        "s/v/seed0-0123456789",
        "s/.hidden/seed0-0123456789/log.txt",
        "s\\v/x/seed0-0123456789/log.txt",
        "s/\ud800/seed0-0123456789/log.txt",
        "log.txt",
        "",
    ],
)
def test_a_name_outside_of_runs(packed, tmp_path, name):
    archive, _, _ = packed
    files = contents(archive)
    del files["manifest.json"]
    hashes = {path: hashlib.sha256(content).hexdigest() for path, content in files.items()}
    manifest = {"format": 1, "files": {**hashes, name: hashlib.sha256(b"x").hexdigest()}, "runs": []}
    header = tarfile.TarInfo(name.encode(errors="replace").decode())
    header.size = 1
    write(archive, [("manifest.json", json.dumps(manifest).encode()), *files.items(), (header, b"x")])
    before = sorted(tmp_path.rglob("*"))
    here = tmp_path / "here" / "runs"
    here.mkdir(parents=True)
    refused(archive, here, "no file of a run")
    assert sorted(tmp_path.rglob("*")) == sorted([*before, here, here.parent])


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
def test_what_is_no_regular_file(packed, tmp_path, kind):
    archive, _, folder = packed
    link = tarfile.TarInfo(f"{folder}/log.txt")  # which the manifest names
    link.type, link.linkname = kind, "/etc/passwd"
    files = contents(archive)
    del files[link.name]
    write(archive, [*files.items(), (link, b"")])
    refused(archive, tmp_path / "there", "no regular file")


def test_a_file_twice(packed, tmp_path):
    archive, _, folder = packed
    files = contents(archive)
    write(archive, [*files.items(), (f"{folder}/log.txt", files[f"{folder}/log.txt"])])
    refused(archive, tmp_path / "there", "twice")


def test_a_file_more_and_a_file_less(packed, tmp_path):
    archive, _, folder = packed
    files = contents(archive)
    write(archive, [*files.items(), (f"{folder}/curves/attempt-2/metrics.csv", b"x")])
    refused(archive, tmp_path / "there", "not in its manifest")
    write(archive, [(name, content) for name, content in files.items() if not name.endswith("log.txt")])
    refused(archive, tmp_path / "there", "log.txt' is in its manifest, but missing")


def test_a_wrong_hash(packed, tmp_path):
    archive, _, folder = packed
    files = contents(archive)
    files[f"{folder}/log.txt"] = b"L" + files[f"{folder}/log.txt"][1:]
    write(archive, files.items())
    refused(archive, tmp_path / "there", "log.txt' isn't what its SHA-256 says")


def edited(archive, folder, **changes):
    """The archive with another record, all hashes and the checksum made right again."""
    files = contents(archive)
    [entry] = json.loads(files.pop("manifest.json"))["runs"]
    record = json.loads(files[f"{folder}/record.json"]) | changes
    record.pop("checksum", None)
    files[f"{folder}/record.json"] = json.dumps(record).encode()
    forge(archive, files=files, runs=[{**entry, **{key: changes[key] for key in entry if key in changes}}])


@pytest.mark.parametrize(
    "changes",
    [
        {"config": {**CFG, "lr": 0.2}},  # which only the identity tells
        {"config": {**CFG, "lr": 0.2}, "identity": identity({**CFG, "lr": 0.2})},
        {"config": {**CFG, "seed": 1}, "seed": 1, "identity": identity({**CFG, "seed": 1})},
        {"config": {**CFG, "name": "w"}},
        {"config": {**CFG, "study": "t"}, "study": "t"},
        {"identity": "0123456789"},
        {"name": "w"},
        {"seed": 1},
    ],
)
def test_a_record_of_another_run(packed, tmp_path, changes):
    edited(packed[0], packed[2], **changes)
    refused(packed[0], tmp_path / "there", "isn't the run of the config in its record")


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"status": "failed"}, "is failed"),
        ({"status": "running"}, "only finished runs"),
        ({"status": "odd"}, "is damaged"),
        ({"metrics": None}, "isn't that of a finished run"),
        ({"config": None}, "isn't that of a finished run"),
        ({"config": {**CFG, "lr": "${oc.env:HOME}"}}, "isn't that of a finished run"),
        ({"config": {**CFG, "study": "../.."}, "study": "../.."}, "isn't that of a finished run"),
        ({"metrics": {**METRICS, "test/acc1": 1.0}}, "aren't those whose records"),
    ],
)
def test_a_record_without_a_result(packed, tmp_path, changes, match):
    edited(packed[0], packed[2], **changes)
    refused(packed[0], tmp_path / "there", match)


def test_a_record_in_the_folder_of_another_run(packed, tmp_path):
    archive, _, folder = packed
    files = contents(archive)
    [entry] = json.loads(files.pop("manifest.json"))["runs"]
    other = named(Path("r"), run_folder("r", "s", "v", 1, identity({**CFG, "seed": 1})))
    forge(archive, files={name.replace(folder, other): content for name, content in files.items()}, runs=[entry])
    refused(archive, tmp_path / "there", f"{other} isn't the run")


def test_one_bad_run_keeps_out_the_good_ones(tmp_path):
    there = tmp_path / "there"
    folders = [finished(there, seed=seed) for seed in (0, 1)]
    pack(folders, there, tmp_path / "runs.tar.gz")
    files = contents(tmp_path / "runs.tar.gz")
    del files["manifest.json"]
    files[f"{named(there, folders[1])}/record.json"] = b"{"
    forge(tmp_path / "runs.tar.gz", files=files)
    (tmp_path / "here").mkdir()
    refused(tmp_path / "runs.tar.gz", tmp_path / "here", "seed1-.* is damaged")


@pytest.mark.parametrize(
    "manifest",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b"[" * 100_000,
        b'{"format": 2, "files": {}, "runs": []}',
        b'{"format": 1, "files": {}, "runs": []}',
        b'{"format": 1, "files": [["a", "b"]], "runs": []}',
        b'{"format": 1, "files": {"s/v/seed0-0/log.txt": 1}, "runs": []}',
    ],
    ids=range(9),
)
def test_a_manifest_that_is_none(packed, tmp_path, manifest):
    write(packed[0], [("manifest.json", manifest)])
    refused(packed[0], tmp_path / "there", "manifest|format|damaged|SHA-256")


def test_an_archive_of_something_else(packed, tmp_path):
    archive, _, _ = packed
    for members in ([], [("readme.txt", b"x")]):
        write(archive, members)
        refused(archive, tmp_path / "there", "no runs|empty")
    for content in (b"", b"no archive at all", gzip.compress(b"no tar file" * 1000), gzip.compress(b"")):
        archive.write_bytes(content)
        refused(archive, tmp_path / "there", "damaged or no archive|no runs")
    with pytest.raises(FileNotFoundError):
        unpack(tmp_path / "nothing.tar.gz", tmp_path / "there")


def test_a_cut_archive(packed, tmp_path):
    archive, _, _ = packed
    whole = archive.read_bytes()
    for share in (0.01, 0.3, 0.6, 0.9):
        archive.write_bytes(whole[: int(share * len(whole))])
        refused(archive, tmp_path / "there", "damaged|missing")


def test_flipped_bytes_are_found_or_harmless(packed, tmp_path):
    """A flip may hit what nobody reads, such as the time in gzip's header; then the run comes in unchanged."""
    archive, there, folder = packed
    whole, found = archive.read_bytes(), 0
    for number, at in enumerate(np.random.default_rng(0).integers(0, len(whole), 40)):
        archive.write_bytes(whole[:at] + bytes([whole[at] ^ 0xFF]) + whole[at + 1 :])
        here = tmp_path / f"here{number}"
        try:
            unpack(archive, here)
        except ArchiveError:
            found += 1
            assert os.listdir(here) == []
        else:
            assert all((here / folder / name).read_bytes() == (there / folder / name).read_bytes() for name in OWNED)
    assert found > 30


def test_a_huge_member_is_refused_by_its_header(packed, tmp_path):
    archive, _, folder = packed
    manifest = contents(archive)["manifest.json"]
    huge = tarfile.TarInfo(f"{folder}/log.txt")
    first = tarfile.TarInfo("manifest.json")
    first.size = len(manifest)
    for size in (2**40, archive_module.MAX_FILE + 1, -1):
        huge.size = size
        start = io.BytesIO()
        with tarfile.open(fileobj=start, mode="w") as tar:
            tar.addfile(first, io.BytesIO(manifest))
            start.write(huge.tobuf(tarfile.GNU_FORMAT))
            archive.write_bytes(gzip.compress(start.getvalue()))
        refused(archive, tmp_path / "there", f"has {size} bytes")


def test_a_huge_header_extension_is_refused_before_it_is_read(tmp_path):
    """tarfile would read it into memory whole."""
    header = tarfile.TarInfo("manifest.json")
    header.type, header.size = tarfile.XHDTYPE, 2**40
    (tmp_path / "runs.tar.gz").write_bytes(gzip.compress(header.tobuf(tarfile.GNU_FORMAT) + bytes(2**20)))
    (tmp_path / "here").mkdir()
    refused(tmp_path / "runs.tar.gz", tmp_path / "here", "no regular file")


def test_many_large_members_are_bounded_together(packed, tmp_path, monkeypatch):
    monkeypatch.setattr(archive_module, "MAX_TOTAL", 1000)
    refused(packed[0], tmp_path / "there", "the limit")


def test_a_small_archive_of_zeros_is_bounded(packed, tmp_path, monkeypatch):
    """A gzip bomb: 8 MiB in 8 KiB. The limit is lowered so that the test needn't write gigabytes."""
    archive, _, folder = packed
    files = contents(archive)
    del files["manifest.json"]
    forge(archive, files={**files, f"{folder}/log.txt": bytes(8 * 2**20)})
    assert archive.stat().st_size < 20_000
    monkeypatch.setattr(archive_module, "MAX_FILE", 2**20)
    refused(archive, tmp_path / "there", "has 8388608 bytes; the limit is 1048576")


# ------------------------------------------------------------------------- paths, and the study's table


def study_table(runs):
    """A study of two runs, of which one is finished."""
    config = {**CFG, "runs": str(runs)}
    variant = Variant("v", config, (("seed",),))
    table = Table("s", "Why?", (f"runs={runs}", "lr=0.1"), runs, {"v": variant}, jobs_of([variant], (0, 1)), code="c")
    table.write()
    return table


def test_paths_of_the_machine_stay_there(tmp_path):
    runs = tmp_path / "there"
    folder = finished(runs, runs=str(runs))
    (folder / "log.txt").write_text(
        f"saved {folder}/last.ckpt\nby {ROOT}/src/train.py in {Path.home()}/.cache, {runs}-2\n"
    )
    pack([folder], runs, tmp_path / "runs.tar.gz", study_table(runs))
    packed = contents(tmp_path / "runs.tar.gz")
    assert b"\n".join(packed.values()).count(str(runs).encode()) == 1, "another folder whose name begins like it"
    inside = folder.relative_to(runs).as_posix()
    log = packed[f"{inside}/log.txt"].decode()
    assert log == f"saved runs/{inside}/last.ckpt\nby ./src/train.py in ~/.cache, {runs}-2\n"

    unpack(tmp_path / "runs.tar.gz", tmp_path / "here")
    record = read_record(tmp_path / "here" / inside)
    assert record["status"] == "finished", "its checksum is that of what travelled"
    assert record["config"]["runs"] == "runs"


def test_the_table_says_what_is_missing(tmp_path):
    runs = tmp_path / "there"
    table = study_table(runs)
    finished(runs, runs=str(runs))
    pack([table.folder(table.jobs[0])], runs, tmp_path / "runs.tar.gz", table)
    unpack(tmp_path / "runs.tar.gz", tmp_path / "here")
    (path,) = find_tables(tmp_path / "here", "s")
    moved = read_table(path)
    assert [state.status for state in states(moved)] == ["finished", "waiting"]
    assert (moved.asked, moved.code) == (("lr=0.1",), None)
    unpack(tmp_path / "runs.tar.gz", tmp_path / "here")  # again: nothing new


def test_an_edited_table_is_refused(packed, tmp_path):
    archive, there, _ = packed
    table = study_table(there)
    files = {name: content for name, content in contents(archive).items() if name != "manifest.json"}
    files[f"s/.tables/{table.path.name}"] = table.path.read_bytes().replace(b"Why?", b"Who?")
    forge(archive, files=files)
    refused(archive, tmp_path / "here", "isn't a whole table")
