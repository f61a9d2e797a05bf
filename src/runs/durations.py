"""Seconds as people say them, and back."""

import re

UNITS = {"s": 1, "min": 60, "m": 60, "h": 3600, "d": 86400}


def duration(seconds: float) -> str:
    """12 s, 2 min 30 s, 3 h 05 min, 2 d 4 h."""
    minutes, s = divmod(round(seconds), 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h} h"
    if hours:
        return f"{h} h {m:02d} min"
    return f"{m} min {s:02d} s" if minutes else f"{s} s"


def seconds(text: str) -> float:
    """`90`, `90s`, `15 min`, `2h`, `1h30m`, `2d`.

    Raises:
        ValueError: it is none of these.
    """
    parts = re.findall(r"(\d+(?:\.\d+)?)\s*(s|min|m|h|d)?\s*", text)
    if not text.strip() or "".join(re.split(r"\d+(?:\.\d+)?\s*(?:s|min|m|h|d)?\s*", text.strip())):
        raise ValueError(f"{text!r} is no time; write 90s, 15min, 2h, 1h30m or 2d")
    return sum(float(number) * UNITS[unit or "s"] for number, unit in parts)
