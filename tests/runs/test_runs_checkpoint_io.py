import errno
import os
import random
import zipfile

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch.utils.data import DataLoader, TensorDataset

from src.runs.checkpoint_io import WholeCheckpointIO, whole


class Line(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.net = torch.nn.Sequential(torch.nn.Linear(1, 64), torch.nn.Linear(64, 1))

    def training_step(self, batch, batch_idx):
        return self.net(batch[0]).square().mean()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=0.1)


def fit(folder, epochs=3):
    trainer = L.Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        callbacks=[ModelCheckpoint(folder, filename="last", enable_version_counter=False)],
        plugins=[WholeCheckpointIO()],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Line(), DataLoader(TensorDataset(torch.ones(4, 1)), batch_size=2))
    return folder / "last.ckpt"


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A real checkpoint's bytes, and what it holds."""
    path = fit(tmp_path_factory.mktemp("fit"))
    return path.read_bytes(), load(path)


def load(path):
    return WholeCheckpointIO().load_checkpoint(path, weights_only=True)


def same(one, other):
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other


def flipped(content, positions, bit=1):
    content = bytearray(content)
    for position in positions:
        content[position] ^= bit
    return bytes(content)


def places(content, tmp_path):
    """Where the tensors lie in the file, and where its list of contents begins."""
    path = tmp_path / "places.ckpt"
    path.write_bytes(content)
    with zipfile.ZipFile(path) as file:
        # A local header: 30 bytes, then a name and an extra field, whose lengths are its last four bytes.
        starts = {}
        for info in file.infolist():
            at = info.header_offset
            sizes = (int.from_bytes(content[at + n : at + n + 2], "little") for n in (26, 28))
            starts[info.filename] = (at + 30 + sum(sizes), info.file_size)
        return [place for name, place in starts.items() if "/data/" in name], file.start_dir


def test_it_keeps_the_checkpoint_before(tmp_path):
    fit(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["last.ckpt"]
    fit(tmp_path, 3)
    found = {path.name: load(path)["epoch"] for path in tmp_path.iterdir()}
    assert found == {"last.ckpt": 2, "previous.ckpt": 1}
    assert all(whole(path) for path in tmp_path.iterdir())


def test_others_than_the_last_are_replaced(tmp_path):
    for number in range(2):
        WholeCheckpointIO().save_checkpoint({"number": number}, tmp_path / "new" / "best.ckpt")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["best.ckpt"]
    assert load(tmp_path / "new" / "best.ckpt") == {"number": 1}


def test_every_entry_has_its_checksum_even_if_somebody_turned_them_off(tmp_path):
    torch.serialization.set_crc32_options(False)
    try:
        WholeCheckpointIO().save_checkpoint({"weights": torch.ones(9)}, tmp_path / "a.ckpt")
    finally:
        torch.serialization.set_crc32_options(True)
    assert whole(tmp_path / "a.ckpt")


def test_flipped_bits_in_tensors_are_noticed_and_torch_alone_would_not(saved, tmp_path):
    content, holds = saved
    tensors, _ = places(content, tmp_path)
    path, draw = tmp_path / "last.ckpt", random.Random(0)
    for start, size in tensors:
        path.write_bytes(flipped(content, [start + draw.randrange(size)], 1 << draw.randrange(8)))
        assert not whole(path)
        assert not same(load(path), holds), "torch says nothing"


def test_nothing_whole_ever_loads_as_something_else(saved, tmp_path):
    content, holds = saved
    _, directory = places(content, tmp_path)
    path, draw, refused = tmp_path / "last.ckpt", random.Random(1), 0
    anywhere = [[draw.randrange(len(content)) for _ in range(draw.choice([1, 1, 8]))] for _ in range(300)]
    in_the_directory = [[position] for position in range(directory, len(content))]
    in_a_header = [[position] for position in range(80)]
    for positions in anywhere + draw.sample(in_the_directory, 300) + in_a_header:
        path.write_bytes(flipped(content, positions, 1 << draw.randrange(8)))
        if whole(path):
            assert same(load(path), holds), positions
        else:
            refused += 1
    assert refused > 200


def test_a_cut_file_is_not_whole(saved, tmp_path):
    content, _ = saved
    path, draw = tmp_path / "last.ckpt", random.Random(2)
    for size in [0, 1, 22, len(content) // 2, len(content) - 1, *(draw.randrange(len(content)) for _ in range(20))]:
        path.write_bytes(content[:size])
        assert not whole(path), size
    # As a power cut leaves it on some disks: the size is right, the end was never written.
    path.write_bytes(content[: len(content) // 2].ljust(len(content), b"\0"))
    assert not whole(path)
    path.write_bytes(content)
    assert whole(path)


def test_what_is_no_checkpoint_is_not_whole(tmp_path):
    assert not whole(tmp_path / "nothing.ckpt")
    assert not whole(tmp_path), "an empty folder"
    (tmp_path / "shard").write_bytes(b"1")
    assert whole(tmp_path), "a sharded checkpoint"
    with zipfile.ZipFile(tmp_path / "other.zip", "w") as file:
        file.writestr("name", "not of torch")
    assert not whole(tmp_path / "other.zip")


def test_what_holds_more_than_weights_may_be_whole(tmp_path):
    torch.save({"path": tmp_path}, tmp_path / "last.ckpt")
    assert whole(tmp_path / "last.ckpt")


@pytest.mark.parametrize("broken", ["write", "os.fsync", "os.replace"])
def test_a_full_disk_leaves_what_was_there(tmp_path, monkeypatch, broken):
    io, path = WholeCheckpointIO(), tmp_path / "last.ckpt"
    for number in range(2):
        io.save_checkpoint({"number": number}, path)

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, "No space left on device")

    class Full:
        def __init__(self, file):
            self.write = full

    if broken == "write":
        save = torch.save
        monkeypatch.setattr(torch, "save", lambda checkpoint, file: save(checkpoint, Full(file)))
    else:
        monkeypatch.setattr(broken, full)
    with pytest.raises(OSError, match="No space"):
        io.save_checkpoint({"number": 2, "weights": torch.ones(1000)}, path)
    monkeypatch.undo()
    assert {path.name: load(path)["number"] for path in tmp_path.iterdir()} == {"last.ckpt": 1, "previous.ckpt": 0}


def test_killed_at_any_moment_the_last_is_whole(tmp_path, monkeypatch):
    """Before each step that changes a name."""
    io, path = WholeCheckpointIO(), tmp_path / "last.ckpt"
    for number in range(2):
        io.save_checkpoint({"number": number}, path)

    def look(*args):
        found.append({p.name: load(p)["number"] for p in tmp_path.glob("*.ckpt") if whole(p)})
        replace(*args)

    found, replace = [], os.replace
    monkeypatch.setattr("os.replace", look)
    io.save_checkpoint({"number": 2}, path)
    assert found == [{"last.ckpt": 1, "previous.ckpt": 0}, {"last.ckpt": 1, "previous.ckpt": 1}]
    assert load(path) == {"number": 2}


def test_other_disks_than_local_ones_are_refused(tmp_path):
    with pytest.raises(TypeError, match="local"):
        WholeCheckpointIO().save_checkpoint({}, tmp_path / "last.ckpt", storage_options={"key": 1})
