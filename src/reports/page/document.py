"""All that a page knows of a study, as plain data: the same runs give the same bytes."""

from collections.abc import Mapping, Sequence
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any

from src.reports.page.curves import compact
from src.reports.page.local import without_places
from src.reports.page.pictures import Pictures
from src.reports.page.runs import rounded, run, settings
from src.reports.page.shared import Shared
from src.reports.results import SCORE, Results
from src.runs.record import plain
from src.studies.summary import summary

if TYPE_CHECKING:  # the statistics are done already, so a page needn't load their libraries
    from src.reports.comparison import Comparison
    from src.statistics.images import Images

LOG_CHARACTERS = 2_000_000  # of all logs in a page
LONGEST_LOG = 8_000


def document(
    results: Results, comparisons: Mapping[str, Sequence["Comparison"]], *, texts: Mapping[str, str | Sequence[str]]
) -> dict[str, Any]:
    """The data behind the page of a study.

    Args:
        comparisons: the other variants against each possible baseline, by its name.
        texts: `answer`; `protocol` and `limits`, a list of paragraphs each. What isn't there isn't shown.
    """
    table = results.table
    status = summary(table, results.states)
    clean = without_places(table.runs)
    configs = {name: settings(variant.config) for name, variant in table.variants.items()}
    environments, pictures, curves = Shared(), Pictures(), compact(results.states)
    log_characters = min(LONGEST_LOG, LOG_CHARACTERS // max(1, len(results.states)))
    runs = []
    for state, columns in zip(results.states, curves.pop("runs"), strict=True):
        told = run(state, table, environments, configs[state.job.name], log_characters)
        runs.append({**clean(told), "curves": columns, "points": pictures.of(state)})
    return {
        "study": table.study,
        "question": table.question,
        "asked": clean(list(table.asked)),
        "texts": clean(plain(texts)),
        "score": SCORE,
        "baseline": results.baseline,
        "seeds": list(results.seeds),
        "progress": {key: rounded(status[key]) for key in ("counts", "jobs_per_hour", "seconds_left")},
        "variants": [_variant(results, name) | {"config": clean(configs[name])} for name in results.variants],
        "comparisons": {baseline: [_comparison(each) for each in against] for baseline, against in comparisons.items()},
        "runs": runs,
        "environments": clean(environments.values),
        "curves": curves,
        "images": pictures.images.values,
        "grids": pictures.grids.values,
    }


def _variant(results: Results, name: str) -> dict[str, Any]:
    finished = results.finished[name].values()
    scores = list(results.scores(name).values())
    return {
        "name": name,
        "published": plain(results.published(name)),
        "finished": len(scores),
        "jobs": sum(job.name == name for job in results.table.jobs),
        "mean": rounded(mean(scores)) if scores else None,
        "sd": rounded(stdev(scores)) if len(scores) > 1 else None,
        "seconds": _mean([state.seconds for state in finished]),
        **{key: _mean([(state.record or {}).get(key) for state in finished]) for key in ("params", "macs")},
        **{
            key: _mean([state.metrics.get(key) for state in finished])
            for key in ("images_per_second", "peak_memory_mb")
        },
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return mean(known) if known else None


def _comparison(comparison: "Comparison") -> dict[str, Any]:
    """There may be thousands of them in a page: what is missing is left out, and numbers have four digits."""
    paired = {} if comparison.paired is None else rounded(vars(comparison.paired), 4)
    told = {
        "variant": comparison.variant,
        "seeds": list(comparison.seeds),
        "differences": rounded(comparison.differences, 4),
        "p_holm": rounded(comparison.p_holm, 4),
        "word": comparison.verdict.word,
        "text": comparison.verdict.text,
        "within": rounded(comparison.verdict.within),
        "paired": {key: value for key, value in paired.items() if value is not None and key != "seeds"} or None,
        "images": None if comparison.images is None else _images(comparison.images),
    }
    return {key: value for key, value in told.items() if value is not None}


def _images(images: "Images") -> dict[str, Any]:
    shown = ("images", "other_images", "other_seeds_and_images")
    return {key: rounded(getattr(images, key)) for key in shown}
