"""Networks that a segmentation task may have, laid out for a patch: MONAI's and one of MedAI's own."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from MedAILib.errors import InputError

NETWORKS = ("DynUNet", "UNet", "BasicUNet", "SegResNet", "SwinUNETR", "FCN", "AutoEncoder")
# Of these, the ones that are MedAI's own, which stock MONAI finds by their place where MedAI is installed.
OWN_PLACES = {"FCN": "MedAILib.models.fcn.FCN"}
DEEPEST = 6
LEAST_LEVELS = 3  # of a DynUNet
MOST_FEATURES = {2: 512, 3: 320}  # nnU-Net's, by axes
LEAST_SIDE = 4  # voxels along an axis at the coarsest level


@dataclass(frozen=True)
class Levels:
    """How a network halves an image: for each level, first the finest, stride and kernel along each axis."""

    strides: tuple[tuple[int, ...], ...]
    kernels: tuple[tuple[int, ...], ...]

    @property
    def axes(self) -> int:
        """2 for pictures, 3 for volumes."""
        return len(self.strides[0])

    @property
    def multiple(self) -> tuple[int, ...]:
        """What a patch's size has to be a multiple of."""
        return tuple(math.prod(stride[axis] for stride in self.strides) for axis in range(self.axes))


def levels_for(spacing_mm: Sequence[float], patch: Sequence[int]) -> Levels:
    """nnU-Net's rule: halve each axis that is fine enough beside the finest, while at least 4 voxels are left.

    An axis of more than twice the finest's spacing waits, and has kernels of 1, until the others have caught up.
    """
    spacing, size = list(spacing_mm), [float(n) for n in patch]
    axes = range(len(size))
    strides: list[tuple[int, ...]] = [(1,) * len(size)]
    kernels: list[tuple[int, ...]] = []
    wide = [False] * len(size)
    while True:
        wide = [w or mm / min(spacing) < 2 for w, mm in zip(wide, spacing, strict=True)]
        kernels.append(tuple(3 if w else 1 for w in wide))
        able = [axis for axis in axes if size[axis] >= 2 * LEAST_SIDE]
        if len(strides) == DEEPEST or not able:
            break
        finest = min(spacing[axis] for axis in able)
        halved = [axis for axis in able if spacing[axis] / finest < 2]
        stride = tuple(2 if axis in halved else 1 for axis in axes)
        strides.append(stride)
        size = [math.ceil(n / s) for n, s in zip(size, stride, strict=True)]
        spacing = [mm * s for mm, s in zip(spacing, stride, strict=True)]
    return Levels(tuple(strides), tuple(kernels))


def multiple_of(name: str, levels: Levels) -> tuple[int, ...]:
    """What a patch for a network has to be a multiple of along each axis."""
    own = {"BasicUNet": 16, "SegResNet": 8, "SwinUNETR": 32}
    return (own[name],) * levels.axes if name in own else levels.multiple


