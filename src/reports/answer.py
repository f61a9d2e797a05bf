"""The study's question answered in a sentence, and what the answer can't tell."""

from collections.abc import Sequence
from statistics import mean

from src.reports.comparison import Comparison
from src.reports.results import Results
from src.reports.text import listed, probability, signed
from src.statistics.agreement import Agreement
from src.studies.power import ALPHA, seeds_needed, smallest_p

NEAR_CHANCE = 1.5  # times the accuracy of guessing


def answer(results: Results, comparisons: Sequence[Comparison]) -> str:
    """By the verdicts alone, so that nobody's wishes are in it."""
    compared = [c for c in comparisons if c.paired is not None]
    if not compared:
        return f"Nothing can be said yet: no row shares a finished seed with {results.baseline}."
    seeds = sorted({len(c.seeds) for c in compared})
    counted = f"{seeds[0]}" if len(seeds) == 1 else f"{seeds[0]} to {seeds[-1]}"
    parts = []
    for word in ("better", "worse"):
        of = [c for c in compared if c.verdict.word == word]
        if of:
            are = "is" if len(of) == 1 else "are"
            said = [f"{c.variant} ({signed(c.paired.mean)} points)" for c in of if c.paired]
            parts.append(f"{listed(said)} {are} {word} than {results.baseline}")
    same = [c for c in compared if c.verdict.word == "no_difference"]
    if same:
        largest = max(c.verdict.within or 0.0 for c in same)
        differ = "differs" if len(same) == 1 else "differ"
        parts.append(
            f"{listed([c.variant for c in same])} {differ} from {results.baseline} by no more than {largest} points"
        )
    unknown = [c.variant for c in compared if c.verdict.word == "cannot_tell"]
    if len(unknown) == len(compared):
        parts.append(f"no row can be told from {results.baseline}")
    elif unknown:
        parts.append(f"{listed(unknown)} can't be told from {results.baseline}")
    return f"With {counted} seed{'' if counted == '1' else 's'}, {'; '.join(parts)}."


def missing(results: Results) -> str:
    """What an incomplete study lacks; empty for a complete one."""
    if not results.missing:
        return ""
    by_status: dict[str, list[str]] = {}
    for state in results.missing:
        by_status.setdefault(state.status, []).append(str(state.job))
    said = [f"{len(jobs)} {status} ({_some(jobs)})" for status, jobs in by_status.items()]
    total = len(results.states)
    return f"Incomplete: {total - len(results.missing)} of {total} runs are finished; {', '.join(said)}."


def _some(jobs: Sequence[str]) -> str:
    return ", ".join(jobs[:4]) + (", ..." if len(jobs) > 4 else "")


def order(agreement: Agreement) -> str:
    """Whether our order of rows is the published one; empty where too few rows have published figures."""
    if agreement.tau is None:
        return ""
    other = (
        f", 95 % over other seeds {agreement.interval[0]:.2f} to {agreement.interval[1]:.2f}"
        if agreement.interval
        else ""
    )
    said = f"Kendall's tau between our order of the {agreement.rows} rows and the published one is {agreement.tau:.2f}"
    p = f"p = {probability(agreement.p)} for a chance agreement" + ("" if agreement.exact else ", by approximation")
    return f"{said} ({p}{other})."


def limits(results: Results, comparisons: Sequence[Comparison]) -> list[str]:
    """What the study can't tell, a sentence each."""
    found = []
    compared = [c for c in comparisons if c.paired is not None]
    if compared:
        fewest = min(len(c.seeds) for c in compared)
        reach, needed = smallest_p(fewest, len(compared)), seeds_needed(ALPHA, len(compared))
        if reach > ALPHA:
            found.append(
                f"With {fewest} seeds and {len(compared)} comparisons no p below {reach:.2g} can come out, so that "
                f"nothing can be called better or worse; {needed} seeds could."
            )
        widest = max((c.paired.detectable or 0.0 for c in compared if c.paired), default=0.0)
        if widest:
            found.append(
                f"Differences below some {widest:.1f} points may be missed: the widest row finds none smaller."
            )
    guessed = [name for name in results.variants if _near_chance(results, name)]
    if guessed:
        are = "is" if len(guessed) == 1 else "are"
        found.append(
            f"{listed(guessed)} {are} near the accuracy of guessing: in this schedule the network didn't begin to "
            f"learn, which says little about what it could reach."
        )
    cfg = results.config(results.baseline)
    found.append(
        f"It is about {cfg['model']['name']} on {cfg['data']['name']} after {cfg['recipe']['epochs']} epochs: other "
        f"networks, data and schedules may give another order."
    )
    return found


def _near_chance(results: Results, name: str) -> bool:
    scores = list(results.scores(name).values())
    return bool(scores) and mean(scores) <= NEAR_CHANCE * 100 / results.config(name)["data"]["num_classes"]


def details(comparisons: Sequence[Comparison]) -> list[str]:
    """A sentence for each row."""
    return [f"{c.variant}: {c.verdict.text}." for c in comparisons]
