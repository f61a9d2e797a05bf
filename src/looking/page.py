"""A study's page, `README.md`, and its figure, from what `rows` kept."""

import re
from pathlib import Path

from src.looking.answer import answer, evidence, limits, recorded
from src.looking.figure import course
from src.looking.rows import Kept, read
from src.looking.tables import groups, levels, regions, statistics
from src.reports.figures.save import alt, save

PAGE, FIGURES, FIGURE = "README.md", "figures", "course"
MARKS = re.compile(r"(<!-- findings: (\w+).*? -->\n).*?(<!-- end of findings -->)", re.DOTALL)


def write(folder: Path) -> list[Path]:
    """Writes figure and page; their paths. What stands outside of the page's marks is kept.

    Raises:
        OSError, ValueError: as `rows.read`.
    """
    figure, page = course(read(folder)), folder / PAGE
    paths = [] if figure is None else save(figure, folder / FIGURES, FIGURE)
    if not page.exists():
        name = folder.resolve().name
        marks = f"<!-- findings: {name}, by python -m src.where_it_looks report -->\n<!-- end of findings -->\n"
        page.write_text(f"# {name}\n\n{marks}")
    page.write_text(renewed(page.read_text(), folder))
    return [*paths, page]


def renewed(text: str, folder: Path) -> str:
    """The page's text with what is found between its marks."""
    return MARKS.sub(lambda match: match[1] + whole(read(folder)) + match[3], text)


def whole(kept: Kept) -> str:
    """All that a study's own page says of its rows."""
    parts = [
        f"**Answer.** {answer(kept)}",
        "\n".join(f"- {sentence}" for sentence in evidence(kept)),
        "Shares are in percent, differences in percentage points, with the 95 % interval over seeds and images.",
        _picture(kept, FIGURES),
        "What is compared, as trained, with both intervals, what is said of it, and the same of the controls:",
        statistics(kept).markdown(),
        "What that is made of: means, and standard deviations over seeds.",
        levels(kept).markdown(),
        "By offset group, as trained. Groups begin alike, and a number means nothing from one seed to another.",
        groups(kept).markdown(),
        "By region, as trained: `box` is round the object, `fragments` are ink that is no part of it.",
        regions(kept).markdown(),
        "**What it can't tell.**\n\n" + "\n".join(f"- {sentence}" for sentence in limits(kept)),
        recorded(kept),
    ]
    return "\n\n".join(part for part in parts if part) + "\n"


def short(kept: Kept, at: str) -> str:
    """For the project's page, from which the study's folder is `at`."""
    sentences = "\n".join(f"- {sentence}" for sentence in evidence(kept))
    parts = [f"**{answer(kept)}**", sentences, _picture(kept, f"{at}/{FIGURES}")]
    return "\n\n".join(part for part in parts if part)


def _picture(kept: Kept, at: str) -> str:
    """The figure for light and dark pages; empty where there is none."""
    figure = course(kept)
    if figure is None:
        return ""
    return (
        f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="{at}/{FIGURE}-dark.svg">\n'
        f'<img src="{at}/{FIGURE}.svg" alt="{alt(figure)}">\n</picture>'
    )
