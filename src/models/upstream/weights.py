"""Published weights by their published names: what each of our parameters is made of, and filling a module with them.

Each of our parameters is made of one or two published ones (keys and values share a convolution here), listed in
`_sources`.
"""

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import cast

import torch
from torch import Tensor, nn

from src.models.attention.deformable import DeformableAttention
from src.models.attention.neighborhood import NeighborhoodAttention
from src.models.attention.spatial_reduction import SpatialReductionAttention
from src.models.attention.window import WindowAttention
from src.models.block import Block
from src.models.dat import DAT
from src.models.feed_forward import ConvolutionalFeedForward, PixelwiseFeedForward
from src.models.layer_scale import LearnedScale
from src.models.local_encoding import DepthwiseEncoding
from src.models.local_perception import DepthwisePerception
from src.models.offset import LearnedOffset
from src.models.position_bias import ContinuousBias, FixedBias, RelativeBias
from src.models.stem import OverlappedStem
from src.models.weights import LoadReport, few, stretched

# Published buffers, which follow from the configuration and are no weights.
DERIVED = ("relative_position_index", "attn_mask", "rpe_table_index")


class Layout(Enum):
    """How a published tensor lies in memory, compared with ours."""

    SAME = "as ours"
    LINEAR = "a linear layer's matrix, where we have a 1x1 convolution"
    RELATIVE = "a table of displacements (heads, rows, columns), which can be resized"
    WINDOW = "a table of displacements (rows * columns, heads), which can be resized"


@dataclass(frozen=True)
class Source:
    """Where one of our parameters comes from: published names, stacked along the first axis."""

    published: tuple[str, ...]
    layout: Layout = Layout.SAME

    def to_ours(self, tensor: Tensor) -> Tensor:
        """A published tensor in our layout."""
        if self.layout is Layout.LINEAR:
            return tensor[:, :, None, None]
        if self.layout is Layout.WINDOW:
            side = math.isqrt(len(tensor))
            return tensor.T.reshape(-1, side, side)
        return tensor

    def joined(self, state_dict: Mapping[str, Tensor]) -> Tensor:
        """Our tensor, made of the published ones.

        Raises:
            ValueError: they are of a kind that it can't be made of.
        """
        tensors = [state_dict[name] for name in self.published]
        try:
            return torch.cat([self.to_ours(tensor) for tensor in tensors])
        except (RuntimeError, IndexError):
            shapes = " and ".join(f"{name} {tuple(t.shape)}" for name, t in zip(self.published, tensors, strict=True))
            raise ValueError(f"{shapes}: not the shape of {self.layout.value}") from None

    def to_published(self, tensor: Tensor) -> Tensor:
        """Our tensor in the published layout."""
        if self.layout is Layout.LINEAR:
            return tensor[:, :, 0, 0]
        return tensor.flatten(1).T if self.layout is Layout.WINDOW else tensor

    @property
    def resizable(self) -> bool:
        return self.layout in (Layout.RELATIVE, Layout.WINDOW)


def load_published(module: nn.Module, state_dict: Mapping[str, Tensor]) -> LoadReport:
    """Fill `module`, a `DAT` or one attention block, with published weights.

    Bias tables of another resolution or window are resized bicubically, as the published code does; the report
    has their published names. Nothing is copied unless everything fits.

    Raises:
        KeyError: published names that are missing, or left over.
        ValueError: a tensor whose shape doesn't fit.
    """
    converted, report = from_published(module, state_dict)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(converted[name])
    return report


def from_published(
    module: nn.Module, state_dict: Mapping[str, Tensor], *, may_lack: tuple[str, ...] = ()
) -> tuple[dict[str, Tensor], LoadReport]:
    """Published weights as the parameters of `module`, which may be on the meta device and stays as it is.

    Args:
        may_lack: beginnings of published names that needn't be there. Parameters made of them are left out then, and
            reported as re-initialised.

    Raises:
        KeyError, ValueError: as `load_published`.
    """
    sources = dict(_sources(module, "", ""))
    wanted = {name for source in sources.values() for name in source.published}
    given = {name for name in state_dict if not name.endswith(DERIVED)}
    lacking = sorted(wanted - given)
    if missing := [name for name in lacking if not name.startswith(may_lack)]:
        raise KeyError(f"published weights lack {len(missing)} names that this module needs: {few(missing)}")
    if extra := sorted(given - wanted):
        raise KeyError(f"published weights have {len(extra)} names that this module lacks: {few(extra)}")

    resized: list[str] = []
    converted: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        source = sources[name]
        if set(source.published) & set(lacking):
            continue
        tensor = source.joined(state_dict)
        if source.resizable and tensor.shape != parameter.shape and len(tensor) == len(parameter):
            tensor = stretched(tensor, parameter.shape[1:])
            resized += source.published
        if tensor.shape != parameter.shape:
            raise ValueError(
                f"{' and '.join(source.published)} make {tuple(tensor.shape)}, but {name} is {tuple(parameter.shape)}; "
                f"was the model built from the configuration of these weights?"
            )
        converted[name] = tensor.to(parameter.dtype)
    return converted, LoadReport(tuple(resized), tuple(lacking))


