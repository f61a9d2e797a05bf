"""How weights begin.

The first weights of a layer are a function of the run's seed, the layer's name in the network, its shapes and the rule
that draws them: variants of one seed begin alike wherever they have the same layer, whatever else one of them has.

An initialisation is a rule for a layer; it belongs to the recipe, and all variants of a study share it.
"""

from collections.abc import Callable
from typing import Any, cast

from torch import nn
from torch.nn import init

from src.randomness import randomness_from


def draw(net: nn.Module, *, seed: int, rule: Callable[[nn.Module], None]) -> None:
    """Applies `rule` to each layer of `net`, a module with parameters of its own, by random numbers of its own.

    A layer draws weights and biases in one go, as torch's do. So a bias is the same in two variants where the matrix or
    kernel beside it, which its range depends on, has the same shape too. On the meta device nothing is drawn.
    """
    for name, module in net.named_modules():
        if list(module.parameters(recurse=False)):
            with randomness_from("weights", seed, name):
                rule(module)


def reset(layer: nn.Module) -> None:
    """As the layer begins when it is built.

    Raises:
        TypeError: it can't be told to; whatever it drew would depend on what was built before.
    """
    if not hasattr(layer, "reset_parameters"):
        raise TypeError(
            f"{type(layer).__name__} has parameters and no reset_parameters() that draws them; "
            f"give it one, as torch's own layers have"
        )
    cast(Any, layer).reset_parameters()


def published(layer: nn.Module) -> None:
    """torch's own, as the published code, whose method to set weights looks for layers among parameters, in vain."""


def fan_in(layer: nn.Module) -> None:
    """Matrices and kernels of variance 1 / fan-in, no biases; a layer with a rule of its own begins by that.

    For small networks on short schedules, which spend most of them at chance level otherwise.
    """
    rules_of_torch = (nn.Linear.reset_parameters, nn.Conv2d.reset_parameters)
    if isinstance(layer, nn.Linear | nn.Conv2d) and type(layer).reset_parameters in rules_of_torch:
        init.trunc_normal_(layer.weight, std=layer.weight[0].numel() ** -0.5)
        if layer.bias is not None:
            init.zeros_(layer.bias)


INITIALISATIONS: dict[str, Callable[[nn.Module], None]] = {"published": published, "fan_in": fan_in}
