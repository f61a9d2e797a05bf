"""A study as its author writes it down: `experiments/<study>/study.yaml`.

question: How far may points move?
source: DAT (CVPR 2022), figure on range factors   # of figures that rows give themselves
seeds: 6                                            # 0 to 5; or a list
overrides: []                                       # of all rows, before those of the command line
rows:
  baseline:                                         # the experiment of that name
  s_8: {experiment: range_factor, overrides: [offset_range.factor=8], published: {top1: 82.07}}
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

EXPERIMENTS = Path(__file__).resolve().parents[2] / "experiments"
FILE = "study.yaml"

_NAME = re.compile(r"[A-Za-z0-9_][\w.-]{0,63}")
_MOST_SEEDS = 100_000


class StudyError(ValueError):
    """A study that can't be carried out as it is asked for; one line that says what to change."""


@dataclass(frozen=True)
class Row:
    """One variant.

    Attributes:
        experiment: a name in conf/experiment, or None for the baseline's config.
        overrides: as on the command line, after those of the study.
        published: the paper's figures; None leaves those of the experiment.
    """

    name: str
    experiment: str | None
    overrides: tuple[str, ...] = ()
    published: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Study:
    """A question, and the table of runs that answers it."""

    name: str
    question: str
    rows: tuple[Row, ...]
    seeds: tuple[int, ...]
    overrides: tuple[str, ...]

    def with_seeds(self, seeds: tuple[int, ...]) -> "Study":
        return replace(self, seeds=seeds)


def read_study(name: str) -> Study:
    """The study of a folder of `experiments/`, or of a file or folder at the path `name`.

    Raises:
        StudyError: there is none, or it says what can't be understood.
    """
    path = _find(name)
    try:
        text = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise StudyError(f"{path}: {' '.join(str(error).split())}") from None
    return _study(text, path)


def parse_seeds(text: str) -> tuple[int, ...]:
    """`6` is 0 to 5; `0,3,7` and `range(6,12)` are these.

    Raises:
        StudyError: it is none of these.
    """
    text = text.strip().strip("[]").replace(" ", "")
    try:
        if found := re.fullmatch(r"range\((\d+)(?:,(\d+))?\)", text):
            first, last = (0, int(found[1])) if found[2] is None else (int(found[1]), int(found[2]))
            return _seeds(range(first, min(last, first + _MOST_SEEDS + 1)), f"seeds={text}")
        if "," not in text:
            return _seeds(int(text), f"seeds={text}")
        return _seeds([int(part) for part in text.split(",") if part], f"seeds={text}")
    except ValueError as error:
        if isinstance(error, StudyError):
            raise
        raise StudyError(f"seeds={text} isn't a number, a list or a range; write seeds=6, seeds=0,1,2") from None


def shipped() -> list[str]:
    """Names of the studies in `experiments/`."""
    return sorted(path.parent.name for path in EXPERIMENTS.glob(f"*/{FILE}"))


def _find(name: str) -> Path:
    for path in (Path(name), Path(name) / FILE, EXPERIMENTS / name / FILE):
        if path.is_file():
            return path
    raise StudyError(f"no study {name!r}: there are {', '.join(shipped())}; or give the path of a {FILE}")


def _study(text: Any, path: Path) -> Study:
    keys = {"question", "source", "seeds", "overrides", "rows"}
    if not isinstance(text, dict) or not {"question", "seeds", "rows"} <= text.keys() <= keys:
        given = ", ".join(map(str, text)) if isinstance(text, dict) else type(text).__name__
        raise StudyError(f"{path} has {given}; it must have question, seeds and rows, and may have source, overrides")
    if not isinstance(text["rows"], dict) or not text["rows"]:
        raise StudyError(f"{path}: rows must be a mapping of names, with at least one")
    name = path.resolve().parent.name
    if not _NAME.fullmatch(name):
        raise StudyError(f"{path}: a study is named by its folder, and {name!r} can't name one of runs")
    rows = tuple(_row(str(key), row, text.get("source"), path) for key, row in text["rows"].items())
    return Study(name, str(text["question"]), rows, _seeds(text["seeds"], str(path)), _overrides(text, str(path)))


def _row(name: str, row: Any, source: str | None, path: Path) -> Row:
    where = f"{path}: row {name}"
    row = {} if row is None else row
    if not _NAME.fullmatch(name):
        raise StudyError(f"{where} can't name a folder; use letters, digits, _, - and dots, 64 at most")
    if not isinstance(row, dict) or not row.keys() <= {"experiment", "overrides", "published"}:
        raise StudyError(f"{where} may have experiment, overrides and published, and nothing else")
    published = row.get("published")
    if published is not None and not isinstance(published, dict):
        raise StudyError(f"{where}: published must be a mapping, such as {{top1: 82.0}}")
    if published is not None and source and "source" not in published:
        published = {"source": source, **published}
    # A row that says nothing is an experiment; one that says something is what it says.
    experiment = row.get("experiment", None if "overrides" in row else name)
    return Row(name, experiment, _overrides(row, where), published)


def _overrides(of: Mapping[str, Any], where: str) -> tuple[str, ...]:
    given = of.get("overrides") or []
    if not isinstance(given, list) or not all(isinstance(override, str) for override in given):
        raise StudyError(f"{where}: overrides must be a list of key=value")
    for override in given:
        check_override(override, where)
    return tuple(given)


def check_override(override: str, where: str) -> None:
    """Raises StudyError for what isn't `key=value`, or sets what the study itself decides."""
    key, equals, _ = override.partition("=")
    if not equals:
        raise StudyError(f"{where}: {override!r} isn't key=value")
    if key in ("seed", "name", "study", "experiment", "rerun"):
        instead = {"seed": "seeds=", "rerun": "retry"}.get(key, "the study's file")
        raise StudyError(f"{where}: {override!r} is what the study decides; use {instead}")


def _seeds(given: int | Sequence[int], where: str) -> tuple[int, ...]:
    seeds = tuple(range(given)) if isinstance(given, int) and given <= _MOST_SEEDS else given
    if isinstance(seeds, int) or not isinstance(seeds, Sequence):
        raise StudyError(f"{where}: seeds must be a number up to {_MOST_SEEDS} or a list of numbers")
    if not seeds or len(set(seeds)) != len(seeds) or not all(type(s) is int and 0 <= s < 2**32 for s in seeds):
        raise StudyError(f"{where}: seeds must be at least one, all different, whole and from 0 to 4294967295")
    return tuple(seeds)
