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
PYRAMID = "BackboneWithFPN"
PYRAMID_TARGETS = tuple(f"{where}{PYRAMID}" for where in ("", "monai.networks.blocks.backbone_fpn_utils."))
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
        width: channels of each map.
    """

    def __init__(
        self, backbone: ResNet, spatial_dims: int, returned_layers: Sequence[int] = (1, 2, 3), width: int = WIDTH
    ) -> None:
        super().__init__()
        last = f"layer{max(returned_layers)}"
        names = LAYERS[: LAYERS.index(last) + 1]
        self.body = nn.ModuleDict({name: getattr(backbone, name) for name in names if hasattr(backbone, name)})
        self.fpn = FeaturePyramidNetwork(
            spatial_dims=spatial_dims,
            in_channels_list=channels_of(backbone, returned_layers),
            out_channels=width,
            extra_blocks=LastLevelMaxPool(spatial_dims),
        )
        self.out_channels = width
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
    if isinstance(extractor, Component) and extractor.target in PYRAMID_TARGETS:
        return RetinaNet(feature_extractor=_pyramid(build_backbone, extractor, arguments), **arguments)
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


def _pyramid(
    build_backbone: Callable[[Component], nn.Module], told: Component, arguments: dict[str, Any]
) -> PyramidOverResNet:
    """MONAI's pyramid of any width, over the layers that `return_layers` names in order.

    Raises:
        SpecError: it stands on something else than a residual network, or its arguments contradict that.
    """
    backbone, layers = told.arguments.get("backbone"), known(told.arguments.get("return_layers"))
    unknown = set(told.arguments) - {"backbone", "return_layers", "in_channels_list", "out_channels", "spatial_dims"}
    if not isinstance(backbone, Component) or not isinstance(layers, dict) or unknown or told.positional:
        raise SpecError(f"The network RetinaNet's {PYRAMID} has no backbone or layers, or arguments that are not done.")
    numbers = [int(name.removeprefix("layer")) for name in layers if name in LAYERS[4:]]
    built = build_backbone(backbone)
    if len(numbers) != len(layers) or list(layers.values()) != [str(n) for n in range(len(layers))] or not numbers:
        raise SpecError(f"The network RetinaNet's {PYRAMID} has the layers {layers}, which MedAI does not take.")
    if not isinstance(built, ResNet):
        raise SpecError("The network RetinaNet stands on a residual network and its layers 1 to 4, nothing else.")
    dims = int(known(told.arguments.get("spatial_dims")) or arguments["spatial_dims"])
    pyramid = PyramidOverResNet(built, dims, sorted(numbers), int(known(told.arguments["out_channels"])))
    wanted = channels_of(built, sorted(numbers))
    if numbers != sorted(numbers) or list(known(told.arguments.get("in_channels_list", wanted))) != wanted:
        raise SpecError(f"The network RetinaNet's {PYRAMID} contradicts its backbone, whose layers have {wanted}.")
    return pyramid


def channels_of(backbone: ResNet, layers: Sequence[int]) -> list[int]:
    """The channels of a residual network's layers, counted from 1."""
    blocks = [getattr(backbone, f"layer{layer}")[-1] for layer in layers]
    return [int((block.conv3 if hasattr(block, "conv3") else block.conv2).out_channels) for block in blocks]
