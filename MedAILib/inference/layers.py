"""The layer of a network whose feature maps say where something is: the last one that still has places."""

from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from MedAILib.errors import InputError


def last_spatial_layer(network: nn.Module, image: Tensor, covariates: Tensor | None = None) -> str:
    """Name of the last module whose output still lies along the image's axes, with more than one voxel.

    Modules that work several times in one pass are left out: their maps would be confused. For MONAI's networks it is
    what its authors advise: `class_layers.relu` of a DenseNet, `layer4` of a ResNet or SENet, `_bn1` of an
    EfficientNet.

    Args:
        network: in evaluation mode.
        image: (1, C, X, Y[, Z]) as the network takes it.
        covariates: (1, n), for networks that take them.

    Raises:
        InputError: there is none, as in a vision transformer, which has tokens instead of maps.
    """
    calls: dict[str, int] = {}
    fitting: list[str] = []
    hooks = []

    def note(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            calls[name] = calls.get(name, 0) + 1
            if isinstance(output, Tensor) and output.ndim == image.ndim and max(output.shape[2:]) > 1:
                fitting.append(name)

        return hook

    for name, module in network.named_modules():
        if name:
            hooks.append(module.register_forward_hook(note(name)))
    try:
        with torch.no_grad(), FakeTensorMode(allow_non_fake_inputs=True) as fake:  # shapes alone, nothing computed
            network(*(fake.from_tensor(value) for value in (image, covariates) if value is not None))
    finally:
        for handle in hooks:
            handle.remove()
    single = [name for name in fitting if calls[name] == 1 and ".attn." not in name]
    if not single or "patch_embed" in single[-1]:
        raise InputError(
            "This model's network has no maps of features for Grad-CAM to look at; choose occlusion, "
            "integrated-gradients, lime or shap."
        )
    return single[-1]