def network_entry(name: str, levels: Levels, channels: int, classes: int, base: int) -> dict[str, Any]:
    """A task's entry for a network.

    Args:
        name: one of `NETWORKS`.
        levels: how it halves an image, where the network leaves a choice.
        channels: what goes in.
        classes: what comes out, background included.
        base: features at the finest level; doubled at each level, `MOST_FEATURES` at most.

    Raises:
        InputError: no such network.
    """
    features = [min(base * 2**level, MOST_FEATURES[levels.axes]) for level in range(len(levels.strides))]
    strides, kernels = ([list(axis) for axis in rows] for rows in (levels.strides, levels.kernels))
    shared = {"spatial_dims": levels.axes, "in_channels": channels, "out_channels": classes}
    match name:
        case "DynUNet" if len(strides) < LEAST_LEVELS:
            raise InputError(
                "The images are too small for a DynUNet, which halves them twice; take --set network=UNet."
            )
        case "DynUNet":
            heads = max(len(strides) - 3, 0)
            return {"_target_": name, **shared, "kernel_size": kernels, "strides": strides} | {
                "upsample_kernel_size": strides[1:],
                "filters": features,
                "norm_name": ["INSTANCE", {"affine": True}],
                "act_name": ["leakyrelu", {"negative_slope": 0.01, "inplace": True}],
                **({"deep_supervision": True, "deep_supr_num": heads} if heads else {}),
            }
        case "UNet" | "FCN":
            units = {"num_res_units": 2} if name == "UNet" else {}
            return {"_target_": name, **shared, "channels": features, "strides": strides[1:], **units}
        case "AutoEncoder":
            return {"_target_": name, **shared, "channels": features[1:] or features, "strides": strides[1:]}
        case "BasicUNet":
            return {"_target_": name, **shared, "features": [base, base, *(base * n for n in (2, 4, 8)), base]}
        case "SegResNet":
            return {"_target_": name, **shared, "init_filters": max(base // 8, 1) * 8, "blocks_down": [1, 2, 2, 4]} | {
                "blocks_up": [1, 1, 1]
            }
        case "SwinUNETR":
            return {"_target_": name, **shared, "feature_size": 24 if base < 32 else 48}
    raise InputError(f"There is no network '{name}' for segmentation; known are {', '.join(NETWORKS)}.")


def head_weights(entry: dict[str, Any]) -> list[float]:
    """What each head's loss counts, halved from level to level; one head without deep supervision."""
    heads = int(entry.get("deep_supr_num", 0)) if entry.get("deep_supervision") else 0
    return [0.5**level for level in range(heads + 1)]


def feature_values(levels: Levels, patch: Sequence[int], base: int) -> float:
    """How many feature values one patch makes in a U-Net of two convolutions a level on either side."""
    size, total = [float(n) for n in patch], 0.0
    for level, stride in enumerate(levels.strides):
        size = [n / s for n, s in zip(size, stride, strict=True)]
        total += (
            math.prod(size)
            * min(base * 2**level, MOST_FEATURES[levels.axes])
            * (5 if level < len(levels.strides) - 1 else 2)
        )
    return total


# The first stages of each network's encoder, by the beginnings of its weights' names.
def encoder_stages(name: str, keys: Sequence[str]) -> list[tuple[str, ...]]:
    """For each stage of a network's encoder, the first first, how the names of its weights begin."""
    stages: list[tuple[str, ...]]
    match name:
        case "DynUNet":
            stages = [("input_block.",), *((f"downsamples.{n}.",) for n in range(DEEPEST)), ("bottleneck.",)]
        case "SegResNet":
            stages = [("convInit.", "down_layers.0."), *((f"down_layers.{n}.",) for n in range(1, 8))]
        case "BasicUNet":
            stages = [("conv_0.",), *((f"down_{n}.",) for n in range(1, 5))]
        case "SwinUNETR":
            stages = [
                ("swinViT.patch_embed.",),
                *((f"swinViT.layers{n}.", f"swinViT.layers{n}c.") for n in range(1, 5)),
            ]
        case "UNet":
            stages = [(f"model.{'1.submodule.' * n}0.",) for n in range(DEEPEST)]
        case "FCN":
            stages = [(f"levels.{n}.",) for n in range(DEEPEST)]
        case "AutoEncoder":
            stages = [(f"encode.encode_{n}.",) for n in range(DEEPEST)]
        case _ if name.rpartition(".")[2].lower().startswith("resnet"):
            stages = [("conv1.", "bn1."), *((f"layer{n}.",) for n in range(1, 5))]
        case _ if name.rpartition(".")[2].startswith("DenseNet"):
            stages = [
                ("features.conv0.", "features.norm0."),
                *((f"features.denseblock{n}.", f"features.transition{n}.") for n in range(1, 5)),
            ]
        case "EfficientNetBN":
            stages = [("_conv_stem.", "_bn0."), *((f"_blocks.{n}.",) for n in range(DEEPEST + 1))]
        case _ if name.endswith("TextbookCNN"):
            stages = [(f"features.{3 * n}.",) for n in range(DEEPEST)]
        case _:
            stages = []
    return [stage for stage in stages if any(key.startswith(stage) for key in keys)]
