"""What the configs of all trained models share: MONAI's schema of `metadata.json`, and parts of `inference.json`."""

from collections.abc import Sequence
from typing import Any

import monai
import numpy as np
import torch

from MedAILib.training.task import Task

SCHEMA = "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/meta_schema_20240725.json"
CROP = {"_target_": "CropForegroundd", "keys": "image", "source_key": "image", "allow_smaller": True}
DEVICE = "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')"
LOADER = {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0}
EVALUATOR = {
    "_target_": "SupervisedEvaluator",
    "device": "@device",
    "val_data_loader": "@dataloader",
    "network": "@network",
    "inferer": "@inferer",
    "postprocessing": "@postprocessing",
}
WEIGHTS = {
    "_target_": "CheckpointLoader",
    "load_path": "$@bundle_root + '/models/model.pt'",
    "load_dict": {"model": "@network"},
}


def described(task: Task, aim: str, data_type: str, needs: dict[str, str]) -> dict[str, Any]:
    """The entries of `metadata.json` that tell of a model what the task says.

    Args:
        task: what was learnt.
        aim: what the model does, in words.
        data_type: of its images ("nibabel", "png").
        needs: packages that stock MONAI wants to run it, each with its least version.
    """
    return {
        "schema": SCHEMA,
        "version": task.version,
        "changelog": {task.version: "trained with MedAI"},
        "monai_version": monai.__version__,
        "pytorch_version": torch.__version__.partition("+")[0],
        "numpy_version": np.__version__,
        "required_packages_version": needs,
        "name": task.title,
        "task": aim,
        "description": task.description,
        "authors": task.authors,
        "copyright": task.copyright,
        "license": task.licence,
        "data_source": task.data_source,
        "data_type": data_type,
        "intended_use": task.intended_use,
        "references": task.references,
    }


def image_format(channels: Sequence[str], modality: str, shape: Sequence[int | str], *, patch: bool) -> dict[str, Any]:
    """The image in `network_data_format`.

    Args:
        channels: their names in order.
        modality: of the image.
        shape: sizes along the network's axes in voxels; a text such as "16*n" for any multiple.
        patch: whether the network sees a part of the image at a time.
    """
    return {
        "type": "image",
        "format": "magnitude",
        "modality": modality,
        "num_channels": len(channels),
        "spatial_shape": list(shape),
        "dtype": "float32",
        "value_range": [],
        "is_patch_data": patch,
        "channel_def": {str(number): name for number, name in enumerate(channels)},
    }


def images_of(ending: str) -> dict[str, Any]:
    """The entries of `inference.json` by which stock MONAI finds images and prepares them."""
    return {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "$@bundle_root + '/eval'",
        "datalist": f"$sorted(glob.glob(os.path.join(@dataset_dir, '*{ending}')))",
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": LOADER,
    }
