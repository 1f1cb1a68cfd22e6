"""A trained segmentation network as a MONAI bundle that MedAI and stock MONAI run alike."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from MedAILib.training.architectures import OWN_PLACES
from MedAILib.training.bundle_config import CROP, DEVICE, EVALUATOR, WEIGHTS, described, image_format, images_of
from MedAILib.training.export import Contents, licence_text, write_model
from MedAILib.training.task import SegmentationTask

# Only of use while training: the network that runs has no auxiliary heads.
TRAINING_ONLY = ("deep_supervision_heads.", "heads.")


@dataclass(frozen=True)
class Bundle:
    """What goes into a bundle: the task it was trained for, its weights by name, the text of its model card."""

    task: SegmentationTask
    weights: dict[str, Tensor]
    card: str


def write_bundle(bundle: Bundle, folder: Path) -> None:
    """Write a bundle into a folder that does not exist yet, or replace the bundle that stands there.

    Weights are stored in half precision. The folder is built beside its place and moved there when it is whole.

    Raises:
        OutputError: the folder can't be written, or holds something else than a bundle.
    """
    task = bundle.task
    configs = {"metadata": metadata(task), "inference": inference(task)}
    write_model(Contents(configs, bundle.card, licence_text(task), _halved(bundle.weights)), folder)


def network_arguments(task: SegmentationTask) -> dict[str, Any]:
    """The network's description for inference: that of the task, without auxiliary heads; own ones by their place."""
    told = {key: value for key, value in task.network.items() if not key.startswith("deep_super")}
    return told | {"_target_": OWN_PLACES.get(str(told["_target_"]), told["_target_"])}


def metadata(task: SegmentationTask) -> dict[str, Any]:
    """The bundle's `metadata.json`, of MONAI's schema, and MedAI's own entry "medai"."""
    labels = {str(label["value"]): label for label in task.labels}
    image = image_format(task.channels, task.modality, task.patch, patch=True)
    pred = {
        "type": "image",
        "format": "segmentation",
        "num_channels": task.classes,
        "spatial_shape": task.patch,
        "dtype": "float32",
        "value_range": [0, task.classes - 1],
        "is_patch_data": True,
        "channel_def": {"0": "background"} | {key: label["name"] for key, label in labels.items()},
    }
    data_type = "nibabel" if task.spacing_mm else "png"
    needs = {"nibabel": "5.3.0", "pytorch-ignite": "0.5.0"}
    return described(task, task.description, data_type, needs) | {
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
        "medai": {
            "labels": {key: _shown(label) for key, label in labels.items()},
            "mirror_axes": task.mirror_axes,
            "warnings": task.warnings,
        },
    }


def inference(task: SegmentationTask) -> dict[str, Any]:
    """The bundle's `inference.json`: what stock MONAI runs, and what MedAI reads its steps from."""
    image, pred = {"keys": "image"}, {"keys": "pred"}
    spacing = {"_target_": "Spacingd", **image, "pixdim": task.spacing_mm, "mode": "bilinear"}
    return images_of(".nii.gz" if task.spacing_mm else ".png") | {
        "device": DEVICE,
        "network_def": network_arguments(task),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **image},
                {"_target_": "EnsureChannelFirstd", **image},
                *([{"_target_": "Orientationd", **image, "axcodes": task.orientation}] if task.orientation else []),
                *([CROP] if task.crop_foreground else []),
                *([spacing] if task.spacing_mm else []),
                *({"_target_": entry["_target_"], **image, **entry} for entry in task.intensity),
                {"_target_": "EnsureTyped", **image},
            ],
        },
        "inferer": {
            "_target_": "SlidingWindowInferer",
            "roi_size": task.patch,
            "sw_batch_size": 1,
            "overlap": 0.5,
            "mode": "gaussian",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", **pred, "softmax": True},
                {
                    "_target_": "Invertd",
                    **pred,
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", **pred, "argmax": True},
                {
                    "_target_": "SaveImaged",
                    **pred,
                    "output_dir": "@output_dir",
                    "output_postfix": "seg",
                    **({} if task.spacing_mm else {"output_ext": ".png"}),
                    "output_dtype": "uint8",
                    "separate_folder": False,
                },
            ],
        },
        "evaluator": EVALUATOR,
        "checkpointloader": WEIGHTS,
        "initialize": ["$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }


def _shown(label: dict[str, Any]) -> dict[str, Any]:
    return {key: label[key] for key in ("color", "terminology") if key in label}


def _halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights in half precision; names that share one tensor (DynUNet has such) go on sharing it."""
    halves = {value.data_ptr(): value.half() for key, value in weights.items()}
    return {key: halves[value.data_ptr()] for key, value in weights.items() if not _training_only(key)}


def _training_only(key: str) -> bool:
    return key.startswith(TRAINING_ONLY) or ".super_head." in key
