"""A study's page, `README.md`, and its figure, from what `rows` kept."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from src.looking.figure import course
from src.looking.findings import CLAIMS, Finding, Word, findings, judge_all, observation
from src.looking.quantities import IN_PIXELS, OBJECT, STATISTICS
from src.looking.rows import TRAINED, UNTRAINED, Kept, read
from src.reports.figures.save import alt, save
from src.reports.text import MINUS, Table, listed
from src.statistics.paired import Interval

PAGE, FIGURES, FIGURE = "README.md", "figures", "course"
BASELINE, FIXED = "baseline", "ablate_no_offset"
MARKS = re.compile(r"(<!-- findings: (\w+).*? -->\n).*?(<!-- end of findings -->)", re.DOTALL)

STATES = {
    (BASELINE, TRAINED): "trained",
    (BASELINE, UNTRAINED): "untrained",
    (FIXED, TRAINED): "trained without offsets",
    (FIXED, UNTRAINED): "untrained without offsets",
}

# Of a row of the table of statistics: what it is about, and what that is compared with.
TITLES = {
    "farther": ("distance on the object, px", "off the object"),
    "still": ("half of it, px", "off the object"),
    "points above reference": ("points on the object", "their reference points"),
    "points above shuffled": ("points on the object", "random offsets"),
    "points above other images": ("points on the object", "other images' points"),
    "mass above equal weights": ("attention to the object", "equal weights"),
    "mass above reference": ("attention to the object", "the same weights on reference points"),
    "mass above shuffled": ("attention to the object", "the same weights with random offsets"),
    "mass above other images": ("attention to the object", "other images' points and weights"),
}


def write(folder: Path) -> list[Path]:
    """Writes figure and page; their paths. What stands outside of the page's marks is kept.

    Raises:
        OSError, ValueError: as `rows.read`.
    """
    figure, page = course(read(folder), BASELINE, FIXED), folder / PAGE
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
    figure = course(kept, BASELINE, FIXED)
    if figure is None:
        return ""
    return (
        f'<picture>\n<source media="(prefers-color-scheme: dark)" srcset="{at}/{FIGURE}-dark.svg">\n'
        f'<img src="{at}/{FIGURE}.svg" alt="{alt(figure)}">\n</picture>'
    )


def answer(kept: Kept) -> str:
    """By the rule of `findings` alone, so that nobody's wishes are in it."""
    blocks: dict[str, list[str]] = {}
    for block in blocks_of(kept):
        blocks.setdefault(observation(judge_all(_found(kept, block))), []).append(block)
    seeds = len(kept.about["seeds"][BASELINE])
    said = [f"in {listed(names)} {what}" for what, names in blocks.items()]
    return f"The papers' observation, with {_seeds(seeds)}: {'; '.join(said)}."


def evidence(kept: Kept) -> list[str]:
    """Some sentences for each block."""
    found = []
    for block in blocks_of(kept):
        of, mean = _found(kept, block), _means(kept, BASELINE, block)
        words = judge_all(of)
        anyhow = 100 * (mean["points_other_image"] - mean["reference"])
        name = "points above reference"
        said = [
            f"**{block}**: points that start off the object move {mean['length_off']:.1f} px, "
            f"{mean['length_off'] / mean['length_on']:.2f} times as far as those on it ({_said('farther', words)}; "
            f"{_said('still', words)}). ",
            f"{100 * mean['points']:.1f} % of the points are on the object, beside the reference grid "
            f"{_signed(of[name].mean, name)}: {_signed(anyhow, name)} whatever the image, "
            f"{_against(of, 'points above other images')} by following it ({_said('gather', words)}). ",
            f"{100 * mean['mass']:.1f} % of the attention is on the object, beside equal weights "
            f"{_against(of, 'mass above equal weights')}, beside other images' "
            f"{_against(of, 'mass above other images')} ({_said('attend', words)}){_unmoved(kept, block)}.",
        ]
        found.append("".join(said))
    return found


