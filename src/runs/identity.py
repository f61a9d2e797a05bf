"""Which configurations are the same experiment, and the folder a run lives in.

The identity is a hash of everything that can change the result. Two jobs with one identity are one run:
the second is skipped, or resumes the first. Hence no timestamp is part of a path, and jobs started in
the same second cannot share a folder unless they are the same run.
"""

import hashlib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

# What cannot change the result. Everything else counts, `seed` and anything a later config adds included:
# a needless second run costs an hour, two experiments under one identity cost the study.
NOT_IDENTITY = (
    "study",  # which question the run is collected under; part of the path instead
    "name",  # the variant's label; part of the path instead
    "axes",  # says which groups differ from another variant; the groups themselves count
    "against",  # that other variant
    "question",  # prose
    "published",  # numbers from papers, shown beside ours
    "runs",  # where results are kept
    "logger",  # who is told about the metrics
    "progress",  # how the terminal looks
    "watch",  # what is kept of the way to the result
    "activation_checkpointing",  # trades time for memory, to the same bits
    "rerun",  # asks for the same run once more
    "model.weights.path",  # where they lie; their hash beside it counts
    "data.root",  # where the images lie; the record's data fingerprint says whether they are the same
    "data.download",  # how they got there
    "data.workers",  # images depend on the seed and their number, not on who loads them
    # Of the trainer only what is for the eye. `accelerator`, `devices` and `precision` change the batch or
    # the rounding, so they count.
    "trainer.enable_progress_bar",
    "trainer.enable_model_summary",
    "trainer.log_every_n_steps",
    "trainer.default_root_dir",
)

_NAME = re.compile(r"[^./\\\x00-\x1f\x7f][^/\\\x00-\x1f\x7f]{0,127}")


def identity(cfg: Mapping[str, Any]) -> str:
    """Ten hexadecimal digits of the resolved `cfg`, the same for every order of its keys.

    1 and 1.0 are the same value, and so are lists and tuples.

    Raises:
        ValueError: a value is still an interpolation (`${...}`) or missing (`???`), so the hash would not
            see what it stands for.
        TypeError: a value is not plain data.
    """
    return digest(canonical_text(cfg))


def canonical_text(cfg: Mapping[str, Any]) -> str:
    """What `identity` hashes: `cfg` without what can't change the result, the same for every order of its keys.

    Raises:
        ValueError, TypeError: as `identity`.
    """
    return json.dumps(_canonical(cfg, ""), sort_keys=True, separators=(",", ":"))


def digest(text: str) -> str:
    """The identity of a canonical text."""
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def run_folder(root: str | Path, study: str, variant: str, seed: int, identity: str) -> Path:
    """`root/study/variant/seed{seed}-{identity}`.

    Raises:
        ValueError: a name is not a single, visible folder.
    """
    return _folder(root, study, variant, f"seed{seed}-{identity}")


def evaluation_folder(root: str | Path, cfg: Mapping[str, Any]) -> Path:
    """`root/study/variant/evaluate-{identity}`, where the identity leaves out what only training depends on.

    Raises:
        ValueError: a name is not a single, visible folder.
    """
    tested = {key: value for key, value in cfg.items() if key not in ("recipe", "seed")}
    tested["data"] = {key: value for key, value in cfg["data"].items() if key != "seed"}
    return _folder(root, cfg["study"], cfg["name"], f"evaluate-{identity(tested)}")


def _folder(root: str | Path, study: str, variant: str, run: str) -> Path:
    return Path(root) / _name("study", study) / _name("name", variant) / _name("run", run)


def _canonical(value: Any, where: str) -> Any:
    if isinstance(value, Mapping):
        inside = f"{where}." if where else ""
        kept = {str(k): child for k, child in value.items() if f"{inside}{k}" not in NOT_IDENTITY}
        return {key: _canonical(child, inside + key) for key, child in kept.items()}
    if isinstance(value, list | tuple):
        return [_canonical(child, f"{where}.{index}") for index, child in enumerate(value)]
    if isinstance(value, str) and ("${" in value or value == "???"):
        raise ValueError(f"{where}={value!r} is not resolved; pass OmegaConf.to_container(cfg, resolve=True)")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    if value is None or isinstance(value, str | int | float):
        return value
    raise TypeError(f"{where} is a {type(value).__name__}; configs hold numbers, text, lists and mappings")


def _name(role: str, value: str) -> str:
    if not _NAME.fullmatch(value):
        raise ValueError(
            f"{role}={value!r} cannot name a folder: it must be 1 to 128 printable characters without "
            f"/ or \\, not starting with a dot; choose another with {role}=..."
        )
    return value
