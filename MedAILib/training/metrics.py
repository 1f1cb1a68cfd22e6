"""How alike two segmentations of one structure are: overlap, surfaces, volumes; nothing here knows files or models.

Surfaces are DeepMind's (Nikolov et al., J Med Internet Res 2021;23:e26151, and their package surface-distance): a
surface element sits at every corner between eight voxels that are not all inside or all outside, and weighs as much as
the marching-cubes surface in that cell, in mm² for the grid's own spacing. What lies outside the image counts as
background, so a structure at the border has a closed surface. On an image of one slice the contour takes the surface's
place, and lengths that of areas.

Where there is nothing to compare: structure absent from both, every ratio and distance is NaN (nnU-Net's rule: such a
case says nothing); absent from one, overlaps are 0 and distances infinite.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from monai.metrics.utils import get_code_to_measure_table
from numpy.typing import NDArray
from scipy.spatial import KDTree

Mask = NDArray[np.bool_]
Floats = NDArray[np.float64]

# Files keep spacings in single precision: a distance that is 1 mm on paper must not fail a tolerance of 1 mm.
ROUNDING_MM = 1e-4


@dataclass(frozen=True)
class Overlap:
    """Counts of voxels: in both, in the prediction alone, in the reference alone, in neither."""

    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def n_pred(self) -> int:
        return self.tp + self.fp

    @property
    def n_ref(self) -> int:
        return self.tp + self.fn

    @property
    def dice(self) -> float:
        """2 TP / (2 TP + FP + FN), 0 to 1; NaN when both are empty."""
        return _ratio(2 * self.tp, self.n_pred + self.n_ref)

    @property
    def iou(self) -> float:
        """TP / (TP + FP + FN), 0 to 1; NaN when both are empty."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)


@dataclass(frozen=True, eq=False)
class SurfaceDistances:
    """Each surface element's distance to the nearest element of the other surface, and its weight.

    Args:
        reference_mm, predicted_mm: distances (n,) and (m,) of the reference's and the prediction's elements, mm;
            infinite where the other surface does not exist.
        reference_weights, predicted_weights: their areas in mm², or lengths in mm on an image of one slice.
    """

    reference_mm: Floats
    predicted_mm: Floats
    reference_weights: Floats
    predicted_weights: Floats


@dataclass(frozen=True)
class Agreement:
    """Everything that is measured of one structure in one image."""

    overlap: Overlap
    hd95_mm: float
    mean_distance_mm: float
    surface_dice: float
    reference_ml: float
    predicted_ml: float

    @property
    def volume_difference_ml(self) -> float:
        """Prediction minus reference in mL: above 0 where the prediction is too large."""
        return self.predicted_ml - self.reference_ml

    @property
    def relative_volume_difference(self) -> float:
        """(Prediction minus reference) / reference; NaN when both are empty, infinite when only the reference is."""
        if self.reference_ml == 0:
            return math.inf if self.predicted_ml > 0 else math.nan
        return self.volume_difference_ml / self.reference_ml


def compare(
    reference: Mask, predicted: Mask, spacing_kji_mm: tuple[float, float, float], tolerance_mm: float = 1.0
) -> Agreement:
    """Measure a predicted structure against its reference.

    Args:
        reference: voxels (K, J, I) of the structure as it is.
        predicted: its voxels as the model sees it, on the same grid.
        spacing_kji_mm: distance of voxel centres along K, J, I in mm.
        tolerance_mm: how far surfaces may lie apart and still agree, for the surface Dice.

    Raises:
        ValueError: arrays of different shapes, or not of three axes.
    """
    overlap = count_voxels(reference, predicted)
    distances = surface_distances(reference, predicted, spacing_kji_mm)
    voxel_ml = math.prod(spacing_kji_mm) / 1000
    return Agreement(
        overlap,
        hausdorff_distance(distances, 0.95),
        mean_surface_distance(distances),
        surface_dice(distances, tolerance_mm),
        overlap.n_ref * voxel_ml,
        overlap.n_pred * voxel_ml,
    )


def count_voxels(reference: Mask, predicted: Mask) -> Overlap:
    """Count the voxels that two masks of one shape share and don't share."""
    if reference.shape != predicted.shape:
        raise ValueError(f"masks of shapes {reference.shape} and {predicted.shape} are on different grids")
    tp = int(np.count_nonzero(reference & predicted))
    n_ref, n_pred = int(np.count_nonzero(reference)), int(np.count_nonzero(predicted))
    return Overlap(tp, n_pred - tp, n_ref - tp, reference.size - n_ref - n_pred + tp)


