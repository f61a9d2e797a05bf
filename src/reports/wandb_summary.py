"""A study's result as one W&B run, beside the runs that trained it.

W&B draws the mean of a group over the runs that it happens to have loaded, and knows neither pairs nor corrections;
here it gets the numbers that the report states.

    id, name    <study>-report-<digest of what it holds>, <study>-report
    job type    "report"; that of training runs is "train"
    group       the study; training runs are grouped by their variants
    tags        study, data, model: as training runs have them, so that a filter by the study's tag shows both
    holds       tables "results" and "runs", images "figure/<name>", values "<variant>/<column>", and the report's files
                as an artifact <study>-report of the type "report"

A report that was logged is not logged again: what has changed is a new W&B run, and the old one stays as it was.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import wandb

from src.reports.comparison import Comparison
from src.reports.results import SCORE, Results
from src.runs.wandb_artifacts import STAGING, artifact_name, staged_in
from src.runs.wandb_logger import REPORTS, effective_mode, inspect_file, started, tags_of, wandb_settings

VALUES = ("mean", "sd", "difference", "low", "high", "p_holm", "verdict")  # of a row, as summary values too


def log_summary(
    results: Results, rows: Sequence[Comparison], files: Sequence[Path], *, project: str, entity: str | None, mode: str
) -> Path | None:
    """Logs a study as it stands, finished or not, unless just that was logged before.

    Args:
        rows: the variants with a comparison against the baseline.
        files: the report's; those that end in .png are shown as images too.
        mode: as `logger.mode`.

    Returns:
        W&B's folder of the run, of now or of before; None in the mode "disabled", which writes nothing.

    Raises:
        ValueError: the mode is unknown, or two files have one name.
        OSError: a file can't be read.
    """
    names = [path.name for path in files]
    if twice := {name for name in names if names.count(name) > 1}:
        raise ValueError(f"two files of the report are named {', '.join(sorted(twice))}; give one another name")
    mode = effective_mode(mode)
    if mode == "disabled":
        return None
    study, table, runs = results.table.study, result_table(results, rows), runs_table(results)
    folder = results.table.runs / study / REPORTS
    key = artifact_name(study, "report", _digest([project, entity, table, runs], files))
    logged = _logged(folder, key)
    if logged is not None:
        return logged

    def init(mode: str) -> wandb.Run:
        folder.mkdir(parents=True, exist_ok=True)
        return wandb.init(
            project=project,
            entity=entity,
            id=key,
            name=f"{study}-report",
            group=study,
            job_type="report",
            tags=_tags(results),
            dir=folder,
            config=_config(results),
            resume="allow",  # of one that was cut off
            reinit="create_new",
            settings=wandb_settings(mode),
        )

    with staged_in(folder / STAGING):
        run, _ = started(init, mode)
        code = 1
        try:
            media: dict[str, Any] = {"results": _table(table), "runs": _table(runs)}
            media |= {figure_key(path): wandb.Image(str(path)) for path in files if path.suffix == ".png"}
            run.log(media)
            run.summary.update(_values(table))
            report = wandb.Artifact(artifact_name(study, "report", results.table.key), "report")
            for path in files:
                # W&B keeps a copy: the next report will be written over these files.
                report.add_file(str(path), name=path.name)
            run.log_artifact(report)
            code = 0
        finally:
            run.finish(exit_code=code)
    return Path(run.settings.sync_dir)


def result_table(results: Results, rows: Sequence[Comparison]) -> list[dict[str, Any]]:
    """A row per variant, in the study's order; percent, differences in percentage points.

    low and high bound the difference's 95 % interval by Student's t. None stands for what isn't known.
    """
    compared = {row.variant: row for row in rows}
    return [_row(results, name, compared.get(name)) for name in results.variants]


def runs_table(results: Results) -> list[dict[str, Any]]:
    """A row per job, in the table's order, whatever has become of it."""
    return [
        {
            "variant": state.job.name,
            "seed": state.job.seed,
            "status": state.status,
            "test top-1, %": _percent(state.metrics.get(SCORE)),
            "val top-1, %": _percent(state.metrics.get("val/acc1")),
            "best epoch": state.metrics.get("best_epoch"),
            "seconds": (state.record or {}).get("wall_seconds"),
            "identity": state.job.identity,
            "W&B run": ((state.record or {}).get("wandb") or {}).get("id"),
        }
        for state in results.states
    ]


def figure_key(path: Path) -> str:
    """Under which name W&B has the image at `path`."""
    return f"figure/{path.stem}"


def _row(results: Results, name: str, row: Comparison | None) -> dict[str, Any]:
    scores = list(results.scores(name).values())
    paired = row.paired if row else None
    low, high = (paired.t if paired else None) or (None, None)
    record = next((state.record for state in results.finished[name].values() if state.record), {})
    return {
        "variant": name,
        "seeds": len(scores),
        "mean": mean(scores) if scores else None,
        "sd": stdev(scores) if len(scores) > 1 else None,
        "difference": paired.mean if paired else None,
        "low": low,
        "high": high,
        "p_holm": row.p_holm if row else None,
        "verdict": row.verdict.word if row else None,
        "says": row.verdict.text if row else None,
        "published": results.published(name).get("top1"),
        "parameters": record.get("params"),
        "macs": record.get("macs"),
    }


def _values(table: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {f"{row['variant']}/{name}": row[name] for row in table for name in VALUES if row[name] is not None}


def _table(rows: Sequence[dict[str, Any]]) -> wandb.Table:
    return wandb.Table(columns=list(rows[0]), data=[list(row.values()) for row in rows])


def _config(results: Results) -> dict[str, Any]:
    return {
        "study": results.table.study,
        "question": results.table.question,
        "table": results.table.key,
        "baseline": results.baseline,
        "seeds": list(results.seeds),
        "finished": sum(state.status == "finished" for state in results.states),
        "jobs": len(results.states),
    }


def _tags(results: Results) -> list[str]:
    # Those of a training run, but for what only one of the variants changes.
    return tags_of({**results.config(results.baseline), "study": results.table.study, "axes": []})


def _digest(values: Any, files: Sequence[Path]) -> str:
    """Ten hexadecimal digits of all that is logged."""
    contents = {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    return hashlib.sha256(json.dumps([values, contents], sort_keys=True).encode()).hexdigest()[:10]


def _logged(folder: Path, key: str) -> Path | None:
    """W&B's folder of the run of this id that came to its end, if there is one."""
    for file in sorted((folder / "wandb").glob(f"*run-*-{key}/run-{key}.wandb")):
        try:
            if json.loads(inspect_file(file, "--summary"))["state"] == "finished":
                return file.parent
        except ValueError:  # cut off before there was anything to read
            continue
    return None


def _percent(share: float | None) -> float | None:
    return None if share is None else 100 * share
