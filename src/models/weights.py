"""Files of weights: what `python -m src.checkpoint` writes, and what `model.weights=FILE` starts a network from.

A safetensors file with the names of our own parameters. Its metadata say of which model they are, where they come from
and what was done to them. Tensors that the source didn't have aren't in the file either: a network that starts from it
draws them itself, by its own recipe and seed.
"""

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from src.models.attention.neighborhood import NeighborhoodAttention
from src.models.attention.window import WindowAttention
from src.models.position_bias import RelativeBias

ABOUT = "datlab"  # the entry of a file's metadata that is ours
HEAD = "head."
WITH_TABLES = (WindowAttention, NeighborhoodAttention, RelativeBias)  # `bias_table` is over displacements

# Of a model's configuration, what may differ between its training and its use without a word.
FREE = {"name", "weights", "image_size", "table_image_size", "num_classes", "drop_path_rate", "kernel"}


class WeightsError(ValueError):
    """A file of weights that can't be used; one line with the reason and a way out."""


@dataclass(frozen=True)
class LoadReport:
    """What filling a network with weights did beside copying.

    Attributes:
        resized: bias tables that were made for another resolution or window.
        reinitialised: tensors that the weights lack, or have for other classes; they stay as the network drew them.
        left_out: what the weights have and the network has no use for.
        other_parts: keys of the configuration that have other values than when the weights were made, though all
            shapes agree.
    """

    resized: tuple[str, ...] = ()
    reinitialised: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    other_parts: tuple[str, ...] = ()

    def __str__(self) -> str:
        said = []
        if self.resized:
            said.append(f"resized {len(self.resized)} bias tables: {', '.join(self.resized)}")
        if self.reinitialised:
            said.append(f"re-initialised {', '.join(self.reinitialised)}")
        if self.left_out:
            said.append(f"left out {', '.join(self.left_out)}")
        if self.other_parts:
            said.append(f"not as when the weights were made: {', '.join(self.other_parts)}")
        return "; ".join(said) or "nothing resized"


def stretched(table: Tensor, size: Sequence[int]) -> Tensor:
    """A table of displacements (heads, rows, columns) at another resolution, bicubically as the published code."""
    return F.interpolate(table[None], tuple(size), mode="bicubic")[0]


