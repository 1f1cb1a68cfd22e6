"""Networks that a classification task may have by name, laid out for its images; and entries made to fit these."""

from collections.abc import Sequence
from typing import Any

from MedAILib.errors import InputError

NETWORKS = ("DenseNet", "ResNet", "EfficientNet", "TextbookCNN")
FEATURES = 32  # that say what a frame of a sequence shows
LARGE = 64  # pixels or voxels along the longest axis, from which on a ResNet begins with two halvings
LEAST_EFFICIENT = 32  # pixels or voxels along each axis that an EfficientNet can halve as often as it does
LEAST_SIDE, MOST_SIDE = 3, 8  # that a TextbookCNN's last maps have, as far as the image's shape allows
# What networks call the numbers of their channels and outputs.
_INPUTS = ("in_channels", "n_input_channels")
_OUTPUTS = ("out_channels", "num_classes")


def class_network(name: str, channels: int, size: Sequence[int], outputs: int, frames: int) -> dict[str, Any]:
    """A task's entry for a network; for sequences it looks at each frame, with a GRU over what it says of them.

    Args:
        name: one of `NETWORKS`.
        channels: of an image, or of a frame.
        size: of the working image, along two axes or three.
        outputs: numbers that the whole network gives.
        frames: of a sequence; 0 for single images.

    Raises:
        InputError: no such network, or one that needs larger images.
    """
    if not frames:
        return _single(name, channels, size, outputs)
    backbone = _single(name, channels, size, FEATURES)
    whole = {"_target_": "SequenceClassifier", "backbone": backbone, "features": FEATURES, "out_channels": outputs}
    return whole | {"hidden": FEATURES, "recurrent": "gru"}


def fitted(network: dict[str, Any], channels: int, size: Sequence[int], outputs: int) -> dict[str, Any]:
    """A network's entry whose numbers of channels, axes and outputs, where it tells them, are those of the images."""
    told: dict[str, Any] = {key: outputs for key in _OUTPUTS if key in network}
    seeing = network.get("backbone")
    if isinstance(seeing, dict):
        return network | told | {"backbone": seeing | _inputs(seeing, channels, size)}
    return network | told | _inputs(network, channels, size)


def _inputs(network: dict[str, Any], channels: int, size: Sequence[int]) -> dict[str, Any]:
    told: dict[str, Any] = {key: channels for key in _INPUTS if key in network}
    wanted = {"spatial_dims": len(size), "in_shape": list(size)}
    return told | {key: value for key, value in wanted.items() if key in network}


def _single(name: str, channels: int, size: Sequence[int], outputs: int) -> dict[str, Any]:
    axes = len(size)
    shared = {"spatial_dims": axes, "in_channels": channels}
    match name:
        case "DenseNet":
            return {"_target_": name, **shared, "out_channels": outputs} | {
                **{"init_features": 16, "growth_rate": 8, "block_config": [2, 4, 4]},
            }
        case "ResNet":
            large, width = max(size) >= LARGE, 32 if axes == 2 else 16
            return {"_target_": name, "spatial_dims": axes, "n_input_channels": channels, "num_classes": outputs} | {
                **{"block": "basic", "layers": [2, 2, 2, 2], "block_inplanes": [width * 2**n for n in range(4)]},
                **{"conv1_t_size": 7 if large else 3, "conv1_t_stride": 2 if large else 1, "no_max_pool": not large},
            }
        case "EfficientNet" if min(size) < LEAST_EFFICIENT:
            raise InputError(
                f"An EfficientNet needs images of {LEAST_EFFICIENT} or more along each axis, and the task's size is "
                f"{' x '.join(map(str, size))}; give a larger --set size, or another network."
            )
        case "EfficientNet":
            return {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", "pretrained": False} | {
                **shared,
                "num_classes": outputs,
            }
        case "TextbookCNN":
            return {"_target_": name, **shared, "out_channels": outputs, "in_shape": list(size)} | {
                **{"features": _blocks(size), "dense": 128, "dropout": 0.5},
            }
    raise InputError(f"There is no network '{name}' for classifiers; known are {', '.join(NETWORKS)}.")


def _blocks(size: Sequence[int]) -> list[int]:
    """Features of a TextbookCNN's blocks, each of which halves the image; three of them at least where it is large."""
    features, sides = [32], [n // 2 for n in size]
    while min(sides) >= 2 * LEAST_SIDE and (len(features) < 3 or max(sides) > MOST_SIDE):
        features.append(min(2 * features[-1], 128))
        sides = [n // 2 for n in sides]
    return features
