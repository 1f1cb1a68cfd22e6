"""The networks that a model's description may name, and nothing else."""

from typing import Any

from monai.networks.nets import BasicUNet, DynUNet, SegResNet, UNet
from torch import nn

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
