"""Effective receptive fields: which pixels of the image an output pixel depends on (Luo et al. 2016).

For the middle pixel of the map that a stage ends with, the gradient of a sum of its channels with random signs is taken
with respect to the image; the field is the absolute gradient, summed over the image's channels, divided by its total
and averaged over images and draws of signs. (A plain sum of channels would cancel behind a norm, and favour channels
that agree.)

Radii are in pixels of the network's image, about the place of that output pixel: r50 is the radius of the disc that
holds half of the field, r95 that of the disc that holds 95 % of it. A field that doesn't depend on the distance at all
would have r50 of about 0.4 of the image's side.
"""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor, nn

from src.models.dat import DAT
from src.models.looking import CannotLook, eager, recording
from src.randomness import generator_from
from src.reports.figures.labels import note, note_height, wrapped
from src.reports.figures.theme import FONT_SIZE, LINE, WIDTH, house_style, new_figure, panel

SHARES = (0.5, 0.95)
DRAWS = 2  # of signs for each image


@dataclass(frozen=True)
class Field:
    """The effective receptive field of a stage.

    Attributes:
        title: of the network.
        stage: by name; kinds are those of its blocks.
        field: (S, S), sums to 1.
        centre: (y, x) of the output pixel's middle, in pixels of the image.
        radii: (images, 2), r50 and r95 of each image.
    """

    title: str
    stage: str
    kinds: tuple[str, ...]
    field: np.ndarray
    centre: tuple[float, float]
    radii: np.ndarray

    def __str__(self) -> str:
        r50, r95 = np.median(self.radii, axis=0)
        return f"{self.title}, stage {self.stage}: half within {r50:.1f} pixels, 95 % within {r95:.1f}"


def measure(net: nn.Module, images: Sequence[Tensor], *, title: str) -> list[Field]:
    """Fields of every stage, averaged over images (3, S, S); the network stays in the mode it was in.

    Raises:
        CannotLook: it isn't of `src.models.dat`.
        ValueError: there are no images.
    """
    if not isinstance(net, DAT):
        raise CannotLook(f"{type(net).__name__} has no stages of ours, whose fields could be measured")
    if not images:
        raise ValueError("effective receptive fields are averages over images, and there are none")
    training, names = net.training, list(net.stages)
    fields: dict[str, list[np.ndarray]] = {name: [] for name in names}
    centres: dict[str, tuple[float, float]] = {}
    try:
        with eager(net), torch.enable_grad():
            net.eval()
            with torch.no_grad(), recording(net, weights=False) as looks:
                net(images[0][None].to(next(net.parameters()).device))
            for number, image in enumerate(images):
                found = _of_image(net, image, number)
                for name, (field, centre) in zip(names, found, strict=True):
                    fields[name].append(field)
                    centres[name] = centre
    finally:
        net.train(training)
    kinds = [tuple(look.kind for at, (look,) in looks.items() if at.partition(".")[0] == name) for name in names]
    return [
        Field(
            title,
            name,
            of,
            np.mean(fields[name], axis=0),
            centres[name],
            np.array([radii(field, centres[name]) for field in fields[name]]),
        )
        for name, of in zip(names, kinds, strict=True)
    ]


