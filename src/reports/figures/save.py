"""Figures as files and as part of a page, the same bytes for the same figure.

A figure is drawn once, with two colours that stand for others: the ink, and the paper behind it. Each theme replaces
them. Letters are paths: as text they would be set in whatever font the reader's machine has, and no longer fit. What
they say is in the `aria-label`.
"""

import copy
import hashlib
import io
import re
from collections.abc import Mapping
from pathlib import Path
from xml.etree import ElementTree

import matplotlib
from matplotlib.figure import Figure

from src.reports.figures.theme import INK

SVG, XLINK = "http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink"
PAPER = "#fefefd"  # stands for the paper, as INK for the ink
DPI = 200  # of print

LIGHT = {INK: INK, PAPER: "#ffffff"}
DARK = {INK: "#e6e6e6", PAPER: "#16181b"}
PAGE = {INK: "currentColor"}

_NOTHING = ("Creator", "Date", "Format", "Type")  # what matplotlib says of itself and the time


def save(figure: Figure, folder: Path, name: str) -> list[Path]:
    """Writes `name.svg`, `name-dark.svg` and `name.png`, the light one for print; their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    svg = _svg(figure, PAPER)
    files = {f"{name}.svg": _file(svg, LIGHT), f"{name}-dark.svg": _file(svg, DARK), f"{name}.png": _png(figure)}
    for file, content in files.items():
        (folder / file).write_bytes(content)
    return [folder / file for file in files]


def inline(figure: Figure) -> str:
    """The SVG for a page of HTML: its text has the colour of the page's, and its background is the page's.

    No two figures share an id, and no style sheet is in it, so that nothing reaches other parts of the page and a
    Content-Security-Policy may forbid styles. It has its natural size in points.
    """
    svg = _svg(figure, "none")
    for element in svg.iter():
        element.tag = element.tag.removeprefix(f"{{{SVG}}}")  # HTML knows SVG without namespaces
        if f"{{{XLINK}}}href" in element.attrib:
            element.set("href", element.attrib.pop(f"{{{XLINK}}}href"))
    return ElementTree.tostring(_themed(svg, PAGE), encoding="unicode")


def alt(figure: Figure) -> str:
    """What a figure of `draw` shows, in a sentence."""
    return str(figure.get_label())


def _file(svg: ElementTree.Element, theme: Mapping[str, str]) -> bytes:
    ElementTree.register_namespace("", SVG)
    ElementTree.register_namespace("xlink", XLINK)
    return ElementTree.tostring(_themed(svg, theme), encoding="utf-8", xml_declaration=True) + b"\n"


def _png(figure: Figure) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, facecolor="white", metadata={"Software": None})
    return buffer.getvalue()


def _svg(figure: Figure, paper: str) -> ElementTree.Element:
    """The drawing with the two colours that themes replace."""
    buffer = io.BytesIO()
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "datlab", "svg.image_inline": True}):
        figure.savefig(buffer, format="svg", facecolor=paper, metadata=dict.fromkeys(_NOTHING))
    svg = ElementTree.fromstring(buffer.getvalue())  # leaves out the comments, which repeat the names
    _without_styles(svg)
    _with_own_ids(svg, f"f{hashlib.sha256(buffer.getvalue()).hexdigest()[:8]}-")
    svg.set("role", "img")
    svg.set("aria-label", alt(figure))
    return svg


def _without_styles(svg: ElementTree.Element) -> None:
    """Declarations become attributes, which mean the same and stay within the drawing."""
    for parent in svg.iter():
        for sheet in parent.findall(f"{{{SVG}}}style"):
            parent.remove(sheet)
        for declaration in filter(None, parent.attrib.pop("style", "").split(";")):
            key, value = declaration.split(":", 1)
            parent.set(key.strip(), value.strip())
    svg.set("stroke-linejoin", "round")  # what the sheet said of all
    svg.set("stroke-linecap", "butt")


def _with_own_ids(svg: ElementTree.Element, prefix: str) -> None:
    """Ids that something refers to, with a prefix; none of the others."""
    texts = [(element, key, value) for element in svg.iter() for key, value in element.attrib.items()]
    refers = re.compile(r"(?<=url\(#)[^)]+(?=\))|(?<=^#)[^#]+$")
    used = {found for _, key, value in texts if _refers(key) for found in refers.findall(value)}
    for element, key, value in texts:
        if key == "id":
            del element.attrib[key]
            if value in used:
                element.set(key, prefix + value)
        elif _refers(key):
            element.set(key, refers.sub(lambda found: prefix + found[0], value))


def _refers(key: str) -> bool:
    return key in ("href", f"{{{XLINK}}}href", "clip-path", "mask", "filter")


def _themed(svg: ElementTree.Element, theme: Mapping[str, str]) -> ElementTree.Element:
    themed = copy.deepcopy(svg)
    for element in themed.iter():
        for key in ("fill", "stroke"):
            if element.get(key) in theme:
                element.set(key, theme[element.attrib[key]])
    return themed
