"""Variants against another: what the table's rows, the figures and the page say."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from src.reports.results import Results, predictions
from src.statistics.images import Images, compare_images
from src.statistics.paired import Paired, compare
from src.statistics.verdict import MARGIN, Verdict, judge

NO_SEED = Verdict("cannot_tell", "cannot tell: no seed of which both are finished", 1.0, None)


@dataclass(frozen=True)
class Comparison:
    """A variant and the one that it is compared with, over the seeds that both have finished.

    Attributes:
        seeds: those, in the study's order.
        differences: variant minus baseline, in percentage points, by seed.
        paired: what they say; None without a common seed.
        p_holm: the sign-flip p after Holm's correction over the rows compared at once; None without a common seed.
        images: by test image; None where predictions are missing, or weren't asked for.
        verdict: in words.
    """

    variant: str
    baseline: str
    seeds: tuple[int, ...]
    differences: tuple[float, ...]
    paired: Paired | None
    p_holm: float | None
    images: Images | None
    verdict: Verdict


def compare_with_baseline(results: Results, *, margin: float = MARGIN, images: bool = True) -> tuple[Comparison, ...]:
    """All other variants against `results.baseline`, in the order of the rows."""
    others = [(name, results.baseline) for name in results.variants if name != results.baseline]
    return _family(results, others, margin, images)


def compare_steps(results: Results, *, margin: float = MARGIN) -> tuple[Comparison, ...]:
    """Each variant against the one that its experiment names; empty where that is the baseline for all of them."""
    named = [(name, str(results.config(name).get("against"))) for name in results.variants]
    steps = [(name, other) for name, other in named if other in results.table.variants and other != name]
    if all(other == results.baseline for _, other in steps):
        return ()
    return _family(results, steps, margin, images=False)


def compare_all(results: Results, *, margin: float = MARGIN) -> Mapping[str, tuple[Comparison, ...]]:
    """By baseline, for every variant as one; each is a family of its own for Holm's correction.

    Images are compared for the study's own baseline only: for all pairs of a hundred variants they take minutes.
    """
    found = {results.baseline: compare_with_baseline(results, margin=margin)}
    others = [name for name in results.variants if name != results.baseline]
    pairs = [(name, baseline) for baseline in others for name in results.variants if name != baseline]
    seeds_and_paired = _paired(results, pairs)
    for baseline in others:
        family = [pair for pair in pairs if pair[1] == baseline]
        found[baseline] = _judged(results, {pair: seeds_and_paired[pair] for pair in family}, margin, images=False)
    return {name: found[name] for name in results.variants}


Seen = tuple[tuple[int, ...], tuple[float, ...], Paired | None]


def _family(results: Results, pairs: Sequence[tuple[str, str]], margin: float, images: bool) -> tuple[Comparison, ...]:
    return _judged(results, _paired(results, pairs), margin, images)


def _paired(results: Results, pairs: Sequence[tuple[str, str]]) -> dict[tuple[str, str], Seen]:
    """Common seeds, differences and what they say, of each (variant, baseline)."""
    scores = {name: results.scores(name) for name in results.variants}
    table = np.array([[scores[name].get(seed, np.nan) for seed in results.seeds] for name in results.variants])
    row = {name: number for number, name in enumerate(results.variants)}
    differences = np.array([table[row[variant]] - table[row[baseline]] for variant, baseline in pairs])
    if not len(differences):
        return {}
    present = ~np.isnan(differences)
    some = present.any(axis=1)
    said = iter(compare(differences[some]) if some.any() else [])
    found: dict[tuple[str, str], Seen] = {}
    for pair, values, there in zip(pairs, differences, present, strict=True):
        seeds = tuple(seed for seed, known in zip(results.seeds, there, strict=True) if known)
        found[pair] = (seeds, tuple(values[there].tolist()), next(said) if seeds else None)
    return found


def _judged(
    results: Results, family: Mapping[tuple[str, str], Seen], margin: float, images: bool
) -> tuple[Comparison, ...]:
    verdicts = iter(judge([paired for _, _, paired in family.values() if paired is not None], margin=margin))
    found = []
    for (variant, baseline), (seeds, differences, paired) in family.items():
        verdict = NO_SEED if paired is None else next(verdicts)
        seen = _images(results, variant, baseline, seeds) if images and seeds else None
        p_holm = None if paired is None else verdict.p
        found.append(Comparison(variant, baseline, seeds, differences, paired, p_holm, seen, verdict))
    return tuple(found)


def _images(results: Results, variant: str, baseline: str, seeds: Sequence[int]) -> Images | None:
    """None where a run's predictions are missing, or of other images."""
    right: dict[str, list[np.ndarray]] = {variant: [], baseline: []}
    labels = None
    for name in (variant, baseline):
        for seed in seeds:
            saved = predictions(results.finished[name][seed])
            if saved is None or (labels is not None and not np.array_equal(labels, saved[0])):
                return None
            labels = saved[0]
            right[name].append(saved[1] == labels)
    return compare_images(np.array(right[baseline]), np.array(right[variant]))
