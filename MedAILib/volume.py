"""Voxel grids in the patient and the images on them; nothing here knows files, scenes or models.

Frame: RAS (right, anterior, superior), millimetres, float64. A matrix `ijk_to_ras` takes the centre of voxel (i, j, k)
to world; arrays are indexed K, J, I.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from MedAILib.errors import GeometryError, InputError

# Cosine between two axes from which a grid counts as sheared: 0.001 is half a voxel over 500.
SHEAR_TOLERANCE = 1e-3


@dataclass(frozen=True, eq=False)
class Geometry:
    """A regular grid of voxels: its shape and where it lies.

    Args:
        shape_kji: number of voxels along K, J, I, each at least 1.
        ijk_to_ras: 4x4, float64, mm; voxel indices (i, j, k, 1) to world. Axes at right angles, either handedness.

    Raises:
        GeometryError: shape or matrix break these rules; the text says how.
    """

    shape_kji: tuple[int, int, int]
    ijk_to_ras: NDArray[np.float64]

    def __post_init__(self) -> None:
        shape = tuple(int(n) for n in self.shape_kji)
        if len(shape) != 3 or min(shape) < 1:
            raise GeometryError(f"A grid needs three sizes of at least 1, not {tuple(self.shape_kji)}.")
        matrix = np.array(self.ijk_to_ras, dtype=np.float64)
        if matrix.shape != (4, 4) or not np.isfinite(matrix).all() or not np.allclose(matrix[3], (0, 0, 0, 1)):
            raise GeometryError(f"The voxel-to-patient matrix is no finite affine 4x4 matrix: {matrix.tolist()}.")
        spacing = np.linalg.norm(matrix[:3, :3], axis=0)
        if spacing.min() < 1e-6:
            raise GeometryError(f"The voxel spacing {np.round(spacing, 6).tolist()} mm has an axis of no length.")
        directions = matrix[:3, :3] / spacing
        cosines = np.abs(directions.T @ directions - np.eye(3))
        if cosines.max() > SHEAR_TOLERANCE:
            raise GeometryError(
                f"The voxel axes are sheared by {np.degrees(np.arcsin(min(cosines.max(), 1))):.2f} degrees; resample "
                "the image to a grid with right angles first (in Slicer: Crop Volume or Resample Scalar/Vector/DWI)."
            )
        matrix.setflags(write=False)
        object.__setattr__(self, "shape_kji", shape)
        object.__setattr__(self, "ijk_to_ras", matrix)

    @cached_property
    def spacing_kji_mm(self) -> tuple[float, float, float]:
        """Distance of neighbouring voxel centres along K, J, I in mm."""
        i, j, k = np.linalg.norm(self.ijk_to_ras[:3, :3], axis=0).tolist()
        return k, j, i

    @property
    def voxel_volume_ml(self) -> float:
        """Volume of one voxel in mL."""
        return float(np.prod(self.spacing_kji_mm)) / 1000

    @property
    def orientation(self) -> str:
        """World direction in which I, J and K grow, to the closest axis, as three letters such as "RAS" or "LPS"."""
        return "".join("RAS"[axis] if sign > 0 else "LPI"[axis] for axis, sign in closest_axes(self.ijk_to_ras))

    def ras_of(self, ijk: ArrayLike) -> NDArray[np.float64]:
        """World positions (n, 3), mm, of voxel indices (n, 3); fractions of voxels are allowed."""
        world = np.asarray(ijk, dtype=np.float64) @ self.ijk_to_ras[:3, :3].T + self.ijk_to_ras[:3, 3]
        return np.asarray(world, dtype=np.float64)

    def ijk_of(self, ras: ArrayLike) -> NDArray[np.float64]:
        """Continuous voxel indices (n, 3) of world positions (n, 3) in mm."""
        inverse = np.linalg.inv(self.ijk_to_ras)
        ijk = np.asarray(ras, dtype=np.float64) @ inverse[:3, :3].T + inverse[:3, 3]
        return np.asarray(ijk, dtype=np.float64)

    def cropped(self, start_kji: Sequence[int], shape_kji: Sequence[int]) -> "Geometry":
        """The grid of the box of `shape_kji` voxels that begins at voxel `start_kji`; other voxels keep their place."""
        matrix = self.ijk_to_ras.copy()
        matrix[:3, 3] = self.ras_of([list(start_kji)[::-1]])[0]
        return Geometry((shape_kji[0], shape_kji[1], shape_kji[2]), matrix)

    def same_grid_as(self, other: "Geometry", tolerance: float = 1e-3) -> bool:
        """Whether both grids have one shape, and every voxel's place agrees within `tolerance` voxels."""
        if self.shape_kji != other.shape_kji:
            return False
        corners = np.array(np.meshgrid(*[(0, n - 1) for n in self.shape_kji[::-1]])).reshape(3, -1).T
        return bool(np.abs(self.ijk_of(other.ras_of(corners)) - corners).max() <= tolerance)

    def box_of_roi(self, roi: "Roi") -> tuple[slice, slice, slice]:
        """Slices (K, J, I) of the voxels whose centres lie in a world box; at least one voxel along each axis.

        On an oblique grid it is the smallest such box of voxels that holds the world box's corners.

        Raises:
            InputError: the world box misses the grid.
        """
        ijk = self.ijk_of(roi.corners_ras)
        first, last = np.ceil(ijk.min(axis=0) - 1e-6), np.floor(ijk.max(axis=0) + 1e-6)
        thin = first > last
        first[thin] = last[thin] = np.rint(ijk.mean(axis=0))[thin]
        low = np.maximum(first, 0).astype(int)
        high = np.minimum(last, np.array(self.shape_kji[::-1]) - 1).astype(int)
        if (high < low).any():
            raise InputError(
                f"The region of interest at {list(roi.center_ras)} mm (RAS), size {list(roi.size_mm)} mm, lies outside "
                "the image."
            )
        i, j, k = (slice(int(a), int(b) + 1) for a, b in zip(low, high, strict=True))
        return k, j, i


