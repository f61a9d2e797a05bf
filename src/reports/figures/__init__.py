"""The figures of a study's report, a file per idea: what they say stands above each function.

theme.py, labels.py and scale.py are how they look, history.py what some of them are made of, save.py where they go.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from src.reports.comparison import Comparison
from src.reports.figures.cost import cost
from src.reports.figures.forest import forest
from src.reports.figures.history import history
from src.reports.figures.learning_curves import learning_curves
from src.reports.figures.offsets import offsets
from src.reports.figures.per_class import per_class
from src.reports.figures.published import published
from src.reports.figures.range_factor import range_factor
from src.reports.figures.save import alt, inline, save
from src.reports.results import Results

__all__ = ["alt", "draw", "inline", "save"]


def draw(
    results: Results, comparisons: Sequence[Comparison], *, tau: float | None = None, margin: float | None = None
) -> dict[str, Figure]:
    """Every figure that makes sense for the study as it is now, by name, in the order of a report.

    Args:
        comparisons: with `results.baseline`, in the order of the study's rows.
        tau: Kendall's, of our means and the published values, where it is known.
        margin: percentage points within which the verdicts call differences none.
    """
    courses = history(results)
    drawn = {
        "forest": forest(results, comparisons, margin=margin),
        "range_factor": range_factor(results),
        "published": published(results, tau),
        "per_class": per_class(results),
        "cost": cost(results),
        "learning_curves": learning_curves(results, courses),
        "offsets": offsets(results, courses),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}
