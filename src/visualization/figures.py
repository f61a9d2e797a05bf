"""A block's keys drawn on the picture: where points moved, which keys count, and what a query is made of.

Marks have a rim, so that they are seen on any part of any picture. Axes are in the picture's own pixels.
"""

import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from PIL import Image

from src.reports.figures.labels import note, note_height, wrapped
from src.reports.figures.theme import FONT_SIZE, LINE, MUTED, SKY, WIDTH, house_style, new_figure, panel
from src.visualization.subjects import Subject
from src.visualization.view import BlockView, View

MOVED = "#ff8c1a"  # orange on any photograph, with its rim
DARK, LIGHT = "#101214", "#ffffff"
MASS = LinearSegmentedColormap.from_list("mass", ["#3b0f70", "#b63679", "#fb8861", "#fcfdbf"])
BRIGHTEST = 4  # times an even share, where colours end unless the strongest key has more
LARGEST_CIRCLE = 20  # points of print across
SIZES = 32  # of circles
MOST_COLUMNS = 4
LARGEST = 360  # pixels of the longer side of a picture inside of a drawing: it is shrunk to them
SMALL = 200  # pixels, below which a picture is smoothed
GAP, AXIS, BELOW = 0.14, 0.36, 0.12  # inches between panels, and for the numbers left of and below them

SCALE = "area and colour grow with attention"

KINDS = {
    "global": "ViT: all pixels",
    "window": "windows",
    "shifted_window": "Swin: a shifted window",
    "neighborhood": "NAT: its neighborhood",
    "spatial_reduction": "PVT: a shrunken map",
    "deformable_convolution": "DCN: nine own points",
    "average_pooling": "average pooling",
    "deformable": "DAT: deformed points",
}


@house_style
def offsets(block: BlockView) -> Figure:
    """Reference points and where they moved, a panel for each offset group."""
    reference, points, distances = block.reference(), block.points(), block.distances()
    still = reference is None or not distances.any()
    titles = [f"group {group}: {distances[group].mean():.1f} px on average" for group in range(block.groups)]
    outside = block.outside().mean()
    if still:
        text = "Orange: where keys are read. They " + ("don't move." if reference is None else "haven't moved.")
    else:
        shared = "each query's own" if block.look.points.shape[2] > 1 else "shared by all queries"
        text = f"Blue: reference points. Orange: where keys are read, {shared}. Distances are in pixels of the picture."
    if outside and not still:
        text += f" {100 * outside:.0f} % of the points are off the map, where zeros are read."
    figure, panels = _panels(block, [f"group {g}" for g in range(block.groups)] if still else titles, text)
    for group, one in enumerate(panels):
        ends = np.unique(points[group].reshape(-1, 2), axis=0) if still else points[group].reshape(-1, 2)
        if still:
            _dots(one, ends)
        else:
            _moves(one, np.broadcast_to(reference, points[group].shape).reshape(-1, 2), ends)  # type: ignore[arg-type]
    figure.set_label(f"{block.name} on {block.subject.name}: reference points and where keys are read.")
    return figure


@house_style
def keys(block: BlockView) -> Figure:
    """Keys by the attention that all queries together give them, a panel for each offset group."""
    places, mass = block.received()
    titles = [f"group {group}: at most {mass[group].max():.1f} even shares" for group in range(block.groups)]
    text = f"Circles: keys, by the attention of all queries and of the group's heads; {SCALE}."
    figure, panels = _panels(block, titles, text)
    for group, one in enumerate(panels):
        _circles(one, places[group], mass[group], mass.shape[1])
    figure.set_label(f"{block.name} on {block.subject.name}: keys by the attention that they get.")
    return figure


@house_style
def query(view: View, name: str, xy: tuple[float, float]) -> Figure:
    """The keys of one query, and what it is made of when they are traced back to the first map.

    Raises:
        ValueError: the network doesn't see that place.
    """
    block = view.blocks[name]
    number = block.query_at(xy)
    places, shares = block.keys_of(number)
    (made_of,) = view.rollout.trace(name, [number])
    needed = int(np.searchsorted(np.cumsum(np.sort(shares)[::-1]), 0.5)) + 1
    titles = [f"half of the attention is on {needed} of its {(shares > 0).sum()} keys", "traced back to the first map"]
    text = (
        f"Cross: the query, at x {xy[0]:g}, y {xy[1]:g}. Left: keys of all groups and heads; {SCALE}. Right: attention "
        f"rollout through the blocks before (Abnar and Zuidema 2020), half of each its residual. It says where "
        f"attention goes, not what an output depends on."
    )
    figure, panels = _panels(block, titles, text)
    _circles(panels[0], places, shares * (shares > 0).sum(), _spread(block))
    _heat(panels[1], block.subject, made_of)
    for one in panels:
        _cross(one, xy)
    figure.set_label(f"{name} on {block.subject.name}: what the query at {xy[0]:g}, {xy[1]:g} attends to.")
    return figure


