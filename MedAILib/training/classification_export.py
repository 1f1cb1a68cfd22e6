"""A trained classifier's description as a MONAI bundle: what it is, and how stock MONAI and MedAI run it."""

from typing import Any

import monai
import numpy as np
import torch

from MedAILib.models.mean_classifier import MeanClassifier
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import Calibration
from MedAILib.training.export import CROP

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"


def metadata(task: ClassificationTask, calibration: Calibration) -> dict[str, Any]:
    """The bundle's `metadata.json`, of MONAI's schema, and MedAI's own entry "medai"."""
    whole = {"dtype": "float32", "is_patch_data": False}
    names = {str(number): name for number, name in enumerate(task.names)}
    return {
        "schema": SCHEMA,
        "version": task.version,
        "changelog": {task.version: "trained with MedAI"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"pillow": "11.0.0", "pytorch-ignite": "0.5.0"},
        "name": task.title,
        "task": f"Classification: {task.description}",
        "description": task.description,
        "authors": task.authors,
        "copyright": task.copyright,
        "license": task.licence,
        "data_source": task.data_source,
        "data_type": "png" if len(task.size) == 2 else "nibabel",
        "intended_use": task.intended_use,
        "references": task.references,
        "network_data_format": {
            "inputs": {
                "image": whole
                | {
                    "type": "image",
                    "format": "magnitude",
                    "modality": task.modality,
                    "num_channels": len(task.channels),
                    "spatial_shape": task.size,
                    "value_range": [],
                    "channel_def": {str(number): name for number, name in enumerate(task.channels)},
                }
            },
            "outputs": {
                "pred": whole
                | {
                    "type": "probabilities",
                    "format": "classes",
                    "num_channels": len(task.names),
                    "spatial_shape": [1, len(task.names)],
                    "value_range": [0, 1],
                    "channel_def": names,
                }
            },
        },
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
    if task.decision == "binary":
        found["thresholds"] = {task.names[1]: calibration.threshold}
    if calibration.strange_above is not None:
        found["out_of_distribution"] = {
            "method": "energy",
            "threshold": calibration.strange_above,
            "validated_on": task.strange_validated_on,
        }
    if codes := {entry["name"]: entry["code"] for entry in task.classes if "code" in entry}:
        found["codes"] = codes
    return found


def shipped_network(task: ClassificationTask) -> dict[str, Any]:
    """The network of the bundle: several and their mean, the distilled one, or the only one."""
    if task.shipped:
        return {
            "_target_": f"{MeanClassifier.__module__}.{MeanClassifier.__name__}",
            "members": [task.network] * task.shipped,
            "mirrors": list(task.augmentation.get("flip", ())),
            **({"sequence": True} if task.frames else {}),
        }
    return task.network | (task.student if task.networks * task.folds > 1 else {})


def inference(task: ClassificationTask) -> dict[str, Any]:
    """The bundle's `inference.json`: what stock MONAI runs, and what MedAI reads its steps from."""
    image, pred = {"keys": "image"}, {"keys": "pred"}
    flat = len(task.size) == 2
    orient = [] if flat else [{"_target_": "Orientationd", **image, "axcodes": task.orientation}]
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": f"$sorted(glob.glob(os.path.join(@dataset_dir, '*.{'png' if flat else 'nii.gz'}')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": shipped_network(task),
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
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SimpleInferer"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "Activationsd", **pred, "softmax": True}],
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
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
            "val_handlers": "@handlers",
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
        "initialize": ["$@checkpointloader(@evaluator)"],
        "run": ["$@evaluator.run()"],
    }
