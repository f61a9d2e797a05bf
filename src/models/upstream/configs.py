"""Published configurations as our parts: whole networks and single modules, of both releases."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from src.models.attention import AttentionKind
from src.models.attention.deformable import Deformable
from src.models.attention.neighborhood import Neighborhood, NeighborhoodAttention
from src.models.attention.spatial_reduction import SpatialReduction, SpatialReductionAttention
from src.models.attention.window import ShiftedWindowAttention, Window, WindowAttention
from src.models.dat import DAT
from src.models.downsampling import OverlappedDownsampling, PatchDownsampling
from src.models.feed_forward import ConvolutionalFeedForward, PixelwiseFeedForward
from src.models.layer_scale import LearnedScale, NoScale
from src.models.local_encoding import DepthwiseEncoding, NoEncoding
from src.models.local_perception import DepthwisePerception, NoPerception
from src.models.offset import LearnedOffset, ZeroOffset
from src.models.offset_range import BoundedRange, BoundedSteps, ClampedPositions, TanhPositions, UnboundedRange
from src.models.position_bias import ContinuousBias, FixedBias, NoBias, RelativeBias
from src.models.reference_grid import PublishedGrid, ShiftedGrid
from src.models.sampling import AveragePooling, BilinearSampling, Sampling
from src.models.stage import Stage
from src.models.stem import OverlappedStem, PatchStem

STAGE_NAMES = ("one", "two", "three", "four")
V1_KERNELS = (9, 7, 5, 3)  # the first release fixes the offset network's kernel by the stage

# What every published configuration gives, and what the code fills in.
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
    **{flag: [False] * 4 for flag in ("dwc_pes", "no_offs", "fixed_pes", "use_dwc_mlps")},
}
DEFAULTS_OF = {
    "v1": {**DEFAULTS, "sr_ratios": [-1] * 4},
    "v2": {
        **DEFAULTS,
        "sr_ratios": [8, 4, 2, 1],
        "ksizes": [9, 7, 5, 3],
        "nat_ksizes": [3] * 4,
        "layer_scale_values": [-1] * 4,
        "use_lpus": [False] * 4,
        "log_cpb": [False] * 4,
    },
}
KINDS = {
    "v1": ("deformable", "local", "shifted", "pyramid"),
    "v2": ("deformable", "local", "shifted", "pyramid", "neighborhood", "mlp_conv"),
}
LETTERS = {"v1": "LSDP", "v2": "LSDPN"}


def build(config: Mapping[str, Any], release: str = "v1") -> DAT:
    """The whole network that a published `MODEL.DAT` mapping describes.

    Args:
        release: "v1" (CVPR 2022) or "v2" (DAT++); the same keys mean different things in them.

    Raises:
        ValueError: a release, key or value that we can't reproduce.
        GeometryError: the network can't work.
    """
    config = _complete(config, release)
    stages: dict[str, dict[str, Any]] = {}
    kinds: dict[str, AttentionKind] = {}
    for i, name in enumerate(STAGE_NAMES):
        kinds[f"D{i}"] = _deformable(
            release,
            no_off=config["no_offs"][i],
            range_factor=config["offset_range_factor"][i],
            use_pe=config["use_pes"][i],
            dwc_pe=config["dwc_pes"][i],
            fixed_pe=config["fixed_pes"][i],
            log_cpb=release == "v2" and config["log_cpb"][i],
        )
        stages[name] = {
            "dim": config["dims"][i],
            "depth": config["depths"][i],
            "num_heads": config["heads"][i],
            "attention": [f"D{i}" if letter == "D" else letter for letter in config["stage_spec"][i]],
            "window_size": config["window_sizes"][i],
            "neighborhood_size": config["nat_ksizes"][i] if release == "v2" else 1,
            "offset_groups": max(config["groups"][i], 1),  # -1 where the stage has no deformable block
            "stride": max(config["strides"][i], 1),
            "offset_kernel_size": config["ksizes"][i] if release == "v2" else V1_KERNELS[i],
            "reduction": max(config["sr_ratios"][i], 1),
        }
        if "D" in config["stage_spec"][i]:
            _check_kernel(stages[name]["offset_kernel_size"], stages[name]["stride"], release)
    kinds |= {"L": Window(), "S": AlwaysShifted(), "P": SpatialReduction(), "N": Neighborhood()}
    overlapped = config["use_conv_patches"]
    scale = config["layer_scale_values"][0] if release == "v2" else -1
    return DAT(
        image_size=config["img_size"],
        table_image_size=config["img_size"],
        patch_size=config["patch_size"],
        in_channels=3,
        num_classes=config["num_classes"],
        mlp_ratio=config["expansion"],
        drop_path_rate=config["drop_path_rate"],
        stem=OverlappedStem if overlapped else PatchStem,
        downsampling=OverlappedDownsampling if overlapped else PatchDownsampling,
        local_perception=DepthwisePerception if release == "v2" and config["use_lpus"][0] else NoPerception,
        layer_scale=partial(LearnedScale, initial=scale) if scale > 0 else NoScale,
        feed_forward=ConvolutionalFeedForward if config["use_dwc_mlps"][0] else PixelwiseFeedForward,
        stages=stages,
        attention=kinds,
    )


def build_block(kind: str, config: Mapping[str, Any], release: str = "v1") -> nn.Module:
    """One module (B, C, H, W) to (B, C, H, W) from the arguments of its published constructor.

    Args:
        kind: deformable, local, shifted or pyramid; of the second release also neighborhood and mlp_conv.
        release: "v1" (CVPR 2022) or "v2" (DAT++).

    Raises:
        ValueError: an unknown kind or release, or a value that we can't reproduce.
    """
    _known_release(release)
    if kind not in KINDS[release]:
        raise ValueError(f"release {release!r} has no block {kind!r} here; there are {', '.join(KINDS[release])}")
    for dropout in ("attn_drop", "proj_drop"):
        if config.get(dropout):
            raise ValueError(f"{dropout} is {config[dropout]}; it must be 0, as in all published configurations")
    if kind == "local":
        return WindowAttention(config["dim"], config["heads"], window_size=config["window_size"])
    if kind == "shifted":
        return AlwaysShiftedWindowAttention(
            config["dim"], config["heads"], window_size=config["window_size"], shift=config["shift_size"]
        )
    if kind == "pyramid":
        return SpatialReductionAttention(config["dim"], config["num_heads"], reduction=config["sr_ratio"])
    if kind == "neighborhood":
        return NeighborhoodAttention(config["dim"], config["num_heads"], neighborhood_size=config["kernel_size"])
    if kind == "mlp_conv":
        return ConvolutionalFeedForward(config["channels"], config["channels"] * config["expansion"])
    deformable = _deformable(
        release,
        no_off=config["no_off"],
        range_factor=config["offset_range_factor"],
        use_pe=config["use_pe"],
        dwc_pe=config["dwc_pe"],
        fixed_pe=config["fixed_pe"],
        log_cpb=release == "v2" and config["log_cpb"],
    )
    stage = Stage(
        name="of its own",
        map_size=tuple(config["q_size"]),
        dim=config["n_heads"] * config["n_head_channels"],
        depth=1,
        num_heads=config["n_heads"],
        attention=("D",),
        window_size=1,
        neighborhood_size=1,
        offset_groups=config["n_groups"],
        stride=config["stride"],
        offset_kernel_size=config["ksize"] if release == "v2" else V1_KERNELS[config["stage_idx"]],
        reduction=1,
    )
    _check_kernel(stage.offset_kernel_size, stage.stride, release)
    deformable.check(stage)
    return deformable.build(stage)


class AlwaysShiftedWindowAttention(ShiftedWindowAttention):
    """Quirk `lone_window_shifted`: the published code shifts even where a single window covers the map."""

    def shifts(self, height: int, width: int) -> tuple[int, int]:
        return self.shift, self.shift


@dataclass(frozen=True)
class AlwaysShifted(Window):
    """Builds the published shifted window attention of a stage."""

    def build(self, stage: Stage) -> nn.Module:
        shift = -(-stage.window_size // 2)
        return AlwaysShiftedWindowAttention(stage.dim, stage.num_heads, window_size=stage.window_size, shift=shift)


class IdleOffset(LearnedOffset):
    """Quirk `idle_offset_network`: switched off, the second release's offset network keeps its weights, computes its
    offsets, and has them overwritten by zeros."""

    def __init__(self, dim: int, offset_groups: int, *, stride: int, kernel_size: int):
        super().__init__(dim, offset_groups, stride=stride, kernel_size=kernel_size)
        self.requires_grad_(False)

    def forward(self, q: Tensor) -> Tensor:
        return torch.zeros_like(super().forward(q))


def _known_release(release: str) -> None:
    if release not in KINDS:
        raise ValueError(f"release {release!r} isn't known here; known are 'v1' (CVPR 2022) and 'v2' (DAT++)")


def _complete(given: Mapping[str, Any], release: str) -> dict[str, Any]:
    """`given` with the published defaults; what no published model uses is refused, not passed over."""
    _known_release(release)
    defaults = DEFAULTS_OF[release]
    config = {**defaults, **given}
    if missing := sorted(REQUIRED - set(config)):
        raise ValueError(f"MODEL.DAT lacks {', '.join(missing)}; the published configurations give them")
    if unknown := sorted(set(config) - REQUIRED - set(defaults)):
        raise ValueError(f"MODEL.DAT has keys that release {release!r} doesn't know here: {', '.join(unknown)}")
    for key in ("drop_rate", "attn_drop_rate"):
        if config[key]:
            raise ValueError(f"{key} is {config[key]}; it must be 0, as in all published configurations")
    if release == "v1" and (any(config["use_dwc_mlps"]) or config["use_conv_patches"]):
        raise ValueError("use_dwc_mlps and use_conv_patches belong to DAT++; release 'v1' has them off")
    for key in ("use_dwc_mlps", "use_lpus", "layer_scale_values"):
        if len({*config.get(key, [])}) > 1:
            raise ValueError(f"{key} is {config[key]}; it must be the same in all stages, as in all published models")
    if config["use_conv_patches"] and config["patch_size"] != 4:
        raise ValueError(f"patch_size is {config['patch_size']}; with use_conv_patches it must be 4")
    if config["dim_stem"] != config["dims"][0]:
        raise ValueError(f"dim_stem {config['dim_stem']} must equal dims[0] {config['dims'][0]}")
    for letter in {letter for letters in config["stage_spec"] for letter in letters}:
        if letter not in LETTERS[release]:
            raise ValueError(
                f"stage_spec has {letter!r}, which is in neither paper's tables; here are {', '.join(LETTERS[release])}"
            )
    return config


def _check_kernel(kernel_size: int, stride: int, release: str) -> None:
    """The first release pads every kernel; ours, as the second's, none that tiles the map."""
    if release == "v1" and kernel_size == stride > 1:
        raise ValueError(f"stride {stride} equals the kernel of its stage, which isn't reproduced for release 'v1'")