def few(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    names = list(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")


# --------------------------------------------------------------------------------------------- files


def sha256(path: Path) -> str:
    """Of the content of a file.

    Raises:
        WeightsError: there is no such file, or it can't be read.
    """
    require_file(path)
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise WeightsError(f"{path} can't be read: {error.strerror}") from None


def require_file(path: Path) -> None:
    """
    Raises:
        WeightsError: there is none, or it is a folder.
    """
    if path.is_dir():
        raise WeightsError(f"{path} is a folder; name a file in it")
    if not path.exists():
        raise WeightsError(f"{path} isn't there; check the path, relative ones start at {Path.cwd()}")


def pin(path: str | Path) -> dict[str, str]:
    """A file by its place and its content: `path`, `sha256`. The content alone is part of a run's identity.

    Raises:
        WeightsError: there is no such file.
    """
    where = Path(path).expanduser().absolute()
    try:
        return {"path": str(where), "sha256": sha256(where)}
    except WeightsError as error:
        raise WeightsError(f"model.weights: {error}") from None


def write(path: Path, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Replaces `path` by a file of weights in one step; what is there stays whole until then.

    Raises:
        WeightsError: it can't be written, or something else lies there.
    """
    if path.exists():
        try:
            describe(path)
        except WeightsError:
            raise WeightsError(f"{path} is there and no file of weights of ours; choose another with -o") from None
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        temporary.touch(exist_ok=False)
        mode = temporary.stat().st_mode  # as open() makes files; safetensors makes them private
        save_file(dict(tensors), temporary, metadata={"format": "pt", ABOUT: json.dumps(about)})
        with temporary.open("rb") as file:
            os.fsync(file.fileno())  # or a power cut may leave the new name on an empty file
        temporary.chmod(mode)
        temporary.replace(path)
    except (OSError, SafetensorError) as error:
        raise WeightsError(f"{path} can't be written: {getattr(error, 'strerror', None) or error}") from None
    finally:
        temporary.unlink(missing_ok=True)


def describe(path: Path) -> dict[str, Any]:
    """What the file says of itself; no tensor is read.

    Raises:
        WeightsError: it is no file of `python -m src.checkpoint`.
    """
    with _opened(path) as file:
        return json.loads(file.metadata()[ABOUT])


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """
    Raises:
        WeightsError: it is missing, damaged or not ours.
    """
    require_file(path)
    try:
        file = safe_open(path, "pt")
    except (SafetensorError, OSError):
        raise WeightsError(
            f"{path} is damaged or no file of weights of ours; python -m src.checkpoint import makes one of a "
            f"published checkpoint, python -m src.checkpoint export of a run"
        ) from None
    with file:
        if ABOUT not in (file.metadata() or {}):
            raise WeightsError(
                f"{path} isn't written by us; make a file of it with python -m src.checkpoint import {path} --model ..."
            )
        yield file


# ------------------------------------------------------------------------------------------ networks


def fill(net: nn.Module, model: Mapping[str, Any]) -> LoadReport:
    """Start `net` from the file that its configuration names.

    Bias tables are resized to the network's; a head of other classes, and what the file lacks by its own account, stays
    as it is. Everything else must fit, or nothing is copied. On the meta device it is only checked.

    Args:
        net: built of `model`.
        model: the `model` part of a resolved config, with `weights` as `pin` gives it.

    Raises:
        WeightsError: the file is missing, damaged, of another model, or not the one that was pinned.
    """
    path = Path(model["weights"]["path"])
    about, wanted = describe(path), net.state_dict()
    with _opened(path) as file:
        given = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118 (not a dict)
        shapes = {name: tuple(tensor.shape) for name, tensor in wanted.items()}
        report = _compare(shapes, given, net, about, model, path)
        if not any(tensor.is_meta for tensor in wanted.values()):
            if sha256(path) != model["weights"]["sha256"]:
                raise WeightsError(f"model.weights: {path} has changed since this command began; start it again")
            with torch.no_grad():
                for name in given.keys() & wanted.keys() - set(report.reinitialised):
                    tensor = file.get_tensor(name)
                    wanted[name].copy_(stretched(tensor, shapes[name][1:]) if name in report.resized else tensor)
    return report


def provenance_of(net: nn.Module, model: Mapping[str, Any]) -> dict[str, Any]:
    """For a record: the file, what it says of itself, and what `fill` does with it for `net` on the meta device."""
    about = describe(Path(model["weights"]["path"]))
    return {**model["weights"], "of": about | {"model": about["model"]["name"]}, **asdict(fill(net, model))}


def _compare(
    wanted: Mapping[str, tuple[int, ...]],
    given: Mapping[str, tuple[int, ...]],
    net: nn.Module,
    about: Mapping[str, Any],
    model: Mapping[str, Any],
    path: Path,
) -> LoadReport:
    head = {name for name in wanted if name.startswith(HEAD)}
    if all(given.get(name) == wanted[name] for name in head):
        head = set()  # of the same classes
    fresh = head | (set(about["reinitialised"]) & wanted.keys() - given.keys())
    unused = (
        set() if head or any(name.startswith(HEAD) for name in wanted) else {n for n in given if n.startswith(HEAD)}
    )
    tables = {f"{name}.bias_table".lstrip(".") for name, m in net.named_modules() if isinstance(m, WITH_TABLES)}

    lacking = [name for name in wanted if name not in given and name not in fresh]
    extra = [name for name in given if name not in wanted and name not in unused]
    other = [name for name in wanted if name in given and name not in fresh and given[name] != wanted[name]]
    resized = [name for name in other if name in tables and len(given[name]) == 3 and given[name][0] == wanted[name][0]]
    wrong = [f"{name} {given[name]}, not {wanted[name]}" for name in other if name not in resized]
    if lacking or extra or wrong:
        problems = ((lacking, "it lacks"), (extra, "it has"), (wrong, "shapes differ:"))
        what = "; ".join(f"{word} {few(names)}" for names, word in problems if names)
        own, this = about["model"]["name"], model["name"]
        way_out = f"model={own} would" if own != this else "use the variant that the weights were made with"
        raise WeightsError(f"model.weights: {path} holds {own}, which doesn't fit {this} ({what}); {way_out}")
    return LoadReport(
        resized=tuple(resized),
        reinitialised=tuple(name for name in wanted if name in fresh),
        left_out=tuple(sorted(unused)),
        other_parts=tuple(_other_values(about["model"], model, "model")),
    )


def _other_values(one: Any, other: Any, at: str) -> Iterator[str]:
    """Dotted keys that both have, with different values."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        for key in one.keys() & other.keys() - FREE:
            yield from _other_values(one[key], other[key], f"{at}.{key}")
    elif one != other:
        yield at
