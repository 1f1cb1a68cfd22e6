"""Small sets of labelled pictures that the tests make: a bright square on noise."""

import json
from pathlib import Path

import numpy as np
import PIL.Image

from MedAILib.training.task import TASKS

SIDE = 12


def pictures(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, 12, 12) uint8 and labels (count, 1): 0 with the square above, 1 with it below."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    images = rng.integers(0, 60, (count, SIDE, SIDE))
    for image, label in zip(images, labels, strict=True):
        row, column = (7 if label else 1), rng.integers(1, 7)
        image[row : row + 4, column : column + 4] += 150
    return images.astype(np.uint8), labels[:, None].astype(np.uint8)


def medmnist(path: Path, **parts: int) -> Path:
    """A file as MedMNIST's, with so many images in each part."""
    arrays = {}
    for seed, (part, count) in enumerate(parts.items()):
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = pictures(count, seed)
    np.savez(path, **arrays)
    return path


def class_folders(folder: Path, count: int, seed: int = 0) -> Path:
    """The same as PNG files, in a folder for each class."""
    images, labels = pictures(count, seed)
    for number, (image, label) in enumerate(zip(images, labels[:, 0], strict=True)):
        path = folder / ("below" if label else "above") / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(path)
    return folder


def small_task(**changes: object) -> dict[str, object]:
    """The breast task's content with two classes of squares and a network that learns them in a second."""
    content = json.loads((TASKS / "breast_ultrasound.json").read_text(encoding="utf-8"))
    network = {
        **{"_target_": "TextbookCNN", "spatial_dims": 2, "in_channels": 1, "out_channels": 2},
        **{"in_shape": [SIDE, SIDE], "features": [4, 8], "dense": 16, "dropout": 0.1},
    }
    return (
        content
        | {
            "name": "squares",
            "classes": [{"name": "above", "labels": ["0"]}, {"name": "below", "labels": ["1"]}],
            "size": [SIDE, SIDE],
            "network": network,
            "folds": 2,
            "networks": 1,
            "shipped": 0,
            "kernel": {},
            "epochs": 12,
            "distil_epochs": 12,
            "batch": 8,
            "learning_rate": 0.01,
            "ema_decay": 0.5,
            "augmentation": {"flip": [0], "rotate": 5, "translate": 0.05, "noise": 0.1, "mixup": 0.2},
            "comparison": [],
        }
        | changes
    )
