"""MONAI's RetinaNet without torchvision: a residual network under a feature pyramid, weights named as MONAI names them.

Lin et al., Focal loss for dense object detection, ICCV 2017; Lin et al., Feature pyramid networks, CVPR 2017. MONAI
takes one small class for it from torchvision, which is not everywhere; ours keeps its names, so that checkpoints of the
Model Zoo fit.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any

from monai.apps.detection.networks.retinanet_network import RetinaNet
from monai.networks.blocks.feature_pyramid_network import FeaturePyramidNetwork, LastLevelMaxPool
from monai.networks.nets.resnet import ResNet
from torch import Tensor, nn

from MedAILib.config_values import Component, known
from MedAILib.errors import SpecError

LAYERS = ("conv1", "bn1", "act", "maxpool", "layer1", "layer2", "layer3", "layer4")
WIDTH = 256
EXTRACTOR = "resnet_fpn_feature_extractor"
# The extractor's arguments in MONAI's order, with its defaults; None: there is none.
_ARGUMENTS: dict[str, Any] = {
    "backbone": None,
    "spatial_dims": None,
    "pretrained_backbone": False,
    "returned_layers": (1, 2, 3),
    "trainable_backbone_layers": None,
}


class PyramidOverResNet(nn.Module):
    """Feature maps of a residual network's layers, joined from coarse to fine.

    Args:
        backbone: MONAI's residual network.
        spatial_dims: 2 or 3.
        returned_layers: which of its layers 1 to 4 give a map each; a coarser one by pooling is added.
    """

    def __init__(self, backbone: ResNet, spatial_dims: int, returned_layers: Sequence[int] = (1, 2, 3)) -> None:
        super().__init__()
        last = f"layer{max(returned_layers)}"
        names = LAYERS[: LAYERS.index(last) + 1]
        self.body = nn.ModuleDict({name: getattr(backbone, name) for name in names if hasattr(backbone, name)})
        widest = int(backbone.in_planes)
        self.fpn = FeaturePyramidNetwork(
            spatial_dims=spatial_dims,
            in_channels_list=[widest // 8 * 2 ** (layer - 1) for layer in returned_layers],
            out_channels=WIDTH,
            extra_blocks=LastLevelMaxPool(spatial_dims),
        )
        self.out_channels = WIDTH
        self._returned = {f"layer{layer}": str(place) for place, layer in enumerate(returned_layers)}

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """Maps of an image (B, C, X, Y[, Z]), the finest first."""
        maps: OrderedDict[str, Tensor] = OrderedDict()
        for name, layer in self.body.items():
            image = layer(image)
            if name in self._returned:
                maps[self._returned[name]] = image
        result: dict[str, Tensor] = self.fpn(maps)
        return result


def retinanet(build_backbone: Callable[[Component], nn.Module], **arguments: Any) -> RetinaNet:
    """A RetinaNet as a bundle's config describes it.

    Args:
        build_backbone: builds the network that the feature extractor stands on.
        arguments: those of MONAI's class; `feature_extractor` is a `Component`.

    Raises:
        SpecError: a feature extractor other than MONAI's over a residual network.
    """
    extractor = arguments.pop("feature_extractor", None)
    if not isinstance(extractor, Component) or extractor.name != EXTRACTOR:
        raise SpecError(f"The network RetinaNet stands on what MedAI does not build; it builds MONAI's {EXTRACTOR}.")
    told = dict(_ARGUMENTS) | dict(zip(_ARGUMENTS, extractor.positional, strict=False)) | extractor.arguments
    backbone = told["backbone"]
    if not isinstance(backbone, Component) or set(told) != set(_ARGUMENTS):
        raise SpecError(f"The network RetinaNet's {EXTRACTOR} has no backbone, or arguments that MONAI's has not.")
    built = build_backbone(backbone)
    layers = tuple(int(layer) for layer in known(told["returned_layers"]))
    if not isinstance(built, ResNet) or not layers or not set(layers) <= {1, 2, 3, 4}:
        raise SpecError("The network RetinaNet stands on a residual network and its layers 1 to 4, nothing else.")
    dims = int(known(told["spatial_dims"]) or arguments["spatial_dims"])
    return RetinaNet(feature_extractor=PyramidOverResNet(built, dims, layers), **arguments)
