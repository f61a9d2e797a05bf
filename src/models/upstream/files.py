"""Files of the published code, and of its detection and segmentation repositories: DAT's tensors found in them.

Nothing in a file is executed: it is read as tensors and plain containers, or refused.
"""

import os
import pickle
import re
import zipfile
from collections import Counter, OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from src.models.weights import WeightsError, few, require_file

WRAPPERS = ("model", "state_dict")  # under which checkpoints hold their weights
FIRST = "patch_proj.0.weight"  # every published DAT has it, and what is before it is before all names
HEAD = "cls_head."
IN_V2 = re.compile(r"\.rpb$|local_perception_units\.|mlps\.\d+\.linear1\.|^patch_proj\.3\.")
OF_DETECTORS = re.compile(r"norms\.\d+\.")  # a norm behind each stage, for necks
# The published trainer's checkpoints hold its configuration, a mapping. Read as one of ours, its class isn't needed.
YACS = "yacs.config.CfgNode"
SYSTEM = {"os", "posix", "nt", "sys", "builtins", "__builtin__", "subprocess", "shutil", "runpy", "socket"}


@dataclass(frozen=True)
class PublishedFile:
    """DAT as a file has it.

    Attributes:
        release: "v1" (CVPR 2022) or "v2" (DAT++), from the names.
        tensors: by the names of the classification code.
        prefix: what stood before those names.
        left_out: groups of what else the file has.
    """

    release: str
    tensors: dict[str, Tensor]
    prefix: str
    left_out: tuple[str, ...]

    @property
    def num_classes(self) -> int | None:
        """Logits of its head; None for a backbone without one."""
        head = self.tensors.get(f"{HEAD}weight")
        return None if head is None else len(head)

    def without_head(self) -> dict[str, Tensor]:
        return {name: tensor for name, tensor in self.tensors.items() if not name.startswith(HEAD)}


def read_published(path: Path) -> PublishedFile:
    """DAT's tensors in a checkpoint of torch or a safetensors file.

    Raises:
        WeightsError: the file is missing, no checkpoint, damaged, would execute code, or holds no published DAT.
    """
    content = _read(path)
    beside: list[str] = []
    while isinstance(content, Mapping):
        wrapper = next((key for key in WRAPPERS if isinstance(content.get(key), Mapping)), None)
        if wrapper is None:
            break
        beside += [str(key) for key in content if key != wrapper]
        content = content[wrapper]
    if not isinstance(content, Mapping):
        raise WeightsError(f"{path} holds a {type(content).__name__}, not tensors by name")
    named = {str(name): tensor for name, tensor in content.items() if isinstance(tensor, Tensor)}

    prefixes = [name.removesuffix(FIRST) for name in named if re.search(rf"(^|\.){re.escape(FIRST)}$", name)]
    if len(prefixes) != 1:
        found = f"several: {few(prefixes)}" if prefixes else f"no {FIRST}, but {few(named) or 'no tensors'}"
        raise WeightsError(f"{path} holds no single DAT of the published code ({found})")
    (prefix,) = prefixes
    around = prefix.removesuffix("backbone.")
    outside = Counter(_group(name.removeprefix(around)) for name in named if not name.startswith(prefix))
    # The detection code calls a layer scale's factor `gamma`.
    tensors = {
        re.sub(r"(layer_scales\.\d+)\.gamma$", r"\1.weight", name.removeprefix(prefix)): tensor
        for name, tensor in named.items()
        if name.startswith(prefix)
    }
    norms = [name for name in tensors if OF_DETECTORS.match(name)]
    outside.update(_group(name) for name in norms)
    tensors = {name: tensor for name, tensor in tensors.items() if name not in norms}
    return PublishedFile(
        release="v2" if any(IN_V2.search(name) for name in tensors) else "v1",
        tensors=tensors,
        prefix=prefix,
        left_out=(*(f"{group} ({count} tensors)" for group, count in outside.items()), *beside),
    )


def _group(name: str) -> str:
    return f"{name.partition('.')[0]}.*"


def _read(path: Path) -> Any:
    """The content of a file, memory-mapped where that is possible."""
    require_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(16)
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}") from None
    damaged = f"{path} is damaged or was cut short in copying; get it again"
    if not start:
        raise WeightsError(f"{path} is empty; get it again")
    zipped = zipfile.is_zipfile(path)
    if start[8:9] == b"{":
        try:
            return load_file(path)
        except (SafetensorError, OSError):
            raise WeightsError(damaged) from None
    if start.startswith(b"PK") and not zipped:
        raise WeightsError(damaged)
    if not zipped and start[0] != 0x80:  # with which pickles begin
        raise WeightsError(f"{path} is no checkpoint of torch and no safetensors file; it begins with {start!r}")
    try:
        with torch.serialization.safe_globals([(OrderedDict, YACS)]):
            if zipped and (classes := set(torch.serialization.get_unsafe_globals_in_checkpoint(path)) - {YACS}):
                raise WeightsError(_refusal(path, sorted(classes)))
            return torch.load(path, map_location="cpu", weights_only=True, mmap=zipped)
    except WeightsError:
        raise
    except pickle.UnpicklingError as error:
        # A name that was cut off looks like an unknown one.
        wants = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wants and not wants[1].startswith("torch._utils"):
            raise WeightsError(_refusal(path, [wants[1]])) from None
        raise WeightsError(damaged) from None
    except Exception:  # torch raises what it likes
        raise WeightsError(damaged) from None


def _refusal(path: Path, classes: list[str]) -> str:
    """Why the file isn't loaded, and what its owner may do."""
    if dangerous := [name for name in classes if name.partition(".")[0] in SYSTEM]:
        return f"{path} would call {few(dangerous)} when it is loaded: it is no plain checkpoint, and isn't loaded"
    plain = os.path.splitext(path)[0] + ".plain.pth"
    convert = (
        f"import torch; d = torch.load({str(path)!r}, map_location='cpu', weights_only=False); "
        f"torch.save(d.get('model', d.get('state_dict', d)), {plain!r})"
    )
    return (
        f"{path} needs the class {few(classes)}, and to load that is to run code that the file chooses, so it isn't "
        f'loaded; if you trust it, convert it where that class is installed: python -c "{convert}" and import {plain}'
    )
