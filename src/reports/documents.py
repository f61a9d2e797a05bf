"""report.md and report.tex."""

from collections.abc import Mapping
from itertools import chain

from src.reports import tables
from src.reports.answer import details
from src.reports.protocol import hardware
from src.reports.report import Report
from src.reports.text import Table, tex

RULE = (
    "Compared over the seeds that both variants have finished, seed by seed: they begin with the same weights wherever "
    "a layer is the same, and see the same images. p is that of all sign flips of the differences, after Holm's "
    "correction over the rows. Better or worse: p ≤ 0.05. No difference larger than x: otherwise, if Student's 95 % "
    "interval lies within ±{margin:g} points. Else: cannot tell. The BCa bootstrap's interval is too narrow with few "
    "seeds (`experiments/statistics/`)."
)
PUBLISHED = "Published figures are of another protocol, one run a row: their order can be compared, their size can't."

IMAGES = (
    "Over all seeds: images of the test set that only one of the two got right, seeds in which McNemar's exact test of "
    "these two networks gives p ≤ 0.05 (not corrected), and intervals of the difference for these networks on other "
    "images, and for networks of other seeds on other images."
)

TITLES = {
    "forest": "Differences to the baseline",
    "range_factor": "Accuracy over the range factor",
    "published": "Our order of rows and the published one",
    "per_class": "Differences by class",
    "cost": "Accuracy and cost",
    "learning_curves": "Learning curves",
    "offsets": "What the offsets do during training",
}


def markdown(report: Report, figures: Mapping[str, str]) -> str:
    """
    Args:
        figures: what each figure shows, by the name of its files in `figures/`.
    """
    results = report.results
    parts = [
        f"# {results.table.study}",
        f"**Question.** {results.table.question}",
        f"**Answer.** {report.answer}",
        report.missing,
        f"**Command.** `{report.command}`, then `python -m src.report {results.table.study}`.",
        *_picture(figures, "forest"),
        report.accuracy.markdown(),
        RULE.format(margin=report.margin),
        *([PUBLISHED] if len(report.accuracy.header) > 8 else []),
        "\n".join(f"- {sentence}" for sentence in details(report.comparisons)),
    ]
    parts += _section("Each step against the one before", tables.step_table(report.steps))
    parts += _section("What the verdicts rest on", tables.effect_table(report.comparisons))
    parts += _section("By test image", tables.image_table(report.comparisons), IMAGES)
    parts += _section(
        "Cost", tables.cost_table(results), "Medians over a variant's runs; memory is that of the process."
    )
    parts += _section("Protocol", report.protocols)
    parts += [report.order]
    for name in figures:
        if name != "forest":
            parts += [f"## {TITLES[name]}", *_picture(figures, name)]
    parts += ["## What it can't tell", "\n".join(f"- {sentence}" for sentence in report.limits)]
    parts += ["## Runs", f"`results.csv` has a line per run. Computed on {hardware(results) or 'nothing yet'}."]
    return "\n\n".join(part for part in parts if part) + "\n"


def _section(title: str, table: Table | None, *text: str) -> list[str]:
    return [] if table is None else [f"## {title}", table.markdown(), *text]


def _picture(figures: Mapping[str, str], name: str) -> list[str]:
    """The figure in the reader's theme."""
    if name not in figures:
        return []
    alt = figures[name].replace("&", "&amp;").replace('"', "&quot;").replace("<", "&lt;")
    return [
        f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="figures/{name}-dark.svg">\n'
        f'<img src="figures/{name}.svg" alt="{alt}">\n</picture>'
    ]


def latex(report: Report) -> str:
    """Tables for a paper: \\usepackage{booktabs}, and graphicx for wide ones."""
    study = report.results.table.study
    label = "".join(character for character in study if character.isalnum() or character in "-")
    made = {
        "accuracy": (report.accuracy, f"{report.results.table.question} {report.answer}"),
        "steps": (tables.step_table(report.steps), "Each step against the one before."),
        "effect": (tables.effect_table(report.comparisons), "What the verdicts rest on; differences in points."),
        "images": (tables.image_table(report.comparisons), "By test image, over all seeds."),
        "cost": (tables.cost_table(report.results), "Medians over a variant's runs."),
        "protocol": (report.protocols, "Our protocol and the published one."),
    }
    head = [
        f"% {tex(study)}: tables for \\usepackage{{booktabs}}.",
        f"% {tex(RULE.format(margin=report.margin))}",
    ]
    parts = [table.latex(caption, f"tab:{label}-{key}") for key, (table, caption) in made.items() if table is not None]
    return "\n\n".join(chain(["\n".join(head)], parts)) + "\n"
