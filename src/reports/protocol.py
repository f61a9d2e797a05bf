"""Why our figures aren't the published ones: the two protocols side by side."""

from collections.abc import Mapping
from typing import Any

import yaml

from src.reports.results import Results
from src.reports.text import Table, count
from src.studies.definition import EXPERIMENTS

PUBLISHED = EXPERIMENTS / "published.yaml"
DEFAULT = "dat_tiny"  # of published figures that don't say which network they are of


def protocols(results: Results) -> Table | None:
    """A line for each thing in which ours may differ from the published protocol; None where nothing is published."""
    models = {results.published(name).get("model", DEFAULT) for name in results.variants if results.published(name)}
    known = yaml.safe_load(PUBLISHED.read_text(encoding="utf-8"))
    theirs = [known[model] for model in sorted(models) if model in known]
    if not theirs:
        return None
    ours, theirs = protocol(results), theirs[0]
    rows = [[key, str(ours[key]), str(theirs.get(key, ""))] for key in ours]
    return Table(["", "ours", "published"], rows)


def protocol(results: Results) -> dict[str, Any]:
    """What our runs share, in words."""
    cfg, run = results.config(results.baseline), results.any_finished()
    recipe, data = cfg["recipe"], cfg["data"]
    record = (run.record if run else None) or {}
    params = f", {count(record['params'])} parameters" if record.get("params") else ""
    devices = cfg["trainer"].get("devices", 1)
    many = devices * cfg["trainer"].get("num_nodes", 1) if isinstance(devices, int) else 1
    return {
        "data": f"{data['name']}, {data['num_classes']} classes",
        "resolution": cfg["model"]["image_size"],
        "network": f"{cfg['model']['name']}{params}",
        "epochs": recipe["epochs"],
        "batch": recipe["batch_size"] * recipe.get("accumulate", 1) * many,
        "recipe": _recipe(cfg),
        "runs": f"{len(results.seeds)} a row",
    }


def _recipe(cfg: Mapping[str, Any]) -> str:
    recipe = cfg["recipe"]
    said = [f"AdamW, base lr {recipe['base_lr']:g} per 512 images"]
    if recipe.get("warmup_epochs"):
        said.append(f"{recipe['warmup_epochs']} warm-up epoch{'' if recipe['warmup_epochs'] == 1 else 's'}")
    said.append(f"weight decay {recipe.get('weight_decay', 0):g}")
    said += [f"{name} {recipe[name]:g}" for name in ("mixup", "cutmix") if recipe.get(name)]
    if recipe.get("label_smoothing"):
        said.append(f"label smoothing {recipe['label_smoothing']:g}")
    drop_path = cfg["model"].get("drop_path_rate")
    if drop_path:
        said.append(f"drop path {drop_path:g}")
    if recipe.get("initialisation", "published") != "published":
        said.append(f"initialisation {recipe['initialisation']}")
    return ", ".join(said)


def hardware(results: Results) -> str:
    """On what the finished runs were computed, in a line."""
    machines: dict[str, int] = {}
    for state in results.states:
        if state.status == "finished" and state.record:
            of, versions = state.record["hardware"], state.record["versions"]
            gpus = " and ".join(sorted({gpu["name"] for gpu in of["gpus"]}))
            threads = f"{of['threads']} thread{'' if of['threads'] == 1 else 's'}"
            name = f"{f'{gpus}, ' if gpus else ''}{of['cpu']}, {threads} a run, torch {versions['torch']}"
            machines[name] = machines.get(name, 0) + 1
    if len(machines) == 1:
        return next(iter(machines))
    return "; ".join(f"{name} ({runs} runs)" for name, runs in sorted(machines.items()))
