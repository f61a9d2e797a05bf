"""From a study as written to its table: every variant composed, checked and pinned."""

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException

from src.config import CONF, resolve
from src.imports import uncollected
from src.pins import fingerprint_of, pinned
from src.runs.identity import identity
from src.studies.definition import Row, Study, StudyError, check_override
from src.studies.table import Path_, Table, Variant, jobs_of


def freeze(study: Study, overrides: Sequence[str] = ()) -> Table:
    """The table of `study` with `overrides` added to all its rows.

    Raises:
        StudyError: a row can't be composed, can't work, or is another row under a second name.
        DataError: the data aren't usable.
    """
    for override in overrides:
        check_override(override, "command line")
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(CONF), version_base="1.3"):
        fingerprints: dict[str, str] = {}
        variants = [_variant(study, row, overrides, fingerprints) for row in study.rows]
    _refuse_twins(variants)
    return Table(
        study=study.name,
        question=study.question,
        asked=tuple(overrides),
        runs=Path(variants[0].config["runs"]),
        variants={variant.name: variant for variant in variants},
        jobs=jobs_of(variants, study.seeds),
    )


def check_all(table: Table) -> None:
    """Refuses, before any work is spent, what one of the variants can't do.

    Raises:
        StudyError: names the row and what to change.
    """
    with uncollected():
        from src.training import check  # with all that training needs

    for variant in table.variants.values():
        try:
            check(dict(variant.config))
        except ValueError as error:
            raise StudyError(f"row {variant.name}: {error}") from None


def _variant(study: Study, row: Row, overrides: Sequence[str], fingerprints: dict[str, str]) -> Variant:
    composed = _compose(study, row, overrides)
    first, second = study.seeds[0], study.seeds[0] + 1
    try:
        config, other = (resolve(with_seed(composed, seed)) for seed in (first, second))
    except (OmegaConfBaseException, ValueError) as error:
        raise StudyError(f"row {row.name}: {one_line(error)}") from None
    seed_at = []
    for to in _differing(config, other):
        if (_at(config, to), _at(other, to)) != (first, second):
            raise StudyError(f"row {row.name}: {'.'.join(to)} is made of the seed, which only the seed itself may be")
        seed_at.append(to)
    if row.published is not None:
        config["published"] = dict(row.published)
    return Variant(row.name, pinned(config, _fingerprint(config["data"], fingerprints)), tuple(seed_at))


def _compose(study: Study, row: Row, overrides: Sequence[str]) -> DictConfig:
    """The row has the last word, the command line the one before: a variant stays what it is named after."""
    experiment = [] if row.experiment is None else [f"experiment={row.experiment}"]
    chosen = {override.partition("=")[0]: override for override in (*study.overrides, *overrides, *row.overrides)}
    own = [f"name='{row.name}'", f"study='{study.name}'"]  # quoted: a row may be called nan, or 2
    try:
        return compose("train", [*experiment, *chosen.values(), *own])
    except HydraException as error:
        raise StudyError(f"row {row.name}: {one_line(error)}") from None


def one_line(error: BaseException) -> str:
    """What Hydra says, without the folders in which it looked."""
    return " ".join(str(error).partition("Config search path:")[0].split())


def with_seed(composed: DictConfig, seed: int) -> DictConfig:
    changed = composed.copy()
    changed.seed = seed
    return changed


def _differing(one: Any, other: Any, to: Path_ = ()) -> Iterator[Path_]:
    """Where two plain configs of the same shape differ."""
    if isinstance(one, dict) and isinstance(other, dict) and one.keys() == other.keys():
        for key in one:
            yield from _differing(one[key], other[key], (*to, key))
    elif one != other:
        yield to


def _at(config: Mapping[str, Any], to: Path_) -> Any:
    return functools.reduce(lambda value, key: value[key], to, config)


def _fingerprint(data: Mapping[str, Any], known: dict[str, str]) -> str:
    """Found once for each data set, not for each row."""
    key = json.dumps({name: value for name, value in data.items() if name != "seed"}, sort_keys=True)
    if key not in known:
        known[key] = fingerprint_of(dict(data))
    return known[key]


def _refuse_twins(variants: Sequence[Variant]) -> None:
    """Two rows of one identity would be one run: a comparison of a variant with itself."""
    names: dict[str, str] = {}
    for variant in variants:
        key = identity(variant.config)
        if key in names:
            raise StudyError(
                f"rows {names[key]} and {variant.name} are the same run (identity {key}): with these overrides nothing "
                f"that counts differs between them; leave one out"
            )
        names[key] = variant.name
