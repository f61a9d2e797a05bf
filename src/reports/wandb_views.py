"""A study's W&B report and workspace: what a reader of the project sees first.

    report      question, answer, table, figures, and curves with the study's runs below them
    workspace   a saved view: runs grouped by variant, mean and standard deviation over seeds

Built by wandb-workspaces, an optional package. Their specifications are written to `report.json` and `workspace.json`
(same study, same bytes), and saved in W&B where somebody is logged in; `saved.json` remembers what they are called
there, so that the next time they are replaced and not added to.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from src.reports.comparison import Comparison
from src.reports.results import Results, curves
from src.reports.wandb_summary import figure_key, result_table
from src.runs.record import write_atomically
from src.runs.wandb_logger import STEP, has_key

REPORT, WORKSPACE, SAVED = "report.json", "workspace.json", "saved.json"
INSTALL = 'W&B reports and workspaces need wandb-workspaces: pip install -e ".[wandb]"'
TITLE = 128  # characters that W&B allows

ACCURACY = ("val/acc1", "train/loss", "val/loss")
SPEED = ("train/images_per_second", "peak_memory_mb")


def build_views(
    results: Results,
    rows: Sequence[Comparison],
    figures: Sequence[Path],
    *,
    answer: str,
    project: str,
    entity: str | None,
    folder: Path,
) -> str:
    """Writes both specifications into `folder`, and saves both in W&B if somebody is logged in.

    Args:
        rows: the variants with a comparison against the baseline.
        figures: the images that `log_summary` was given, in the order in which they are shown.
        answer: to the study's question, in a sentence or two.

    Returns:
        In one line, where they are, and what is left to do.

    Raises:
        ValueError: wandb-workspaces isn't installed.
    """
    report = report_of(results, rows, figures, answer=answer, project=project, entity=entity or "")
    workspace = workspace_of(results, project=project, entity=entity or "")

    folder.mkdir(parents=True, exist_ok=True)
    for name, view in ((REPORT, report), (WORKSPACE, workspace)):
        write_atomically(folder / name, specification(view))
    if not has_key():
        return f"not logged in to W&B: {folder} holds the views' specifications; `wandb login`, then this once more"
    return _save(report, workspace, folder)


def report_of(
    results: Results, rows: Sequence[Comparison], figures: Sequence[Path], *, answer: str, project: str, entity: str
) -> Any:
    """The study as a `wandb_workspaces.reports.v2.Report`."""
    wr, _ = _packages()
    training = wr.Runset(name="training", filters=_training(results), groupby=["run.group"])
    summary = wr.Runset(name="report", filters=_summary(results))  # the newest first
    blocks = [
        wr.P(results.table.question),
        wr.H2("Answer"),
        wr.P(answer),
        wr.H2("Result"),
        wr.MarkdownBlock(_markdown(result_table(results, rows))),
        wr.P("These numbers were computed from the runs' records. Bands below are W&B's, over the runs it has loaded."),
    ]
    if figures:
        panel = wr.MediaBrowser(
            title="Figures", media_keys=[figure_key(path) for path in figures], layout=wr.Layout(w=24, h=12)
        )
        blocks += [wr.H2("Figures"), wr.PanelGrid(runsets=[summary], panels=[panel], hide_run_sets=True)]
    plots = [_plot(wr, [metric]) for metric in (*ACCURACY, *SPEED)]
    plots += [_plot(wr, metrics) for metrics in _offsets(results)]
    for number, plot in enumerate(plots):
        plot.layout = wr.Layout(x=12 * (number % 2), y=6 * (number // 2), w=12)
    blocks += [wr.H2("Curves"), wr.PanelGrid(runsets=[training], panels=plots)]
    title = f"{results.table.study}: {results.table.question}" if results.table.question else results.table.study
    report = wr.Report(
        project=project, entity=entity, title=title[:TITLE], description=answer, blocks=blocks, width="fluid"
    )
    _name_parts(grid for grid in blocks if isinstance(grid, wr.PanelGrid))
    return report


def workspace_of(results: Results, *, project: str, entity: str) -> Any:
    """The study's saved view as a `wandb_workspaces.workspaces.Workspace`."""
    wr, ws = _packages()
    sections = [("Accuracy", [[name] for name in ACCURACY]), ("Cost", [[name] for name in SPEED])]
    if offsets := _offsets(results):
        sections.append(("Offsets", offsets))
    workspace = ws.Workspace(
        entity=entity,
        project=project,
        name=results.table.study,
        sections=[
            ws.Section(name=name, panels=[_plot(wr, metrics) for metrics in plots], is_open=True)
            for name, plots in sections
        ],
        settings=ws.WorkspaceSettings(x_axis=STEP, max_runs=max(10, len(results.variants))),  # groups count as runs
        runset_settings=ws.RunsetSettings(filters=_training(results), groupby=[ws.Metric("Group")]),
    )
    _name_parts(workspace.sections)
    return workspace


