"""How weights begin.

An initialisation is a function of the network, applied once it is built; it belongs to the recipe, and all variants
of a study share it.
"""

from torch import nn
from torch.nn import init


def published(net: nn.Module) -> None:
    """torch's own, as the published code, whose method to set weights looks for layers among parameters, in vain."""


def fan_in(net: nn.Module) -> None:
    """Matrices and kernels of variance 1 / fan-in, no biases.

    For small networks on short schedules, which spend most of them at chance level otherwise.
    """
    for module in net.modules():
        if isinstance(module, nn.Linear | nn.Conv2d):
            init.trunc_normal_(module.weight, std=module.weight[0].numel() ** -0.5)
            if module.bias is not None:
                init.zeros_(module.bias)


INITIALISATIONS = {"published": published, "fan_in": fan_in}
