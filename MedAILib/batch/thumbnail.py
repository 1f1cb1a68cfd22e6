"""A small picture of one result: an axial slice with the structures or boxes laid over it, or with what was decided."""

import colorsys
from pathlib import Path

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray
from scipy.spatial import ConvexHull

from MedAILib.detections import Box, Detections
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
CAPTION = 28  # rows of pixels below a decision's picture
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
    picture = _grey(volume, plane)
    for structure in structures:
        color = structure.label.color or colorsys.hsv_to_rgb(structure.number * _GOLDEN_RATIO % 1, 0.7, 0.95)
        share = OPACITY * np.clip(sample_mask(structure, plane, PIXELS), 0, 1)[..., None]
        picture = picture * (1 - share) + np.array(color) * share
    return np.asarray(np.rint(255 * picture), np.uint8)


def write_decision(volume: Volume, decision: str, path: Path) -> None:
    """Write a picture of 256 x 256 pixels as PNG: a single slice as it is, of a volume the middle axial one, captioned.

    Raises:
        OutputError: the file can't be written.
    """
    with whole_file(path) as part:
        PIL.Image.fromarray(decision_picture(volume, decision)).save(part)


def decision_picture(volume: Volume, decision: str) -> NDArray[np.uint8]:
    """The picture's pixels (rows, columns, red green blue)."""
    side = PIXELS - CAPTION
    if 1 in volume.geometry.shape_kji:
        shown = _single_slice(volume, side)
    else:
        low, high = image_box(volume.geometry)
        plane = Plane("Axial", best_center((), volume.geometry), float((high - low).max()) / 2)
        shown = PIL.Image.fromarray(np.rint(255 * _grey(volume, plane)).astype(np.uint8)).resize((side, side))
    whole = PIL.Image.new("RGB", (PIXELS, PIXELS))
    whole.paste(shown, ((PIXELS - shown.width) // 2, (side - shown.height) // 2))
    font = PIL.ImageFont.load_default(16)
    PIL.ImageDraw.Draw(whole).text((PIXELS / 2, PIXELS - CAPTION / 2), decision, "white", font, anchor="mm")
    return np.asarray(whole, np.uint8)


def write_findings(volume: Volume, detections: Detections, path: Path) -> None:
    """Write a picture of 256 x 256 pixels as PNG: the slice through the surest finding, with all boxes that it cuts.

    Raises:
        OutputError: the file can't be written.
    """
    with whole_file(path) as part:
        PIL.Image.fromarray(findings_picture(volume, detections)).save(part)


def findings_picture(volume: Volume, detections: Detections) -> NDArray[np.uint8]:
    """The picture's pixels (rows, columns, red green blue)."""
    shape = volume.geometry.shape_kji
    if 1 in shape:
        shown = _single_slice(volume, PIXELS)
        picture = PIL.Image.new("RGB", (PIXELS, PIXELS))
        corner = np.array([(PIXELS - shown.width) // 2, (PIXELS - shown.height) // 2])
        picture.paste(shown, tuple(corner.tolist()))
        across = 2 - shape.index(1)
        columns, rows = (axis for axis in range(3) if axis != across)
        scale = np.array([shown.width / shape[2 - columns], shown.height / shape[2 - rows]])
        for box in detections.boxes:
            ends = np.array([box.low_ijk, box.high_ijk])[:, [columns, rows]] + 0.5
            (left, top), (right, bottom) = ends * scale + corner
            around = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
            _outline(picture, around, box, detections)
        return np.asarray(picture, np.uint8)
    low, high = image_box(volume.geometry)
    center = detections.center_ras(detections.boxes[0]) if detections.boxes else best_center((), volume.geometry)
    middle, half = (low + high) / 2, float((high - low)[:2].max()) / 2
    plane = Plane("Axial", (float(middle[0]), float(middle[1]), float(center[2])), half)
    picture = PIL.Image.fromarray(np.rint(255 * _grey(volume, plane)).astype(np.uint8))
    for box in detections.boxes:
        corners = detections.corners_ras(box)
        if corners[:, 2].min() <= plane.center_ras[2] <= corners[:, 2].max():
            # As the axial plane is drawn: the patient's right at the left, the front above.
            seen = (np.array(plane.center_ras[:2]) - corners[:, :2] + half) * (PIXELS / (2 * half))
            _outline(picture, seen[ConvexHull(seen).vertices], box, detections)
    return np.asarray(picture, np.uint8)


def _outline(picture: PIL.Image.Image, points: NDArray[np.float64], box: Box, detections: Detections) -> None:
    """Draw around a finding, in its class's colour."""
    number = detections.classes.index(box.label) + 1
    color = tuple(round(255 * part) for part in colorsys.hsv_to_rgb(number * _GOLDEN_RATIO % 1, 0.7, 0.95))
    PIL.ImageDraw.Draw(picture).polygon([(float(x), float(y)) for x, y in points], outline=color, width=2)


def _single_slice(volume: Volume, side: int) -> PIL.Image.Image:
    """A picture in its proportions, in colour where it has some."""
    axis = volume.geometry.shape_kji.index(1)
    colour = volume.channels == 3 and volume.data.dtype == np.uint8
    channels = volume.data if colour else volume.data[:1]
    pixels = np.moveaxis(np.take(channels, 0, axis=axis + 1), 0, -1).astype(np.float64)
    dark, bright = (0.0, 255.0) if colour else display_range(volume)
    shown = np.clip((np.nan_to_num(pixels, nan=dark) - dark) / max(bright - dark, 1e-6), 0, 1)
    sizes = zip(volume.geometry.shape_kji, volume.geometry.spacing_kji_mm, strict=True)
    rows_mm, columns_mm = (n * mm for other, (n, mm) in enumerate(sizes) if other != axis)
    scale = side / max(rows_mm, columns_mm)
    size = max(round(columns_mm * scale), 1), max(round(rows_mm * scale), 1)
    whole = np.rint(255 * np.broadcast_to(shown, (*shown.shape[:2], 3))).astype(np.uint8)
    return PIL.Image.fromarray(whole).resize(size)


def _grey(volume: Volume, plane: Plane) -> NDArray[np.float64]:
    """A slice of the image (rows, columns, 3), 0 to 1, as people look at it."""
    dark, bright = display_range(volume)
    grey = sample(volume.data[0], volume.geometry, plane, PIXELS)
    grey = np.clip((np.nan_to_num(grey, nan=dark) - dark) / max(bright - dark, 1e-6), 0, 1)
    return np.repeat(grey[..., None], 3, axis=2)
