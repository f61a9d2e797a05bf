"""Text that fits: names broken into lines, and columns of labels that don't overlap."""

import functools
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath
from scipy.optimize import isotonic_regression

from src.reports.figures.theme import FAINT, FONT_SIZE, INK, LINE, MUTED, WIDTH, Look

GAP = 0.05  # inches between two labels
LEADER = 0.3  # inches between axes and labels


@functools.lru_cache(maxsize=4096)
def width_of(text: str) -> float:
    """Inches that a line of text takes."""
    font = FontProperties(family="DejaVu Sans", size=FONT_SIZE)
    return TextToPath().get_text_width_height_descent(text, font, ismath=False)[0] / 72


def wrapped(text: str, width: float) -> str:
    """`text` in lines of at most `width` inches, broken after spaces, underscores and hyphens, else anywhere."""
    lines = [""]
    for piece in re.findall(r"[^ _-]+[ _-]*|[ _-]+", text):
        for part in [piece] if width_of(piece.rstrip(" ")) <= width else piece:
            if lines[-1] and width_of((lines[-1] + part).rstrip(" ")) > width:
                lines.append("")
            lines[-1] += part
    return "\n".join(line.strip(" ") for line in lines)


def column_width(names: Sequence[str], most: float) -> float:
    """Inches that a column of `names` needs once they are broken to fit into `most`."""
    return max((width_of(line) for name in names for line in wrapped(name, most).split("\n")), default=0.0)


def height_of(text: str) -> float:
    """Inches that a text of one line or several takes, without a gap."""
    return LINE * (1 + text.count("\n"))


def note(figure: Figure, text: str, bottom: float = 0.06) -> None:
    """What the marks mean, in the lower left corner; `note_height` is what it takes."""
    text = wrapped(text, WIDTH - 0.35)
    figure.text(
        0.1 / WIDTH, bottom / figure.get_figheight(), text, va="bottom", alpha=MUTED, linespacing=1.2, color=INK
    )


def note_height(text: str) -> float:
    return height_of(wrapped(text, WIDTH - 0.35)) + 0.12


def spread(wanted: np.ndarray, heights: np.ndarray, low: float, high: float) -> np.ndarray:
    """Centres of labels that don't overlap, in the order of `wanted`, as near to it as least squares can.

    Args:
        wanted: where labels would be best, (N,).
        heights: what each takes, gap included, (N,); their sum is at most `high - low`.
    """
    order = np.argsort(wanted, kind="stable")
    before = np.cumsum(heights[order]) - heights[order]
    half = heights[order] / 2
    # Less the heights of those below, the centres only have to rise: that is isotonic regression.
    rising = isotonic_regression(wanted[order] - half - before).x
    placed = np.empty(len(wanted))
    placed[order] = np.clip(rising, low, high - heights.sum()) + before + half
    return placed


@dataclass(frozen=True)
class Label:
    """A name to be put right of a point, which is at `x`, `y` of the data."""

    text: str
    x: float
    y: float
    look: Look


def label_column_height(texts: Iterable[str], width: float) -> float:
    """Inches that labels of `width` take in a column."""
    return sum(height_of(wrapped(text, width)) + GAP for text in texts)


def label_column(axes: Axes, labels: Sequence[Label], width: float, *, markers: bool) -> None:
    """Names right of `axes`, each joined to its point by a thin line.

    Axes have their place and limits already, and are at least as high as `label_column_height`.

    Args:
        markers: whether each label repeats the marker of its variant.
    """
    box, figure = axes.get_position(), axes.get_figure()
    assert isinstance(figure, Figure)
    wide, high = box.width * WIDTH, box.height * figure.get_figheight()
    bottom, top = axes.get_ylim()
    texts = [wrapped(label.text, width) for label in labels]
    heights = np.array([height_of(text) + GAP for text in texts])
    wanted = np.array([(label.y - bottom) / (top - bottom) * high for label in labels])
    end = 1 + LEADER / wide
    start = end + (0.09 if markers else 0.04) / wide
    for label, text, at in zip(labels, texts, spread(wanted, heights, 0, high) / high, strict=True):
        line = {"arrowstyle": "-", "color": label.look.colour, "lw": 0.6, "alpha": 2 * FAINT}
        line |= {"shrinkA": 0, "shrinkB": 0}
        axes.annotate(
            "", (label.x, label.y), (end, at), "data", "axes fraction", arrowprops=line, annotation_clip=False
        )
        if markers:
            axes.plot(end, at, label.look.marker, color=label.look.colour, clip_on=False, transform=axes.transAxes)
        axes.text(start, at, text, transform=axes.transAxes, va="center", linespacing=1.2)
