"""Which of a study's tables is meant."""

from collections.abc import Sequence
from pathlib import Path

from src.studies.definition import StudyError, parse_seeds
from src.studies.table import Table, find_tables, read_table


def latest_table(study: str, overrides: Sequence[str], runs: str) -> Table:
    """The study's latest table of those that were asked for with these overrides, or of all if there are none.

    Args:
        study: its name.
        overrides: as they were given to `run`; `runs=FOLDER` among them says where to look, `engine` doesn't matter.
        runs: the folder to look in otherwise.

    Raises:
        StudyError: there is none; the message names those that there are.
    """
    said = dict(override.partition("=")[::2] for override in overrides)
    folder = Path(said.pop("runs", runs))
    tables = [read_table(path) for path in find_tables(folder, study)]
    seeds = parse_seeds(said.pop("seeds")) if "seeds" in said else None
    asked = {f"{key}={value}" for key, value in said.items() if key.partition(".")[0] != "engine"}
    for table in tables:
        known = {override for override in table.asked if not override.startswith("runs=")}
        if (not asked or asked == known) and (seeds is None or set(seeds) == {job.seed for job in table.jobs}):
            return table
    others = f"; it was with {' or with '.join(' '.join(table.asked) or 'none' for table in tables)}" if tables else ""
    more = " with these overrides" if asked or seeds else ""
    raise StudyError(
        f"study {study} has not been run{more} below {folder}{others}; python -m src.study run {study} starts it"
    )
