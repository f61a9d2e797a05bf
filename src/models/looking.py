"""Where a network looks: the keys of each attention and their weights, recorded while it runs.

Every kind of attention answers `look(x)` for a normed input. `recording` asks it for whatever passes through a network:

    with recording(net) as looks:
        net(images)
    looks["three.1"][0].points  # of the second block of stage three in the first forward

Nothing of it is in a forward pass: while no one records there is nothing to pay, and what is computed is the same.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from src.models.recomputed import NO_NORM


@dataclass(frozen=True, kw_only=True)
class Look:
    """Where the keys of one attention are for a batch, and how much each query attends to each.

    Queries are the Q = H * W pixels of the map, row by row. Positions are (y, x) in [-1, 1] of the map as the attention
    reads it: -1 and 1 are the centres of its first and last pixel. Heads are split evenly, in order, over the G groups.

    Attributes:
        kind: as `conf/attention/all.yaml` names it.
        map_size: height and width of the map, in pixels.
        points: (B, G, Q or 1, K, yx), the keys; 1 where all queries share them.
        reference: (Q or 1, K, yx), where points were before they moved; None for keys that can't move.
        weights: (B, heads, Q, K). Of attention they sum to 1 over K, and are 0 for keys that the query doesn't have; of
            deformable convolution they are the loudness in [0, 2]. None where only positions were asked for.
        side: of the patch of pixels round its position that a key stands for; 1 where it is read bilinearly there.
    """

    kind: str
    map_size: tuple[int, int]
    points: Tensor
    reference: Tensor | None = None
    weights: Tensor | None = None
    side: int = 1

    def cpu(self) -> "Look":
        """The same in float32 on the CPU, without any graph."""

        def kept(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor.detach().to("cpu", torch.float32)

        points = kept(self.points)
        assert points is not None
        return replace(self, points=points, reference=kept(self.reference), weights=kept(self.weights))

    def moved(self) -> Tensor:
        """How far points have moved (B, G, Q or 1, K, yx), in pixels of the map; keys that can't are 0 away."""
        if self.reference is None:
            return torch.zeros_like(self.points)
        # Positions -1 and 1 are the centres of the border pixels.
        return (self.points - self.reference) / 2 * self.points.new_tensor([n - 1 for n in self.map_size])

    def on_map(self, head: int | None = None) -> Tensor:
        """Attention (B, Q, H * W) to the pixels that keys are read from, of one head or the mean over all.

        A point off the map reads zeros there: its share is lost, and rows then sum to less than that of the weights.

        Raises:
            ValueError: weights weren't recorded.
        """
        if self.weights is None:
            raise ValueError("no weights were recorded; record with weights=True")
        batch, heads, queries, _ = self.weights.shape
        groups, (height, width) = self.points.shape[1], self.map_size
        of_group = heads // groups
        out = self.weights.new_zeros(batch, queries, height * width)
        for group in range(groups):
            mine = self.weights[:, group * of_group : (group + 1) * of_group]
            if head is None:
                weights = mine.sum(1) / heads
            elif head // of_group == group:
                weights = mine[:, head % of_group]
            else:
                continue
            pixels, shares = landing(self.points[:, group], self.map_size, self.side)
            landed = (weights[..., None] * shares).flatten(2)
            out.scatter_add_(2, pixels.expand(-1, queries, -1, -1).flatten(2), landed)
        return out


