"""How often are intervals and verdicts wrong? `PYTHONPATH=. python experiments/statistics/simulate.py` measures it.

Thousands of studies whose true differences are known: six variants and a baseline that they share, 3 to 10 seeds.
"""

import argparse
import csv
import itertools
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
from scipy import stats

from src.statistics.images import compare_images
from src.statistics.intervals import bca, student_t
from src.statistics.paired import holm
from src.statistics.sign_flip import sign_flip
from src.statistics.verdict import MARGIN, bound, decide
from src.studies.power import ALPHA, POWER, detectable

FOLDER = Path(__file__).parent
COLUMNS = ("noise", "seeds", "measure", "studies", "rate")
BLOCK = re.compile(r"(<!-- table: (\w+),.*? -->\n).*?(<!-- end of table -->)", re.DOTALL)

SEEDS = range(3, 11)
STUDIES = 2000
ROWS = 6
SPREAD = 0.6  # points: standard deviation of a per-seed difference, where a rule speaks of points

# Images: probit of being right, as in a network with an accuracy of 87 %; standard deviations of its parts.
IMAGE_STUDIES, IMAGES, IMAGE_SEEDS = 300, 2000, (3, 6, 8, 10)
LEVEL, DIFFICULTY, TASTE, LUCK = 1.3, 1.0, 0.3, 0.5
SEED_EFFECTS = {"seeds differ little": 0.02, "seeds differ": 0.06, "seeds differ much": 0.12}


# --- studies whose truth is known


