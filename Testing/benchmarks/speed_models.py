"""What `speed.py` measures on: volumes and models of real shapes, made on the spot, with labels that mean something."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

TESTING = Path(__file__).parents[1]
ROOT = TESTING.parent
SPACING_KJI = (2.0, 0.8, 0.8)
WORKING = [1.6, 1.6, 1.6]


@dataclass(frozen=True)
class Scene:
    """One model and one image.

    Args:
        name: of the scene.
        kind: "nnunet", "bundle" or "builtin".
        shape: of the image, K, J, I.
        classes: of the model, the background included.
        features: of the network's stages.
        patch: the window.
        mirror: run mirrored too.
    """

    name: str
    kind: str
    shape: tuple[int, int, int] = (96, 256, 256)
    classes: int = 15
    features: tuple[int, ...] = (16, 32, 64, 128)
    patch: tuple[int, int, int] = (48, 64, 64)
    mirror: bool = False


def make(scene: Scene, folder: Path) -> tuple[Path, Path]:
    """The model's folder and the image's file, made unless they are there."""
    done = folder / "made.json"
    if not done.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        model = {"nnunet": nnunet_model, "bundle": bundle_model, "builtin": builtin_model}[scene.kind](scene, folder)
        (folder / "image").mkdir(exist_ok=True)
        image = folder / "image" / "image_0000.nii.gz"
        if scene.kind == "builtin":
            brain(scene, image)
        else:
            body(scene, image)
        done.write_text(json.dumps([str(model), str(image)]))
    model, image = json.loads(done.read_text())
    return Path(model), Path(image)


def pictured(scene: Scene, shape: tuple[int, int, int]) -> np.ndarray:
    """(2, K, J, I): nested bodies with noise in HU, and their labels."""
    from nnunets import picture

    picture_of = picture(1, shape, parts=scene.classes - 1)
    noise = np.random.default_rng(0).normal(0, 15, shape)
    return np.stack([np.round(picture_of[0] * 100 + noise), picture_of[1]]).astype(np.float32)


def body(scene: Scene, path: Path) -> None:
    """An int16 image, as a CT has, with coarse slices."""
    data = pictured(scene, scene.shape)[0].astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(data.transpose(2, 1, 0), np.diag([*SPACING_KJI[::-1], 1.0])), path)


def brain(scene: Scene, path: Path) -> None:
    """The built-in model's kind of image: a part of the ICBM template, around the hippocampi, repeated to a size."""
    from nilearn.datasets import load_mni152_template

    template = load_mni152_template(resolution=1)
    part = template.slicer[30:168, 60:140, 30:100]
    data = np.tile(np.asarray(part.dataobj), [-(-n // m) for n, m in zip(scene.shape[::-1], part.shape, strict=True)])
    data = data[tuple(slice(0, n) for n in scene.shape[::-1])]
    nibabel.save(nibabel.Nifti1Image((data * 1000).astype(np.float32), template.affine), path)


def architecture(scene: Scene) -> dict[str, Any]:
    """nnU-Net's usual plain network with the scene's features."""
    from nnunets import architecture as small

    entry, stages = small(), len(scene.features)
    entry["arch_kwargs"] |= {
        "n_stages": stages,
        "features_per_stage": list(scene.features),
        "kernel_sizes": [[3, 3, 3]] * stages,
        "strides": [[1, 1, 1]] + [[2, 2, 2]] * (stages - 1),
        "n_conv_per_stage": [2] * stages,
        "n_conv_per_stage_decoder": [2] * (stages - 1),
    }
    return entry


def nnunet_model(scene: Scene, folder: Path) -> Path:
    """A result folder; its last layer is fitted to a picture, so that all labels appear."""
    from nnunets import configuration, dataset, fitted_network, plans, result_folder, save_checkpoint

    settings = configuration(
        list(scene.patch), WORKING, ("CTNormalization",), architecture=architecture(scene), batch_size=2
    )
    labels = {"background": 0} | {f"part {n}": n for n in range(1, scene.classes)}
    result = result_folder(folder, plans({"3d_fullres": settings}), dataset(1, labels), "3d_fullres")
    network = fitted_network(result, pictured(scene, (40, 96, 96)), SPACING_KJI)
    save_checkpoint(result, network)
    return result


def bundle_model(scene: Scene, folder: Path) -> Path:
    """A MONAI bundle with random weights."""
    from bundles import network_entry, random_bundle

    network = network_entry("UNet", scene.classes) | {
        "channels": list(scene.features),
        "strides": [2] * (len(scene.features) - 1),
        "num_res_units": 2,
        "norm": "batch",
    }
    inferer = {"_target_": "SlidingWindowInferer", "roi_size": list(scene.patch), "overlap": 0.5, "mode": "gaussian"}
    image = {"keys": "image"}
    steps = [
        {"_target_": "LoadImaged", **image},
        {"_target_": "EnsureChannelFirstd", **image},
        {"_target_": "Orientationd", **image, "axcodes": "RAS"},
        {"_target_": "Spacingd", **image, "pixdim": WORKING, "mode": "bilinear"},
        {"_target_": "ScaleIntensityRanged", **image, "a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1, "clip": True},
    ]
    preprocessing = {"_target_": "Compose", "transforms": steps}
    return random_bundle(folder / "bundle", network, inferer=inferer, preprocessing=preprocessing)


def builtin_model(scene: Scene, folder: Path) -> Path:
    """The model that comes with MedAI."""
    return ROOT / "Resources" / "Models" / scene.name.partition(" ")[0]


sys.path[:0] = [str(TESTING), str(ROOT)]
