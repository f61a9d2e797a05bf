"""A study's numbers in tables."""

from collections.abc import Mapping

from src.looking.findings import CLAIMS, Word, findings, judge_all
from src.looking.rows import TRAINED, UNTRAINED, Kept
from src.looking.text import interval, signed, spread
from src.reports.text import Table

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


def states(kept: Kept) -> dict[tuple[str, str], str]:
    """What networks are called, by variant and whether they are trained; those that claims are about are first."""
    found = {(kept.subject, TRAINED): "trained", (kept.subject, UNTRAINED): "untrained"}
    for name in kept.variants:
        if name != kept.subject:
            found |= {(name, TRAINED): name, (name, UNTRAINED): f"{name}, untrained"}
    return found


def statistics(kept: Kept) -> Table:
    """A row a block and statistic; intervals and verdicts of what claims are about, means of the other networks."""
    called = states(kept)
    subject, *controls = called
    rows = []
    for block in kept.blocks:
        found = findings(kept.images[*subject, block])
        words = judge_all(found)
        others = [findings(kept.images[*state, block]) for state in controls]
        for name, one in found.items():
            cells = [block, *TITLES[name], signed(one.mean, name), interval(one.over_seeds, name)]
            cells += [interval(one.over_both, name), _claims(name, words)]
            rows.append(cells + [signed(other[name].mean, name) if name in other else "" for other in others])
    header = ["block", "", "above", called[subject], "95 %, other seeds", "95 %, other seeds and images", "claim"]
    return Table(header + [called[state] for state in controls], rows)


def _claims(name: str, words: Mapping[str, Word]) -> str:
    return ", ".join(f"{claim}: {words[claim]}" for claim, parts in CLAIMS.items() if name in parts)


def levels(kept: Kept) -> Table:
    """What the statistics are made of: means over images, then over seeds with their standard deviation."""
    header = ["block", "network", "seeds", "reference points on the object, %", "points, %", "random offsets, %"]
    header += ["other images', %", "attention, %", "other images', %", "distance on it, px", "off it, px"]
    measures = ("reference", "points", "points_shuffled", "points_other_image", "mass", "mass_other_image")
    rows = []
    for block in kept.blocks:
        for (name, when), title in states(kept).items():
            values = kept.per_seed(name, when, block)
            if not values:
                continue
            cells = [spread(100 * values[m], 1) for m in measures]
            rows.append([block, title, str(len(values["points"])), *cells])
            rows[-1] += [spread(values[m], 2) for m in ("length_on", "length_off")]
    return Table(header, rows)


def groups(kept: Kept) -> Table:
    """The groups of each block of the trained baseline."""
    header = ["block", "group", "distance on the object, px", "off it, px", "points above other images', %"]
    header += ["attention above equal weights, %"]
    rows = []
    for block in kept.blocks:
        for group in sorted({int(row["group"]) for row in kept.rows if row["block"] == block}):
            of = kept.per_seed(kept.subject, TRAINED, block, group=group)
            rows.append([block, str(group), *(spread(of[m], 2) for m in ("length_on", "length_off"))])
            rows[-1].append(spread(100 * (of["points"] - of["points_other_image"]), 1))
            rows[-1].append(spread(100 * (of["mass"] - of["points"]), 1))
    return Table(header, rows)


def regions(kept: Kept) -> Table:
    """What else is on the images, for the trained baseline."""
    header = ["block", "region", "reference points on it, %", "points above reference, %", "above other images', %"]
    header += ["attention above equal weights, %", "above other images', %"]
    rows = []
    for block in kept.blocks:
        for region in kept.regions:
            of = kept.per_seed(kept.subject, TRAINED, block, region=region)
            shares = [of["reference"], of["points"] - of["reference"], of["points"] - of["points_other_image"]]
            shares += [of["mass"] - of["points"], of["mass"] - of["mass_other_image"]]
            rows.append([block, region, *(spread(100 * share, 1) for share in shares)])
    return Table(header, rows)