def _unmoved(kept: Kept, block: str) -> str:
    """The same of attention whose points can't move; empty where none was trained."""
    if (FIXED, TRAINED, block) not in kept.images:
        return ""
    of = findings(kept.images[FIXED, TRAINED, block])
    names = ("mass above equal weights", "mass above other images")
    both = listed([_signed(of[name].mean, name) for name in names])
    return f"; where points can't move, {both} ({_seeds(of[names[0]].seeds)})"


def _seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"


def _said(claim: str, words: Mapping[str, Word]) -> str:
    return f"*{claim}* is {words[claim]}" if words[claim] != "holds" else f"*{claim}* holds"


def _found(kept: Kept, block: str) -> dict[str, Finding]:
    return findings(kept.images[BASELINE, TRAINED, block])


def _against(found: Mapping[str, Finding], name: str) -> str:
    """With the interval over seeds and images."""
    one = found.get(name)
    return "undefined" if one is None else f"{_signed(one.mean, name)} ({_interval(one.over_both, name)})"


def statistics(kept: Kept) -> Table:
    """A row a block and statistic; intervals and verdicts of the trained baseline, means of the controls."""
    header = ["block", "", "above", "trained", "95 %, other seeds", "95 %, other seeds and images", "claim"]
    controls = [
        state for state in STATES if state != (BASELINE, TRAINED) and any(key[:2] == state for key in kept.images)
    ]
    rows = []
    for block in blocks_of(kept):
        found = _found(kept, block)
        words = judge_all(found)
        others = {s: findings(kept.images[*s, block]) for s in controls if (*s, block) in kept.images}
        for name in STATISTICS:
            if name not in found:
                continue
            one = found[name]
            cells = [block, *TITLES[name], _signed(one.mean, name), _interval(one.over_seeds, name)]
            cells += [_interval(one.over_both, name), _claims(name, words)]
            rows.append(
                cells + [_signed(others[s][name].mean, name) if name in others.get(s, {}) else "" for s in controls]
            )
    return Table([*header, *(STATES[state] for state in controls)], rows)


def _claims(name: str, words: Mapping[str, Word]) -> str:
    return ", ".join(f"{claim}: {words[claim]}" for claim, parts in CLAIMS.items() if name in parts)


def levels(kept: Kept) -> Table:
    """What the statistics are made of: means over images, then over seeds with their standard deviation."""
    header = ["block", "network", "seeds", "reference points on the object, %", "points, %", "random offsets, %"]
    header += ["other images', %", "attention, %", "other images', %", "distance on it, px", "off it, px"]
    measures = ("reference", "points", "points_shuffled", "points_other_image", "mass", "mass_other_image")
    rows = []
    for block in blocks_of(kept):
        for (name, when), title in STATES.items():
            values = _per_seed(kept, name, when, block)
            if not values:
                continue
            cells = [_spread(100 * values[m], 1) for m in measures]
            rows.append([block, title, str(len(values["points"])), *cells])
            rows[-1] += [_spread(values[m], 2) for m in ("length_on", "length_off")]
    return Table(header, rows)


def groups(kept: Kept) -> Table:
    """The groups of each block of the trained baseline."""
    header = ["block", "group", "distance on the object, px", "off it, px", "points above other images', %"]
    header += ["attention above equal weights, %"]
    rows = []
    for block in blocks_of(kept):
        for group in sorted({int(row["group"]) for row in kept.rows if row["block"] == block}):
            of = _per_seed(kept, BASELINE, TRAINED, block, group=group)
            rows.append([block, str(group), *(_spread(of[m], 2) for m in ("length_on", "length_off"))])
            rows[-1].append(_spread(100 * (of["points"] - of["points_other_image"]), 1))
            rows[-1].append(_spread(100 * (of["mass"] - of["points"]), 1))
    return Table(header, rows)


