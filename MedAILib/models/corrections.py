"""Changes of values that the field knows by name and MONAI has no transform for, as MONAI's transforms are written.

Stock MONAI runs them where MedAI is installed, since a bundle's config names them by their place in this file.
"""

import itertools
from collections.abc import Callable, Hashable, Mapping
from typing import Any

import numpy as np
import SimpleITK as sitk
import torch
from monai.config import KeysCollection
from monai.transforms import MapTransform, Transform
from monai.utils import convert_to_dst_type
from numpy.typing import NDArray
from torch import Tensor

_LEAST = 8  # voxels that an axis keeps when N4 looks at fewer, and that a tile has
_SLAB = 1 << 22  # voxels that are equalised at once


class N4BiasFieldCorrection(Transform):
    """Divide each channel by the slow field that N4 (Tustison et al. 2010) finds in it.

    The field is looked for in voxels above Otsu's threshold. Values are shifted so that the smallest is 0 before, and
    back after it. Distances are voxels; an image that is too small or too flat for a field stays as it is.

    Args:
        shrink: only each so manieth voxel along each axis is looked at.
        iterations: at most, for each level.
        levels: of the field's fineness.
    """

    def __init__(self, shrink: int = 4, iterations: int = 50, levels: int = 3) -> None:
        self.shrink, self.iterations, self.levels = _count(shrink), _count(iterations), _count(levels)

    def __call__(self, image: Tensor) -> Tensor:
        """The image (C, X, Y[, Z]) corrected, of the same shape."""
        return _each_channel(image, self._correct)

    def _correct(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        low = float(channel.min())
        whole = sitk.GetImageFromArray(channel - low)
        small = sitk.Shrink(whole, [max(1, min(self.shrink, n // _LEAST)) for n in whole.GetSize()])
        mask = sitk.OtsuThreshold(small, 0, 1)
        if min(small.GetSize()) < 4 or int(sitk.GetArrayViewFromImage(mask).sum()) < 4**channel.ndim:
            return channel
        n4 = sitk.N4BiasFieldCorrectionImageFilter()
        n4.SetMaximumNumberOfIterations([self.iterations] * self.levels)
        n4.SetNumberOfWorkUnits(1)  # the same field on every machine
        n4.Execute(small, mask)
        field = sitk.GetArrayFromImage(sitk.Exp(n4.GetLogBiasFieldAsImage(whole)))
        return np.asarray((channel - low) / field + low, dtype=np.float32)


class EdgePreservingDenoise(Transform):
    """Smooth each channel within edges and not across them: ITK's curvature anisotropic diffusion.

    Args:
        iterations: how often; the more, the smoother.
        conductance: how steep an edge is kept; the less, the more of them are.
    """

    def __init__(self, iterations: int = 5, conductance: float = 3.0) -> None:
        self.iterations, self.conductance = _count(iterations), float(conductance)
        if not 0 < self.conductance <= 100:
            raise ValueError(f"conductance {conductance} is not above 0 and at most 100")

    def __call__(self, image: Tensor) -> Tensor:
        """The image (C, X, Y[, Z]) denoised, of the same shape."""
        return _each_channel(image, self._smooth)

    def _smooth(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        step = 0.5 ** (channel.ndim + 1)  # the longest that is stable
        image = sitk.GetImageFromArray(channel)
        return sitk.GetArrayFromImage(
            sitk.CurvatureAnisotropicDiffusion(image, step, self.conductance, 1, self.iterations)
        )


class CLAHE(Transform):
    """Equalise each channel's histogram tile by tile, contrast limited (Zuiderveld 1994); values become 0 to 1.

    Args:
        tiles: along each axis; fewer where one would have less than 8 voxels.
        clip: the largest share of a tile's voxels in one bin of its histogram; what is beyond is spread over all.
        bins: of a histogram.
    """

    def __init__(self, tiles: int = 8, clip: float = 0.01, bins: int = 256) -> None:
        self.tiles, self.clip, self.bins = _count(tiles), float(clip), _count(bins)
        if not 0 < self.clip <= 1:
            raise ValueError(f"clip {clip} is no share above 0 and up to 1")

    def __call__(self, image: Tensor) -> Tensor:
        """The image (C, X, Y[, Z]) equalised, of the same shape; 0 where a channel is flat."""
        return _each_channel(image, self._equalise)

    def _equalise(self, channel: NDArray[np.float32]) -> NDArray[np.float32]:
        low, high = float(channel.min()), float(channel.max())
        if low == high:
            return np.zeros_like(channel)
        level = np.minimum((channel - low) * (self.bins / (high - low)), self.bins - 1).astype(np.int32)
        tiles = [max(1, min(self.tiles, n // _LEAST)) for n in channel.shape]
        table = self._tables(level, tiles)
        result = np.empty(channel.shape, np.float32)
        thick = max(1, _SLAB * channel.shape[0] // channel.size)
        for start in range(0, channel.shape[0], thick):
            rows = slice(start, min(start + thick, channel.shape[0]))
            result[rows] = _between_tiles(level[rows], table, tiles, channel.shape, rows)
        return result

    def _tables(self, level: NDArray[np.int32], tiles: list[int]) -> NDArray[np.float32]:
        """For each tile (in order, last axis fastest) what becomes of each level, 0 to 1."""
        number = np.zeros((1,) * level.ndim, np.int32)
        for axis, (count, size) in enumerate(zip(tiles, level.shape, strict=True)):
            place = (np.arange(size) * count // size).astype(np.int32)
            number = number * count + place.reshape([-1 if other == axis else 1 for other in range(level.ndim)])
        flat = (number * np.int32(self.bins) + level).ravel()
        total = int(np.prod(tiles))
        counts = np.bincount(flat, minlength=total * self.bins).reshape(total, self.bins).astype(np.float64)
        shares = counts / counts.sum(axis=1, keepdims=True)
        clipped = np.minimum(shares, max(self.clip, 1 / self.bins))
        clipped += (1 - clipped.sum(axis=1, keepdims=True)) / self.bins
        return np.asarray(np.minimum(np.cumsum(clipped, axis=1), 1), dtype=np.float32)


def _between_tiles(
    level: NDArray[np.int32],
    table: NDArray[np.float32],
    tiles: list[int],
    shape: tuple[int, ...],
    rows: slice,
) -> NDArray[np.float32]:
    """Rows of the image by the tables of the tiles around each voxel, by how near their centres are."""
    near: list[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]] = []
    for axis, (count, size) in enumerate(zip(tiles, shape, strict=True)):
        places = (np.arange(size) + 0.5) * count / size - 0.5
        first = np.clip(np.floor(places), 0, count - 1).astype(np.intp)
        second = np.minimum(first + 1, count - 1)
        share = np.clip(places - first, 0, 1).astype(np.float32)
        kept = rows if axis == 0 else slice(None)
        along = [-1 if other == axis else 1 for other in range(len(shape))]
        near.append((first[kept].reshape(along), second[kept].reshape(along), share[kept].reshape(along)))
    result = np.zeros(level.shape, np.float32)
    for corner in itertools.product((0, 1), repeat=len(shape)):
        number, weight = np.zeros((1,) * len(shape), np.intp), np.ones((1,) * len(shape), np.float32)
        for (first, second, share), later, count in zip(near, corner, tiles, strict=True):
            number = number * count + (second if later else first)
            weight = weight * (share if later else 1 - share)
        if weight.any():
            result += weight * table[number, level]
    return result


class _OfEntries(MapTransform):
    """One of these transforms for entries of a dictionary."""

    change: Callable[[Tensor], Tensor]

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        changed = dict(data)
        for key in self.key_iterator(changed):
            changed[key] = self.change(changed[key])
        return changed


class N4BiasFieldCorrectiond(_OfEntries):
    """`N4BiasFieldCorrection` of entries of a dictionary."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, **arguments: Any) -> None:
        super().__init__(keys, allow_missing_keys)
        self.change = N4BiasFieldCorrection(**arguments)


class EdgePreservingDenoised(_OfEntries):
    """`EdgePreservingDenoise` of entries of a dictionary."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, **arguments: Any) -> None:
        super().__init__(keys, allow_missing_keys)
        self.change = EdgePreservingDenoise(**arguments)


class CLAHEd(_OfEntries):
    """`CLAHE` of entries of a dictionary."""

    def __init__(self, keys: KeysCollection, allow_missing_keys: bool = False, **arguments: Any) -> None:
        super().__init__(keys, allow_missing_keys)
        self.change = CLAHE(**arguments)


CORRECTIONS: tuple[type, ...] = (N4BiasFieldCorrection, EdgePreservingDenoise, CLAHE)


def _each_channel(image: Tensor, change: Callable[[NDArray[np.float32]], NDArray[np.float32]]) -> Tensor:
    """A change of each channel by itself, axes of a single voxel left out; what else the tensor carries is kept."""
    found = []
    for channel in image.detach().cpu().numpy():
        values = np.ascontiguousarray(channel, dtype=np.float32)
        inner = values.squeeze()
        found.append((change(inner) if inner.ndim > 1 else inner).reshape(values.shape))
    changed: Tensor = convert_to_dst_type(torch.from_numpy(np.stack(found)), image, dtype=torch.float32)[0]
    return changed


def _count(value: float) -> int:
    if int(value) != value or not 1 <= value <= 1000:
        raise ValueError(f"{value} is no whole number from 1 to 1000")
    return int(value)
