"""Slices of an image and of its segmentation in the patient's own planes, as plain arrays to be drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, map_coordinates

from MedAILib.results import Label, Segmentation
from MedAILib.volume import Geometry, Volume

# Per plane: the world axis it is cut across, then the axes along the picture's columns and rows with their direction,
# and the letters at its left, right, top and bottom edge. Radiological: the viewer faces the patient.
PLANES = {
    "Axial": (2, ((0, -1), (1, -1)), "RLAP"),
    "Coronal": (1, ((0, -1), (2, -1)), "RLSI"),
    "Sagittal": (0, ((1, -1), (2, -1)), "APSI"),
}


@dataclass(frozen=True)
class Plane:
    """A square window of one slice.

    Args:
        name: a key of `PLANES`.
        center_ras: the window's centre in mm.
        half_mm: half its width.
    """

    name: str
    center_ras: tuple[float, float, float]
    half_mm: float

    def points_ras(self, pixels: int) -> NDArray[np.float64]:
        """World positions (pixels, pixels, 3), mm, of the window's pixels by row and column."""
        _, ((column_axis, column_sign), (row_axis, row_sign)), _ = PLANES[self.name]
        offsets = (np.arange(pixels) + 0.5) / pixels * 2 * self.half_mm - self.half_mm
        points = np.broadcast_to(np.array(self.center_ras), (pixels, pixels, 3)).copy()
        points[..., column_axis] += column_sign * offsets[None, :]
        points[..., row_axis] += row_sign * offsets[:, None]
        return points


def sample(array_kji: NDArray[np.generic], geometry: Geometry, plane: Plane, pixels: int) -> NDArray[np.float32]:
    """Values (pixels, pixels) on a plane, linear between voxels, NaN outside the grid."""
    ijk = geometry.ijk_of(plane.points_ras(pixels).reshape(-1, 3))
    kji = ijk[:, ::-1].T
    size = np.array(geometry.shape_kji)[:, None]
    inside = ((kji >= -0.5) & (kji <= size - 0.5)).all(axis=0)
    low, part = _needed_part(array_kji, kji[:, inside])
    values = np.full(kji.shape[1], np.nan, np.float32)
    if inside.any():
        values[inside] = map_coordinates(part, kji[:, inside] - low, order=1, mode="nearest", output=np.float32)
    return values.reshape(pixels, pixels)


@dataclass(frozen=True, eq=False)
class Structure:
    """A structure that was found: its voxels alone, with a margin of one.

    Args:
        label: which it is.
        number: its place among the labels of the model.
        mask: (K, J, I), the box around it.
        geometry: the grid of that box.
        volume_ml: its volume in mL.
    """

    label: Label
    number: int
    mask: NDArray[np.bool_]
    geometry: Geometry
    volume_ml: float

    @cached_property
    def points_ras(self) -> NDArray[np.float64]:
        """World positions (n, 3), mm, of its voxels, thinned to some ten thousand."""
        flat = np.flatnonzero(self.mask)
        kji = np.array(np.unravel_index(flat[:: max(1, len(flat) // 20000)], self.mask.shape)).T
        return self.geometry.ras_of(kji[:, ::-1])


def structures_of(segmentation: Segmentation) -> tuple[Structure, ...]:
    """The structures that have voxels, in the order of the labels."""
    boxes = [find_objects(layer.astype(np.int32)) for layer in segmentation.layers]
    result = []
    for number, label in enumerate(segmentation.labels):
        box = boxes[label.layer][label.value - 1] if label.value <= len(boxes[label.layer]) else None
        if box is None:
            continue
        mask = np.pad(segmentation.layers[label.layer][box] == label.value, 1)
        geometry = segmentation.geometry.cropped([part.start - 1 for part in box], mask.shape)
        volume_ml = int(np.count_nonzero(mask)) * geometry.voxel_volume_ml
        result.append(Structure(label, number, mask, geometry, volume_ml))
    return tuple(result)


def sample_mask(structure: Structure, plane: Plane, pixels: int) -> NDArray[np.float32]:
    """Share (pixels, pixels) of a structure, 0 to 1; its outline is where it is one half."""
    return np.nan_to_num(sample(structure.mask.astype(np.uint8), structure.geometry, plane, pixels))


def best_center(structures: Sequence[Structure], geometry: Geometry) -> tuple[float, float, float]:
    """Where the three planes cut to show most: for each world axis the position with most of every structure.

    The square root of each structure's share is added up, so that a position which shows all of them a little is
    preferred to one that shows a single one in full. Without any structure it is the centre of the image.
    """
    if not structures:
        low, high = image_box(geometry)
        x, y, z = ((low + high) / 2).tolist()
        return x, y, z
    step = min(geometry.spacing_kji_mm)
    width = max(1, round(3 / step))  # three millimetres, so that one ragged layer of voxels does not decide
    center = []
    for axis in range(3):
        values = [structure.points_ras[:, axis] for structure in structures]
        first = float(min(group.min() for group in values)) - (0.5 + width) * step
        last = float(max(group.max() for group in values)) + (1 + width) * step
        edges = np.arange(first, last, step)
        score = np.zeros(len(edges) - 1)
        for group in values:
            shares = np.histogram(group, edges)[0] / len(group)
            score += np.sqrt(np.convolve(shares, np.ones(width) / width, mode="same"))
        middle = (edges[:-1] + edges[1:]) / 2
        near_best = middle[score > 0.97 * score.max()]
        balance = np.mean([group.mean() for group in values])
        center.append(float(near_best[np.abs(near_best - balance).argmin()]))
    return center[0], center[1], center[2]


def image_box(geometry: Geometry) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Lowest and highest world position (3,), mm, of a grid's outer faces."""
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in geometry.shape_kji[::-1]])).reshape(3, -1).T
    places = geometry.ras_of(corners)
    return places.min(axis=0), places.max(axis=0)


def display_range(volume: Volume) -> tuple[float, float]:
    """The values to draw black and white: a soft-tissue window for CT, percentiles of the non-background otherwise."""
    thinned = volume.data[0][tuple(slice(None, None, max(1, n // 96)) for n in volume.geometry.shape_kji)]
    values = thinned[np.isfinite(thinned)].astype(np.float64)
    if values.size == 0:
        return 0.0, 1.0
    if volume.provenance.get("Modality") == "CT" or values.min() <= -900:
        return -160.0, 240.0
    low = float(np.percentile(values, 1))
    above = values[values > low + 0.05 * (values.max() - low)]
    if above.size == 0:
        return low, low + 1.0
    dark, high = (float(value) for value in np.percentile(above, (6, 98.5)))
    # Half of what lies below the darkest tissue is given up: tissue is what people look at, and the air stays black.
    return low + 0.5 * (dark - low), high + 0.08 * (high - low)


def _needed_part(
    array: NDArray[np.generic], kji: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.generic]]:
    """The box of voxels around indices (3, n), and where it begins (3, 1): a slice needs no copy of the volume."""
    if kji.shape[1] == 0:
        return np.zeros((3, 1)), array[:1, :1, :1]
    low = np.clip(np.floor(kji.min(axis=1)).astype(int) - 1, 0, np.array(array.shape) - 1)
    high = np.clip(np.ceil(kji.max(axis=1)).astype(int) + 2, 1, np.array(array.shape))
    part = array[low[0] : high[0], low[1] : high[1], low[2] : high[2]]
    return low[:, None].astype(np.float64), part