def _of_image(net: DAT, image: Tensor, number: int) -> Iterator[tuple[np.ndarray, tuple[float, float]]]:
    """Field (S, S) and centre of every stage."""
    device = next(net.parameters()).device
    x = image[None].to(device).requires_grad_()
    maps = net.stage_maps(x)
    for at, (stage, reached) in enumerate(zip(net.stages, maps, strict=True)):
        middle = [n // 2 for n in reached.shape[2:]]
        reduction = net.feature_info[at]["reduction"]
        total = np.zeros(image.shape[1:])
        for draw in range(DRAWS):
            generator = generator_from("receptive field", stage, number, draw)
            signs = torch.randint(2, (reached.shape[1],), generator=generator).to(reached) * 2 - 1
            output = (reached[0, :, middle[0], middle[1]] * signs).sum()
            (gradient,) = torch.autograd.grad(output, x, retain_graph=True)
            field = gradient[0].abs().sum(0).double().cpu().numpy()
            total += field / max(field.sum(), 1e-300)
        yield total / DRAWS, ((middle[0] + 0.5) * reduction, (middle[1] + 0.5) * reduction)


def radii(field: np.ndarray, centre: tuple[float, float]) -> list[float]:
    """Of the discs about `centre`, (y, x), that hold each of `SHARES` of the field."""
    rows, columns = np.indices(field.shape) + 0.5  # middles of the pixels
    far = np.hypot(rows - centre[0], columns - centre[1]).reshape(-1)
    order = np.argsort(far, kind="stable")
    held = np.cumsum(field.reshape(-1)[order])
    return [float(far[order][min(int(np.searchsorted(held, share * held[-1])), len(far) - 1)]) for share in SHARES]


COLUMNS = ("network", "stage", "attention", "image_size", "images", "r50_px", "r50_iqr_px", "r95_px", "r95_iqr_px")


def write_rows(networks: Sequence[Sequence[Field]], path: Path) -> None:
    """A row for each network and stage: medians over images, and their interquartile ranges."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(COLUMNS)
        for found in (field for fields in networks for field in fields):
            low, middle, high = np.quantile(found.radii, [0.25, 0.5, 0.75], axis=0)
            spread = high - low
            values = [f"{value:.2f}" for pair in zip(middle, spread, strict=True) for value in pair]
            row = [found.title, found.stage, " ".join(found.kinds), found.field.shape[0], len(found.radii), *values]
            writer.writerow(row)


@house_style
def figure(networks: Sequence[Sequence[Field]]) -> Figure:
    """A row for each network, a panel for each stage: the field, and the discs that hold half and 95 % of it."""
    columns, gap, left = max(map(len, networks)), 0.1, 1.25
    width = min((WIDTH - left) / columns - gap, 1.5)
    above = 2.4 * LINE
    text = (
        "Brightness: the absolute gradient of the middle output pixel of a stage (Luo et al. 2016), averaged over "
        f"{len(networks[0][0].radii)} images, to the power of one half. Circles: the discs that hold half and 95 % of "
        "it; their radii, medians over images, are in pixels of the network's image."
    )
    drawn = new_figure(len(networks) * (width + above + gap) + note_height(text))
    for row, fields in enumerate(networks):
        top = row * (width + above + gap) + above
        middle = 1 - (top + width / 2) / drawn.get_figheight()
        drawn.text(0.05 / WIDTH, middle, wrapped(fields[0].title, left - 0.15), va="center", linespacing=1.3)
        for column, found in enumerate(fields):
            axis = panel(drawn, left + column * (width + gap), top, width, width)
            shown = np.sqrt(found.field / found.field.max())
            high, wide = found.field.shape
            axis.imshow(shown, cmap="magma", extent=(0, wide, high, 0), interpolation="none", aspect="auto")
            r50, r95 = np.median(found.radii, axis=0)
            for radius, dashes in ((r50, "-"), (r95, (0, (4, 2)))):
                turn = np.linspace(0, 2 * np.pi, 200)
                place = found.centre[1] + radius * np.cos(turn), found.centre[0] + radius * np.sin(turn)
                axis.plot(*place, color="#ffffff", lw=1.0, ls=dashes)
            axis.set(xlim=(0, wide), ylim=(high, 0), xticks=[], yticks=[])
            for spine in axis.spines.values():
                spine.set_visible(False)
            axis.set_title(f"{found.stage}\n{r50:.0f} and {r95:.0f} px", fontsize=FONT_SIZE, loc="left", pad=2)
    note(drawn, text)
    drawn.set_label("Effective receptive fields by stage, " + "; ".join(str(f) for fields in networks for f in fields))
    return drawn
