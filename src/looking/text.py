"""Numbers of this study as they are written."""

import numpy as np

from src.looking.quantities import IN_PIXELS
from src.reports.text import MINUS
from src.statistics.paired import Interval


def signed(value: float, statistic: str) -> str:
    """With as many digits as the statistic's unit asks for; nothing is neither."""
    digits = 2 if statistic in IN_PIXELS else 1
    rounded = round(value, digits) + 0.0
    return f"{rounded:+.{digits}f}".replace("-", MINUS) if rounded else f"{0:.{digits}f}"


def interval(bounds: Interval | None, statistic: str) -> str:
    return "" if bounds is None else f"{signed(bounds[0], statistic)} to {signed(bounds[1], statistic)}"


def spread(values: np.ndarray, digits: int) -> str:
    """Mean, and the standard deviation over seeds; empty where it isn't defined."""
    if np.isnan(values).any():
        return ""
    mean = f"{round(float(values.mean()), digits) + 0.0:.{digits}f}".replace("-", MINUS)
    return mean if len(values) < 2 else f"{mean} ± {values.std(ddof=1):.{digits}f}"


def seeds(count: int) -> str:
    return f"{count} seed{'' if count == 1 else 's'}"
