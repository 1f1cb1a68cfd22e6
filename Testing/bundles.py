"""Small bundles that the tests make: real MONAI networks with random or hand-set weights."""

import copy
import json
from pathlib import Path
from typing import Any

import torch

from MedAILib.models.networks import build_network

NETWORKS: dict[str, dict[str, Any]] = {
    "UNet": {"spatial_dims": 3, "channels": [4, 8, 16], "strides": [2, 2], "num_res_units": 1},
    "BasicUNet": {"spatial_dims": 3, "features": [4, 4, 8, 8, 16, 4]},
    "SegResNet": {"spatial_dims": 3, "init_filters": 8, "blocks_down": [1, 1, 1], "blocks_up": [1, 1]},
    "DynUNet": {
        "spatial_dims": 3,
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 8, 16],
    },
}


def network_entry(name: str = "UNet", classes: int = 3, channels: int = 1) -> dict[str, Any]:
    """A config's entry for a small network."""
    return {"_target_": name, "in_channels": channels, "out_channels": classes, **NETWORKS[name]}


def configs(network: dict[str, Any], **changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """`metadata.json` and `inference.json` as the Model Zoo writes them; `changes` replace entries of the latter."""
    classes, channels = network["out_channels"], network["in_channels"]
    image = {"type": "image", "format": "magnitude", "modality": "MR", "num_channels": channels}
    metadata = {
        "version": "0.1.0",
        "name": "A test's model",
        "description": "made by a test",
        "network_data_format": {
            "inputs": {"image": image | {"channel_def": {str(n): f"sequence {n}" for n in range(channels)}}},
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": classes,
                    "channel_def": {"0": "background"} | {str(n): f"part {n}" for n in range(1, classes)},
                }
            },
        },
    }
    image_key, pred_key = {"keys": "image"}, {"keys": "pred"}
    inference = {
        "bundle_root": ".",
        "dataset_dir": "images",
        "output_dir": "$@bundle_root + '/eval'",
        "imports": ["$import glob"],
        "device": "cpu",
        "datalist": "$sorted(glob.glob(@dataset_dir + '/*.nii.gz'))",
        "network_def": network,
        "network": "$@network_def.to(@device)",
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **image_key},
                {"_target_": "EnsureChannelFirstd", **image_key},
                {"_target_": "Orientationd", **image_key, "axcodes": "RAS"},
                {"_target_": "Spacingd", **image_key, "pixdim": [1.0, 1.0, 1.0], "mode": "bilinear"},
                {"_target_": "NormalizeIntensityd", **image_key, "channel_wise": True},
            ],
        },
        "dataset": {
            "_target_": "Dataset",
            "data": "$[{'image': path} for path in @datalist]",
            "transform": "@preprocessing",
        },
        "dataloader": {"_target_": "DataLoader", "dataset": "@dataset", "batch_size": 1, "num_workers": 0},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [16, 24, 16], "overlap": 0.5, "mode": "gaussian"},
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "Activationsd", **pred_key, "softmax": True},
                {
                    "_target_": "Invertd",
                    **pred_key,
                    "transform": "@preprocessing",
                    "orig_keys": "image",
                    "nearest_interp": False,
                    "to_tensor": True,
                },
                {"_target_": "AsDiscreted", **pred_key, "argmax": True},
                {
                    "_target_": "SaveImaged",
                    **pred_key,
                    "output_dir": "@output_dir",
                    "output_postfix": "seg",
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
    } | changes
    return metadata, inference


def write_configs(folder: Path, metadata: dict[str, Any], inference: dict[str, Any]) -> Path:
    """Write a bundle's description into a folder."""
    (folder / "configs").mkdir(parents=True, exist_ok=True)
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata), encoding="utf-8")
    (folder / "configs" / "inference.json").write_text(json.dumps(inference), encoding="utf-8")
    return folder


def random_bundle(folder: Path, network: dict[str, Any], seed: int = 0, **changes: Any) -> Path:
    """A whole bundle whose weights are random but fixed by the seed, its logits well apart."""
    torch.manual_seed(seed)
    arguments = copy.deepcopy({key: value for key, value in network.items() if key != "_target_"})
    net = build_network(network["_target_"], arguments)
    write_configs(folder, *configs(network, **changes))
    (folder / "models").mkdir(exist_ok=True)
    torch.save(net.state_dict(), folder / "models" / "model.pt")
    return folder


def threshold_bundle(folder: Path, threshold: float, spacing_mm: float | None = 1.0, patch: int = 16) -> Path:
    """A bundle that says 1 exactly where the image is above a threshold: a UNet of 1x1x1 convolutions.

    Without a spacing it works on the image's own voxels, reoriented to RAS.
    """
    network = {
        "_target_": "UNet",
        "spatial_dims": 3,
        "in_channels": 1,
        "out_channels": 2,
        "channels": [1, 1],
        "strides": [1],
        "kernel_size": 1,
        "up_kernel_size": 1,
        "num_res_units": 0,
        "act": None,
        "norm": None,
    }
    image = {"keys": "image"}
    steps = [
        {"_target_": "LoadImaged", **image},
        {"_target_": "EnsureChannelFirstd", **image},
        {"_target_": "Orientationd", **image, "axcodes": "RAS"},
    ]
    if spacing_mm is not None:
        steps.append({"_target_": "Spacingd", **image, "pixdim": [spacing_mm] * 3, "mode": "bilinear"})
    discrete = [
        {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "nearest_interp": False},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    ]
    inferer = {"_target_": "SlidingWindowInferer", "roi_size": [patch] * 3, "overlap": 0.25, "mode": "gaussian"}
    post = {"_target_": "Compose", "transforms": discrete}
    pre = {"_target_": "Compose", "transforms": steps}
    random_bundle(folder, network, preprocessing=pre, postprocessing=post, inferer=inferer)
    weights = {
        "model.0.conv.weight": torch.ones(1, 1, 1, 1, 1),
        "model.0.conv.bias": torch.zeros(1),
        "model.1.submodule.conv.weight": torch.zeros(1, 1, 1, 1, 1),
        "model.1.submodule.conv.bias": torch.zeros(1),
        "model.2.conv.weight": torch.tensor([[0.0, 1.0], [0.0, 0.0]]).reshape(2, 2, 1, 1, 1),
        "model.2.conv.bias": torch.tensor([threshold, 0.0]),
    }
    torch.save(weights, folder / "models" / "model.pt")
    return folder
