"""A picture's page: one HTML file without references to anything outside of it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from src.reports.page import render as reports
from src.runs.record import write_atomically
from src.visualization.page.document import document
from src.visualization.view import View

HERE = Path(__file__).parent

_pages = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def write_page(view: View, names: Sequence[str], path: Path, *, first: tuple[float, float] | None = None) -> Path:
    """Writes the page of some blocks; `first` is the query that is chosen at first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, render(document(view, names, first=first)), durable=False)
    return path


def render(found: Mapping[str, Any]) -> str:
    """The page of a document."""
    script = (reports.HERE / "elements.js").read_text() + "\n" + (HERE / "looks.js").read_text()
    style = (reports.HERE / "style.css").read_text() + (HERE / "looks.css").read_text()
    return _pages.get_template("looks.html.j2").render(
        document=found,
        policy=reports.policy(script),
        style=Markup(style),
        script=Markup(script),
        data=Markup(reports.embedded(found)),
    )