def _deformable(
    release: str, *, no_off: bool, range_factor: float, use_pe: bool, dwc_pe: bool, fixed_pe: bool, log_cpb: bool
) -> Deformable:
    """The published flags as parts.

    Quirk `dwc_pe_hides_bias`: with `dwc_pe` there is no table; without `use_pe` the other flags mean nothing.
    Quirk `no_off_is_three_changes`: in the second release `no_off` also averages cells in place of reading points, and
    drops the bias.
    """
    encoding: Callable[..., nn.Module] = DepthwiseEncoding if use_pe and dwc_pe else NoEncoding
    bias: Callable[..., nn.Module] = NoBias
    if use_pe and not dwc_pe:
        relative = ContinuousBias if log_cpb else partial(RelativeBias, kernel="auto")
        bias = FixedBias if fixed_pe else relative
    offset: Callable[..., nn.Module] = ZeroOffset if no_off else LearnedOffset
    sampling: Callable[..., Sampling] = partial(BilinearSampling, kernel="auto")
    if release == "v2" and no_off:
        if use_pe and dwc_pe:
            raise ValueError("no_off with dwc_pe: the published code of release 'v2' raises an error there")
        offset, sampling, bias = IdleOffset, AveragePooling, NoBias
    return Deformable(
        offset=offset,
        offset_range=_range(release, range_factor),
        reference_grid=PublishedGrid if release == "v1" else ShiftedGrid,
        sampling=sampling,
        position_bias=bias,
        local_encoding=encoding,
    )


def _range(release: str, factor: float) -> Callable[..., nn.Module]:
    """Quirk `sign_of_the_range`: in the first release a positive factor bounds the offsets, 0 leaves them free, and a
    negative one also takes the tanh of the positions; in the second, 0 or more bounds them, and a negative one holds
    the positions on the map."""
    if release == "v2":
        return partial(BoundedSteps, factor=factor) if factor >= 0 else ClampedPositions
    if factor > 0:
        return partial(BoundedRange, factor=factor)
    return UnboundedRange if factor == 0 else TanhPositions