def normal(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Noise of the variants, of this shape, and of the baseline, which has one row; mean 0 and variance 1/2 each."""
    return rng.normal(size=shape) / 2**0.5, rng.normal(size=(shape[0], 1, shape[2])) / 2**0.5


def heavy_tailed(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Student's t with 3 degrees of freedom, whose variance is 3: now and then a run far from the others."""
    return rng.standard_t(3, shape) / 6**0.5, rng.standard_t(3, (shape[0], 1, shape[2])) / 6**0.5


def skewed(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """Variants that sometimes train much worse, a shifted lognormal downwards; a baseline that doesn't."""
    mean, variance = np.exp(0.5), (np.e - 1) * np.e
    return (mean - rng.lognormal(size=shape)) / (2 * variance) ** 0.5, normal(rng, shape)[1]


NOISES: dict[str, Callable] = {"normal": normal, "heavy-tailed": heavy_tailed, "skewed": skewed}


def studies(noise: str, seeds: int, number: int = STUDIES) -> np.ndarray:
    """Differences (studies, rows, seeds) of mean 0 and variance 1; what a seed does to all variants has cancelled."""
    rng = np.random.default_rng([seeds, *noise.encode()])
    variants, baseline = NOISES[noise](rng, (number, ROWS, seeds))
    return variants - baseline


# --- what is measured


def interval_rates(differences: np.ndarray) -> dict[str, float]:
    """How often the true difference, 0, lies within the intervals of the first comparison."""
    first = differences[:, 0]
    found = {}
    for name, intervals in (("t covers", student_t(first)), ("BCa covers", bca(first))):
        found[name] = float(np.mean((intervals[:, 0] <= 0) & (intervals[:, 1] >= 0)))
    return found


def test_rates(differences: np.ndarray) -> dict[str, float]:
    """How often sign flips, and for comparison t tests, call something different, where nothing is and where one is."""
    seeds = differences.shape[2]
    found = {"sign flip, one comparison": float(np.mean(p_values(differences, sign_flip) <= ALPHA))}
    for name, test in (("sign flip", sign_flip), ("t test", t_test)):
        corrected = corrected_p(differences, test)
        found[f"{name}, any of {ROWS}"] = float(np.mean((corrected <= ALPHA).any(axis=1)))
        for effect in (1.0, 2.0):
            corrected = corrected_p(one_differs(differences, effect), test)
            found[f"{name} finds {effect:.0f} sd"] = float(np.mean(corrected[:, 0] <= ALPHA))
    promised = one_differs(differences, detectable(seeds, alpha=ALPHA / ROWS))
    found[f"sign flip finds what {POWER:.0%} should"] = float(np.mean(corrected_p(promised, sign_flip)[:, 0] <= ALPHA))
    return found


def verdict_rates(differences: np.ndarray) -> dict[str, float]:
    """What is said of a comparison whose true difference is 0, 1 sd, and just more than the margin."""
    found = {}
    effects = {"0": 0.0, "1 sd": 1.0, "margin": MARGIN / SPREAD + 1e-6}
    for name, effect in effects.items():
        points = SPREAD * one_differs(differences, effect)
        corrected = corrected_p(points, sign_flip)[:, 0]
        wrong, none, opposite = 0, 0, 0
        for row, interval, p in zip(points[:, 0], student_t(points[:, 0]).tolist(), corrected, strict=True):
            word = decide(row.mean(), interval, p, len(row))
            none += word == "no_difference"
            wrong += word == "no_difference" and bound(interval) < SPREAD * effect
            opposite += word == "worse"
        found[f"no difference said at {name}"] = none / len(points)
        found[f"no difference wrongly at {name}"] = wrong / len(points)
        found[f"worse said at {name}"] = opposite / len(points)
    return found


def one_differs(differences: np.ndarray, effect: float) -> np.ndarray:
    """The first comparison is truly different by `effect`, the others aren't."""
    return differences + np.array([effect, *[0.0] * (ROWS - 1)])[:, None]


def t_test(differences: np.ndarray) -> np.ndarray:
    return stats.ttest_1samp(differences, 0, axis=1).pvalue


def p_values(differences: np.ndarray, test: Callable) -> np.ndarray:
    number, rows, seeds = differences.shape
    return test(differences.reshape(-1, seeds)).reshape(number, rows)


def corrected_p(differences: np.ndarray, test: Callable) -> np.ndarray:
    return holm(p_values(differences, test))


def image_rates(seed_effect: float, seeds: int, number: int = IMAGE_STUDIES) -> dict[str, float]:
    """How often the intervals of images.py hold the true difference, which a probit model has in closed form.

    A network is right about an image where level + difficulty of the image + seed's effect on the network + what its
    variant makes of the image + luck is above 0, all normal. Both variants have the same level, so the true difference
    is 0 for other seeds and images, and follows from the seeds' effects for other images.
    """
    rng = np.random.default_rng([seeds, int(1000 * seed_effect)])
    of_image = np.sqrt(DIFFICULTY**2 + TASTE**2 + LUCK**2)
    covered = dict.fromkeys(("other images covers", "other seeds and images covers", "t over seeds covers"), 0)
    for _ in range(number):
        effects = seed_effect * rng.normal(size=(2, seeds, 1))
        taste = TASTE * rng.normal(size=(2, 1, IMAGES))
        luck = LUCK * rng.normal(size=(2, seeds, IMAGES))
        baseline, variant = LEVEL + DIFFICULTY * rng.normal(size=IMAGES) + effects + taste + luck > 0
        found = compare_images(baseline, variant)
        of_seeds = 100 * stats.norm.cdf((LEVEL + effects[..., 0]) / of_image).mean(axis=1)
        per_seed = 100 * (variant.mean(axis=1) - baseline.mean(axis=1))
        covered["other images covers"] += holds(found.other_images, of_seeds[1] - of_seeds[0])
        covered["other seeds and images covers"] += holds(found.other_seeds_and_images, 0.0)
        covered["t over seeds covers"] += holds(student_t(per_seed[None])[0], 0.0)
    return {name: count / number for name, count in covered.items()}


def holds(interval: Iterable[float], truth: float) -> bool:
    low, high = interval
    return bool(low <= truth <= high)


# --- the record and the page


def paired_rows() -> Iterable[dict[str, object]]:
    """A row for each rate of the paired differences."""
    for noise in NOISES:
        for seeds in SEEDS:
            differences = studies(noise, seeds)
            for rates in (interval_rates, test_rates, verdict_rates):
                for name, rate in rates(differences).items():
                    yield dict(zip(COLUMNS, (noise, seeds, name, STUDIES, rate), strict=True))


def image_rows() -> Iterable[dict[str, object]]:
    """A row for each rate of the images."""
    for noise, effect in SEED_EFFECTS.items():
        for seeds in IMAGE_SEEDS:
            for name, rate in image_rates(effect, seeds).items():
                yield dict(zip(COLUMNS, (noise, seeds, name, IMAGE_STUDIES, rate), strict=True))


TABLES = {
    "intervals": {
        "t interval": "t covers",
        "BCa interval": "BCa covers",
    },
    "tests": {
        "false alarm, one comparison": "sign flip, one comparison",
        f"any of {ROWS}, Holm": f"sign flip, any of {ROWS}",
        f"any of {ROWS}, t test": f"t test, any of {ROWS}",
        "finds 1 sd": "sign flip finds 1 sd",
        "finds 1 sd, t test": "t test finds 1 sd",
        "finds 2 sd": "sign flip finds 2 sd",
        "finds 2 sd, t test": "t test finds 2 sd",
        "finds what 4 of 5 should": f"sign flip finds what {POWER:.0%} should",
    },
    "verdicts": {
        "no difference, truth 0": "no difference said at 0",
        f"no difference, truth {SPREAD} points": "no difference said at 1 sd",
        "wrong, truth larger than said": "no difference wrongly at 1 sd",
        f"no difference, truth just above {MARGIN:.0f} point": "no difference wrongly at margin",
        f"worse, truth {SPREAD} points better": "worse said at 1 sd",
    },
    "images": {
        "these networks, other images": "other images covers",
        "other seeds and images": "other seeds and images covers",
        "t over seeds, for comparison": "t over seeds covers",
    },
}


def tables(rows: Iterable[dict[str, str]]) -> dict[str, str]:
    """The tables of README.md, in percent."""
    found: dict[tuple[str, str], dict[str, str]] = {}
    for row in rows:
        found.setdefault((row["noise"], row["seeds"]), {})[row["measure"]] = f"{100 * float(row['rate']):.1f}"
    written = {}
    for name, columns in TABLES.items():
        lines = [f"| differences | seeds | {' | '.join(columns)} |", "|---" * (2 + len(columns)) + "|"]
        for (noise, seeds), rates in found.items():
            if set(columns.values()) <= set(rates):
                lines.append(f"| {noise} | {seeds} | {' | '.join(rates[measure] for measure in columns.values())} |")
        written[name] = "\n".join(lines) + "\n"
    return written


def with_tables(page: str, rows: Iterable[dict[str, str]]) -> str:
    """`page` with its tables between their marks."""
    written = tables(rows)
    return BLOCK.sub(lambda match: match[1] + written[match[2]] + match[3], page)


def read_rows() -> list[dict[str, str]]:
    with (FOLDER / "coverage.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--page", action="store_true", help="only write the tables anew from coverage.csv")
    if not parser.parse_args().page:
        with (FOLDER / "coverage.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS, lineterminator="\n")
            writer.writeheader()
            for row in itertools.chain(paired_rows(), image_rows()):
                writer.writerow(row)
                file.flush()
    page = FOLDER / "README.md"
    page.write_text(with_tables(page.read_text(), read_rows()))


if __name__ == "__main__":
    main()
