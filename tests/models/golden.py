"""Reading the golden data of the published code: see `tests/golden/README.md`."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from torch import Tensor

FOLDER = Path(__file__).parents[1] / "golden"
sys.path.insert(0, str(FOLDER))
from golden_weights import fill_  # noqa: E402, F401

OUTPUT_TOLERANCE, GRADIENT_TOLERANCE, TRAJECTORY_TOLERANCE = 1e-5, 1e-4, 1e-3


def names(pattern: str) -> list[str]:
    """Golden files that match `pattern`, without their ending."""
    found = sorted(path.name.removesuffix(".safetensors") for path in FOLDER.glob(f"{pattern}.safetensors"))
    assert found, f"no golden file matches {pattern}"
    return found


def tensors(name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors of a golden file, and its metadata with JSON values parsed."""
    with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
        metadata = {key: json.loads(value) for key, value in file.metadata().items()}
        return {key: file.get_tensor(key) for key in file.keys()}, metadata  # noqa: SIM118 (not a dict)


def facts(name: str) -> dict[str, Any]:
    """A golden JSON file."""
    return json.loads((FOLDER / f"{name}.json").read_text())


def images(spec: dict[str, Any]) -> Tensor:
    """The input that golden metadata describes."""
    numbers = np.random.default_rng(spec["seed"]).standard_normal(spec["shape"], dtype=np.float32)
    return torch.from_numpy(numbers)


def error(ours: Tensor, published: Tensor) -> float:
    """The largest difference in units of the largest published number."""
    return ((ours.detach() - published).abs().max() / published.abs().max()).item()


def below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors under `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
