"""How figures look: one ink, colours that the colour-blind tell apart, sizes in inches.

Everything that isn't a variant's colour is drawn with `INK`, fainter things with less opacity, so that a theme
(src/reports/figures/save.py) has one colour to replace. Sizes are those of print: 7 inches fit a page, and no text is
smaller than 8 points.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import cycle

from matplotlib import style
from matplotlib.axes import Axes
from matplotlib.figure import Figure

WIDTH = 7.0  # inches
FONT_SIZE = 8.0  # points
LINE = 0.135  # inches from one line of text to the next

INK = "#1a1b1c"  # no other colour may be this one: themes find it by its digits
MUTED, FAINT, GRID = 0.75, 0.3, 0.14  # opacities of ink

# Okabe and Ito (2008). Black is the ink's part, and yellow can't be seen on white.
BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY = "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"
COLOURS = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)
DASHES = ((0, (4, 1.5)), (0, (6, 1.5, 1, 1.5)), (0, (1, 1.2)), (0, (10, 2)), (0, (3, 1, 1, 1, 1, 1)), (0, (2, 2.5)))
MARKERS = ("o", "s", "^", "D", "v", "P", "X")  # as many as have no common factor with the colours: 42 pairs
MOST_LINES = len(COLOURS) + 1  # in one panel, the baseline's among them

_SETTINGS = {
    "font.family": "DejaVu Sans",  # comes with matplotlib, so that it is the same on every machine
    "font.size": FONT_SIZE,
    "axes.labelsize": FONT_SIZE,
    "axes.titlesize": FONT_SIZE,
    "xtick.labelsize": FONT_SIZE,
    "ytick.labelsize": FONT_SIZE,
    "text.parse_math": False,  # names come from users: "$" and "_" are letters
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "grid.color": INK,
    "grid.alpha": GRID,
    "grid.linewidth": 0.5,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "lines.markeredgewidth": 0,
    "patch.linewidth": 0,
}

# Every function that makes artists is decorated with it; what a user's matplotlibrc says doesn't count.
house_style = style.context(_SETTINGS, after_reset=True)


@dataclass(frozen=True)
class Look:
    """How a variant is drawn, the same in all figures of a study."""

    colour: str
    dashes: str | tuple[int, tuple[float, ...]]
    marker: str


def looks(variants: Sequence[str], baseline: str) -> dict[str, Look]:
    """The baseline in ink and solid, the others in turn."""
    others = zip(cycle(COLOURS), cycle(DASHES), cycle(MARKERS), strict=False)
    return {name: Look(INK, "-", "o") if name == baseline else Look(*next(others)) for name in variants}


def new_figure(height: float) -> Figure:
    """An empty figure of the full width, `height` inches high."""
    return Figure(figsize=(WIDTH, height))


def panel(figure: Figure, left: float, top: float, width: float, height: float) -> Axes:
    """Axes at a place in inches, from the upper left corner of the figure."""
    total = figure.get_figheight()
    return figure.add_axes((left / WIDTH, 1 - (top + height) / total, width / WIDTH, height / total))
