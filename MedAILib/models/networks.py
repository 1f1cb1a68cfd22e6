"""The networks that a model's description may name, and nothing else."""

from collections.abc import Callable
from typing import Any

from monai.networks.nets import BasicUNet, DynUNet, SegResNet, UNet
from torch import nn

from MedAILib.config import Component
from MedAILib.errors import ModelError, SpecError
from MedAILib.models.classifier_networks import CLASSIFIERS, OWN

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    **CLASSIFIERS,
    "BasicUNet": BasicUNet,
    "DynUNet": DynUNet,
    "SegResNet": SegResNet,
    "UNet": UNet,
}


def build_network(target: str, arguments: dict[str, Any]) -> nn.Module:
    """Construct a network of the allow-list by its MONAI class name (a dotted path counts by its last part).

    An argument that describes a network itself, such as a backbone, is built the same way.

    Raises:
        SpecError: the network is not on the list.
        ModelError: MONAI refuses the arguments.
    """
    name = target.rpartition(".")[2]
    places = (name, f"{OWN.get(name, 'monai.networks.nets')}.{name}")
    if name not in NETWORKS or target not in places:
        raise SpecError(f"The network '{target}' is not one that MedAI builds; it knows {', '.join(sorted(NETWORKS))}.")
    inner = {
        key: build_network(value.target, value.arguments)
        for key, value in arguments.items()
        if isinstance(value, Component)
    }
    try:
        return NETWORKS[name](**arguments | inner)
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
