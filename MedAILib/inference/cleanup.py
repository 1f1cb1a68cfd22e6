"""Post-processing of labels: what a model's description may ask for after the network has spoken."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Box = tuple[slice, slice, slice]


class Cleanup(Protocol):
    """Changes one layer of labels (K, J, I) in place."""

    def __call__(self, labels: NDArray[Any], voxel_volume_ml: float) -> None: ...


@dataclass(frozen=True)
class KeepLargest:
    """Keep each structure's largest connected components and turn the others to background.

    Args:
        values: label values it applies to; None for all.
        connectivity: 1 joins voxels over faces, 2 also over edges, 3 also over corners.
        components: how many to keep.
    """

    values: tuple[int, ...] | None = None
    connectivity: int = 3
    components: int = 1

    def __call__(self, labels: NDArray[Any], voxel_volume_ml: float) -> None:
        for box, mask, _ in _structures(labels, self.values):
            parts, count = ndimage.label(mask, ndimage.generate_binary_structure(3, self.connectivity))
            if count > self.components:
                sizes = np.bincount(parts.ravel())[1:]
                keep = np.argsort(-sizes, kind="stable")[: self.components] + 1
                labels[box][mask & ~np.isin(parts, keep)] = 0


@dataclass(frozen=True)
class FillHoles:
    """Give everything that a structure encloses to that structure.

    Args:
        values: label values it applies to; None for all.
        connectivity: over what background voxels join, as in `KeepLargest`.
    """

    values: tuple[int, ...] | None = None
    connectivity: int = 1

    def __call__(self, labels: NDArray[Any], voxel_volume_ml: float) -> None:
        for box, mask, value in _structures(labels, self.values):
            filled = ndimage.binary_fill_holes(mask, ndimage.generate_binary_structure(3, self.connectivity))
            labels[box][filled] = value


@dataclass(frozen=True)
class RemoveSmall:
    """Turn connected components below a size to background.

    MONAI's transform of that name takes each label of a label map as one object; here it is each connected component,
    as its purpose says.

    Args:
        minimum: in voxels, or in mL with `in_ml`.
        connectivity: as in `KeepLargest`.
    """

    minimum: float
    connectivity: int = 1
    in_ml: bool = False

    def __call__(self, labels: NDArray[Any], voxel_volume_ml: float) -> None:
        for box, mask, _ in _structures(labels, None):
            parts, _ = ndimage.label(mask, ndimage.generate_binary_structure(3, self.connectivity))
            sizes = np.bincount(parts.ravel()) * (voxel_volume_ml if self.in_ml else 1.0)
            small = sizes < self.minimum
            small[0] = False
            labels[box][small[parts]] = 0


def _structures(labels: NDArray[Any], values: tuple[int, ...] | None) -> Iterator[tuple[Box, NDArray[np.bool_], int]]:
    """Yield (box, mask in that box, value) of every structure that is there."""
    for index, box in enumerate(ndimage.find_objects(labels)):
        value = index + 1
        if box is not None and (values is None or value in values):
            yield box, labels[box] == value, value