def surface_distances(reference: Mask, predicted: Mask, spacing_kji_mm: tuple[float, float, float]) -> SurfaceDistances:
    """Find both structures' surface elements, their weights and their distances to the other surface.

    Args:
        reference: voxels (K, J, I) of the structure as it is.
        predicted: its voxels as the model sees it, on the same grid.
        spacing_kji_mm: distance of voxel centres along K, J, I in mm.

    Raises:
        ValueError: arrays of different shapes, or not of three axes.
    """
    if reference.ndim != 3 or reference.shape != predicted.shape:
        raise ValueError(f"masks of shapes {reference.shape} and {predicted.shape} are not on one grid of three axes")
    spacing = tuple(float(mm) for mm in spacing_kji_mm)
    thin = [axis for axis, size in enumerate(reference.shape) if size == 1]
    if len(thin) == 1:
        reference, predicted = reference.squeeze(thin[0]), predicted.squeeze(thin[0])
        spacing = tuple(mm for axis, mm in enumerate(spacing) if axis != thin[0])
    box = _bounding_box(reference | predicted)
    points_ref, weights_ref = _surface(reference[box], spacing)
    points_pred, weights_pred = _surface(predicted[box], spacing)
    return SurfaceDistances(
        _nearest(points_ref, points_pred), _nearest(points_pred, points_ref), weights_ref, weights_pred
    )


def hausdorff_distance(distances: SurfaceDistances, share: float = 0.95) -> float:
    """The distance in mm that `share` of each surface's area keeps below; the larger of the two directions.

    NaN when there is no surface at all, infinite when there is one.
    """
    if distances.reference_mm.size + distances.predicted_mm.size == 0:
        return math.nan
    return max(
        _weighted_percentile(distances.reference_mm, distances.reference_weights, share),
        _weighted_percentile(distances.predicted_mm, distances.predicted_weights, share),
    )


def mean_surface_distance(distances: SurfaceDistances) -> float:
    """The mean distance in mm over the area of both surfaces together (average symmetric surface distance).

    NaN when there is no surface at all, infinite when there is one.
    """
    total = distances.reference_weights.sum() + distances.predicted_weights.sum()
    if total == 0:
        return math.nan
    summed = distances.reference_mm @ distances.reference_weights + distances.predicted_mm @ distances.predicted_weights
    return float(summed / total)


def surface_dice(distances: SurfaceDistances, tolerance_mm: float) -> float:
    """The share of both surfaces' area that lies within `tolerance_mm` of the other surface, 0 to 1.

    NaN when there is no surface at all, 0 when there is one.
    """
    limit = tolerance_mm + ROUNDING_MM
    within = distances.reference_weights[distances.reference_mm <= limit].sum()
    within += distances.predicted_weights[distances.predicted_mm <= limit].sum()
    return _ratio(float(within), float(distances.reference_weights.sum() + distances.predicted_weights.sum()))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _bounding_box(mask: NDArray[np.bool_]) -> tuple[slice, ...]:
    """The smallest box with all of the mask; a box of nothing for an empty mask."""
    box = []
    for axis in range(mask.ndim):
        used = np.flatnonzero(mask.any(axis=tuple(other for other in range(mask.ndim) if other != axis)))
        box.append(slice(int(used[0]), int(used[-1]) + 1) if used.size else slice(0, 0))
    return tuple(box)


def _surface(mask: NDArray[np.bool_], spacing: tuple[float, ...]) -> tuple[Floats, Floats]:
    """Positions (n, axes) in mm and weights (n,) of a mask's surface elements; the origin is the mask's own."""
    if not mask.any():
        return np.empty((0, mask.ndim)), np.empty(0)
    kernel, measure = _tables(spacing)
    padded = np.pad(mask, 1).astype(np.uint8)
    corners = tuple(size + 1 for size in mask.shape)
    code = np.zeros(corners, dtype=np.uint8)
    for offset in np.ndindex(kernel.shape):
        part = tuple(slice(start, start + size) for start, size in zip(offset, corners, strict=True))
        code += kernel[offset] * padded[part]
    places = np.nonzero((code > 0) & (code < kernel.sum()))
    return np.stack(places, axis=1) * np.array(spacing), measure[code[places]]


@lru_cache(maxsize=8)
def _tables(spacing: tuple[float, ...]) -> tuple[NDArray[np.uint8], Floats]:
    """The bit of each voxel around a corner (2, 2[, 2]), and the surface measure of each sum of those bits."""
    measure, kernel = get_code_to_measure_table(spacing)
    bits: NDArray[Any] = kernel.squeeze().numpy().astype(np.uint8)
    return bits, measure.numpy().astype(np.float64)


def _nearest(points: Floats, others: Floats) -> Floats:
    if len(others) == 0:
        return np.full(len(points), np.inf)
    # A large leaf builds fast, which is what counts for a tree that answers once.
    return np.asarray(KDTree(others, leafsize=32).query(points)[0], dtype=np.float64)


def _weighted_percentile(values: Floats, weights: Floats, share: float) -> float:
    """The smallest value that has `share` of the weight at or below it; infinite for no values at all."""
    if values.size == 0:
        return math.inf
    order = np.argsort(values, kind="stable")
    heaped = np.cumsum(weights[order])
    place = int(np.searchsorted(heaped, share * heaped[-1]))
    return float(values[order[min(place, values.size - 1)]])
