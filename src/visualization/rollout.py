"""What a query is made of, traced back through the blocks before it to the first map.

The rule is attention rollout (Abnar and Zuidema 2020, "Quantifying Attention Flow in Transformers", Sec. 3): a block
passes on half of what was there, its residual, and half of what it attends to, the mean over its heads; blocks are
composed by multiplying. Here the keys lie between pixels and change with the kind, so attention lands on pixels first,
with the weights by which they are read (`landing`), and what is read off the map is left out. Loudness of deformable
convolution counts as attention once it sums to 1. A pixel made by down-sampling is the mean of the 2 x 2 under it.

What it can't say: values may be small, cancel, or be ignored by the projection; feed-forward networks that mix
neighbours, kernels, norms and the overlap of convolutions aren't in it. It is where attention goes, not what an output
depends on, for which there is the gradient (`receptive.py`).
"""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from scipy.sparse import csr_array

from src.models.looking import Look, landing, pixel_positions


def mixing(look: Look, image: int = 0, head: int | None = None) -> csr_array:
    """Attention (Q, H * W) of one image to the pixels that keys are read from; rows sum to 1, unless they are empty.

    Args:
        head: one of them; None for the mean over all.
    """
    assert look.weights is not None
    heads, queries = look.weights.shape[1], look.weights.shape[2]
    groups = look.points.shape[1]
    matrix = csr_array((queries, look.map_size[0] * look.map_size[1]), dtype=np.float32)
    for group in range(groups):
        members = range(group * heads // groups, (group + 1) * heads // groups)
        chosen = [h for h in members if head is None or h == head]
        if not chosen:
            continue
        weights = look.weights[image, chosen].sum(0)
        pixels, shares = landing(look.points[image, group], look.map_size, look.side)
        landed = (weights[..., None] * shares).flatten(1).numpy()
        places = pixels.expand(queries, -1, -1).flatten(1).numpy()
        rows = np.broadcast_to(np.arange(queries)[:, None], places.shape)
        used = landed > 0
        matrix = matrix + csr_array((landed[used], (rows[used], places[used])), shape=matrix.shape)
    total = np.asarray(matrix.sum(1)).reshape(-1)
    scale = np.divide(1, total, out=np.zeros_like(total), where=total > 0)
    return csr_array(matrix.multiply(scale[:, None]))


class Rollout:
    """Traces queries of one image back; where a block's attention lands is found once for all of them.

    Args:
        looks: of one forward, all attentions of the network in order, by stage and block.
        image: which of the batch.
    """

    def __init__(self, looks: Mapping[str, Look], image: int = 0):
        self.looks, self.image = looks, image
        self._mixings: dict[str, csr_array] = {}

    def trace(self, block: str, queries: Sequence[int], head: int | None = None) -> np.ndarray:
        """Shares (N, H, W) of the first map's pixels in what `queries` of a block attend to.

        In the block itself it is the attention alone, of one head or the mean; in those before, half is their residual.

        Args:
            queries: (N,), pixels of the block's map, row by row.
        """
        names, at = list(self.looks), self.looks[block]
        first = self._mixing(block) if head is None else mixing(at, self.image, head)
        rows = first[list(queries)].toarray()
        for name in reversed(names[: names.index(block)]):
            look = self.looks[name]
            if look.map_size != at.map_size:  # down-sampling lies between
                rows = _finer(rows, at.map_size, look.map_size)
            at = look
            rows = (rows + (self._mixing(name).T @ rows.T).T) / 2
        return rows.reshape(len(rows), *at.map_size)

    def _mixing(self, name: str) -> csr_array:
        if name not in self._mixings:
            self._mixings[name] = mixing(self.looks[name], self.image)
        return self._mixings[name]


def _finer(rows: np.ndarray, small: tuple[int, int], large: tuple[int, int]) -> np.ndarray:
    """Shares (N, h * w) on the map that down-sampling made, as (N, H * W): each pixel's evenly to those under it."""
    maps = rows.reshape(-1, *small).repeat(2, axis=1).repeat(2, axis=2)[:, : large[0], : large[1]]
    down, right = (np.minimum(2, n - 2 * (np.arange(n) // 2)) for n in large)  # the last of an odd side stands alone
    return (maps / down[:, None] / right).reshape(len(rows), -1)


def received(look: Look, image: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys (G, K, yx) with how much attention of all queries and of the group's heads each gets (G, K).

    1 is what each key of the group would get if all got the same. Where each query has pixels of its own for keys, the
    pixels of the map are given; where each has points that can move, all points of all queries are.
    """
    assert look.weights is not None
    heads, groups = look.weights.shape[1], look.points.shape[1]
    weights = look.weights[image].unflatten(0, (groups, heads // groups)).sum(1)  # (G, Q, K)
    if look.points.shape[2] == 1:
        points, mass = look.points[image, :, 0], weights.sum(1)
    elif look.reference is not None:
        points, mass = look.points[image].flatten(1, 2), weights.flatten(1, 2)
    else:
        points = pixel_positions(look.map_size).expand(groups, -1, -1)
        mass = look.on_map()[image].sum(0).expand(groups, -1)
    return points, mass / mass.mean(-1, keepdim=True).clamp_min(1e-12)
