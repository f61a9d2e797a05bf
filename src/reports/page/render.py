"""A study's document as one HTML file without references to anything outside of it, and the list of all studies."""

import base64
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

HERE = Path(__file__).parent
SCRIPTS = ("elements.js", "charts.js", "tables.js", "details.js", "page.js")  # in one script, in this order

# JSON may hold all of these in strings, and a browser would end the script at the first "</script>".
_ESCAPES = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}

_pages = Environment(
    loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
)


def render(
    document: Mapping[str, Any], figures: Iterable[tuple[str, str, str, str, str]] = (), *, poll: float | None = None
) -> str:
    """The page.

    Args:
        document: of `src.reports.page.document`.
        figures: name, title, SVG, text in its place for those who can't see it, and a link to its data. The SVG goes
            into the page as it is, so it must be our own.
        poll: seconds after which it asks its server for news; None for a file.
    """
    script = "\n".join((HERE / name).read_text() for name in SCRIPTS)
    return _pages.get_template("page.html.j2").render(
        document=document,
        figures=[
            {"name": name, "title": title, "svg": Markup(svg), "alt": alt, "data": data}
            for name, title, svg, alt, data in figures
        ],
        poll=poll,
        policy=policy(script, connect="'self'" if poll else "'none'"),
        style=Markup((HERE / "style.css").read_text()),
        script=Markup(script),
        data=Markup(embedded(document)),
    )


def render_index(studies: Sequence[Mapping[str, Any]]) -> str:
    """The list of all studies.

    Args:
        studies: for each `name`, `question`, `answer` (None while there is none), `variants` and `seeds` (numbers),
            `finished` and `total` (runs), `data`, `model`, `hardware`, and `report`, the link to its page or None.
    """
    style = (HERE / "style.css").read_text()
    return _pages.get_template("index.html.j2").render(studies=studies, style=Markup(style), policy=policy(""))


def as_json(document: Mapping[str, Any]) -> str:
    return json.dumps(document, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


def embedded(document: Mapping[str, Any]) -> str:
    """JSON that can stand inside of a script element."""
    return as_json(document).translate(_ESCAPES)


def policy(script: str, *, connect: str = "'none'") -> str:
    """What a browser lets the page do: this script and no other, and nothing from elsewhere.

    Figures have their styles inside of their elements, which no hash can name.
    """
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        f"connect-src {connect}; base-uri 'none'; form-action 'none'"
    )
