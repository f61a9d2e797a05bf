"""Networks to look at: of a finished run, of a file of weights, or untrained."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from src.complexity import on_meta
from src.config import CONF, build, build_model, load_config
from src.data.base import ImageData
from src.models.weights import WeightsError, describe, pin
from src.runs.checkpoint_io import whole
from src.runs.record import read_record
from src.runs.session import BEST

UNTRAINED = "none"
PHOTOGRAPHS = "imagenet"  # whose transforms fit a network that doesn't say what it was trained on


@dataclass(frozen=True)
class Network:
    """A network and the data set whose way of resizing pictures it knows.

    Attributes:
        title: for figures: variant, seed, or file.
    """

    title: str
    net: nn.Module
    data: ImageData


def of_run(folder: Path, overrides: Sequence[str] = ()) -> Network:
    """The weights that validation chose in a run.

    Raises:
        WeightsError: it is no run's folder, isn't finished, or its checkpoint is gone or damaged.
    """
    if overrides:
        raise ValueError(f"run={folder} has its own config; leave out {' '.join(overrides)}")
    record = read_record(folder)
    if record is None or "config" not in record:
        raise WeightsError(
            f"run={folder} has no record of a run; name a folder such as runs/default/baseline/seed0-..."
        )
    if record["status"] != "finished":
        raise WeightsError(f"run={folder} is {record['status']}; the same command as before goes on with it")
    path = folder / BEST
    if not path.is_file() or not whole(path):
        state = "damaged" if path.is_file() else "gone"
        raise WeightsError(f"{path} is {state}; the command of the run, with rerun=true, makes it again")
    cfg = record["config"]
    net = build_model(cfg | {"model": {key: value for key, value in cfg["model"].items() if key != "weights"}})
    saved = torch.load(path, weights_only=True, map_location="cpu", mmap=True)
    named = {name.replace("_orig_mod.", ""): tensor for name, tensor in saved["state_dict"].items()}
    net.load_state_dict({n.removeprefix("net."): tensor for n, tensor in named.items() if n.startswith("net.")})
    return Network(f"{record['name']} seed {record['seed']}", net.eval(), build(cfg["data"]))


def of_weights(weights: str, overrides: Sequence[str]) -> Network:
    """A network that starts from a file, or, with `none`, from its first random weights.

    Without `model=` or `experiment=` among the overrides it is the very network that the file was made of, and without
    `data=` its pictures are resized as the run's data set does, or as ImageNet's.

    Raises:
        WeightsError: the file isn't there, doesn't fit, or lacks layers that attention comes after.
        ValueError, GeometryError, HydraException: the overrides can't work.
    """
    said = {override.partition("=")[0].lstrip("+") for override in overrides}
    if weights == UNTRAINED:
        cfg = load_config(*overrides)
        return Network(f"{cfg['name']}, untrained", build_model(cfg).eval(), build(cfg["data"]))
    about = describe(Path(weights).expanduser())
    run = about.get("run") or {}
    words = [] if "data" in said else [f"data={_data_of(run)}"]
    own = not said & {"model", "experiment"}
    if own:
        words += [f"model.num_classes={about['model']['num_classes']}"]
    cfg = load_config(*words, *overrides)
    if own:
        size = cfg["model"]["image_size"] if "model.image_size" in said else about["model"]["image_size"]
        cfg["model"] = {**about["model"], "image_size": size}
        cfg["data"] |= {"num_classes": about["model"]["num_classes"], "image_size": size}
    cfg["model"]["weights"] = pin(weights)
    on_meta(lambda: build_model(cfg))
    title = f"{run['name']} seed {run['seed']}" if run else Path(weights).stem
    return Network(title, build_model(cfg).eval(), build(cfg["data"]))


def _data_of(run: Mapping[str, Any]) -> str:
    """The run's data set if it is one by its name alone; a folder of somebody's was resized as ImageNet is."""
    name = str(run.get("data"))
    return name if name != "folder" and (CONF / "data" / f"{name}.yaml").is_file() else PHOTOGRAPHS
