"""What is measured of the points of one image, and the statistics that claims are made of. Needs no torch."""

from collections.abc import Callable, Mapping

import numpy as np

OBJECT = "object"  # the region that claims are about; the others show what it is taken for

# Of one image, group and region: shares of 1, lengths in pixels of the image. NaN where an image has no such point.
MEASURES = (
    "reference",  # share of reference points on the region
    "length_on",  # mean distance of points from their reference points, where these are on the region
    "length_off",  # the same where they aren't
    "points",  # share of points on the region: also the mass that they would have at equal weights
    "points_shuffled",
    "points_other_image",
    "mass",  # share of attention, over all queries and the group's heads, to keys on the region
    "mass_reference",  # the same weights, with the keys at their reference points
    "mass_shuffled",  # the same weights, with random offsets
    "mass_other_image",
)

Values = Mapping[str, np.ndarray]

# Of one image and all groups: lengths in pixels, shares in percentage points. The papers' pictures show all above 0.
STATISTICS: Mapping[str, Callable[[Values], np.ndarray]] = {
    "farther": lambda of: of["length_on"] - of["length_off"],
    "still": lambda of: of["length_on"] / 2 - of["length_off"],
    "points above reference": lambda of: 100 * (of["points"] - of["reference"]),
    "points above shuffled": lambda of: 100 * (of["points"] - of["points_shuffled"]),
    "points above other images": lambda of: 100 * (of["points"] - of["points_other_image"]),
    "mass above equal weights": lambda of: 100 * (of["mass"] - of["points"]),
    "mass above reference": lambda of: 100 * (of["mass"] - of["mass_reference"]),
    "mass above shuffled": lambda of: 100 * (of["mass"] - of["mass_shuffled"]),
    "mass above other images": lambda of: 100 * (of["mass"] - of["mass_other_image"]),
}
IN_PIXELS = ("farther", "still")


def by_name(values: np.ndarray) -> dict[str, np.ndarray]:
    """(N, G, measures) to (N,) each: groups have equally many points, so their mean is that of all the block's."""
    return dict(zip(MEASURES, values.astype(float).mean(axis=1).T, strict=True))


def statistics_of(values: np.ndarray) -> np.ndarray:
    """(N, G, measures) of one network and block to (N, statistics)."""
    named = by_name(values)
    return np.stack([statistic(named) for statistic in STATISTICS.values()], axis=-1)
