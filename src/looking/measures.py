"""What one network does with its points on images with masks, image by image.

A point is on a region if the pixel of the image in which it lies is. What a share is compared with is computed exactly,
over all images, so that no random number is in it:

reference     the same keys at their reference points: where they would be without offsets.
shuffled      random offsets: each key is given, in turn, the offset of every point of every image of its group. Lengths
              and directions are the network's; which of them belongs to which place and image is lost.
other_image   the points (and weights) of every other image in turn: what the network does anyhow, whatever it is shown,
              such as keeping to the middle. Only what follows the image itself is more than that.
"""

from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from src.looking.masks import MaskedImages
from src.looking.quantities import MEASURES
from src.models.attention.deformable import DeformableAttention
from src.models.looking import Look, recording, to_pixels

BATCH = 50  # images


@dataclass(frozen=True)
class Keys:
    """The keys of one deformable block for N images.

    Attributes:
        reference: (P, xy) in pixels of the image, 0 the centre of the first.
        points: (N, G, P, xy), likewise.
        mass: (N, G, P), the share of attention that each gets, over all queries and its group's heads.
    """

    reference: Tensor
    points: Tensor
    mass: Tensor


def keys_of(net: nn.Module, images: MaskedImages) -> dict[str, Keys]:
    """By the names of the deformable blocks, such as `three.1`; the network is in evaluation mode meanwhile.

    Raises:
        CannotLook: there is none, or the network is compiled.
    """
    training, device, side = net.training, next(net.parameters()).device, images.images.shape[-1]
    parts: dict[str, list[Keys]] = {}
    try:
        net.eval()
        for batch in images.batches(BATCH):
            with torch.no_grad(), recording(net, kind=DeformableAttention) as looks:
                net(batch.to(device))
            for name, (look,) in looks.items():
                parts.setdefault(name, []).append(_keys(look, side))
    finally:
        net.train(training)
    return {
        name: Keys(found[0].reference, torch.cat([k.points for k in found]), torch.cat([k.mass for k in found]))
        for name, found in parts.items()
    }


def _keys(look: Look, side: int) -> Keys:
    assert look.reference is not None and look.weights is not None
    groups = look.points.shape[1]
    mass = rearrange(look.weights, "b (g heads) q k -> b g k heads q", g=groups).mean((-1, -2))
    reference, points = look.reference.squeeze(0), look.points[:, :, 0]
    return Keys(in_image(reference, look.map_size, side), in_image(points, look.map_size, side), mass)


def in_image(positions: Tensor, map_size: tuple[int, int], side: int) -> Tensor:
    """Positions (..., yx) on a map to (..., xy) in pixels of an image of `side` pixels, 0 the centre of the first."""
    scale = positions.new_tensor([side / n for n in map_size])
    return ((to_pixels(positions, map_size) + 0.5) * scale - 0.5).flip(-1)


def measure(keys: Keys, region: Tensor) -> dict[str, Tensor]:
    """All of `MEASURES` of one block for a region (N, S, S): (N, G) each, in float64.

    Raises:
        ValueError: fewer than two images, which have no other image.
    """
    count, groups, _, _ = keys.points.shape
    if count < 2:
        raise ValueError(f"{count} image: give two or more, since each is compared with the others")
    side = region.shape[-1]
    flat = region.reshape(count, -1).double()
    mass, weights_sum = keys.mass.double(), keys.mass.double().sum(-1)
    mass = mass / weights_sum[..., None]  # they sum to 1 but for rounding

    at, start = pixels(keys.points, side), pixels(keys.reference, side)
    on, on_start = _look_up(flat, at), _look_up(flat, start.expand(count, 1, -1))[:, 0]  # (N, G, P), (N, P)
    lengths = (keys.points - keys.reference).double().norm(dim=-1)

    found = {
        "reference": on_start.mean(-1)[:, None].expand(-1, groups),
        "length_on": _mean_where(lengths, on_start[:, None] > 0),
        "length_off": _mean_where(lengths, on_start[:, None] == 0),
        "points": on.mean(-1),
        "mass": (mass * on).sum(-1),
        "mass_reference": (mass * on_start[:, None]).sum(-1),
    }
    equal = torch.full_like(mass, 1 / mass.shape[-1])
    found["points_other_image"] = _other_image(flat, at, equal, found["points"], side)
    found["mass_other_image"] = _other_image(flat, at, mass, found["mass"], side)
    shuffled = _shuffled(flat, keys, side)
    found["points_shuffled"] = shuffled.mean(-1)
    found["mass_shuffled"] = (mass * shuffled).sum(-1)
    return {name: found[name] for name in MEASURES}


def pixels(positions: Tensor, side: int) -> Tensor:
    """Positions (..., xy) to the number of their pixel, row by row; off the image it is that after the last."""
    x, y = positions.round().long().unbind(-1)
    inside = (x >= 0) & (x < side) & (y >= 0) & (y < side)
    return torch.where(inside, y * side + x, side * side)


def _look_up(flat: Tensor, at: Tensor) -> Tensor:
    """Whether pixels (N, G, P) of N regions (N, S * S) are on them; those off the image are on none."""
    off = flat.new_zeros(len(flat), 1)
    return torch.cat([flat, off], 1).gather(1, at.flatten(1)).reshape(at.shape)


def _mean_where(values: Tensor, wanted: Tensor) -> Tensor:
    """Over the last axis; NaN where there is none."""
    return torch.where(wanted, values, 0.0).sum(-1) / wanted.expand_as(values).sum(-1)


def _other_image(flat: Tensor, at: Tensor, weights: Tensor, own: Tensor, side: int) -> Tensor:
    """(N, G): the share on each region that the points of the other images have, in the mean over them."""
    count, groups = at.shape[:2]
    everywhere = torch.stack([_where(at[:, g], weights[:, g], side) for g in range(groups)])  # of all images together
    return (flat @ everywhere.T - own) / (count - 1)


def _shuffled(flat: Tensor, keys: Keys, side: int) -> Tensor:
    """(N, G, P): the share of all offsets of the group that would bring a key onto the region."""
    count, groups, places, _ = keys.points.shape
    found = flat.new_empty(count, groups, places)
    for g in range(groups):
        offsets = (keys.points[:, g] - keys.reference).reshape(-1, 2)
        one = flat.new_full((len(offsets),), 1 / len(offsets))
        for p in range(places):
            found[:, g, p] = flat @ _where(pixels(keys.reference[p] + offsets, side), one, side)
    return found


def _where(at: Tensor, weights: Tensor, side: int) -> Tensor:
    """(S * S,): the weight that lies in each pixel."""
    return torch.bincount(at.flatten(), weights.flatten(), minlength=side * side + 1)[: side * side]