def specification(view: Any) -> str:
    """What wandb-workspaces sends to W&B for a report or a workspace, as JSON."""
    text = view._to_model().model_dump_json(by_alias=True, exclude_none=True)
    return json.dumps(json.loads(text), indent=1, sort_keys=True) + "\n"


# ----------------------------------------------------------------------------------------------- parts


def _training(results: Results) -> str:
    """Which runs are the study's: by their tag, or by identity, where another study has computed them."""
    study = results.table.study
    elsewhere = sorted(
        state.job.identity for state in results.states if state.record and state.record["study"] != study
    )
    own = f"Tags in [{study!r}]"
    if elsewhere:
        own = f"({own} or Config('identity') in {elsewhere!r})"
    return f"Metric('JobType') = 'train' and {own}"


def _summary(results: Results) -> str:
    return f"Metric('JobType') = 'report' and Tags in [{results.table.study!r}]"


def _plot(wr: Any, metrics: Sequence[str]) -> Any:
    """A curve per group: the mean over its seeds, and their standard deviation as a band."""
    title = metrics[0] if len(metrics) == 1 else metrics[0].replace("/g0/", "/*/")
    return wr.LinePlot(
        title=title, x=STEP, y=list(metrics), title_x="step", groupby_aggfunc="mean", groupby_rangefunc="stddev"
    )


def _offsets(results: Results) -> list[list[str]]:
    """Diagnostics of the points, a plot each; the groups of a stage share one."""
    seen = {name for state in results.states for name in (curves(state) if state.record else {})}
    plots: dict[str, list[str]] = {}
    for name in sorted(name for name in seen if name.startswith("offset/")):
        parts = name.split("/")
        shared = "/".join([*parts[:2], parts[-1]])  # offset/<stage>/g<group>/<what>
        plots.setdefault(shared, []).append(name)
    return list(plots.values())


def _name_parts(places: Any) -> None:
    # wandb-workspaces draws names at random; these make the same study the same specification.
    for number, place in enumerate(places):
        for runset in getattr(place, "runsets", ()):
            runset._id = f"runs-{runset.name}"
        for index, panel in enumerate(place.panels):
            panel._id = f"panel-{number}-{index}"


def _markdown(table: Sequence[Mapping[str, Any]]) -> str:
    columns = ("variant", "seeds", "test top-1, %", "difference", "95 % interval", "verdict", "published, %")
    lines = [columns, ["---"] * len(columns)]
    for row in table:
        spread = "" if row["sd"] is None else f" ± {row['sd']:.1f}"
        lines.append(
            [
                row["variant"],
                str(row["seeds"]),
                "" if row["mean"] is None else f"{row['mean']:.1f}{spread}",
                "" if row["difference"] is None else f"{row['difference']:+.1f}",
                "" if row["low"] is None else f"{row['low']:+.1f} to {row['high']:+.1f}",
                row["says"] or "",
                "" if row["published"] is None else str(row["published"]),
            ]
        )
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


# ---------------------------------------------------------------------------------------------- saving


def _save(report: Any, workspace: Any, folder: Path) -> str:
    """Saves both; those of the last time are replaced if they are of the same project."""
    known = _saved(folder / SAVED)
    try:
        report.entity = workspace.entity = report.entity or wandb.Api().default_entity
        place = {"entity": report.entity, "project": report.project}
        if {key: known.get(key) for key in place} == place:
            report.id = known["report"]
            workspace._internal_id, workspace._internal_name = known["workspace"]
        report.save()
        workspace.save()
    except Exception as error:  # a server that is away, or refuses; wandb-workspaces raises what its parts raise
        reason = str(error).partition("\n")[0]
        return f"not saved in W&B ({reason}): {folder} holds the views' specifications; then this once more"
    names = {"report": report.id, "workspace": [workspace._internal_id, workspace._internal_name]}
    write_atomically(folder / SAVED, json.dumps({**place, **names}, indent=1) + "\n")
    return f"W&B report: {report.url}  workspace: {workspace.url}"


def _saved(path: Path) -> dict[str, Any]:
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return {}


def _packages() -> tuple[Any, Any]:
    try:
        import wandb_workspaces.reports.v2 as reports
        import wandb_workspaces.workspaces as workspaces
    except ImportError:
        raise ValueError(INSTALL) from None
    return reports, workspaces