def to_published(module: nn.Module, *, gradients: bool = False) -> dict[str, Tensor]:
    """The parameters of `module`, or their gradients, by published names and in the published layout."""
    parameters = dict(module.named_parameters())
    out: dict[str, Tensor] = {}
    for name, source in _sources(module, "", ""):
        tensor = parameters[name].grad if gradients else parameters[name].detach()
        if tensor is None and not parameters[name].requires_grad:
            continue  # switched off for good
        if tensor is None:
            raise ValueError(f"{name} has no gradient; call backward first")
        parts = tensor.chunk(len(source.published))
        out |= {published: source.to_published(part) for published, part in zip(source.published, parts, strict=True)}
    return out


def _sources(module: nn.Module, ours: str, published: str) -> Iterator[tuple[str, Source]]:
    """Names of our parameters below `ours`, each with its source below `published`; both end with a dot or nothing."""

    def affine(our: str, *names: str, layout: Layout = Layout.SAME) -> Iterator[tuple[str, Source]]:
        yield f"{ours}{our}.weight", Source(tuple(f"{published}{name}.weight" for name in names), layout)
        yield f"{ours}{our}.bias", Source(tuple(f"{published}{name}.bias" for name in names))

    def table(our: str, name: str, layout: Layout = Layout.SAME) -> Iterator[tuple[str, Source]]:
        yield f"{ours}{our}", Source((f"{published}{name}",), layout)

    if isinstance(module, DAT):
        yield from affine("stem.0", "patch_proj.0")
        yield from affine("stem.1", "patch_proj.1.norm")
        if isinstance(module.stem, OverlappedStem):
            yield from affine("stem.3", "patch_proj.3")
            yield from affine("stem.4", "patch_proj.4.norm")
        for i, (name, stage) in enumerate(module.stages.items()):
            if i:
                yield f"{ours}stages.{name}.downsample.0.weight", Source((f"{published}down_projs.{i - 1}.0.weight",))
                yield from affine(f"stages.{name}.downsample.1", f"down_projs.{i - 1}.1.norm")
            for j, block in enumerate(cast(Iterable[Block], stage.blocks)):
                there, here = f"stages.{i}.", f"stages.{name}.blocks.{j}."
                if isinstance(block.local_perception, DepthwisePerception):
                    yield from affine(f"{here}local_perception.conv", f"{there}local_perception_units.{j}")
                yield from affine(f"{here}norm1", f"{there}layer_norms.{2 * j}.norm")
                yield from affine(f"{here}norm2", f"{there}layer_norms.{2 * j + 1}.norm")
                for k, scale in enumerate((block.scale1, block.scale2)):
                    if isinstance(scale, LearnedScale):
                        yield from table(f"{here}scale{k + 1}.factor", f"{there}layer_scales.{2 * j + k}.weight")
                for part, where in ((block.attention, f"attns.{j}."), (block.feed_forward, f"mlps.{j}.")):
                    attribute = "attention" if part is block.attention else "feed_forward"
                    yield from _sources(part, f"{ours}{here}{attribute}.", f"{published}{there}{where}")
        yield from affine("norm", "cls_norm.norm")
        if isinstance(module.head, nn.Linear):
            yield from affine("head", "cls_head")

    elif isinstance(module, ConvolutionalFeedForward):
        yield from affine("expand", "linear1.0")
        yield from affine("conv", "dwc")
        yield from affine("project", "linear2.0")

    elif isinstance(module, PixelwiseFeedForward):
        yield from affine("expand", "chunk.linear1", layout=Layout.LINEAR)
        yield from affine("project", "chunk.linear2", layout=Layout.LINEAR)

    elif isinstance(module, NeighborhoodAttention):
        yield from table("bias_table", "rpb", Layout.RELATIVE)
        yield from affine("to_qkv", "qkv", layout=Layout.LINEAR)
        yield from affine("proj", "proj", layout=Layout.LINEAR)

    elif isinstance(module, WindowAttention):
        yield from table("bias_table", "relative_position_bias_table", Layout.WINDOW)
        yield from affine("to_qkv", "proj_qkv", layout=Layout.LINEAR)
        yield from affine("proj", "proj_out", layout=Layout.LINEAR)

    elif isinstance(module, SpatialReductionAttention):
        if module.reduction > 1:
            yield from affine("reduce.0", "proj_ds.0")
            yield from affine("reduce.1", "proj_ds.1.norm")
        yield from affine("to_q", "q")
        yield from affine("to_kv", "kv")
        yield from affine("proj", "proj")

    elif isinstance(module, DeformableAttention):
        yield from affine("to_q", "proj_q")
        if isinstance(module.offset, LearnedOffset):
            yield from affine("offset.net.0", "conv_offset.0")
            yield from affine("offset.net.1", "conv_offset.1.norm")
            yield f"{ours}offset.net.3.weight", Source((f"{published}conv_offset.3.weight",))
        yield from affine("to_kv", "proj_k", "proj_v")
        # One published name for four encodings.
        if isinstance(module.position_bias, RelativeBias):
            yield from table("position_bias.bias_table", "rpe_table", Layout.RELATIVE)
        elif isinstance(module.position_bias, FixedBias):
            yield from table("position_bias.bias_table", "rpe_table", Layout.SAME)
        elif isinstance(module.position_bias, ContinuousBias):
            yield from affine("position_bias.net.0", "rpe_table.0")
            yield from table("position_bias.net.2.weight", "rpe_table.2.weight")
        if isinstance(module.local_encoding, DepthwiseEncoding):
            yield from affine("local_encoding.conv", "rpe_table")
        yield from affine("proj", "proj_out")

    else:
        raise TypeError(f"{type(module).__name__} has no published counterpart")