@dataclass(frozen=True)
class Roi:
    """A box in the world, its edges along R, A and S.

    Args:
        center_ras: centre in mm.
        size_mm: full edge lengths along R, A and S in mm, each above 0.

    Raises:
        InputError: numbers that are no such box.
    """

    center_ras: tuple[float, float, float]
    size_mm: tuple[float, float, float]

    def __post_init__(self) -> None:
        numbers = (*self.center_ras, *self.size_mm)
        if len(numbers) != 6 or not np.isfinite(numbers).all() or min(self.size_mm) <= 0:
            raise InputError(f"A region of interest is R A S dR dA dS in mm with sizes above 0, not {list(numbers)}.")

    @property
    def corners_ras(self) -> NDArray[np.float64]:
        """The eight corners (8, 3) in mm."""
        half = np.array(self.size_mm) / 2
        signs = np.array(np.meshgrid((-1, 1), (-1, 1), (-1, 1))).reshape(3, -1).T
        return np.asarray(self.center_ras + signs * half, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class Volume:
    """An image: one or more channels of voxels on one grid.

    Args:
        data: (C, K, J, I), real numbers of any numpy type; never changed.
        geometry: the grid, of shape (K, J, I).
        name: what the user calls it (file or node), for messages and provenance.
        provenance: where it came from, as plain strings (for DICOM: UIDs and modality by keyword).

    Raises:
        InputError: data of another shape than the geometry, or not of real numbers.
    """

    data: NDArray[Any]
    geometry: Geometry
    name: str = "image"
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.data.ndim != 4 or self.data.shape[1:] != self.geometry.shape_kji or self.data.shape[0] < 1:
            raise InputError(
                f"{self.name}: voxels of shape {list(self.data.shape)} (C, K, J, I) don't fit a grid of "
                f"{list(self.geometry.shape_kji)} (K, J, I)."
            )
        if self.data.dtype.kind not in "buif":
            raise InputError(f"{self.name}: voxels of the type {self.data.dtype} are no real numbers.")

    @property
    def channels(self) -> int:
        return int(self.data.shape[0])

    def cropped(self, box_kji: tuple[slice, slice, slice]) -> "Volume":
        """The part of the image in a box of voxels, as a view."""
        start = [part.start for part in box_kji]
        data = self.data[(slice(None), *box_kji)]
        return Volume(data, self.geometry.cropped(start, data.shape[1:]), self.name, self.provenance)


def not_finite(name: str, count: int) -> InputError:
    """The error for an image with NaN or infinite voxels, for the caller to raise."""
    return InputError(
        f"{name} has {count} NaN or infinite voxel{'s' if count > 1 else ''}; replace them first (in Slicer's Python "
        "console: slicer.util.updateVolumeFromArray with numpy.nan_to_num)."
    )


def closest_axes(ijk_to_ras: NDArray[np.float64]) -> tuple[tuple[int, int], ...]:
    """For each voxel axis I, J, K the closest world axis (0 R, 1 A, 2 S) and the sign along it.

    Each world axis is used once; the axis that is clearest is settled first (as nibabel's `io_orientation` does, so
    that both agree on oblique grids).
    """
    matrix = ijk_to_ras[:3, :3]
    u, _, vt = np.linalg.svd(matrix / np.linalg.norm(matrix, axis=0))
    rotation = u @ vt
    result = [(0, 1)] * 3
    for axis in np.argsort(np.min(-(rotation**2), axis=0), kind="stable"):
        world = int(np.argmax(np.abs(rotation[:, axis])))
        result[axis] = (world, 1 if rotation[world, axis] > 0 else -1)
        rotation[world, :] = 0
    return tuple(result)
