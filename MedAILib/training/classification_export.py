"""A trained classifier's description as a MONAI bundle: what it is, and how stock MONAI and MedAI run it."""

from typing import Any

from MedAILib.models.mean_classifier import MeanClassifier
from MedAILib.training.bundle_config import CROP, DEVICE, EVALUATOR, WEIGHTS, described, image_format, images_of
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.decision import Calibration
from MedAILib.training.kernel_lesson import kernel_network


def metadata(task: ClassificationTask, calibration: Calibration) -> dict[str, Any]:
    """The bundle's `metadata.json`, of MONAI's schema, and MedAI's own entry "medai"."""
    image = image_format(task.channels, task.modality, task.size, patch=False)
    pred = {
        "type": "probabilities",
        "format": "classes",
        "num_channels": task.decided.outputs,
        "spatial_shape": [1, task.decided.outputs],
        "dtype": "float32",
        "value_range": [0, 1],
        "is_patch_data": False,
        "channel_def": {str(number): name for number, name in enumerate(task.decided.output_names)},
    }
    data_type = "png" if len(task.size) == 2 else "nibabel"
    needs = {"pillow": "11.0.0", "pytorch-ignite": "0.5.0"}
    return described(task, f"Classification: {task.description}", data_type, needs) | {
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
        "medai": {"classification": _decisions(task, calibration), "warnings": task.limits},
    }


def _decisions(task: ClassificationTask, calibration: Calibration) -> dict[str, Any]:
    found: dict[str, Any] = {
        "kind": task.decision,
        "classes": list(task.names),
        "labels": {name: list(labels) for name, labels in task.labels.items()},
        "temperature": calibration.temperature,
    }
    if task.frames:
        found |= {"sequence": True, "frames": task.frames}
    if thresholds := task.decided.exported(calibration.thresholds):
        found["thresholds"] = thresholds
    if any(calibration.offsets):
        found["offsets"] = dict(zip(task.decided.output_names, calibration.offsets, strict=True))
    if calibration.strange_above is not None:
        found["out_of_distribution"] = {
            "method": task.decided.strange_by,
            "threshold": calibration.strange_above,
            "validated_on": task.strange_validated_on,
        }
    if codes := {entry["name"]: entry["code"] for entry in task.classes if "code" in entry}:
        found["codes"] = codes
    return found


def shipped_network(task: ClassificationTask, known: int = 0) -> dict[str, Any]:
    """The network of the bundle: several and their mean, the distilled one, or the only one.

    Args:
        task: how it is trained.
        known: how many pictures its kernel classifier knows, mirror images included.
    """
    if task.shipped:
        mean = f"{MeanClassifier.__module__}.{MeanClassifier.__name__}"
        members: list[dict[str, Any]] = [task.network] * task.shipped
        if task.kernel:
            members = [{"_target_": mean, "members": members}, kernel_network(task, known)]
        return {
            "_target_": mean,
            "members": members,
            "mirrors": list(task.augmentation.get("flip", ())),
            **({"sequence": True} if task.frames else {}),
            **({"activation": "sigmoid"} if task.decided.activation == "sigmoid" else {}),
            **({"energy_of": 1} if task.kernel else {}),
        }
    return task.network | (task.student if task.networks * task.folds > 1 else {})


def inference(task: ClassificationTask, known: int = 0) -> dict[str, Any]:
    """The bundle's `inference.json`: what stock MONAI runs, and what MedAI reads its steps from."""
    image, pred = {"keys": "image"}, {"keys": "pred"}
    flat = len(task.size) == 2
    orient = [] if flat else [{"_target_": "Orientationd", **image, "axcodes": task.orientation}]
    return images_of(".png" if flat else ".nii.gz") | {
        "device": DEVICE,
        "network_def": shipped_network(task, known),
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **image},
                {"_target_": "EnsureChannelFirstd", **image},
                *orient,
                *([CROP] if task.crop_foreground else []),
                {"_target_": "Resized", **image, "spatial_size": task.size, "mode": "area"},
                *({"_target_": entry["_target_"], **image, **entry} for entry in task.intensity),
                {"_target_": "NormalizeIntensityd", **image, "channel_wise": True},
                {"_target_": "EnsureTyped", **image},
            ],
        },
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", **pred, task.decided.activation: True}],
        },
        "handlers": [
            {
                "_target_": "ClassificationSaver",
                "output_dir": "@output_dir",
                "filename": "predictions.csv",
                "batch_transform": "$lambda batch: [item['image'].meta for item in batch]",
                "output_transform": "$monai.handlers.from_engine(['pred'])",
            }
        ],
        "evaluator": EVALUATOR | {"val_handlers": "@handlers"},
        "checkpointloader": WEIGHTS,
        "initialize": ["$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }
