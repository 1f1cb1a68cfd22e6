"""What networks that look at images whole hold for each voxel of them: classifiers, and detectors on their layers.

Measured on the CPU (float32 numbers at the peak of a pass) and expressed by the build that a bundle names, so that
other widths and strides follow.
"""

from math import prod
from typing import Any

from MedAILib.config_values import Component

# How many times more is held where the gradients of the whole network are asked for, by the network's family.
_GRADIENTS = {"densenet": 13.0, "resnet": 5.2, "efficientnet": 4.1, "senet": 8.0, "vit": 6.0}
# Channels of an EfficientNet, b0 to b8 and l2, against those of b0.
_WIDTHS = {"b0": 1.0, "b1": 1.0, "b2": 1.1, "b3": 1.2, "b4": 1.4, "b5": 1.6, "b6": 1.8, "b7": 2.0, "b8": 2.2, "l2": 4.3}
# Channels of the maps that a detector joins, and how many of them it holds at a time.
_PYRAMID, _MAPS_HELD = 256, 5.0
_DEEP = ("50", "101", "152", "200")


def feature_values(network: Component, dimensions: int) -> tuple[float, float] | None:
    """Numbers held for each voxel of the image: in a pass, and with the gradients of the whole network.

    Args:
        network: as a bundle names it.
        dimensions: 2 for pictures, 3 for volumes.

    Returns:
        None for a network of unknown build.
    """
    try:
        return _values(network, dimensions)
    except (KeyError, IndexError, TypeError, ValueError, ArithmeticError, AttributeError):
        return None  # it says of its build what can't be built; opening the model says so


def _values(network: Component, dimensions: int) -> tuple[float, float] | None:
    name, told = network.name.lower(), network.arguments
    for key in ("backbone", "members", "feature_extractor"):
        if key in told:
            inner = told[key][0] if key == "members" else told[key]
            if not isinstance(inner, Component):
                return None
            if key == "feature_extractor":
                return _pyramid(inner, dimensions)
            return _values(inner, dimensions)
    if name.startswith("densenet"):
        maps = 1.7 if dimensions == 3 else 2.4
        plain, family = maps * int(told.get("init_features", 64)) / 2**dimensions, "densenet"
    elif name.startswith(("resnet", "wideresnet")):
        plain, family = _resnet(name, told, dimensions), "resnet"
    elif name.startswith("efficientnet"):
        size = str(told["model_name"]).rpartition("-")[2]
        plain, family = 3.9 * 96 * _WIDTHS[size] / 2**dimensions, "efficientnet"
    elif name.startswith(("senet", "seresne")):
        first = 64.0 / 2**dimensions
        plain, family = max(2.0 * first, 3.9 * 256 / 4**dimensions), "senet"
    elif name == "vit":
        plain, family = _vit(told, dimensions), "vit"
    else:
        return None
    return plain, _GRADIENTS[family] * plain


def _resnet(name: str, told: Any, dimensions: int) -> float:
    """A first layer at its stride, and after pooling the first block, which a bottleneck makes four times as wide."""
    step = told.get("conv1_t_stride", 1)
    voxels = int(step) ** dimensions if isinstance(step, (int, float)) else prod(int(n) for n in step)
    width = int(told.get("block_inplanes", (64,))[0])
    wide = 4 * width if told.get("block") == "bottleneck" or name.endswith(_DEEP) else width
    pooled = 1 if told.get("no_max_pool") else 2**dimensions
    return max((2.3 if dimensions == 3 else 1.6) * width / voxels, 3.9 * wide / (voxels * pooled))


def _vit(told: Any, dimensions: int) -> float:
    """Tokens against each other in every head, and each token in its layers; shared among the image's voxels."""
    sides = [_along(told["img_size"], axis) for axis in range(dimensions)]
    tokens = prod(side // _along(told["patch_size"], axis) for axis, side in enumerate(sides))
    hidden, layers = int(told.get("hidden_size", 768)), int(told.get("mlp_dim", 3072))
    held = 4 * int(told.get("num_heads", 12)) * tokens**2 + (3 * layers + 5 * hidden) * tokens
    return held / prod(sides)


def _pyramid(extractor: Component, dimensions: int) -> tuple[float, float] | None:
    """A detector: a residual network, or the joined maps of its finest layer while a head works on them."""
    backbone = extractor.arguments.get("backbone", (*extractor.positional, None)[0])
    if not isinstance(backbone, Component):
        return None
    layers = extractor.arguments.get("returned_layers", (*extractor.positional, *[(1, 2, 3)] * 4)[3])
    step = backbone.arguments.get("conv1_t_stride", 1)
    voxels = int(step) ** dimensions if isinstance(step, (int, float)) else prod(int(n) for n in step)
    finest = voxels * 2 ** (dimensions * min(int(layer) for layer in layers))
    plain = max(_resnet(backbone.name.lower(), backbone.arguments, dimensions), _MAPS_HELD * _PYRAMID / finest)
    return plain, _GRADIENTS["resnet"] * plain


def _along(sizes: Any, axis: int) -> int:
    return int(sizes if isinstance(sizes, (int, float)) else sizes[axis])
