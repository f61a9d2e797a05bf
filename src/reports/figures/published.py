"""Our accuracies over the published ones: do the rows come in the same order?"""

from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from src.reports.figures.labels import LEADER, column_width, label_column, label_column_height, note, note_height
from src.reports.figures.scale import INTERVAL, Scores, mean_of
from src.reports.figures.theme import FAINT, GRID, INK, WIDTH, house_style, looks, new_figure, panel
from src.reports.results import Results

FEWEST = 3  # rows that have an order to speak of
NAMES = 2.2  # inches at most


@house_style
def published(results: Results, tau: float | None = None) -> Figure | None:
    """A point per row that has a published accuracy and a finished run; None with fewer than three.

    Args:
        tau: Kendall's, of our means and the published values.
    """
    theirs = {name: results.published(name).get("top1") for name in results.variants}
    xs = {name: float(top1) for name, top1 in theirs.items() if top1 is not None}
    ours = {name: mean_of(results.scores(name).values()) for name in xs}
    scores = Scores.of({name: mean for name, mean in ours.items() if mean is not None})
    if scores is None or len(scores.means) < FEWEST:
        return None
    xs = {name: xs[name] for name in scores.means}

    several = any(mean.interval for mean in scores.means.values())
    text = f"Line: {INTERVAL}, as far as the axis goes." if several else "One seed a point."
    shaded = results.baseline in scores.means and results.baseline not in scores.far
    text += f" Shaded: the same side of {results.baseline} in both." if shaded else ""
    text += f" Kendall's tau {tau:.2f}, {len(xs)} rows." if tau is not None else ""
    width = column_width(list(scores.labels.values()), NAMES)
    high = max(3.0, label_column_height(scores.labels.values(), width))
    figure = new_figure(0.1 + high + 0.5 + note_height(text))
    note(figure, text)
    axes = panel(figure, 0.55, 0.1, WIDTH - 0.55 - LEADER - width - 0.25, high)
    labels = scores.draw(axes, xs, looks(results.variants, results.baseline), alpha=2 * FAINT)
    room = 0.08 * max(max(xs.values()) - min(xs.values()), 0.1)
    left, right = min(xs.values()) - room, max(xs.values()) + room
    axes.set_xlim(left, right)
    if shaded:
        (low, upper), x, y = axes.get_ylim(), xs[results.baseline], scores.means[results.baseline].value
        axes.add_patch(Rectangle((left, low), x - left, y - low, color=INK, alpha=GRID / 2))
        axes.add_patch(Rectangle((x, y), right - x, upper - y, color=INK, alpha=GRID / 2))
    axes.set_xlabel("published top-1, % (another protocol)")
    axes.set_ylabel("ours: test top-1, %")
    label_column(axes, labels, width, markers=True)
    figure.set_label(_alt(xs, scores, tau))
    return figure


def _alt(xs: dict[str, float], scores: Scores, tau: float | None) -> str:
    parts = "; ".join(f"{name} {mean.value:.1f} (published {xs[name]:.1f})" for name, mean in scores.means.items())
    agreement = f" Kendall's tau is {tau:.2f}." if tau is not None else ""
    return f"Our test top-1 and the published one, in percent: {parts}.{agreement}"
