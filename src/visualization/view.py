"""What one network does with one image, ready to be drawn: blocks in pixels of the picture."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import nn

from src.models.looking import Look, eager, recording
from src.visualization.rollout import Rollout, received
from src.visualization.subjects import Subject


class NoSuchBlock(ValueError):
    """Blocks that the network doesn't have; the message names those that it has."""


@dataclass(frozen=True)
class BlockView:
    """One block on one picture. Places are (x, y) in the picture's own pixels.

    Attributes:
        look: of this image alone.
        reduction: side of a pixel of the map in pixels of the network's image.
    """

    name: str
    look: Look
    reduction: int
    subject: Subject

    @property
    def groups(self) -> int:
        return self.look.points.shape[1]

    @property
    def heads(self) -> int:
        assert self.look.weights is not None
        return self.look.weights.shape[1]

    def points(self) -> np.ndarray:
        """Keys (G, Q or 1, K, xy)."""
        return self.subject.on_picture(self.look.points[0], self.look.map_size, self.reduction)

    def reference(self) -> np.ndarray | None:
        """Where they started, (Q or 1, K, xy); None for keys that can't move."""
        if self.look.reference is None:
            return None
        return self.subject.on_picture(self.look.reference, self.look.map_size, self.reduction)

    def received(self) -> tuple[np.ndarray, np.ndarray]:
        """Keys (G, K, xy), and how much attention of all queries each gets (G, K), 1 if all got the same."""
        points, mass = received(self.look)
        return self.subject.on_picture(points, self.look.map_size, self.reduction), mass.numpy()

    def query_at(self, xy: tuple[float, float]) -> int:
        """The query, by its pixel of the map, at a place on the picture.

        Raises:
            ValueError: the network doesn't see that place.
        """
        return self.subject.pixel_of(xy, self.look.map_size, self.reduction)

    def query_places(self) -> np.ndarray:
        """Middles (H * W, xy) of the queries' pixels."""
        height, width = self.look.map_size
        pixels = np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1).reshape(-1, 2)
        places = (pixels + 0.5) * self.reduction / self.subject.image.shape[-1]
        return self.subject.frame.to_picture(places[:, ::-1])

    def keys_of(self, query: int, head: int | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Keys (N, xy) that a query has, of all groups or of the head's, with the share that each gets (N,)."""
        assert self.look.weights is not None
        weights, points = self.look.weights[0, :, query], self.points()
        of_group = self.heads // self.groups
        points = points[:, min(query, points.shape[1] - 1)]
        if head is not None:
            shares, points = weights[head].numpy(), points[head // of_group]
        else:
            shares = weights.unflatten(0, (self.groups, of_group)).sum(1).numpy()
        return points.reshape(-1, 2), (shares / max(float(shares.sum()), 1e-12)).reshape(-1)

    def outside(self) -> np.ndarray:
        """Of each group, the share of points off the map (G,), where zeros are read."""
        return (self.look.points[0].abs() > 1 + 1e-5).any(-1).float().mean((1, 2)).numpy()

    def distances(self) -> np.ndarray:
        """How far each point has moved (G, Q or 1, K), in pixels of the picture."""
        reference = self.reference()
        points = self.points()
        return np.zeros(points.shape[:-1]) if reference is None else np.linalg.norm(points - reference, axis=-1)


@dataclass(frozen=True)
class View:
    """All blocks of a network on one picture, in order of the network.

    Attributes:
        title: of the network.
    """

    title: str
    subject: Subject
    blocks: Mapping[str, BlockView]

    @cached_property
    def rollout(self) -> Rollout:
        """What queries are made of."""
        return Rollout({name: block.look for name, block in self.blocks.items()})

    def chosen(self, wanted: str) -> list[str]:
        """Names of blocks by what was asked for: `deformable`, another kind, `all`, or names with commas.

        Raises:
            NoSuchBlock: there is none.
        """
        kinds = {name: block.look.kind for name, block in self.blocks.items()}
        if wanted == "all":
            return list(kinds)
        if wanted == "deformable" or wanted in kinds.values():
            found = [name for name, kind in kinds.items() if kind == wanted]
            if not found:
                known = ", ".join(dict.fromkeys(kinds.values()))
                raise NoSuchBlock(f"{self.title} has no deformable block; blocks=all draws those it has: {known}")
            return found
        names = wanted.split(",")
        if strangers := [name for name in names if name not in kinds]:
            raise NoSuchBlock(
                f"blocks={wanted}: there is no block {strangers[0]!r} in {self.title}; there are {', '.join(kinds)}, "
                f"and all, {', '.join(dict.fromkeys(kinds.values()))}"
            )
        return names


def view(net: nn.Module, subject: Subject, *, title: str) -> View:
    """Looks at one image; the network stays in the mode it was in.

    Raises:
        CannotLook: it has no attention of ours.
        GeometryError: it can't work at the image's size.
    """
    training, device = net.training, next(net.parameters()).device
    try:
        with torch.no_grad(), eager(net), recording(net) as looks:
            net.eval()(subject.image[None].to(device))
    finally:
        net.train(training)
    reductions = {info["module"].rpartition(".")[2]: info["reduction"] for info in net.feature_info}  # type: ignore
    blocks = {
        name: BlockView(name, look, reductions[name.partition(".")[0]], subject) for name, (look,) in looks.items()
    }
    return View(title, subject, blocks)
