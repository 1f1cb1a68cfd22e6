"""What `speed.py` measures on: volumes and models of real shapes, made on the spot, with labels that mean something."""

import json
import shutil
import sys
from dataclasses import asdict, dataclass
from math import prod
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

TESTING = Path(__file__).parents[1]
ROOT = TESTING.parent
SPACING_KJI = (2.0, 0.8, 0.8)
WORKING = [1.6, 1.6, 1.6]
# Of the classes as many appear in the picture, the trunk among them.
PARTS = 14
# Above so many voxels organs are drawn at half the size, and each voxel stands for eight.
MOST_VOXELS = 20_000_000


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
        spacing: of the image, mm, K, J, I.
        steps: of training.
        own: a model's folder and an image's file of the user's own, instead of made ones.
    """

    name: str
    kind: str
    shape: tuple[int, int, int] = (96, 256, 256)
    classes: int = 15
    features: tuple[int, ...] = (16, 32, 64, 128)
    patch: tuple[int, int, int] = (48, 64, 64)
    mirror: bool = False
    spacing: tuple[float, float, float] = SPACING_KJI
    steps: int = 200
    own: tuple[str, str] | None = None


def make(scene: Scene, folder: Path) -> tuple[Path, Path]:
    """The model's folder and the image's file, made unless they are there as the scene has them."""
    if scene.own is not None:
        return Path(scene.own[0]), Path(scene.own[1])
    done, wanted = folder / "made.json", json.loads(json.dumps(asdict(scene)))
    if not done.is_file() or json.loads(done.read_text())[2] != wanted:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True, exist_ok=True)
        model = {"nnunet": nnunet_model, "bundle": bundle_model, "builtin": builtin_model}[scene.kind](scene, folder)
        (folder / "image").mkdir(exist_ok=True)
        image = folder / "image" / "image_0000.nii.gz"
        if scene.kind == "builtin":
            brain(scene, image)
        else:
            body(scene, image)
        done.write_text(json.dumps([str(model), str(image), wanted]))
    model, image, _ = json.loads(done.read_text())
    return Path(model), Path(image)


def organs(shape: tuple[int, ...], parts: int, seed: int) -> np.ndarray:
    """(K, J, I) int16: a trunk (1) with ellipsoids apart in it (2 and on), as much of it as organs take of a body."""
    trunk = np.stack(np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij"))
    labels = ((trunk[1] / 0.7) ** 2 + (trunk[2] / 0.85) ** 2 < 1).astype(np.int16)
    rng, half = np.random.default_rng(seed), 0.5 * np.cbrt(8 * 0.3 / max(parts - 1, 1))
    placed: list[np.ndarray] = []
    while len(placed) < parts - 1:
        center, axes = rng.uniform([-0.9, -0.55, -0.65], [0.9, 0.55, 0.65]), half * rng.uniform(0.6, 1.1, 3)
        if all(np.abs((center - other) / half).max() > 0.8 for other in placed):
            inside = (((trunk - center[:, None, None, None]) / axes[:, None, None, None]) ** 2).sum(axis=0) < 1
            labels[inside & (labels > 0)] = len(placed) + 2
            placed.append(center)
        else:
            half *= 0.999
    return labels


def pictured(scene: Scene, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """(2, K, J, I): organs with noise, within the range that the model's plans keep, and their labels."""
    parts = min(scene.classes - 1, PARTS)
    labels = organs(shape, parts, seed)
    noise = np.random.default_rng(seed).normal(0, 1.5, shape)
    values = np.where(labels > 0, 30 + 120 * labels / parts, 0) + noise
    return np.stack([np.round(values), labels]).astype(np.float32)


def body(scene: Scene, path: Path) -> None:
    """An int16 image, as a CT has, with coarse slices."""
    if prod(scene.shape) > MOST_VOXELS:
        data = pictured(scene, tuple(-(-n // 2) for n in scene.shape))[0].astype(np.int16)
        data = np.kron(data, np.ones((2, 2, 2), np.int16))[tuple(slice(n) for n in scene.shape)]
    else:
        data = pictured(scene, scene.shape)[0].astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(data.transpose(2, 1, 0), np.diag([*scene.spacing[::-1], 1.0])), path)


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
    """A result folder; its network is trained for a minute, so that labels are nearly as smooth as real ones."""
    from nnunets import configuration, dataset, plans, result_folder, save_checkpoint

    settings = configuration(
        list(scene.patch), WORKING, ("CTNormalization",), architecture=architecture(scene), batch_size=2
    )
    labels = {"background": 0} | {f"part {n}": n for n in range(1, scene.classes)}
    described = plans({"3d_fullres": settings})
    result = result_folder(folder, described, dataset(1, labels), "3d_fullres")
    save_checkpoint(result, trained_network(scene, result, scene.steps))
    return result


def trained_network(scene: Scene, result: Path, steps: int) -> Any:
    """nnU-Net's network for a result folder, trained on pictures drawn at the working spacing."""
    import torch
    from nnunets import silence
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    torch.manual_seed(0)
    with silence():
        manager = PlansManager(json.loads((result / "plans.json").read_text()))
        network = nnUNetTrainer.build_network_architecture(
            manager, manager.get_configuration("3d_fullres"), 1, scene.classes, enable_deep_supervision=False
        )
    known = manager.foreground_intensity_properties_per_channel["0"]
    low, high, mean, deviation = (known[key] for key in ("percentile_00_5", "percentile_99_5", "mean", "std"))
    optimizer = torch.optim.Adam(network.parameters(), 3e-3)
    schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, steps, 0.9)
    side = max(48, 2 ** len(scene.features))  # two voxels at the coarsest stage, as its normalisation needs
    rng, patch = np.random.default_rng(0), [min(n, side) for n in scene.patch]
    for step in range(steps):
        if step % 40 == 0:
            drawn = pictured(scene, tuple(int(n * 1.5) for n in scene.patch), seed=step)
        corner = [rng.integers(0, n - m + 1) for n, m in zip(drawn.shape[1:], patch, strict=True)]
        image, truth = drawn[(slice(None), *(slice(c, c + m) for c, m in zip(corner, patch, strict=True)))]
        image = torch.from_numpy((np.clip(image, low, high) - mean) / deviation)
        loss = torch.nn.functional.cross_entropy(network(image[None, None]), torch.from_numpy(truth).long()[None])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.eval()


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
