"""What the page knows: blocks on the picture, in few bytes.

Places are whole tenths of a pixel of the picture (16 bits). A query's weights are bytes, 255 for its strongest key,
which is kept beside them: no weight is off by more than a 510th of that key's. What a query is made of is a map of
bytes likewise. Where all that would take more than `BYTES`, queries are left out: every second, third... row and
column of the map stays.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

from src.models.looking import Look
from src.visualization.subjects import Subject
from src.visualization.view import View

BYTES = 3_000_000  # of all blocks together; written as text they are a third more
MOST_KEYS = 4000  # of all queries together that are drawn: the strongest
TRACED = 28  # longest side of the map that a query is traced back to
LARGEST = 900  # pixels of the longer side of the picture
PHOTOGRAPH = 300  # pixels from which on it is kept as JPEG


def document(view: View, names: Sequence[str], *, first: tuple[float, float] | None) -> dict[str, Any]:
    """For the page.

    Args:
        names: blocks, in order.
        first: the query that is chosen at first; the middle of the picture if None.
    """
    subject = view.subject
    frame = subject.frame
    return {
        "title": view.title,
        "name": subject.name,
        "size": list(subject.picture.size),
        "picture": picture(subject),
        "shown": list(subject.shown()),
        "frame": [frame.left, frame.top, frame.width, frame.height],
        "first": list(first or (frame.left + frame.width / 2, frame.top + frame.height / 2)),
        "blocks": [block(view, name, BYTES // len(names)) for name in names],
    }


def block(view: View, name: str, most: int) -> dict[str, Any]:
    """One block in about `most` bytes, unless a single query takes more."""
    one = view.blocks[name]
    look, (height, width) = one.look, one.look.map_size
    assert look.weights is not None
    first_map = next(iter(view.blocks.values())).look.map_size
    pooled = -(-max(first_map) // TRACED)
    traced = (-(-first_map[0] // pooled), -(-first_map[1] // pooled))
    step = _step(look, traced, most)
    rows, columns = (np.arange(step // 2, n, step) if step // 2 < n else np.array([0]) for n in (height, width))
    queries = (rows[:, None] * width + columns).reshape(-1)
    weights, tops = _bytes(look.weights[0][:, queries].numpy())
    points, reference = one.points(), one.reference()
    if points.shape[1] > 1:
        points = points[:, queries]
    if reference is not None and reference.shape[0] > 1:
        reference = reference[queries]
    places, mass = one.received()
    strongest = np.sort(np.argsort(-mass, axis=-1, kind="stable")[:, :MOST_KEYS], axis=-1)
    trace, trace_tops = _bytes(_pooled(view.rollout.trace(name, queries.tolist()), pooled).reshape(len(queries), -1))
    middles = one.query_places()
    return {
        "name": name,
        "kind": look.kind,
        "map": [height, width],
        "groups": one.groups,
        "heads": one.heads,
        "keys": look.points.shape[3],
        "step": step,
        "rows": len(rows),
        "columns": len(columns),
        "places": _tenths(middles[queries]),
        "points": _tenths(points),
        "shared": points.shape[1] == 1,
        "reference": None if reference is None else _tenths(reference),
        "outside": [round(float(share), 4) for share in one.outside()],
        "moved": [round(float(distance), 2) for distance in one.distances().mean((1, 2))],
        "weights": _text(weights),
        "tops": _text(tops),
        "received": {
            "count": strongest.shape[1],
            "of": mass.shape[1],
            "places": _tenths(np.take_along_axis(places, strongest[..., None], 1)),
            "mass": _text(np.take_along_axis(mass, strongest, 1).astype(np.float32)),
        },
        "trace": {"map": list(traced), "shares": _text(trace), "tops": _text(trace_tops)},
    }


def _step(look: Look, traced: tuple[int, int], most: int) -> int:
    """Every how manieth row and column of queries is kept."""
    assert look.weights is not None
    heads, count = look.weights.shape[1], look.points.shape[3]
    own = 4 * look.points.shape[1] * count if look.points.shape[2] > 1 else 0
    of_query = (heads + 1) * (count + 4) + own + traced[0] * traced[1]
    height, width = look.map_size
    step = 1
    while -(-height // step) * -(-width // step) * of_query > most and step < max(height, width):
        step += 1
    return step


def _pooled(shares: np.ndarray, side: int) -> np.ndarray:
    """Maps (N, H, W) summed over cells of `side` pixels."""
    if side == 1:
        return shares
    means = torch.nn.functional.avg_pool2d(torch.from_numpy(shares)[:, None], side, ceil_mode=True, divisor_override=1)
    return means[:, 0].numpy()


def _bytes(values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(..., N) as bytes, 255 for the greatest of each row, and those greatest ones (...)."""
    tops = values.max(-1, keepdims=True)
    scaled = np.divide(255 * values, tops, out=np.zeros_like(values), where=tops > 0)
    return np.rint(scaled).astype(np.uint8), tops[..., 0].astype(np.float32)


def _tenths(places: np.ndarray) -> str:
    return _text(np.clip(np.rint(10 * places), -32768, 32767).astype("<i2"))


def _text(array: np.ndarray) -> str:
    return base64.b64encode(np.ascontiguousarray(array).tobytes()).decode()


def picture(subject: Subject) -> str:
    """The part that is shown, as a data URI."""
    shown, file = subject.picture.crop(subject.shown()), io.BytesIO()
    shown.thumbnail((LARGEST, LARGEST), Image.Resampling.LANCZOS)
    kind = "jpeg" if max(shown.size) >= PHOTOGRAPH else "png"
    shown.save(file, kind, **({"quality": 85} if kind == "jpeg" else {"optimize": True}))
    return f"data:image/{kind};base64," + base64.b64encode(file.getvalue()).decode()
