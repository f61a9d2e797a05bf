"""The published code's configurations and weights, in our parts (LeapLabTHU/DAT).

`build` reads a published `MODEL.DAT` mapping, `build_block` the arguments of one published module, and
`load_published` takes published tensors by their published names. Each of our parameters is made of one or two
published ones (keys and values share a convolution here), listed in `_sources`.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from src.models.attention import AttentionKind
from src.models.attention.deformable import Deformable, DeformableAttention
from src.models.attention.spatial_reduction import SpatialReduction, SpatialReductionAttention
from src.models.attention.window import ShiftedWindowAttention, Window, WindowAttention
from src.models.block import Block
from src.models.dat import DAT
from src.models.local_encoding import DepthwiseEncoding, NoEncoding
from src.models.offset import LearnedOffset, ZeroOffset
from src.models.offset_range import BoundedRange, TanhPositions, UnboundedRange
from src.models.position_bias import FixedBias, NoBias, RelativeBias
from src.models.reference_grid import PublishedGrid
from src.models.sampling import BilinearSampling
from src.models.stage import Stage
from src.models.stem import PatchStem

STAGE_NAMES = ("one", "two", "three", "four")
V1_KERNELS = (9, 7, 5, 3)  # the published code fixes the offset network's kernel by the stage
REQUIRED = {
    *("dim_stem", "dims", "depths", "stage_spec", "heads", "window_sizes"),
    *("groups", "use_pes", "strides", "offset_range_factor"),
}
DEFAULTS: dict[str, Any] = {
    "img_size": 224,
    "patch_size": 4,
    "num_classes": 1000,
    "expansion": 4,
    "drop_rate": 0.0,
    "attn_drop_rate": 0.0,
    "drop_path_rate": 0.0,
    "use_conv_patches": False,
    "sr_ratios": [-1] * 4,
    **{flag: [False] * 4 for flag in ("dwc_pes", "no_offs", "fixed_pes", "use_dwc_mlps")},
}
DERIVED = ("relative_position_index", "attn_mask", "rpe_table_index")  # published buffers, no weights


def build(config: Mapping[str, Any], release: str = "v1") -> DAT:
    """The whole network that a published `MODEL.DAT` mapping describes.

    Raises:
        ValueError: a release, key or value that we can't reproduce.
        GeometryError: the network can't work.
    """
    _known_release(release)
    config = _complete(config)
    stages: dict[str, dict[str, Any]] = {}
    kinds: dict[str, AttentionKind] = {}
    for i, name in enumerate(STAGE_NAMES):
        letters = config["stage_spec"][i]
        kinds[f"D{i}"] = _deformable(
            learned=not config["no_offs"][i],
            range_factor=config["offset_range_factor"][i],
            use_pe=config["use_pes"][i],
            dwc_pe=config["dwc_pes"][i],
            fixed_pe=config["fixed_pes"][i],
        )
        stages[name] = {
            "dim": config["dims"][i],
            "depth": config["depths"][i],
            "num_heads": config["heads"][i],
            "attention": [f"D{i}" if letter == "D" else letter for letter in letters],
            "window_size": config["window_sizes"][i],
            "offset_groups": max(config["groups"][i], 1),  # -1 where the stage has no deformable block
            "stride": max(config["strides"][i], 1),
            "offset_kernel_size": V1_KERNELS[i],
            "reduction": max(config["sr_ratios"][i], 1),
        }
    kinds |= {"L": Window(), "S": AlwaysShifted(), "P": SpatialReduction()}
    return DAT(
        image_size=config["img_size"],
        patch_size=config["patch_size"],
        num_classes=config["num_classes"],
        mlp_ratio=config["expansion"],
        drop_path_rate=config["drop_path_rate"],
        stem=PatchStem,
        stages=stages,
        attention=kinds,
    )


def build_block(kind: str, config: Mapping[str, Any], release: str = "v1") -> nn.Module:
    """One module (B, C, H, W) to (B, C, H, W) from the arguments of its published constructor.

    Args:
        kind: deformable, local, shifted or pyramid.

    Raises:
        ValueError: an unknown kind or release, or a value that we can't reproduce.
    """
    if kind == "local":
        _known_release(release)
        return WindowAttention(config["dim"], config["heads"], window_size=config["window_size"])
    if kind == "shifted":
        _known_release(release)
        side = config["fmap_size"]
        return ShiftedWindowAttention(
            config["dim"],
            config["heads"],
            window_size=config["window_size"],
            shift=config["shift_size"],
            map_size=(side, side) if isinstance(side, int) else tuple(side),
        )
    if kind == "pyramid":
        return SpatialReductionAttention(config["dim"], config["num_heads"], reduction=config["sr_ratio"])
    if kind != "deformable":
        raise ValueError(f"no published block is called {kind!r}; there are deformable, local, shifted and pyramid")
    _known_release(release)
    if config["attn_drop"] or config["proj_drop"]:
        raise ValueError("attn_drop and proj_drop must be 0, as in all published configurations")
    deformable = _deformable(
        learned=not config["no_off"],
        range_factor=config["offset_range_factor"],
        use_pe=config["use_pe"],
        dwc_pe=config["dwc_pe"],
        fixed_pe=config["fixed_pe"],
    )
    stage = Stage(
        name=STAGE_NAMES[config["stage_idx"]],
        map_size=tuple(config["q_size"]),
        dim=config["n_heads"] * config["n_head_channels"],
        depth=1,
        num_heads=config["n_heads"],
        attention=("deformable",),
        window_size=1,
        offset_groups=config["n_groups"],
        stride=config["stride"],
        offset_kernel_size=V1_KERNELS[config["stage_idx"]],
        reduction=1,
    )
    deformable.check(stage)
    return deformable.build(stage)


class AlwaysShifted(Window):
    """Shifted windows as published: shifted also where one window covers the map (Swin wouldn't)."""

    def build(self, stage: Stage) -> nn.Module:
        return ShiftedWindowAttention(
            stage.dim,
            stage.num_heads,
            window_size=stage.window_size,
            shift=-(-stage.window_size // 2),
            map_size=stage.map_size,
        )


def _known_release(release: str) -> None:
    if release != "v1":
        raise ValueError(f"release {release!r} isn't known here; known is 'v1' (CVPR 2022)")


def _complete(given: Mapping[str, Any]) -> dict[str, Any]:
    """`given` with the published defaults; what no published CVPR model uses is refused, not passed over."""
    config = {**DEFAULTS, **given}
    if missing := sorted(REQUIRED - set(config)):
        raise ValueError(f"MODEL.DAT lacks {', '.join(missing)}; the published configurations give them")
    if unknown := sorted(set(config) - REQUIRED - set(DEFAULTS)):
        raise ValueError(f"MODEL.DAT has keys that release 'v1' doesn't know: {', '.join(unknown)}")
    for key in ("drop_rate", "attn_drop_rate"):
        if config[key]:
            raise ValueError(f"{key} is {config[key]}; it must be 0, as in all published configurations")
    if any(config["use_dwc_mlps"]) or config["use_conv_patches"]:
        raise ValueError("use_dwc_mlps and use_conv_patches belong to DAT++; release 'v1' has them off")
    if config["dim_stem"] != config["dims"][0]:
        raise ValueError(f"dim_stem {config['dim_stem']} must equal dims[0] {config['dims'][0]}")
    return config


def _deformable(*, learned: bool, range_factor: float, use_pe: bool, dwc_pe: bool, fixed_pe: bool) -> Deformable:
    """The published flags as parts. Quirk `dwc_pe_hides_bias`: with `dwc_pe` there is no table; without `use_pe`
    the other two flags mean nothing."""
    encoding: Callable[..., nn.Module] = DepthwiseEncoding if use_pe and dwc_pe else NoEncoding
    # Quirk `sign_of_the_range`: a positive factor bounds the offsets, 0 leaves them free, and a negative one also
    # takes the tanh of the positions.
    bounded = partial(BoundedRange, factor=range_factor)
    offset_range = bounded if range_factor > 0 else UnboundedRange if range_factor == 0 else TanhPositions
    bias: Callable[..., nn.Module] = NoBias
    if use_pe and not dwc_pe:
        bias = FixedBias if fixed_pe else RelativeBias
    return Deformable(
        offset=LearnedOffset if learned else ZeroOffset,
        offset_range=offset_range,
        reference_grid=PublishedGrid,
        sampling=BilinearSampling,
        position_bias=bias,
        local_encoding=encoding,
    )


# Weights


@dataclass(frozen=True)
class LoadReport:
    """What `load_published` did beside copying: published names of the bias tables that it resized."""

    resized: tuple[str, ...]

    def __str__(self) -> str:
        if not self.resized:
            return "nothing resized"
        return f"resized {len(self.resized)} bias tables: {', '.join(self.resized)}"


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
    names them. Nothing is copied unless everything fits.

    Raises:
        KeyError: published names that are missing, or left over.
        ValueError: a tensor whose shape doesn't fit.
    """
    sources = dict(_sources(module, "", ""))
    wanted = {name for source in sources.values() for name in source.published}
    given = {name for name in state_dict if not name.endswith(DERIVED)}
    if missing := sorted(wanted - given):
        raise KeyError(f"published weights lack {len(missing)} names that this module needs: {', '.join(missing)}")
    if extra := sorted(given - wanted):
        raise KeyError(f"published weights have {len(extra)} names that this module lacks: {', '.join(extra)}")

    resized: list[str] = []
    converted: dict[str, Tensor] = {}
    for name, parameter in module.named_parameters():
        source = sources[name]
        tensor = torch.cat([source.to_ours(state_dict[published]) for published in source.published])
        if source.resizable and tensor.shape != parameter.shape and len(tensor) == len(parameter):
            tensor = F.interpolate(tensor[None], parameter.shape[1:], mode="bicubic")[0]
            resized += source.published
        if tensor.shape != parameter.shape:
            raise ValueError(
                f"{' and '.join(source.published)} make {tuple(tensor.shape)}, but {name} is {tuple(parameter.shape)}; "
                f"was the model built from the configuration of these weights?"
            )
        converted[name] = tensor
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(converted[name])
    return LoadReport(tuple(resized))


def to_published(module: nn.Module, *, gradients: bool = False) -> dict[str, Tensor]:
    """The parameters of `module`, or their gradients, by published names and in the published layout."""
    parameters = dict(module.named_parameters())
    out: dict[str, Tensor] = {}
    for name, source in _sources(module, "", ""):
        tensor = parameters[name].grad if gradients else parameters[name].detach()
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

    def table(our: str, name: str, layout: Layout) -> Iterator[tuple[str, Source]]:
        yield f"{ours}{our}", Source((f"{published}{name}",), layout)

    if isinstance(module, DAT):
        yield from affine("stem.0", "patch_proj.0")
        yield from affine("stem.1", "patch_proj.1.norm")
        for i, (name, stage) in enumerate(module.stages.items()):
            if i:
                yield f"{ours}stages.{name}.downsample.0.weight", Source((f"{published}down_projs.{i - 1}.0.weight",))
                yield from affine(f"stages.{name}.downsample.1", f"down_projs.{i - 1}.1.norm")
            for j, block in enumerate(cast(nn.Sequential, stage.blocks)):
                there, here = f"stages.{i}.", f"stages.{name}.blocks.{j}."
                yield from affine(f"{here}norm1", f"{there}layer_norms.{2 * j}.norm")
                yield from _sources(
                    cast(Block, block).attention, f"{ours}{here}attention.", f"{published}{there}attns.{j}."
                )
                yield from affine(f"{here}norm2", f"{there}layer_norms.{2 * j + 1}.norm")
                mlp = f"{there}mlps.{j}.chunk."
                yield from affine(f"{here}feed_forward.0", f"{mlp}linear1", layout=Layout.LINEAR)
                yield from affine(f"{here}feed_forward.2", f"{mlp}linear2", layout=Layout.LINEAR)
        yield from affine("norm", "cls_norm.norm")
        yield from affine("head", "cls_head")

    elif isinstance(module, WindowAttention):
        yield from table("bias_table", "relative_position_bias_table", Layout.WINDOW)
        yield from affine("to_qkv", "proj_qkv", layout=Layout.LINEAR)
        yield from affine("proj", "proj_out", layout=Layout.LINEAR)

    elif isinstance(module, SpatialReductionAttention):
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
        # One published name for three encodings.
        if isinstance(module.position_bias, RelativeBias):
            yield from table("position_bias.bias_table", "rpe_table", Layout.RELATIVE)
        elif isinstance(module.position_bias, FixedBias):
            yield from table("position_bias.bias_table", "rpe_table", Layout.SAME)
        if isinstance(module.local_encoding, DepthwiseEncoding):
            yield from affine("local_encoding.conv", "rpe_table")
        yield from affine("proj", "proj_out")

    else:
        raise TypeError(f"{type(module).__name__} has no published counterpart")
