"""Post-processing of labels: what a model's description may ask for after the network has spoken.

Each step does what MONAI's transform of that name does. Labels are (L, A, B, C): one layer of label values, or several
layers of 0 and 1 for structures that overlap; then a layer's number stands for its value, and layer 0 is left alone
unless it is named, since MONAI takes it for the background.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[slice, ...]


class Cleanup(Protocol):
    """Changes labels (L, A, B, C) in place."""

    def __call__(self, labels: NDArray[Any], voxel_volume_ml: float) -> None: ...


@dataclass(frozen=True)
class KeepLargest:
    """Keep each structure's largest connected components and turn the others to background.

    Args:
        values: label values it applies to; None for all.
        connectivity: 1 joins voxels over faces, 2 also over edges, 3 also over corners.
        components: how many to keep.
        independent: each structure for itself; else all of them as one.
    """

    values: tuple[int, ...] | None = None
    connectivity: int = 3
    components: int = 1
    independent: bool = True

    def __call__(self, labels: NDArray[Any], voxel_volume_ml: float) -> None:
        if self.independent:
            for layer, mask, _ in _structures(labels, self.values):
                layer[mask & ~self._largest(mask)] = 0
            return
        if len(labels) == 1:
            mask = labels[0] > 0 if self.values is None else np.isin(labels[0], self.values) & (labels[0] > 0)
            labels[0][mask & ~self._largest(mask)] = 0
            return
        chosen = [n for n in (range(1, len(labels)) if self.values is None else self.values) if n < len(labels)]
        mask = np.asarray((labels[chosen] > 0).any(axis=0))
        drop = mask & ~self._largest(mask)
        for number in chosen:
            labels[number][drop] = 0

    def _largest(self, mask: NDArray[np.bool_]) -> NDArray[np.bool_]:
        parts, count = ndimage.label(mask, ndimage.generate_binary_structure(3, self.connectivity))
        if count <= self.components:
            return mask
        sizes = np.bincount(parts.ravel())
        sizes[0] = 0
        keep = np.zeros(len(sizes), dtype=bool)
        keep[np.argsort(sizes)[::-1][: self.components]] = True
        return np.asarray(keep[parts])


@dataclass(frozen=True)
class FillHoles:
    """Give everything that a structure encloses to that structure.

    Args:
        values: label values it applies to; None for all.
        connectivity: over what background voxels join, as in `KeepLargest`.
    """

    values: tuple[int, ...] | None = None
    connectivity: int = 3

    def __call__(self, labels: NDArray[Any], voxel_volume_ml: float) -> None:
        for layer, mask, value in _structures(labels, self.values):
            filled = ndimage.binary_fill_holes(mask, ndimage.generate_binary_structure(3, self.connectivity))
            layer[filled] = value


@dataclass(frozen=True)
class RemoveSmall:
    """Turn small objects to background, where objects are what MONAI takes for such.

    Where there is one structure, or each has a layer, an object is a connected component (joined through the layers
    where structures overlap). In a label map of several values it is all that has one value, connected or not.

    Args:
        minimum: in voxels, or in mm³ with `in_mm3`.
        connectivity: as in `KeepLargest`.
        in_mm3: what `minimum` counts.
        independent: as above; else all that is not background is one structure.
    """

    minimum: float
    connectivity: int = 1
    in_mm3: bool = False
    independent: bool = True

    def __call__(self, labels: NDArray[Any], voxel_volume_ml: float) -> None:
        if labels.min() == labels.max():
            return
        least = math.ceil(self.minimum / (voxel_volume_ml * 1000)) if self.in_mm3 else self.minimum
        if least <= 0:
            return
        objects = labels
        if not self.independent or labels.max() <= 1:
            structure = ndimage.generate_binary_structure(4, self.connectivity)
            objects, _ = ndimage.label(labels > 0, structure)
        small = np.bincount(objects.ravel()) < least
        labels[small[objects]] = 0


def _structures(
    labels: NDArray[Any], values: tuple[int, ...] | None
) -> Iterator[tuple[NDArray[Any], NDArray[np.bool_], int]]:
    """Yield (view of a layer's part, mask in that part, value) of every structure that is there, one after another."""
    for number, layer in enumerate(labels):
        for index, box in enumerate(ndimage.find_objects(layer)):
            value = index + 1
            name = value if len(labels) == 1 else number
            if box is None or (values is None and name == 0) or (values is not None and name not in values):
                continue
            yield layer[box], layer[box] == value, value
