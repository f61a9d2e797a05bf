"""How a network is trained: every number of the recipe, under one name."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The numbers of a training, as `conf/recipe/` states them.

    Attributes:
        epochs, warmup_epochs: the learning rate rises for `warmup_epochs` and then follows a cosine to the end.
        batch_size: images per device and step.
        accumulate: steps whose gradients are summed before the weights move.
        initialisation: how weights begin, a name in `src/models/init.py`.
        base_lr, min_lr, warmup_lr: peak, last and first learning rate, each per 512 images of the total batch.
        clip_norm: largest norm of the gradient; 0 is off.
        mixup, cutmix: alpha of the blend; 0 is off.
        ema_decay: of averaged weights that are evaluated in place of the last ones; None is off.
    """

    epochs: int
    warmup_epochs: float
    batch_size: int
    accumulate: int
    initialisation: str
    base_lr: float
    min_lr: float
    warmup_lr: float
    betas: tuple[float, float]
    weight_decay: float
    clip_norm: float
    label_smoothing: float
    mixup: float
    cutmix: float
    ema_decay: float | None

    def __post_init__(self) -> None:
        """Raises ValueError, in one line, on a recipe that can't run."""
        for field in ("epochs", "batch_size", "accumulate"):
            if getattr(self, field) < 1:
                raise ValueError(f"recipe.{field} is {getattr(self, field)}; it must be at least 1")
        if not 0 <= self.warmup_epochs < self.epochs:
            raise ValueError(
                f"recipe.warmup_epochs is {self.warmup_epochs}; it must be less than recipe.epochs={self.epochs}"
            )
        if self.base_lr <= 0:
            raise ValueError(f"recipe.base_lr is {self.base_lr}; it must be above 0")
        if (self.mixup or self.cutmix) and self.batch_size % 2:
            raise ValueError(
                f"recipe.batch_size is {self.batch_size}; mixup and cutmix blend pairs, so it must be even, "
                f"or set recipe.mixup=0 recipe.cutmix=0"
            )

    def peak_lr(self, devices: int) -> float:
        """The learning rate after warm-up, for the total batch of `devices` processes."""
        return self.base_lr * self.batch_size * self.accumulate * devices / 512