def regions(kept: Kept) -> Table:
    """What else is on the images, for the trained baseline."""
    header = ["block", "region", "reference points on it, %", "points above reference, %", "above other images', %"]
    header += ["attention above equal weights, %", "above other images', %"]
    rows = []
    for block in blocks_of(kept):
        for region in dict.fromkeys(row["region"] for row in kept.rows):
            of = _per_seed(kept, BASELINE, TRAINED, block, region=region)
            shares = [of["reference"], of["points"] - of["reference"], of["points"] - of["points_other_image"]]
            shares += [of["mass"] - of["points"], of["mass"] - of["mass_other_image"]]
            rows.append([block, region, *(_spread(100 * share, 1) for share in shares)])
    return Table(header, rows)


def limits(kept: Kept) -> list[str]:
    about, trained = kept.about, kept.about["test/acc1"]
    accuracy = listed([f"{name} {100 * np.mean(values):.1f} %" for name, values in trained.items()])
    found = [
        f"It is about {about['model']} at {about['image_size']} pixels on {about['images']['data']} after "
        f"{about['epochs']} epochs ({accuracy} of test images right): other networks, data and schedules may look "
        f"elsewhere.",
        "A key reads features that have seen more of the image than the pixel it lies in, so that a point beside an "
        "object can read it; where keys lie, and not what they see, is counted.",
        "Attention that goes to an object needn't be what an answer depends on.",
    ]
    partly = [block for block in blocks_of(kept) if _partly(kept, block)]
    if partly:
        having = listed([f"{_found(kept, block)['farther'].images} in {block}" for block in partly])
        found.append(
            f"Distances on and off the object are compared on images that have reference points on both: of "
            f"{about['images']['count']}, {having}."
        )
    return found


def _partly(kept: Kept, block: str) -> bool:
    found = _found(kept, block)
    return "farther" in found and found["farther"].images < kept.about["images"]["count"]


def recorded(kept: Kept) -> str:
    images, machines = kept.about["images"], kept.about["trained on"]
    of = f"{images['split']} images" if images["split"] else "images"
    on = "; ".join(f"{m['cpu']}, {m['threads']} thread(s), torch {m['torch']}" for m in machines)
    return f"Measured on the first {images['count']} {of} of {images['data']}; trained on {on}."


def blocks_of(kept: Kept) -> list[str]:
    return list(dict.fromkeys(row["block"] for row in kept.rows))


def _per_seed(
    kept: Kept, name: str, when: str, block: str, *, region: str = OBJECT, group: int | None = None
) -> dict[str, np.ndarray]:
    """Measures by name, each (seeds,), means over groups unless one is asked for; empty where there are no runs."""
    wanted = [row for row in kept.rows if (row["name"], row["block"], row["region"]) == (name, block, region)]
    wanted = [row for row in wanted if (row["chosen"] == 1 if when == TRAINED else row["epoch"] == 0)]
    by_seed: dict[float, list[Mapping[str, Any]]] = {}
    for row in wanted:
        if group is None or row["group"] == group:
            by_seed.setdefault(row["seed"], []).append(row)
    measures = [key for key in (wanted[0] if wanted else {}) if isinstance(wanted[0][key], float)]
    return {m: np.array([np.mean([row[m] for row in rows]) for rows in by_seed.values()]) for m in measures}


def _means(kept: Kept, name: str, block: str) -> dict[str, float]:
    return {m: float(values.mean()) for m, values in _per_seed(kept, name, TRAINED, block).items()}


def _spread(values: np.ndarray, digits: int) -> str:
    """Mean, and the standard deviation over seeds."""
    if np.isnan(values).any():
        return ""
    mean = _plain(float(values.mean()), digits)
    return mean if len(values) < 2 else f"{mean} ± {values.std(ddof=1):.{digits}f}"


def _plain(value: float, digits: int) -> str:
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", MINUS)


def _signed(value: float, name: str) -> str:
    digits = 2 if name in IN_PIXELS else 1
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}".replace("-", MINUS) if rounded else f"{0:.{digits}f}"


def _interval(bounds: Interval | None, name: str) -> str:
    return "" if bounds is None else f"{_signed(bounds[0], name)} to {_signed(bounds[1], name)}"
