"""Small volumes with bright balls to be found, among rods and specks as bright that are none, and their boxes."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
from numpy.typing import NDArray

SHAPE = (48, 48, 48)


def blob_volume(random: np.random.Generator) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
    """An image (I, J, K) and its label map: one or two balls of 13 to 18 voxels, rods and specks around them."""
    image = random.normal(0, 0.25, SHAPE)
    labels = np.zeros(SHAPE, np.uint8)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")).astype(float)
    taken: list[tuple[NDArray[np.float64], float]] = []

    def place(radius: float) -> NDArray[np.float64] | None:
        for _ in range(50):
            center = random.uniform(radius + 1, np.array(SHAPE) - radius - 2)
            if all(np.linalg.norm(center - other) > radius + room + 3 for other, room in taken):
                taken.append((center, radius))
                return center
        return None

    for _ in range(random.integers(1, 3)):
        radius = float(random.uniform(6.5, 9))
        if (center := place(radius)) is not None:
            inside = np.linalg.norm(grid - center.reshape(3, 1, 1, 1), axis=0) <= radius
            image[inside] += 2
            labels[inside] = 1
    for _ in range(3):
        if (center := place(6)) is not None:  # a rod: as bright, thin and long
            away = np.abs(grid - center.reshape(3, 1, 1, 1))
            axis = int(random.integers(3))
            thin = np.delete(away, axis, axis=0).max(axis=0) <= 1.5
            image[thin & (away[axis] <= 6)] += 2
    for _ in range(4):
        if (center := place(2)) is not None:  # a speck: as bright, too small
            image[np.linalg.norm(grid - center.reshape(3, 1, 1, 1), axis=0) <= 1.8] += 2
    return image.astype(np.float32), labels


def blob_folder(folder: Path, count: int, seed: int, kind: str = "labels") -> Path:
    """A data folder of `count` images, with label maps, or with a list of boxes ("boxes.csv", "boxes.json")."""
    random = np.random.default_rng(seed)
    affine = np.diag([-1.0, 1.0, 1.0, 1.0])
    affine[:3, 3] = 20, -30, 10
    for name in ("images", "labels") if kind == "labels" else ("images",):
        (folder / name).mkdir(parents=True, exist_ok=True)
    boxes: dict[str, list[dict[str, Any]]] = {}
    for number in range(count):
        image, labels = blob_volume(random)
        name = f"case{number:03d}"
        nibabel.save(nibabel.Nifti1Image(image, affine), folder / "images" / f"{name}.nii.gz")
        if kind == "labels":
            nibabel.save(nibabel.Nifti1Image(labels, affine), folder / "labels" / f"{name}.nii.gz")
        else:
            boxes[name] = world_boxes(labels, affine)
    if kind == "labels":
        told = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "ball": 1}}
        (folder / "dataset.json").write_text(json.dumps(told), encoding="utf-8")
    elif kind == "boxes.json":
        (folder / kind).write_text(json.dumps(boxes), encoding="utf-8")
    elif kind == "boxes.csv":
        with (folder / kind).open("w", encoding="utf-8", newline="") as file:
            rows = csv.writer(file)
            rows.writerow(["case", "label", *(f"center_{x}" for x in "ras"), *(f"size_{x}" for x in "ijk")])
            for name, found in boxes.items():
                rows.writerows([name, box["label"], *box["center_ras"], *box["size_mm"]] for box in found)
    return folder


def world_boxes(labels: NDArray[np.uint8], affine: NDArray[np.float64]) -> list[dict[str, Any]]:
    """The boxes of a label map's parts (I, J, K), as `boxes.json` has them."""
    from scipy.ndimage import find_objects, label

    found = []
    for sides in find_objects(label(labels)[0]):
        low, high = np.array([s.start - 0.5 for s in sides]), np.array([s.stop - 0.5 for s in sides])
        center = affine @ [*((low + high) / 2), 1]
        found.append({"label": "ball", "center_ras": center[:3].tolist(), "size_mm": (high - low).tolist()})
    return found