@house_style
def side_by_side(views: list[View], blocks: list[str], xy: tuple[float, float]) -> Figure:
    """The keys of one query in several networks, a panel each: the motivating figure of DAT, from real modules.

    Raises:
        ValueError: the networks don't see that place.
    """
    chosen = [one.blocks[name] for one, name in zip(views, blocks, strict=True)]
    room = (WIDTH - AXIS) / min(max(len(views), 2), MOST_COLUMNS) - GAP - 0.1
    titles = []
    for one, block in zip(views, chosen, strict=True):
        places, _ = block.keys_of(block.query_at(xy))
        within = one.subject.frame.from_picture(places)
        off = int(((within < 0) | (within > 1)).any(-1).sum())
        said = [KINDS.get(block.look.kind, block.look.kind), one.title, f"{off} of {len(places)} keys off the image"]
        titles.append("\n".join(wrapped(line, room) for line in said[: 3 if off else 2]))
    lines = max(title.count("\n") for title in titles)
    titles = [title + "\n" * (lines - title.count("\n")) for title in titles]  # all begin at the same height
    text = (
        f"Cross: the query. Circles: its keys in {', '.join(dict.fromkeys(blocks))}, by the mean attention of all "
        f"heads; {SCALE}. Deformable convolution has no attention: its circles are the loudness of its nine points."
    )
    figure, panels = _panels(chosen[0], titles, text, headed=False)
    for drawn, block in zip(panels, chosen, strict=True):
        places, shares = block.keys_of(block.query_at(xy))
        seen = shares > 0
        _circles(drawn, places[seen], shares[seen] * seen.sum(), _spread(block))
        _cross(drawn, xy)
    figure.set_label(f"What one query of {chosen[0].subject.name} attends to, by kind of attention.")
    return figure


# -------------------------------------------------------------------------------------------- panels


@dataclass(frozen=True)
class Panel:
    """Axes over the picture.

    Attributes:
        points: of print that the network's image takes, the shorter side.
    """

    axis: Axes
    points: float

    def spacing(self, count: int) -> float:
        """Points of print between neighbours if `count` places are spread evenly."""
        return self.points / math.sqrt(max(count, 1))


def _panels(block: BlockView, titles: list[str], text: str, *, headed: bool = True) -> tuple[Figure, list[Panel]]:
    """A figure with a panel for each title, what the network sees of the picture in each, and a note below."""
    subject = block.subject
    left, top, right, bottom = subject.shown()
    ratio = (bottom - top) / (right - left)
    columns = min(len(titles), MOST_COLUMNS)
    columns = math.ceil(len(titles) / math.ceil(len(titles) / columns))
    rows = math.ceil(len(titles) / columns)
    width = min((WIDTH - AXIS - GAP * columns) / max(columns, 2), 3.4 / ratio)
    height = width * ratio
    head = LINE * 2.2 if headed else 0.05
    above = LINE * (1.5 + max(title.count("\n") for title in titles))
    figure = new_figure(head + rows * (above + height + GAP) + BELOW + note_height(text))
    if headed:
        map_size = f"{block.look.map_size[0]}x{block.look.map_size[1]}"
        title = f"{block.name}, {block.look.kind.replace('_', ' ')}, {map_size} queries"
        figure.text(AXIS / WIDTH, 1 - 0.06 / figure.get_figheight(), title, va="top", fontsize=FONT_SIZE + 2)
    picture, panels = _muted(_shrunk(subject.picture.crop((left, top, right, bottom)))), []
    for number, title in enumerate(titles):
        row, column = divmod(number, columns)
        place = (AXIS + column * (width + GAP), head + row * (above + height + GAP) + above)
        axis = panel(figure, *place, width, height)
        smooth = "bilinear" if max(picture.shape[:2]) < SMALL else "none"  # drawings hold it as it is, if it's large
        axis.imshow(picture, extent=(left, right, bottom, top), interpolation=smooth, aspect="auto")
        axis.set(xlim=(left, right), ylim=(bottom, top))
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
        axis.tick_params(labelbottom=number + columns >= len(titles), labelleft=column == 0, length=2, pad=2)
        for label in (*axis.get_xticklabels(), *axis.get_yticklabels()):
            label.set_alpha(MUTED)
        for spine in axis.spines.values():
            spine.set_visible(False)
        axis.set_title(title, loc="left", fontsize=FONT_SIZE, pad=3, linespacing=1.3)
        _veil(axis, subject)
        seen = min(subject.frame.width / (right - left) * width, subject.frame.height / (bottom - top) * height)
        panels.append(Panel(axis, 72 * seen))
    note(figure, text)
    return figure, panels


