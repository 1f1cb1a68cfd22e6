"""From trained weights to a MONAI bundle that MedAI and stock MONAI run alike."""

import json
import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import monai
import numpy as np
import torch
from torch import Tensor

from MedAILib.errors import ModelError, OutputError
from MedAILib.models.weights import save_checkpoint
from MedAILib.training.architectures import OWN_PLACES
from MedAILib.training.task import SegmentationTask, Task

# Only of use while training: the network that runs has no auxiliary heads.
TRAINING_ONLY = ("deep_supervision_heads.", "heads.")
SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
CROP = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "allow_smaller": True}


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


@dataclass(frozen=True)
class Contents:
    """A bundle's files: configs by name, model card, licence, weights by name, and what else lies beside the card."""

    configs: dict[str, dict[str, Any]]
    card: str
    licence: str
    weights: dict[str, Tensor]
    documents: dict[str, bytes] = field(default_factory=dict)


def write_model(contents: Contents, folder: Path) -> None:
    """Write a bundle of any kind, as `write_bundle` does.

    Raises:
        ModelError: a weight is no number.
        OutputError: the folder can't be written, or holds something else than a bundle.
    """
    if bad := [key for key, value in contents.weights.items() if not bool(torch.isfinite(value).all())]:
        raise ModelError(
            f"The trained model is not written: its weights {bad[0]} have values that are no numbers, or too large for "
            "half precision; train again with a tenth of the learning rate, or with --set precision=float32."
        )
    require_place(folder)
    part, old = (folder.with_name(folder.name + ending) for ending in (".part", ".old"))
    try:
        shutil.rmtree(part, ignore_errors=True)
        for name, content in contents.configs.items():
            path = part / "configs" / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
        (part / "docs").mkdir()
        (part / "docs" / "README.md").write_text(contents.card, encoding="utf-8")
        for name, document in contents.documents.items():
            (part / "docs" / name).write_bytes(document)
        (part / "LICENSE").write_text(contents.licence, encoding="utf-8")
        save_checkpoint(contents.weights, part / "models" / "model.pt")
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(f"The trained model can't be written to {folder}: {error.strerror}.") from error


def require_place(folder: Path) -> None:
    """Raise `OutputError` where a trained model can't stand: in the place of something else, or without permission."""
    if folder.exists() and not (folder / "configs" / "metadata.json").is_file():
        raise OutputError(f"{folder} exists and is no model; choose another folder for the trained model.")
    there = next(parent for parent in folder.resolve().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass  # nothing is made before there is something to put into it
    except OSError as error:
        raise OutputError(f"The trained model can't be written to {folder}: {error.strerror}.") from error


def licence_text(task: Task) -> str:
    """The bundle's `LICENSE`: which licence the weights have, and whom to name."""
    return (
        f"{task.licence}\n\n{task.copyright}\n\n"
        "The weights are derived from the data named here and are distributed under the licence above, as these data "
        f"are.\nData: {task.data_source}.\nFull text of the licence: https://spdx.org/licenses/{task.licence}.html\n"
    )


def network_arguments(task: SegmentationTask) -> dict[str, Any]:
    """The network's description for inference: that of the task, without auxiliary heads; own ones by their place."""
    told = {key: value for key, value in task.network.items() if not key.startswith("deep_super")}
    return told | {"_target_": OWN_PLACES.get(str(told["_target_"]), told["_target_"])}


def metadata(task: SegmentationTask) -> dict[str, Any]:
    """The bundle's `metadata.json`, of MONAI's schema, and MedAI's own entry "medai"."""
    labels = {str(label["value"]): label for label in task.labels}
    image = {"type": "image", "num_channels": len(task.channels), "spatial_shape": task.patch, "dtype": "float32"}
    return {
        "schema": SCHEMA,
        "version": task.version,
        "changelog": {task.version: "trained with MedAI"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": {"nibabel": "5.3.0", "pytorch-ignite": "0.5.0"},
        "name": task.title,
        "task": task.description,
        "description": task.description,
        "authors": task.authors,
        "copyright": task.copyright,
        "license": task.licence,
        "data_source": task.data_source,
        "data_type": "nibabel" if task.spacing_mm else "png",
        "intended_use": task.intended_use,
        "references": task.references,
        "network_data_format": {
            "inputs": {
                "image": image
                | {
                    "format": "magnitude",
                    "modality": task.modality,
                    "value_range": [],
                    "is_patch_data": True,
                    "channel_def": {str(number): name for number, name in enumerate(task.channels)},
                }
            },
            "outputs": {
                "pred": image
                | {
                    "format": "segmentation",
                    "num_channels": task.classes,
                    "value_range": [0, task.classes - 1],
                    "is_patch_data": True,
                    "channel_def": {"0": "background"} | {key: label["name"] for key, label in labels.items()},
                }
            },
        },
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
    ending = ".nii.gz" if task.spacing_mm else ".png"
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": f"$sorted(glob.glob(os.path.join(@dataset_dir, '*{ending}')))",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
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
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
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
        "evaluator": {
            "_target_": "SupervisedEvaluator",
            "device": "@device",
            "val_data_loader": "@dataloader",
            "network": "@network",
            "inferer": "@inferer",
            "postprocessing": "@postprocessing",
        },
        "checkpointloader": {
            "_target_": "CheckpointLoader",
            "load_path": "$@bundle_root + '/models/model.pt'",
            "load_dict": {"model": "@network"},
        },
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
