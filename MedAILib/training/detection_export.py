"""A trained detector's description as a MONAI bundle: what it is, and how stock MONAI and MedAI run it."""

from typing import Any

from monai.networks.nets import ResNet

from MedAILib.errors import InputError, ModelError, SpecError
from MedAILib.models.networks import build_network, sketched
from MedAILib.models.retinanet import channels_of
from MedAILib.training.bundle_config import DEVICE, WEIGHTS, described, image_format
from MedAILib.training.detection_task import DetectionTask

_RETINANET = "monai.apps.detection.networks.retinanet_network"


def metadata(task: DetectionTask) -> dict[str, Any]:
    """The bundle's `metadata.json`, of MONAI's schema, and MedAI's own entry "medai"."""
    own: dict[str, Any] = {"classes": list(task.names)}
    own["labels"] = {name: list(labels) for name, labels in task.labels.items()}
    if codes := {str(entry["name"]): entry["code"] for entry in task.classes if "code" in entry}:
        own["codes"] = codes
    image = image_format(task.channels, task.modality, [f"{n}*n" for n in task.size_divisible], patch=True)
    pred = {
        "type": "object",
        "format": "dict",
        "num_channels": len(task.names),
        "spatial_shape": ["n", "n", "n"],
        "dtype": "float32",
        "value_range": [-10000, 10000],
        "is_patch_data": True,
        "channel_def": {str(number): name for number, name in enumerate(task.names)},
    }
    needs = {"nibabel": "5.3.0", "torchvision": "0.19.0"}
    return described(task, f"Detection: {task.description}", "nibabel", needs) | {
        "network_data_format": {"inputs": {"image": image}, "outputs": {"pred": pred}},
        "medai": {"detection": own, "warnings": task.warnings},
    }


def inference(task: DetectionTask) -> dict[str, Any]:
    """The bundle's `inference.json`: network, detector and steps, for stock MONAI's parser and for MedAI."""
    image, boxes = {"keys": "image"}, {"box_keys": "box"}
    backbone = task.backbone | {"spatial_dims": 3, "n_input_channels": len(task.channels)}
    windows = f"roi_size={task.patch},overlap=0.25,sw_batch_size=1,mode='constant',device='cpu'"
    chosen = f"score_thresh={task.score_threshold},topk_candidates_per_level=1000,nms_thresh={task.overlap_limit}"
    return {
        "imports": ["$import monai", "$import torch"],
        "bundle_root": ".",
        "device": DEVICE,
        "anchor_generator": {
            "_target_": "monai.apps.detection.utils.anchor_utils.AnchorGeneratorWithAnchorShape",
            "feature_map_scales": task.scales,
            "base_anchor_shapes": task.anchors,
        },
        "backbone": backbone,
        "feature_extractor": {
            "_target_": "monai.networks.blocks.backbone_fpn_utils.BackboneWithFPN",
            "backbone": "@backbone",
            "return_layers": {f"layer{layer}": str(place) for place, layer in enumerate(task.returned_layers)},
            "in_channels_list": _channels(task, backbone),
            "out_channels": task.width,
            "spatial_dims": 3,
        },
        "network_def": {
            "_target_": f"{_RETINANET}.RetinaNet",
            "spatial_dims": 3,
            "num_classes": len(task.names),
            "num_anchors": len(task.anchors),
            "feature_extractor": "@feature_extractor",
            "size_divisible": task.size_divisible,
            "use_list_output": False,
        },
        "network": "$@network_def.to(@device)",
        "detector": {
            "_target_": "monai.apps.detection.networks.retinanet_detector.RetinaNetDetector",
            "network": "@network",
            "anchor_generator": "@anchor_generator",
            "spatial_dims": 3,
            "num_classes": len(task.names),
            "size_divisible": task.size_divisible,
        },
        "detector_ops": [
            "$@detector.set_target_keys(box_key='box', label_key='label')",
            f"$@detector.set_box_selector_parameters({chosen},detections_per_img={task.most})",
            f"$@detector.set_sliding_window_inferer({windows})",
        ],
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", **image},
                {"_target_": "EnsureChannelFirstd", **image},
                {"_target_": "Orientationd", **image, "axcodes": task.orientation},
                {"_target_": "Spacingd", **image, "pixdim": task.spacing_mm, "mode": "bilinear"},
                *(entry | image for entry in task.intensity),
                {"_target_": "EnsureTyped", **image},
            ],
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
                {"_target_": "AffineBoxToWorldCoordinated", **boxes, "box_ref_image_keys": "image"},
                {"_target_": "ConvertBoxModed", **boxes, "src_mode": "xyzxyz", "dst_mode": "cccwhd"},
                {"_target_": "DeleteItemsd", "keys": ["image"]},
            ],
        },
        "checkpointloader": WEIGHTS,
    }


def _channels(task: DetectionTask, backbone: dict[str, Any]) -> list[int]:
    """The channels of the layers that the pyramid stands on.

    Raises:
        InputError: the backbone is no residual network of MONAI's.
    """
    arguments = {key: value for key, value in backbone.items() if key != "_target_"}
    try:
        with sketched():
            built = build_network(str(backbone.get("_target_")), arguments)
    except (SpecError, ModelError) as error:
        raise InputError(f"The training task {task.name} has a wrong 'backbone': {error}") from error
    if not isinstance(built, ResNet):
        raise InputError(f"The training task {task.name} has a 'backbone' that is no residual network of MONAI's.")
    return channels_of(built, task.returned_layers)
