"""A small picture of one result: an axial slice with the structures laid over it."""

import colorsys
from pathlib import Path

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from MedAILib.output import whole_file
from MedAILib.results import Segmentation
from MedAILib.scene.picture_slices import (
    Plane,
    best_center,
    display_range,
    image_box,
    sample,
    sample_mask,
    structures_of,
)
from MedAILib.volume import Volume

PIXELS = 256
MARGIN = 1.4  # of the window, around the structures
OPACITY = 0.45
_GOLDEN_RATIO = 0.618034


def write_thumbnail(volume: Volume, segmentation: Segmentation, path: Path) -> None:
    """Write a picture of 256 x 256 pixels as PNG: the axial slice that shows most, patient's right at the left.

    Raises:
        OutputError: the file can't be written.
    """
    with whole_file(path) as part:
        PIL.Image.fromarray(thumbnail(volume, segmentation)).save(part)


def thumbnail(volume: Volume, segmentation: Segmentation) -> NDArray[np.uint8]:
    """The picture's pixels (rows, columns, red green blue)."""
    structures = structures_of(segmentation)
    low, high = image_box(volume.geometry)
    half = float((high - low).max()) / 2
    if structures:
        points = np.concatenate([structure.points_ras for structure in structures])
        half = min(half, max(float(np.ptp(points[:, :2], axis=0).max()) / 2 * MARGIN, 20.0))
    plane = Plane("Axial", best_center(structures, volume.geometry), half)
    dark, bright = display_range(volume)
    grey = sample(volume.data[0], volume.geometry, plane, PIXELS)
    grey = np.clip((np.nan_to_num(grey, nan=dark) - dark) / max(bright - dark, 1e-6), 0, 1)
    picture = np.repeat(grey[..., None], 3, axis=2)
    for structure in structures:
        color = structure.label.color or colorsys.hsv_to_rgb(structure.number * _GOLDEN_RATIO % 1, 0.7, 0.95)
        share = OPACITY * np.clip(sample_mask(structure, plane, PIXELS), 0, 1)[..., None]
        picture = picture * (1 - share) + np.array(color) * share
    return np.asarray(np.rint(255 * picture), np.uint8)
