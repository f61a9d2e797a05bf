"""A run's points on some images as one small picture, drawn in a few milliseconds.

matplotlib, which draws the figures of reports, would take as long as a tenth of a short epoch.
"""

import itertools

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from src.reports.figures.theme import BLUE, COLOURS
from src.reports.points import Block, Points

CELL, GAP, TITLE = 144, 6, 18  # pixels of the picture
FINE = 2  # times as many while drawing, for smooth lines
PAPER, INK = "#ffffff", "#1a1b1c"


def picture(points: Points) -> Image.Image:
    """A row an image, a column a block: reference points (blue), and a line to where each group's keys are read.

    Groups have the other colours of figures in turn. What lies off the image is drawn at its border.
    """
    count, names = len(points.images), list(points.blocks)
    width, height = len(names) * (CELL + GAP) - GAP, TITLE + count * (CELL + GAP) - GAP
    sheet = Image.new("RGB", (width, height), PAPER)
    text, font = ImageDraw.Draw(sheet), ImageFont.load_default(12)
    for column, name in enumerate(names):
        left = column * (CELL + GAP)
        text.text((left + CELL / 2, TITLE / 2), name, fill=INK, font=font, anchor="mm")
        for row in range(count):
            cell = _cell(points.images[row], points.blocks[name], row)
            sheet.paste(cell, (left, TITLE + row * (CELL + GAP)))
    return sheet


def _cell(image: np.ndarray, block: Block, number: int) -> Image.Image:
    side = CELL * FINE
    shown = Image.fromarray(image).resize((side, side), Image.Resampling.BICUBIC)
    shown = Image.blend(shown, Image.new("RGB", shown.size, "#808080"), 0.35)  # so that lines show on black and white
    draw = ImageDraw.Draw(shown)
    scale = side / image.shape[0]
    start = (block.reference + 0.5) * scale
    colours = itertools.cycle(colour for colour in COLOURS if colour != BLUE)
    for colour, group in zip(colours, block.points[number].astype(float), strict=False):
        for (x0, y0), (x1, y1) in zip(start, np.clip((group + 0.5) * scale, 0, side - 1), strict=True):
            draw.line((x0, y0, x1, y1), fill=colour, width=FINE)
            _dot(draw, x1, y1, 2 * FINE, colour)
    for x, y in start:
        _dot(draw, x, y, 2 * FINE, BLUE)
    return shown.resize((CELL, CELL), Image.Resampling.BOX)


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, radius: float, colour: str) -> None:
    draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