def _veil(axis: Axes, subject: Subject) -> None:
    """Grey over what the network doesn't see."""
    frame, (wide, high) = subject.frame, subject.picture.size
    left, top, right, bottom = frame.left, frame.top, frame.left + frame.width, frame.top + frame.height
    boxes = ((0, 0, left, high), (right, 0, wide, high), (left, 0, right, top), (left, bottom, right, high))
    for x, y, to_x, to_y in boxes:
        if to_x - x > 0.5 and to_y - y > 0.5:
            axis.fill([x, to_x, to_x, x], [y, y, to_y, to_y], color="#808080", alpha=0.65, lw=0)


def _moves(panel: Panel, starts: np.ndarray, ends: np.ndarray) -> None:
    """Where points started, the way, and where they are."""
    spacing = panel.spacing(len(ends))
    thick = float(np.clip(0.09 * spacing, 0.35, 1.5))
    rim = min(0.6 * thick, 0.5)
    panel.axis.scatter(starts[:, 0], starts[:, 1], s=(3 * thick) ** 2, c=SKY, edgecolors=DARK, linewidths=rim, zorder=3)
    far = np.linalg.norm(ends - starts, axis=-1) > 1e-6
    segments = list(np.stack([starts, ends], 1)[far])
    for colour, wider in ((DARK, 2.2), (MOVED, 0)):
        panel.axis.add_collection(LineCollection(segments, colors=colour, linewidths=thick + wider * rim, zorder=4))
    _dots(panel, ends)


def _dots(panel: Panel, places: np.ndarray) -> None:
    thick = float(np.clip(0.09 * panel.spacing(len(places)), 0.35, 1.5))
    rim = min(0.6 * thick, 0.5)
    panel.axis.scatter(
        places[:, 0], places[:, 1], s=(3.4 * thick) ** 2, c=MOVED, edgecolors=DARK, linewidths=rim, zorder=5
    )


def _spread(block: BlockView) -> int:
    """Of how many places a query's keys would be some, if they were all over the picture."""
    height, width = block.look.map_size
    keys = block.groups * block.look.points.shape[3]
    return keys if block.look.points.shape[2] == 1 else max(keys, height * width)


def _circles(panel: Panel, places: np.ndarray, relative: np.ndarray, count: int) -> None:
    """Circles whose area is in proportion to `relative`, 1 for an even share; the strongest on top.

    Colours end at the strongest key, or at `BRIGHTEST` times an even share if none has as much.

    Args:
        count: places all over the picture that are as close to each other as these.
    """
    order = np.argsort(relative)
    places, relative = places[order], relative[order]
    seen = relative > 0.01
    places, relative = places[seen], relative[seen]
    most = float(relative.max(initial=1e-9))
    even = min(0.42 * panel.spacing(count), LARGEST_CIRCLE / math.sqrt(most))  # across, of an even share
    levels = np.ceil(np.sqrt(relative / most) * SIZES).astype(int)
    for level in np.unique(levels):  # circles of a size are one shape in an SVG, which saves most of it
        these, across = levels == level, even * math.sqrt(most) * level / SIZES
        panel.axis.scatter(
            places[these, 0],
            places[these, 1],
            s=across**2,
            c=MASS(relative[these] / max(most, BRIGHTEST)),
            edgecolors=LIGHT,
            linewidths=min(max(0.08 * across, 0.1), 0.6),
            zorder=4,
        )


def _cross(panel: Panel, xy: tuple[float, float]) -> None:
    panel.axis.plot(*xy, "x", color=LIGHT, ms=9, mew=3.4, zorder=6)
    panel.axis.plot(*xy, "x", color=DARK, ms=8, mew=1.5, zorder=7)


def _heat(panel: Panel, subject: Subject, shares: np.ndarray) -> None:
    """Shares on a map as colours over the picture, from the least to the greatest but for a hundredth at the top."""
    low, high = float(shares.min()), float(np.quantile(shares, 0.99))
    relative = np.clip((shares - low) / max(high - low, 1e-12), 0, 1)
    frame, limits = subject.frame, (panel.axis.get_xlim(), panel.axis.get_ylim())
    extent = (frame.left, frame.left + frame.width, frame.top + frame.height, frame.top)
    panel.axis.imshow(MASS(relative), extent=extent, alpha=0.62, interpolation="none", aspect="auto", zorder=2)
    panel.axis.set(xlim=limits[0], ylim=limits[1])


def _muted(picture: Image.Image) -> np.ndarray:
    """Half-way to its own grey, so that coloured marks stand out."""
    colour = np.asarray(picture, dtype=np.float32) / 255
    grey = colour @ np.array([0.299, 0.587, 0.114], dtype=np.float32)
    return np.clip(0.45 * colour + 0.55 * grey[..., None], 0, 1)


def _shrunk(picture: Image.Image) -> Image.Image:
    small = picture.copy()
    small.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    return small
