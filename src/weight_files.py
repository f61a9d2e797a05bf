"""Weights as files: published checkpoints in, our own runs out. `python -m src.checkpoint` is what people use."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from src.complexity import on_meta
from src.config import CONF, build_model, load_config
from src.models import upstream
from src.models.weights import LoadReport, WeightsError, describe, few, require_file, sha256, write
from src.runs.checkpoint_io import whole
from src.runs.record import read_record

USUAL_CLASSES = 1000  # of a backbone without a head, whose number doesn't matter
MAY_LACK = ("cls_norm.", "cls_head.")  # what backbones of detectors don't have
RELEASES = {"v1": "DAT (CVPR 2022)", "v2": "DAT++", "datlab": "datlab"}
OUR_DAT = "src.models.dat.DAT"


# -------------------------------------------------------------------------------------------- import


def import_published(
    path: Path, *, model: str, out: Path, classes: int | None = None, image_size: int | None = None
) -> dict[str, Any]:
    """Writes the weights of a published checkpoint to `out`, with our names, in the shapes of a model of ours.

    Args:
        model: a file of conf/model.
        out: where to.
        classes: logits; those of the checkpoint if None. With another number the head is left to be drawn anew.
        image_size: side of the images in pixels that bias tables are made for; the model's own if None.

    Returns:
        What the file says of itself.

    Raises:
        WeightsError: the file can't be read without executing it, is no DAT, or of another model.
        GeometryError: the model can't work at this size.
    """
    _require_model(model)
    if _is_ours(path):
        raise WeightsError(f"{path} is a file of weights of ours already; use it as it is, with model.weights={path}")
    published = upstream.read_published(path)
    num_classes = classes if classes is not None else published.num_classes or USUAL_CLASSES
    tensors = published.tensors if num_classes == published.num_classes else published.without_head()
    cfg = _model(model, num_classes, image_size)
    net = on_meta(lambda: build_model(cfg))
    try:
        upstream.from_published(net, _shapes(tensors), may_lack=MAY_LACK)
    except (KeyError, ValueError) as error:
        raise WeightsError(
            f"{path} ({RELEASES[published.release]}) doesn't fit {model}: {error.args[0]}; {_way_out(published)}"
        ) from None
    converted, report = upstream.from_published(net, tensors, may_lack=MAY_LACK)
    report = replace(
        report,
        reinitialised=tuple(name for name in net.state_dict() if name not in converted),
        left_out=published.left_out,
    )
    about = _about(cfg, published.release, path, report)
    write(out, converted, about)
    return about


def _is_ours(path: Path) -> bool:
    try:
        return bool(describe(path))
    except WeightsError:
        return False


def _model(name: str, num_classes: int, image_size: int | None = None) -> dict[str, Any]:
    """A config with this model."""
    size = [] if image_size is None else [f"model.image_size={image_size}"]
    return load_config(f"model={name}", f"model.num_classes={num_classes}", *size)


def _require_model(name: str) -> None:
    """
    Raises:
        WeightsError: no model of ours has that name.
    """
    known = [path.stem for path in sorted((CONF / "model").glob("*.yaml"))]
    if name not in known:
        raise WeightsError(f"there is no model {name!r} in conf/model; there are {', '.join(known)}")


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.to("meta") for name, tensor in tensors.items()}


def _way_out(published: upstream.PublishedFile) -> str:
    """Which model the weights would fit, those of the very shapes first."""
    exact: list[str] = []
    resized: list[str] = []
    for name, report in _fitting(published):
        (resized if report.resized else exact).append(name)
    if not exact + resized:
        return "nor any other model in conf/model"
    return "it fits --model " + " or ".join(exact or resized)


def _fitting(published: upstream.PublishedFile) -> Iterator[tuple[str, LoadReport]]:
    shapes = _shapes(published.tensors)
    for path in sorted((CONF / "model").glob("*.yaml")):
        cfg = _model(path.stem, published.num_classes or USUAL_CLASSES)
        if cfg["model"]["_target_"] == OUR_DAT:
            net = on_meta(partial(build_model, cfg))
            try:
                yield path.stem, upstream.from_published(net, shapes, may_lack=MAY_LACK)[1]
            except (KeyError, ValueError):
                continue


# -------------------------------------------------------------------------------------------- export


def export_run(folder: Path, *, out: Path) -> dict[str, Any]:
    """Writes the weights of a run's best epoch, averaged ones if the run averaged them.

    Returns:
        What the file says of itself.

    Raises:
        WeightsError: it isn't the folder of a run, or has no checkpoint yet.
    """
    record = read_record(folder)
    if record is None or "config" not in record:
        raise WeightsError(f"{folder} has no record of a run; name a folder such as runs/default/baseline/seed0-...")
    path = folder / "checkpoints" / "best.ckpt"
    require_file(path)
    try:
        if not whole(path):
            raise ValueError
        saved = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        state: dict[str, Tensor] = saved["state_dict"]
    except Exception:  # torch raises what it likes
        raise WeightsError(f"{path} is damaged; the same command as before, with rerun=true, makes it again") from None
    # `_orig_mod` stands where torch.compile wrapped a module.
    named = {name.replace("_orig_mod.", ""): tensor for name, tensor in state.items()}
    tensors = {name.removeprefix("net."): tensor for name, tensor in named.items() if name.startswith("net.")}

    cfg = record["config"] | {"model": {k: v for k, v in record["config"]["model"].items() if k != "weights"}}
    wanted = {name: tensor.shape for name, tensor in on_meta(lambda: build_model(cfg)).state_dict().items()}
    if other := sorted(wanted.items() ^ {name: tensor.shape for name, tensor in tensors.items()}.items()):
        names = few(sorted({name for name, _ in other}))
        raise WeightsError(f"{path} isn't of the network that its record describes, which differs in {names}")
    about = _about(cfg, "datlab", path, LoadReport())
    about["run"] = {
        "name": record["name"],
        "seed": record["seed"],
        "identity": record["identity"],
        "status": record["status"],
        "commit": record["git"]["commit"],
        "data": cfg["data"]["name"],
        "epoch": int(saved["epoch"]),
        "averaged": bool(cfg["recipe"]["ema_decay"]),
        "test/acc1": (record["metrics"] or {}).get("test/acc1"),
    }
    write(out, {name: tensor.contiguous() for name, tensor in tensors.items()}, about)
    return about


def _about(cfg: Mapping[str, Any], release: str, path: Path, report: LoadReport) -> dict[str, Any]:
    """The metadata of a file."""
    return {
        "datlab": metadata.version("datlab"),
        "model": {key: value for key, value in cfg["model"].items() if key != "weights"},
        "release": release,
        "source": path.name,
        "source_sha256": sha256(path),
        "resized": list(report.resized),
        "reinitialised": list(report.reinitialised),
        "left_out": list(report.left_out),
    }


# ---------------------------------------------------------------------------------------------- show


def lines(about: Mapping[str, Any]) -> Iterator[str]:
    """What a file says of itself, for people."""
    model = about["model"]
    yield f"model           {model['name']}, {model['image_size']} pixels, {model['num_classes']} classes"
    yield f"release         {RELEASES[about['release']]}"
    yield f"source          {about['source']}, sha256 {about['source_sha256'][:16]}..."
    if run := about.get("run"):
        accuracy = "" if run["test/acc1"] is None else f", test/acc1 {run['test/acc1']:.4f}"
        weights = "averaged weights after" if run["averaged"] else "after"
        yield (
            f"run             {run['name']} seed {run['seed']} ({run['identity']}, {run['status']}) on {run['data']}, "
            f"{weights} epoch {run['epoch'] + 1}{accuracy}"
        )
    for key, label in (("resized", "resized"), ("reinitialised", "re-initialised"), ("left_out", "left out")):
        names = about[key]
        note = " (not in the file: a network draws its own)" if names and key == "reinitialised" else ""
        yield f"{label:15} {(', '.join(names) if len(names) <= 6 else few(names)) or 'nothing'}{note}"
    yield f"written by      datlab {about['datlab']}"


def next_command(about: Mapping[str, Any], out: Path) -> str:
    """What to type after an import or export: a test of whole weights, training of what lacks a head."""
    model, run = about["model"], about.get("run")
    words = [f"model={model['name']}", f"model.weights={out}"]
    own = CONF / "model" / f"{model['name']}.yaml"
    if not own.exists():
        words[0] = f"model=timm/{model['name']}"
    elif model["image_size"] != _model(model["name"], USUAL_CLASSES)["model"]["image_size"]:
        words.append(f"model.image_size={model['image_size']}")
    if run:
        if (CONF / "experiment" / f"{run['name']}.yaml").exists():
            words.insert(0, f"experiment={run['name']}")
        words.append(f"data={run['data']}")
        return " ".join(["python -m src.evaluate", *words])
    if about["reinitialised"] or model["num_classes"] != USUAL_CLASSES:
        classes = "..." if model["num_classes"] == USUAL_CLASSES else model["num_classes"]
        words += ["data=folder", "data.root=...", f"data.num_classes={classes}"]
        return " ".join(["python -m src.train", *words])
    return " ".join(["python -m src.evaluate", *words, "data=imagenet", "data.root=..."])
