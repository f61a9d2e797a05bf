"""Checkpoints that can be trusted: written whole or not at all, kept twice, and verified before they are used.

torch.load does not look at the checksums that torch.save writes, so a flipped bit gives other weights in silence.
"""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.plugins import TorchCheckpointIO
from torch.serialization import set_crc32_options

from src.runs.record import replacing
from src.runs.session import CHECKPOINT, PREVIOUS


class WholeCheckpointIO(TorchCheckpointIO):
    """Saves beside the target, waits for the disk, and takes the target's place in one step.

    What was in `last.ckpt` is `previous.ckpt` afterwards: at every instant one of the two is whole. That takes the
    disk space of three while one is being written. Nothing is held in memory, which Lightning's own way does.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """
        Raises:
            OSError: the disk is full or gone; what was there stays.
        """
        if storage_options is not None:
            raise TypeError(f"storage_options={storage_options!r} is for remote disks; runs are kept on local ones")
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        set_crc32_options(True)  # or `whole` could not tell
        keep = path.with_name(PREVIOUS.name) if path.name == CHECKPOINT.name else None
        with replacing(path, keep=keep) as file:
            torch.save(checkpoint, file)


def whole(path: Path) -> bool:
    """Whether all of the checkpoint at `path` can be read, and is what was saved.

    A checkpoint is a zip file, whose checksums (CRC-32) cover every tensor and their description, but not the list of
    contents. What differs there makes an entry be missing, or lie elsewhere, where its checksum doesn't hold.
    Sharded checkpoints are folders; they only must not be empty.
    """
    if path.is_dir():
        return any(path.iterdir())
    try:
        with zipfile.ZipFile(path) as file:
            if file.testzip() is not None:
                return False
        # Entries that are listed too few, which zipfile is lenient about. Reads no tensor: they are mapped.
        torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except pickle.UnpicklingError:  # holds more than weights: nothing wrong with the file
        return True
    except PermissionError:
        raise
    except Exception:  # there is no end to the ways in which a damaged list of contents cannot be read
        return False
    return True
