"""Cine volumes that the tests make: a beating ventricle whose ejection is normal or reduced."""

from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from labelled import small_task
from numpy.typing import NDArray

SIDE = 24
FRAMES = 12
CLASSES = ("normal", "reduced")


def ventricle(rng: np.random.Generator, reduced: bool, frames: int = FRAMES) -> NDArray[np.uint8]:
    """A clip (T, J, I): a bright disc on noise whose radius beats; phase, mean size, place and heart rate are random.

    The mean size differs far more between hearts than the radius changes in a beat, so that one frame does not tell.
    """
    mean, phase = rng.uniform(4.0, 8.5), rng.uniform(0, 2 * np.pi)
    amplitude = rng.uniform(0.2, 0.5) if reduced else rng.uniform(1.4, 2.0)
    radius = mean + amplitude * np.cos(2 * np.pi * rng.uniform(1.2, 2.2) * np.arange(frames) / frames + phase)
    centre = SIDE / 2 - 0.5 + rng.uniform(-1, 1, 2)
    away = np.hypot(*(np.indices((SIDE, SIDE)) - centre[:, None, None]))
    disc = np.clip(radius[:, None, None] - away + 0.5, 0, 1)
    return np.clip(40 + 140 * disc + rng.normal(0, 12, disc.shape), 0, 255).astype(np.uint8)


def hearts(count: int, seed: int, frames: int = FRAMES) -> list[tuple[NDArray[np.uint8], str]]:
    """Clips and their classes by turns."""
    rng = np.random.default_rng(seed)
    return [(ventricle(rng, bool(n % 2), frames), CLASSES[n % 2]) for n in range(count)]


def write_clip(clip: NDArray[Any], path: Path, four: bool = True) -> Path:
    """Write (T, J, I) with time as the fourth axis, or as the third."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(clip)
    if four:
        image = sitk.JoinSeries([sitk.JoinSeries([image[:, :, n]]) for n in range(len(clip))])
    sitk.WriteImage(image, str(path))
    return path


def clip_folders(folder: Path, count: int, seed: int) -> Path:
    """Clips as NIfTI files of four and three axes and as NRRD, in a folder for each class."""
    for n, (clip, label) in enumerate(hearts(count, seed)):
        ending = (".nii.gz", ".nii", ".nrrd")[n // 2 % 3]
        write_clip(clip, folder / label / f"heart{n:03d}{ending}", four=n // 2 % 3 == 0)
    return folder


def frame_folders(folder: Path, count: int, seed: int) -> Path:
    """A single frame of each of the same clips, as pictures."""
    for n, (clip, label) in enumerate(hearts(count, seed)):
        path = folder / label / f"heart{n:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(clip[FRAMES // 2]), str(path))
    return folder


def frame_network(out_channels: int) -> dict[str, Any]:
    """Of each frame; alone, with the classes as output, it is the classifier of single frames."""
    return {
        **{"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": out_channels},
        **{"init_features": 8, "growth_rate": 4, "block_config": [2, 2]},
    }


def heart_task(recurrent: str = "gru", **changes: object) -> dict[str, object]:
    """A task for these clips; `frames=0` with another network makes it one for single frames."""
    network = {
        **{"_target_": "SequenceClassifier", "backbone": frame_network(8), "features": 8, "out_channels": 2},
        **{"hidden": 16, "recurrent": recurrent},
    }
    told: dict[str, object] = {
        "name": "beating",
        "title": "Ejection of made hearts",
        "description": "Normal or reduced ejection",
        "classes": [{"name": name, "labels": [name]} for name in CLASSES],
        "channels": ["cine"],
        "size": [SIDE, SIDE],
        "frames": FRAMES,
        "network": network,
        "folds": 1,
        "epochs": 20,
        "batch": 16,
        "learning_rate": 0.01,
        "ema_decay": 0.5,
        "augmentation": {"flip": [0, 1], "rotate": 20, "translate": 0.05, "noise": 0.1},
        "strange_quantile": 0.0,
    }
    return small_task(**(told | changes))


BOX = (10, 14, 16)  # K, J, I of clips of volumes
BOX_FRAMES = 6


def ventricle_volumes(rng: np.random.Generator, reduced: bool) -> NDArray[np.uint8]:
    """A clip (T, K, J, I) of volumes: a bright ball on noise whose radius beats strongly or weakly."""
    mean, phase = rng.uniform(3.0, 4.0), rng.uniform(0, 2 * np.pi)
    radius = mean + (0.15 if reduced else 1.2) * np.cos(2 * np.pi * np.arange(BOX_FRAMES) / BOX_FRAMES + phase)
    middle = np.array(BOX)[:, None, None, None] / 2 - 0.5
    away = np.linalg.norm(np.indices(BOX) - middle, axis=0)
    ball = np.clip(radius[:, None, None, None] - away + 0.5, 0, 1)
    return np.clip(40 + 140 * ball + rng.normal(0, 10, ball.shape), 0, 255).astype(np.uint8)


def volume_clips(folder: Path, count: int, seed: int) -> list[Path]:
    """Clips of volumes as NIfTI files of four axes, in a folder for each class; voxels of 2 x 2 x 3 mm."""
    rng = np.random.default_rng(seed)
    paths = []
    for n in range(count):
        frames = [sitk.GetImageFromArray(frame) for frame in ventricle_volumes(rng, bool(n % 2))]
        for frame in frames:
            frame.SetSpacing((2.0, 2.0, 3.0))
        paths.append(folder / CLASSES[n % 2] / f"heart{n:03d}.nii.gz")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        sitk.WriteImage(sitk.JoinSeries(frames), str(paths[-1]))
    return paths
