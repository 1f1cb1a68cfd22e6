"""Pictures that the tests make: several shapes in one picture, each with a label, and discs whose size is a grade."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

SIDE = 16
SHAPES = ("block", "column", "row")
GRADES = 4


def shape_pictures(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures (count, 16, 16) on noise and labels (count, 3): which of `SHAPES` are in each; some have none."""
    rng = np.random.default_rng(seed)
    labels = (rng.random((count, len(SHAPES))) < (0.5, 0.4, 0.3)).astype(np.uint8)
    labels[:2] = ((0,), (1,))  # each label is there, and absent
    images = rng.integers(0, 60, (count, SIDE, SIDE))
    for image, (block, column, row) in zip(images, labels, strict=True):
        j, i = rng.integers(1, 11, 2)
        image[j : j + 5, i : i + 5] += 150 * block
        image[:, rng.integers(SIDE)] += 150 * column
        image[rng.integers(SIDE)] += 150 * row
    return np.clip(images, 0, 255).astype(np.uint8), labels


def grade_pictures(count: int, seed: int = 0) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Pictures (count, 16, 16) of a disc on noise and labels (count, 1): 0 to 3, the larger the disc the higher."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % GRADES
    images = rng.integers(0, 60, (count, SIDE, SIDE))
    for image, label in zip(images, labels, strict=True):
        away = np.hypot(*(np.indices((SIDE, SIDE)) - rng.uniform(6, 9, (2, 1, 1))))
        image[away < 1.5 + 1.3 * label + rng.uniform(-0.4, 0.4)] += 150
    return images.astype(np.uint8), labels[:, None].astype(np.uint8)


def archive(path: Path, made: Any, **parts: int) -> Path:
    """A file as MedMNIST's, with so many of the pictures that `made` makes in each part."""
    arrays = {}
    for seed, (part, count) in enumerate(parts.items()):
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = made(count, seed)
    np.savez(path, **arrays)
    return path


def tabled(folder: Path, count: int, columns: bool, seed: int = 0) -> Path:
    """The pictures of shapes as PNG files with `labels.csv`: a column for each label, or names with ";" between."""
    images, labels = shape_pictures(count, seed)
    lines = [",".join(("path", *SHAPES)) if columns else "path,labels"]
    for number, (image, row) in enumerate(zip(images, labels.tolist(), strict=True)):
        path = folder / f"{number:02d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.fromarray(image).save(path)
        names = [name for name, has in zip(SHAPES, row, strict=True) if has]
        lines.append(",".join((path.name, *(map(str, row) if columns else [";".join(names)]))))
    (folder / "labels.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder / "labels.csv"
