"""Torchvision's networks, where torchvision is installed and works; none of them ever downloads weights."""

from typing import Any

from monai.networks.nets import TorchVisionFCModel
from torch import nn

from MedAILib.errors import ModelError


def torchvision_network(**arguments: Any) -> nn.Module:
    """Torchvision's networks under MONAI's new last layer.

    Raises:
        ModelError: torchvision is not installed, or its parts don't fit PyTorch's.
    """
    try:
        import torchvision.models  # noqa: F401, PLC0415  # optional, and broken in some installations
    except (ImportError, RuntimeError) as error:
        raise ModelError(
            "This model's network comes from torchvision, which is not installed here or does not fit PyTorch "
            f"({str(error).splitlines()[0]}); install the torchvision of the same build as PyTorch."
        ) from error
    pretrained = arguments.pop("pretrained", False) or arguments.get("weights") is not None
    if pretrained and arguments.get("model_name") in ("inception_v3", "googlenet"):
        # With weights, torchvision builds these two otherwise: the input is rescaled inside of the network.
        arguments |= {"transform_input": True, "aux_logits": True, "init_weights": False}
    return TorchVisionFCModel(**arguments | {"weights": None, "pretrained": False})


def faster_rcnn_network(name: str, **arguments: Any) -> nn.Module:
    """One of torchvision's Faster R-CNN networks, by its name there, without weights.

    Raises:
        ModelError: torchvision is not installed, or its parts don't fit PyTorch's.
    """
    try:
        from torchvision.models import detection  # noqa: PLC0415  # optional, and broken in some installations
    except (ImportError, RuntimeError) as error:
        raise ModelError(
            f"This model's detector, {name}, comes from torchvision, which is not installed here or does not fit "
            f"PyTorch ({str(error).splitlines()[0]}); install the torchvision of the same build as PyTorch."
        ) from error
    kept = {key: value for key, value in arguments.items() if not key.startswith("pretrained")}
    network: nn.Module = getattr(detection, name)(**kept | {"weights": None, "weights_backbone": None})
    return network
