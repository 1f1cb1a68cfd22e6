"""Bundles like those of MONAI's Model Zoo that are not at hand: networks and steps, told anew from what is public.

Each maker writes a folder without weights; windows and sizes are smaller than the zoo's, to save time.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from bundles import configs, write_configs
from zoo import Row, made_volume, random_weights, search_code, stock_output

from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import RunOptions

IMAGE, PRED = {"keys": "image"}, {"keys": "pred"}
LOADED = [{"_target_": "LoadImaged", **IMAGE}, {"_target_": "EnsureChannelFirstd", **IMAGE}]
SOFTMAX = {"_target_": "Activationsd", **PRED, "softmax": True}
ARGMAX = {"_target_": "AsDiscreted", **PRED, "argmax": True}
BACK = {
    "_target_": "Invertd",
    **PRED,
    "transform": "@preprocessing",
    "orig_keys": "image",
    "nearest_interp": False,
    "to_tensor": True,
}
SAVE = {"_target_": "SaveImaged", **PRED, "output_dir": "@output_dir"}
DYNUNET = {
    "_target_": "DynUNet",
    "spatial_dims": 3,
    "kernel_size": [3] * 6,
    "strides": [1, 2, 2, 2, 2, [2, 2, 1]],
    "upsample_kernel_size": [2, 2, 2, 2, [2, 2, 1]],
    "filters": [4, 8, 16, 16, 16, 16],
    "norm_name": "instance",
    "deep_supervision": False,
    "res_block": True,
}


def compose(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(steps)}


def oriented(axcodes: str, spacing: list[float], **keys: Any) -> list[dict[str, Any]]:
    to = keys or IMAGE
    return [
        {"_target_": "Orientationd", **to, "axcodes": axcodes},
        {"_target_": "Spacingd", **to, "pixdim": spacing, "mode": "bilinear"},
    ]


def scaled(low: float, high: float, **more: Any) -> dict[str, Any]:
    return {"_target_": "ScaleIntensityRanged", **IMAGE, "a_min": low, "a_max": high, "b_min": 0, "b_max": 1} | more


def windows(size: int, overlap: float = 0.25) -> dict[str, Any]:
    return {"_target_": "SlidingWindowInferer", "roi_size": [size] * 3, "sw_batch_size": 4, "overlap": overlap}


def prostate_mri_anatomy(folder: Path) -> Path:
    net = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3, "num_res_units": 4}
    net |= {"channels": [4, 8, 16, 16, 16, 16], "strides": [2] * 5, "norm": "batch", "act": "prelu", "dropout": 0.15}
    pre = compose(
        *LOADED,
        *oriented("RAS", [1.5, 1.5, 1.5]),
        {"_target_": "ScaleIntensityd", **IMAGE, "minv": 0, "maxv": 1},
        {"_target_": "NormalizeIntensityd", **IMAGE},
        {"_target_": "EnsureTyped", **IMAGE},
    )
    keep = {"_target_": "KeepLargestConnectedComponentd", **PRED, "applied_labels": [1, 2]}
    post = compose(ARGMAX, keep, BACK, SAVE)
    return _written(folder, net, preprocessing=pre, postprocessing=post, inferer=windows(32, 0.5))


def multi_organ_segmentation(folder: Path) -> Path:
    space = {"_target_": "monai.networks.nets.TopologyInstance", "channel_mul": 0.2, "num_blocks": 12}
    space |= {"num_depths": 4, "use_downsample": True, "device": "$torch.device('cpu')"}
    space |= {"arch_code": ["$@arch_ckpt['arch_code_a']", "$@arch_ckpt['arch_code_c']"]}
    net = {"_target_": "monai.networks.nets.DiNTS", "dints_space": "@dints_space", "in_channels": 1}
    net |= {"num_classes": 8, "use_downsample": True, "node_a": "$torch.from_numpy(@arch_ckpt['node_a'])"}
    more = {
        "arch_ckpt_path": "$@bundle_root + '/models/search_code_18590.pt'",
        "arch_ckpt": "$torch.load(@arch_ckpt_path, map_location=torch.device('cuda'))",
        "dints_space": space,
        "preprocessing": compose(*LOADED, *oriented("RAS", [2.2, 2.2, 2.2]), scaled(-500, 500, clip=True)),
        "postprocessing": compose(SOFTMAX, BACK, ARGMAX, SAVE),
        "inferer": windows(32),
    }
    return _written(folder, net, **more)


def pediatric_abdominal_ct_segmentation(folder: Path) -> Path:
    net = DYNUNET | {"_target_": "monai.networks.nets.DynUNet", "in_channels": 1, "out_channels": 4}
    spacing = oriented("RAS", [1.5, 1.5, 3.0])
    spacing[1] |= {"keys": ["image"], "mode": ["bilinear"]}
    pre = compose(
        *LOADED,
        *spacing,
        scaled(-250, 400, clip=True),
        {"_target_": "CropForegroundd", "keys": ["image"], "source_key": "image", "mode": ["minimum"]},
        {"_target_": "EnsureTyped", **IMAGE},
        {"_target_": "CastToTyped", **IMAGE, "dtype": "$torch.float32"},
    )
    post = compose(SOFTMAX, BACK, ARGMAX, SAVE | {"output_dtype": "$torch.int16"})
    return _written(folder, net, preprocessing=pre, postprocessing=post, inferer=windows(32, 0.5))


def renal_cect(folder: Path) -> Path:
    """`renalStructures_CECT_segmentation`: three phases of one patient, put together by a script of its own."""
    phases = {"keys": ["artery", "vein", "excret"]}
    net = {"_target_": "SegResNet", "in_channels": 3, "out_channels": 6, "init_filters": 8, "dropout_prob": 0.2}
    net |= {"upsample_mode": "deconv", "norm_name": "group", "blocks_down": [1, 2, 2, 4], "blocks_up": [1, 1, 1]}
    pre = compose(
        *({**step, **phases} for step in LOADED),
        *oriented("LPS", [1.8, 1.8, 1.8], **phases),
        {
            "_target_": "scripts.my_transforms.ConcatImages",
            "keys_merge": ["artery", "vein", "excret"],
            "keys_out": "image",
        },
        scaled(-1000, 1000, clip=True),
        {"_target_": "EnsureTyped", **IMAGE},
    )
    sigmoid = {"_target_": "Activationsd", **PRED, "softmax": False, "sigmoid": True}
    threshold = {"_target_": "AsDiscreted", **PRED, "argmax": False, "threshold": 0.5}
    first = BACK | {"transform": "$@preprocessing", "orig_keys": "artery", "device": "@device"}
    post = compose(first, sigmoid, BACK, threshold, SAVE)
    return _written(folder, net, preprocessing=pre, postprocessing=post, inferer=windows(32))


def spleen_deepedit_annotation(folder: Path) -> Path:
    net = DYNUNET | {"in_channels": "$len(@label_names) + @number_intensity_ch", "out_channels": "$len(@label_names)"}
    before = [
        *({**step, "keys": "@image_key"} for step in LOADED),
        {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
        scaled(-175, 250, clip=True, keys="@image_key"),
    ]
    deepedit = [
        {
            "_target_": "scripts.transforms.OrientationGuidanceMultipleLabelDeepEditd",
            "ref_image": "@image_key",
            "label_names": "@label_names",
        },
        {
            "_target_": "AddGuidanceFromPointsDeepEditd",
            "ref_image": "@image_key",
            "guidance": "guidance",
            "label_names": "@label_names",
        },
        {"_target_": "Resized", "keys": "@image_key", "spatial_size": [32, 32, 32], "mode": "area"},
        {"_target_": "ResizeGuidanceMultipleLabelDeepEditd", "guidance": "guidance", "ref_image": "@image_key"},
        {
            "_target_": "AddGuidanceSignalDeepEditd",
            "keys": "@image_key",
            "guidance": "guidance",
            "number_intensity_ch": "@number_intensity_ch",
        },
    ]
    more = {
        "image_key": "image",
        "label_names": {"spleen": 1, "background": 0},
        "number_intensity_ch": 1,
        "preprocessing_transforms": before,
        "deepedit_transforms": deepedit,
        "extra_transforms": [{"_target_": "EnsureTyped", "keys": "@image_key"}],
        "preprocessing": compose()
        | {"transforms": "$@preprocessing_transforms + @deepedit_transforms + @extra_transforms"},
        "postprocessing": compose({"_target_": "EnsureTyped", **PRED}, SOFTMAX, BACK, ARGMAX, SAVE),
        "inferer": {"_target_": "SimpleInferer"},
    }
    return _written(folder, net, channels=3, classes=2, **more)


def unest(folder: Path, classes: int = 4, target: str = "scripts.networks.unest.UNesT", **arguments: Any) -> Path:
    """The two bundles of UNesT: in the image's own spacing, and in 1 mm."""
    net = {"_target_": target, "in_channels": 1, "out_channels": classes, **arguments}
    steps = [{"_target_": "NormalizeIntensityd", **IMAGE, "nonzero": "True", "channel_wise": "True"}]
    if "base" not in target:
        steps = [*oriented("RAS", [1.0, 1.0, 1.0]), scaled(-175, 250, clip=True)]
    pre = compose(*LOADED, *steps, {"_target_": "EnsureTyped", **IMAGE})
    post = compose(SOFTMAX, BACK, ARGMAX, SAVE)
    return _written(folder, net, preprocessing=pre, postprocessing=post, inferer=windows(96, 0.25))


