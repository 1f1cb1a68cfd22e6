"""What tasks of segmentation and detection do to images where their file says nothing else; plain data, no PyTorch."""

import copy
from typing import Any

Z_SCORE: dict[str, Any] = {"_target_": "NormalizeIntensityd", "channel_wise": True}

# Parameters that an augmentation has when a task names it alone. Those of nnU-Net's default trainer have its
# probabilities and ranges, but rotation and scaling are drawn together and more often, since training is shorter.
PARAMETERS: dict[str, dict[str, Any]] = {
    "rotation": {"prob": 0.6, "degrees": [22.9183, 22.9183, 22.9183]},
    "scaling": {"prob": 0.6, "range": [-0.2, 0.25]},
    "translation": {"prob": 0.6, "voxels": [4, 4, 4]},
    "elastic": {"prob": 0.2, "sigma": [6.0, 9.0], "magnitude": [60.0, 160.0]},
    "flip": {"prob": 0.5},
    "bias_field": {"prob": 0.2, "coefficients": [0.0, 0.3]},
    "ghosting": {"prob": 0.1, "ghosts": [2, 5], "strength": [0.2, 0.6]},
    "spike": {"prob": 0.1},
    "noise": {"prob": 0.15, "std": 0.3},
    "blur": {"prob": 0.2, "sigma": [0.5, 1.0]},
    "brightness": {"prob": 0.15, "factor": 0.25},
    "offset": {"prob": 0.15, "amount": 0.1},
    "contrast": {"prob": 0.15, "factor": [-0.25, 0.25]},
    "low_resolution": {"prob": 0.2, "zoom": [0.5, 1.0]},
    "gamma": {"prob": 0.3, "range": [0.7, 1.5], "inverted_prob": 0.1},
    "mixup": {"prob": 0.5, "alpha": 0.2},
}
# What nnU-Net has no counterpart of, or leaves out by default.
ON_REQUEST = ("elastic", "bias_field", "ghosting", "spike", "offset", "mixup")


def usual_recipe() -> dict[str, dict[str, Any]]:
    """Augmentations with their parameters, as a task has them that names none."""
    return {name: copy.deepcopy(found) for name, found in PARAMETERS.items() if name not in ON_REQUEST}
