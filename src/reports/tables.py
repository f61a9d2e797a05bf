"""The tables of a report: what a variant is worth, image by image, step by step, what it costs, and every run."""

import csv
import io
from collections.abc import Sequence
from statistics import mean, median, stdev
from typing import Any

from src.reports.comparison import Comparison
from src.reports.results import Results
from src.reports.text import MINUS, Table, count, interval, probability, signed
from src.studies.states import State


def accuracy_table(results: Results, comparisons: Sequence[Comparison]) -> Table:
    """A line per variant: accuracy, difference to the baseline with intervals, p and verdict, and what is published."""
    published = any(results.published(name).get("top1") is not None for name in results.variants)
    header = ["variant", "seeds", "top-1, %", "difference", "95 %, t", "95 %, BCa", "p, Holm", "verdict"]
    header += ["published top-1, %", "published difference"] if published else []
    by_variant = {comparison.variant: comparison for comparison in comparisons}
    rows = []
    for name in results.variants:
        row = [name, str(len(results.finished[name])), accuracy(results, name), *_compared(by_variant.get(name))]
        if published:
            theirs, baseline = (results.published(n).get("top1") for n in (name, results.baseline))
            row.append("" if theirs is None else f"{theirs:.1f}")
            known = theirs is not None and baseline is not None and name != results.baseline
            row.append(signed(theirs - baseline) if known else "")  # type: ignore[operator]
        rows.append(row)
    return Table(header, rows)


def accuracy(results: Results, name: str) -> str:
    """Mean and sample standard deviation over the seeds."""
    scores = list(results.scores(name).values())
    if not scores:
        return ""
    return f"{mean(scores):.1f}" + (f" ± {stdev(scores):.1f}" if len(scores) > 1 else "")


def _compared(comparison: Comparison | None) -> list[str]:
    if comparison is None:
        return ["", "", "", "", "is compared with"]
    paired = comparison.paired
    if paired is None:
        return ["", "", "", "", "no common seed"]
    return [
        signed(paired.mean),
        interval(paired.t),
        interval(paired.bca),
        probability(comparison.p_holm),
        short(comparison),
    ]


def short(comparison: Comparison) -> str:
    """The verdict in a few words."""
    verdict = comparison.verdict
    if verdict.word == "no_difference":
        return f"no difference larger than {verdict.within:.1f}"
    return verdict.word.replace("_", " ")


def effect_table(comparisons: Sequence[Comparison]) -> Table | None:
    """What the verdicts rest on; None where no two seeds can be compared."""
    rows = [
        [
            c.variant,
            str(c.paired.seeds),
            f"{c.paired.sd:.2f}",
            "" if c.paired.effect_size is None else f"{c.paired.effect_size:.2f}".replace("-", MINUS),
            probability(c.paired.p),
            f"{c.paired.detectable:.1f}",
        ]
        for c in comparisons
        if c.paired is not None and c.paired.sd is not None and c.paired.detectable is not None
    ]
    header = ["variant", "seeds", "sd of the difference", "effect size", "p, uncorrected", "smallest detectable"]
    return Table(header, rows) if rows else None


def image_table(comparisons: Sequence[Comparison]) -> Table | None:
    """By test image; None where predictions are missing."""
    rows = []
    for c in comparisons:
        if c.images is not None:
            tests = c.images.per_seed
            rows.append(
                [
                    c.variant,
                    str(sum(t.only_variant for t in tests)),
                    str(sum(t.only_baseline for t in tests)),
                    f"{sum(t.p <= 0.05 and t.only_variant > t.only_baseline for t in tests)} better, "
                    f"{sum(t.p <= 0.05 and t.only_variant < t.only_baseline for t in tests)} worse of {len(tests)}",
                    interval(c.images.other_images),
                    interval(c.images.other_seeds_and_images),
                ]
            )
    header = ["variant", "only it is right", "only the baseline", "McNemar p ≤ 0.05, seeds", "95 %, other images"]
    return Table([*header, "95 %, other seeds and images"], rows) if rows else None


def step_table(steps: Sequence[Comparison]) -> Table | None:
    """Each variant against the one before it; None where there are none."""
    if not steps:
        return None
    rows = [[c.variant, c.baseline, *_compared(c)] for c in steps]
    return Table(["variant", "against", "difference", "95 %, t", "95 %, BCa", "p, Holm", "verdict"], rows)


def cost_table(results: Results) -> Table:
    """Medians over a variant's runs; energy where the hardware told it."""
    energy = any(state.metrics.get("energy_kj") is not None for state in results.states)
    header = ["variant", "parameters", "MACs", "images per s", "peak memory, MB", "s per run"]
    header += ["energy, kJ"] if energy else []
    rows = []
    for name in results.variants:
        runs = list(results.finished[name].values())
        record = (runs[0].record if runs else None) or {}
        row = [name, *(count(record[key]) if record.get(key) else "" for key in ("params", "macs"))]
        row += [_median(runs, "images_per_second"), _median(runs, "peak_memory_mb")]
        took = [state.seconds for state in runs if state.seconds]
        row.append(f"{median(took):.0f}" if took else "")
        rows.append(row + ([_median(runs, "energy_kj")] if energy else []))
    return Table(header, rows)


def _median(runs: Sequence[State], metric: str) -> str:
    known = [state.metrics[metric] for state in runs if state.metrics.get(metric) is not None]
    return f"{median(known):.0f}" if known else ""


# ---------------------------------------------------------------------------------------------- runs


def run_rows(results: Results) -> list[dict[str, Any]]:
    """A line per job, with what is known of it; a job without a run has a status and nothing else."""
    return [_run(results, state) for state in results.states]


def _run(results: Results, state: State) -> dict[str, Any]:
    record, metrics = state.record or {}, state.metrics
    hardware, cfg = record.get("hardware") or {}, record.get("config") or {}
    return {
        "name": state.job.name,
        "seed": state.job.seed,
        "identity": state.job.identity,
        "status": state.status,
        "commit": ((record.get("git") or {}).get("commit") or "")[:10],
        "test/acc1": metrics.get("test/acc1"),
        "val/acc1": metrics.get("val/acc1"),
        "test/loss": metrics.get("test/loss"),
        "best_epoch": metrics.get("best_epoch"),
        "epochs": metrics.get("epochs"),
        "params": record.get("params"),
        "macs": record.get("macs"),
        "images_per_second": metrics.get("images_per_second"),
        "peak_memory_mb": metrics.get("peak_memory_mb"),
        "seconds": state.seconds,
        "energy_kj": metrics.get("energy_kj"),
        "data": (cfg.get("data") or {}).get("name"),
        "data_fingerprint": record.get("data_fingerprint"),
        "model": (cfg.get("model") or {}).get("name"),
        "cpu": hardware.get("cpu"),
        "gpus": " ".join(gpu["name"] for gpu in hardware.get("gpus") or []),
        "threads": hardware.get("threads"),
        "torch": (record.get("versions") or {}).get("torch"),
        "published_top1": results.published(state.job.name).get("top1"),
    }


def run_csv(results: Results) -> str:
    """As `run_rows`, for figures and tables that are made elsewhere."""
    rows = run_rows(results)
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