def pixel_positions(map_size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Positions (H * W, yx) in [-1, 1] of the pixels of a map, row by row."""
    rows, columns = (torch.arange(n, device=device) for n in map_size)
    pixels = torch.cartesian_prod(rows, columns)
    return to_positions(pixels.float(), map_size)


def to_positions(pixels: Tensor, map_size: tuple[int, int]) -> Tensor:
    """Pixels (..., yx), 0 the centre of the first one, to positions in [-1, 1]; 0 on an axis of a single pixel."""
    last = pixels.new_tensor([n - 1 for n in map_size])
    return torch.where(last > 0, pixels / last.clamp(min=1) * 2 - 1, torch.zeros_like(pixels))


def patch_centres(
    patches: tuple[int, int], side: int, map_size: tuple[int, int], device: torch.device | None = None
) -> Tensor:
    """Positions (rows, columns, yx) of the middles of patches of `side` pixels that tile a map from its corner."""
    rows, columns = (torch.arange(n, device=device) * side + (side - 1) / 2 for n in patches)
    return to_positions(torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1), map_size)


def to_pixels(positions: Tensor, map_size: tuple[int, int]) -> Tensor:
    """Positions (..., yx) in [-1, 1] to pixels, 0 the centre of the first one."""
    return (positions + 1) / 2 * positions.new_tensor([n - 1 for n in map_size])


def landing(points: Tensor, map_size: tuple[int, int], side: int) -> tuple[Tensor, Tensor]:
    """The pixels that keys at `points` (..., yx) are read from, as index into H * W and share, both (..., N).

    Four bilinear neighbours, whose shares sum to 1 on the map and to less off it; or the patch of `side` x `side`
    pixels, those that the map has in equal shares.
    """
    pixels = to_pixels(points, map_size)
    axes = [
        (_patch if side > 1 else _neighbours)(at, n, side) for at, n in zip(pixels.unbind(-1), map_size, strict=True)
    ]
    (rows, down), (columns, right) = axes
    index = rows[..., :, None] * map_size[1] + columns[..., None, :]
    return index.flatten(-2), (down[..., :, None] * right[..., None, :]).flatten(-2)


def _neighbours(at: Tensor, length: int, side: int) -> tuple[Tensor, Tensor]:
    before = at.floor()
    index = torch.stack([before, before + 1], -1)
    share = torch.stack([1 - (at - before), at - before], -1) * ((index >= 0) & (index < length))
    return index.clamp(0, length - 1).long(), share


def _patch(at: Tensor, length: int, side: int) -> tuple[Tensor, Tensor]:
    index = (at - (side - 1) / 2).round()[..., None] + torch.arange(side, device=at.device)
    inside = ((index >= 0) & (index < length)).to(at.dtype)
    return index.clamp(0, length - 1).long(), inside / inside.sum(-1, keepdim=True).clamp(min=1)


class CannotLook(ValueError):
    """A network that can't be recorded; the message says why, and what can."""


def attentions(net: nn.Module, kind: type[nn.Module] = nn.Module) -> dict[str, nn.Module]:
    """The attention modules of a network, in order, by stage and block (`three.1`), or by path outside of stages.

    Args:
        kind: only instances of it.
    """
    found = {}
    for path, module in net.named_modules():
        if isinstance(module, kind) and callable(getattr(module, "look", None)):
            parts = path.split(".")
            if "stages" in parts[:-3] and parts[-3] == "blocks":
                path = f"{parts[parts.index('stages') + 1]}.{parts[-2]}"
            found[path] = module
    return found


@contextmanager
def recording(
    net: nn.Module, *, kind: type[nn.Module] = nn.Module, weights: bool = True, images: int | None = None
) -> Iterator[dict[str, list[Look]]]:
    """Records what the attentions of `net` look at while the context is open.

    Each forward adds a `Look`, kept on the CPU in float32, to the list of each attention. Outputs and gradients are
    bitwise those of the network alone. What activation checkpointing computes again isn't recorded again.

    Args:
        net: any network of ours, or a module that holds one.
        kind: only attentions of this class.
        weights: False records positions alone, which is cheaper.
        images: only the first ones of each batch.

    Yields:
        Looks in order of the forwards, by the names of `attentions`.

    Raises:
        CannotLook: the network is compiled, or has no such attention.
    """
    if any(_compiled(module) for module in net.modules()):
        raise CannotLook(
            f"{type(net).__name__} is compiled, and compiled code runs no hooks; record with compile=false, "
            f"or inside of `with eager(net):`"
        )
    found = attentions(net, kind)
    if not found:
        what = "attention of src.models" if kind is nn.Module else kind.__name__
        raise CannotLook(f"{type(net).__name__} has no {what}, so there is nothing to look at; model=micro has")
    looks: dict[str, list[Look]] = {name: [] for name in found}

    def keep(name: str, module: nn.Module, x: Tensor, norm: nn.Module = NO_NORM) -> None:
        if torch._C._current_graph_task_id() != -1:  # a backward pass, which computes activations again
            return
        with torch.no_grad():
            looks[name].append(module.look(norm(x[:images]), weights=weights).cpu())  # type: ignore[operator]

    hooks = [
        module.register_forward_hook(lambda module, given, out, name=name: keep(name, module, *given))
        for name, module in found.items()
    ]
    try:
        yield looks
    finally:
        for hook in hooks:
            hook.remove()


@contextmanager
def eager(net: nn.Module) -> Iterator[None]:
    """Runs a network that `net.compile()` has compiled as it was written, while the context is open."""
    compiled = [module for module in net.modules() if module._compiled_call_impl is not None]
    calls = [module._compiled_call_impl for module in compiled]
    for module in compiled:
        module._compiled_call_impl = None
    try:
        yield
    finally:
        for module, call in zip(compiled, calls, strict=True):
            module._compiled_call_impl = call


def _compiled(module: nn.Module) -> bool:
    return module._compiled_call_impl is not None or hasattr(module, "_orig_mod")
