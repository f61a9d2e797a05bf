"""What timm expects of a network beside its forward pass: features, heads, pruning, groups of parameters.

https://huggingface.co/docs/timm/feature_extraction says what the methods mean.
"""

from typing import Any

from timm.models._features import feature_take_indices
from torch import Tensor, nn

from src.models.checkpointing import Blocks

POOLS = ("avg", "")
WITH_THE_LAYER_BEFORE = (99999,)  # how timm's groups of parameters say so


class TimmBackbone(nn.Module):
    """The parts of timm's model API that follow from four stages with a stem before and a norm and a head behind.

    Attributes:
        stem, stages, norm, head: the network; stages by name.
        in_chans, num_classes: channels of the images, logits.
        global_pool: `avg` over the map, or nothing, which leaves a map.
        num_features, head_hidden_size: channels of the last map.
        feature_info: for each stage its channels, stride and module.
    """

    stem: nn.Module
    stages: nn.ModuleDict
    norm: nn.Module
    head: nn.Module
    in_chans: int
    num_classes: int
    global_pool: str
    num_features: int
    feature_info: list[dict[str, Any]]

    @property
    def head_hidden_size(self) -> int:
        return self.num_features

    def stage_maps(self, images: Tensor, *, stages: int | None = None) -> list[Tensor]:
        """The map (B, C, H, W) that each of the first `stages` stages ends with."""
        raise NotImplementedError

    def forward_features(self, x: Tensor) -> Tensor:
        """The normalised map of the last stage."""
        return self.norm(self.stage_maps(x)[-1])

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """That map pooled, and made logits of unless `pre_logits`."""
        if self.global_pool:
            x = x.mean(dim=(2, 3))
        return x if pre_logits else self.head(x)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """Maps of the stages at `indices`; before them, unless `intermediates_only`, what the network ends with.

        Args:
            indices: in the order of the answer; a number for the last ones, None for all.
            norm: whether the last stage's map among them is normalised; the others have no norm.
            stop_early: compute no stage that isn't asked for.

        Raises:
            ValueError: another `output_fmt` than NCHW.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt is {output_fmt!r}; maps are NCHW")
        wanted, last = feature_take_indices(len(self.stages), indices)
        maps = self.stage_maps(x, stages=last + 1 if stop_early else None)
        final = self.norm(maps[-1]) if len(maps) == len(self.stages) else maps[-1]
        found = [final if norm and i == len(maps) - 1 else maps[i] for i in wanted]
        return found if intermediates_only else (final, found)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drops the stages behind the last of `indices`, and on demand norm and head; returns the indices, from 0."""
        wanted, last = feature_take_indices(len(self.stages), indices)
        cut = last < len(self.stages) - 1
        for name in list(self.stages)[last + 1 :]:
            del self.stages[name]
        self.num_features = self.feature_info[last]["num_chs"]
        if prune_norm or cut:
            self.norm = nn.Identity()
        if prune_head or cut:
            self.reset_classifier(0, "")
        return wanted

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new head; 0 classes for none.

        Raises:
            ValueError: an unknown `global_pool`, or logits of a map that isn't pooled.
        """
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in POOLS:
            raise ValueError(f"global_pool is {pool!r}; it must be 'avg', or '' for the map")
        if not pool and num_classes:
            raise ValueError(f"global_pool '' leaves a map, without logits: num_classes is {num_classes}, must be 0")
        self.num_classes, self.global_pool = num_classes, pool
        like = next(self.parameters())
        self.head = nn.Identity()
        if num_classes:
            self.head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Whether activations inside of blocks are kept for the gradient, or computed again."""
        for module in self.modules():
            if isinstance(module, Blocks):
                module.checkpointed = enable

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Regular expressions that put parameters into layers from image to logits: stages if `coarse`, else blocks."""
        layers: dict[str, Any] = {"stem": r"^stem\."}
        for name in self.stages:
            stage = rf"^stages\.{name}\."
            layers[name] = stage if coarse else [(rf"{stage}downsample", (0,)), (rf"{stage}blocks\.(\d+)", None)]
        return layers | {"norm": [(r"^norm\.", WITH_THE_LAYER_BEFORE)]}

    def no_weight_decay(self) -> set[str]:
        """Names of the parameters that don't decay, by the published rule."""
        from src.optim import published_exemptions  # which knows the parts that are made of this

        exempt = published_exemptions(self)
        return {name for name, parameter in self.named_parameters() if parameter in exempt}
