"""The networks that a model's description may name, and nothing else."""

import math
from typing import Any

from monai.networks.nets import BasicUNet, DynUNet, SegResNet, UNet
from torch import nn

from MedAILib.config import Component
from MedAILib.errors import ModelError, SpecError

NETWORKS: dict[str, type[nn.Module]] = {
    "BasicUNet": BasicUNet,
    "DynUNet": DynUNet,
    "SegResNet": SegResNet,
    "UNet": UNet,
}


def build_network(target: str, arguments: dict[str, Any]) -> nn.Module:
    """Construct a network of the allow-list by its MONAI class name (a dotted path counts by its last part).

    Raises:
        SpecError: the network is not on the list.
        ModelError: MONAI refuses the arguments.
    """
    name = target.rpartition(".")[2]
    if name not in NETWORKS or target not in (name, f"monai.networks.nets.{name}"):
        raise SpecError(f"The network '{target}' is not one that MedAI builds; it knows {', '.join(sorted(NETWORKS))}.")
    try:
        return NETWORKS[name](**arguments)
    except (
        TypeError,
        ValueError,
        AssertionError,
        NotImplementedError,
        LookupError,
        RuntimeError,
        AttributeError,
    ) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ModelError(f"The network {name} can't be built from the model's description: {reason}.") from error


def window_multiple(network: Component) -> tuple[int, ...] | None:
    """Along each axis, what the size of a window must be a multiple of for a network to take it; None: not known."""
    arguments = network.arguments
    try:
        if network.name in ("DynUNet", "UNet"):
            strides = [(n,) * 3 if isinstance(n, int) else tuple(n) for n in arguments["strides"]]
            return tuple(math.prod(stride[axis] for stride in strides) for axis in range(3))
        if network.name == "BasicUNet":
            return (16, 16, 16)
        if network.name == "SegResNet":
            return (2 ** (len(arguments.get("blocks_down", (1, 2, 2, 4))) - 1),) * 3
    except (KeyError, TypeError, IndexError):
        return None
    return None
