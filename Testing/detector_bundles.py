"""Small detection bundles of the Model Zoo's shape, with MONAI's RetinaNet over a small residual network."""

from pathlib import Path
from typing import Any

import torch
from bundles import write_configs

from MedAILib.models.bundle import bundle_network
from MedAILib.plans import read_any_plan

WINDOW = (32, 32, 16)


def detector_configs(**changes: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """`metadata.json` and `inference.json` as the zoo's detector of lung nodules has them, on a smaller scale."""
    image = {"type": "image", "format": "magnitude", "modality": "CT", "num_channels": 1, "spatial_shape": ["16*n"] * 3}
    pred = {"type": "object", "format": "dict", "num_channels": 1, "spatial_shape": ["n"] * 3}
    metadata = {
        "version": "0.1.0",
        "name": "A test's detector",
        "task": "CT nodule detection",
        "network_data_format": {
            "inputs": {"image": image | {"channel_def": {"0": "image"}}},
            "outputs": {"pred": pred},
        },
        "medai": {"detection": {"classes": ["nodule"]}},
    }
    keys, boxes = {"keys": "image"}, {"box_keys": "box"}
    inference: dict[str, Any] = {
        "imports": ["$import glob", "$import numpy"],
        "size_divisible": [16, 16, 8],
        "infer_patch_size": list(WINDOW),
        "anchor_generator": {
            "_target_": "monai.apps.detection.utils.anchor_utils.AnchorGeneratorWithAnchorShape",
            "feature_map_scales": [1, 2, 4],
            "base_anchor_shapes": [[6, 8, 4], [8, 6, 5], [10, 10, 6]],
        },
        "backbone": "$monai.networks.nets.resnet.resnet10(spatial_dims=3,n_input_channels=1,conv1_t_stride=[2,2,1],"
        "conv1_t_size=[7,7,7])",
        "feature_extractor": "$monai.apps.detection.networks.retinanet_network.resnet_fpn_feature_extractor("
        "@backbone,3,False,[1,2],None)",
        "network_def": {
            "_target_": "RetinaNet",
            "spatial_dims": 3,
            "num_classes": 1,
            "num_anchors": 3,
            "feature_extractor": "@feature_extractor",
            "size_divisible": "@size_divisible",
            "use_list_output": False,
        },
        "network": "$@network_def.to(@device)",
        "detector": {
            "_target_": "RetinaNetDetector",
            "network": "@network",
            "anchor_generator": "@anchor_generator",
            "debug": False,
            "spatial_dims": 3,
            "num_classes": 1,
            "size_divisible": "@size_divisible",
        },
        "detector_ops": [
            "$@detector.set_target_keys(box_key='box', label_key='label')",
            "$@detector.set_box_selector_parameters(score_thresh=0.02,topk_candidates_per_level=1000,nms_thresh=0.22,"
            "detections_per_img=300)",
            "$@detector.set_sliding_window_inferer(roi_size=@infer_patch_size,overlap=0.25,sw_batch_size=1,"
            "mode='constant',device='cpu')",
        ],
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **keys},
                {"_target_": "EnsureChannelFirstd", **keys},
                {"_target_": "Orientationd", **keys, "axcodes": "RAS"},
                {"_target_": "Spacingd", **keys, "pixdim": [1.0, 1.0, 1.5]},
                {
                    "_target_": "ScaleIntensityRanged",
                    **keys,
                    "a_min": -1024.0,
                    "a_max": 300.0,
                    "b_min": 0.0,
                    "b_max": 1.0,
                    "clip": True,
                },
                {"_target_": "EnsureTyped", **keys},
            ],
        },
        "inferer": {
            "_target_": "scripts.detection_inferer.RetinaNetInferer",
            "detector": "@detector",
            "force_sliding_window": False,
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {
                    "_target_": "ClipBoxToImaged",
                    **boxes,
                    "label_keys": "label",
                    "box_ref_image_keys": "image",
                    "remove_empty": True,
                },
                {
                    "_target_": "AffineBoxToWorldCoordinated",
                    **boxes,
                    "box_ref_image_keys": "image",
                    "affine_lps_to_ras": True,
                },
                {"_target_": "ConvertBoxModed", **boxes, "src_mode": "xyzxyz", "dst_mode": "cccwhd"},
                {"_target_": "DeleteItemsd", "keys": ["image"]},
            ],
        },
    }
    return metadata, inference | changes


def detector_bundle(folder: Path, seed: int = 0, **changes: Any) -> Path:
    """A detector with random weights whose scores differ from place to place."""
    metadata, inference = detector_configs(**changes)
    write_configs(folder, metadata, inference)
    torch.manual_seed(seed)
    network = bundle_network(read_any_plan(folder))
    with torch.no_grad():
        network.classification_head.cls_logits.weight.mul_(30)
        network.classification_head.cls_logits.bias.fill_(-1)
        network.regression_head.bbox_reg.weight.mul_(10)
    (folder / "models").mkdir(exist_ok=True)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    return folder