def _written(folder: Path, net: dict[str, Any], channels: int = 0, classes: int = 0, **more: Any) -> Path:
    told = {
        "in_channels": channels or net["in_channels"],
        "out_channels": classes or net.get("out_channels", net.get("num_classes")),
    }
    metadata, inference = configs(told, **more)
    inference["network_def"] = net
    return write_configs(folder, metadata, inference)


def renal_unest(folder: Path) -> Path:
    """`renalStructures_UNEST_segmentation`, with tokens a sixteenth as long."""
    return unest(folder, feature_size=1, embed_dim=[8, 16, 32], num_heads=[2, 4, 8], depths=[1, 1, 2])


def brain_unest(folder: Path) -> Path:
    """`wholeBrainSeg_Large_UNEST_segmentation`, likewise, and with fewer structures."""
    small = {"feature_size": 1, "embed_dim": [8, 16, 32], "num_heads": [2, 4, 8], "depths": [1, 1, 2]}
    return unest(folder, 20, "scripts.networks.unest_base_patch_4.UNesT", patch_size=4, **small)


MADE: dict[str, Callable[[Path], Path]] = {
    "multi_organ_segmentation": multi_organ_segmentation,
    "pediatric_abdominal_ct_segmentation": pediatric_abdominal_ct_segmentation,
    "prostate_mri_anatomy": prostate_mri_anatomy,
    "renalStructures_CECT_segmentation": renal_cect,
    "renalStructures_UNEST_segmentation": renal_unest,
    "spleen_deepedit_annotation": spleen_deepedit_annotation,
    "wholeBrainSeg_Large_UNEST_segmentation": brain_unest,
}
# What stock MONAI is told besides: to take the nearest label, stand-ins for scripts, and no clicks to turn.
OUR_UNEST = {"network_def#_target_": "MedAILib.models.unest.UNesT"}
TOLD: dict[str, dict[str, Any]] = {
    "prostate_mri_anatomy": {"postprocessing#transforms#2#nearest_interp": True},
    "renalStructures_CECT_segmentation": {"preprocessing#transforms#4#_target_": "zoo_scripts.ConcatImages"},
    "renalStructures_UNEST_segmentation": OUR_UNEST,
    "spleen_deepedit_annotation": {"deepedit_transforms#0#_disabled_": True},
    "wholeBrainSeg_Large_UNEST_segmentation": OUR_UNEST,
}


def compared_made(name: str, work: Path) -> Row:
    """Run a bundle of `MADE` by MedAI and by stock MONAI."""
    folder = MADE[name](work / name)
    if "organ" in name:
        (folder / "models").mkdir()
        search_code(folder)
    spec = read_spec(folder)
    images = work / f"{name}-images"
    volume = made_volume(images, len(spec.channels))
    random_weights(folder, volume)
    layers = open_model(folder, "cpu").run(volume, RunOptions(), Progress()).layers
    told = dict(TOLD.get(name, {}))
    if len(spec.channels) > 1:
        told["dataset#data"] = [{key: str(images / f"{n}.nii.gz") for n, key in enumerate(spec.channels)}]
    theirs = np.rint(stock_output(folder, images, **told)).astype(np.int64)
    assert layers.shape == theirs.shape
    found = f"{len(np.unique(theirs))} of {2 if len(layers) > 1 else len(spec.labels) + 1}"
    return Row(name, spec.task, True, True, "", float((layers == theirs).mean()), found)
