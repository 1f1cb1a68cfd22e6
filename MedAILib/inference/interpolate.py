"""Linear and nearest interpolation along one axis of a tensor; three of these in turn are trilinear, exactly."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional


@dataclass(frozen=True)
class Taps:
    """For each output sample along one axis the lower of two neighbours and the share (0 to 1) of the upper one."""

    low: Tensor
    share: Tensor
    size: int

    @cached_property
    def identity(self) -> bool:
        """Whether every sample is simply the voxel of the same number."""
        return len(self.low) == self.size and torch.equal(self.low + self.share, torch.arange(self.size).double())

    @cached_property
    def between(self) -> bool:
        """Whether any sample lies between two voxels."""
        return bool(self.share.any())

    def apply(self, values: Tensor, axis: int) -> Tensor:
        """Interpolate a float tensor along one axis."""
        if self.identity:
            return values
        low, high, share = self._beside(values)
        lower = _taken(values, low, axis)
        if not self.between:
            return lower
        upper = _taken(values, high, axis)
        share = share.reshape([-1 if a == axis % values.ndim else 1 for a in range(values.ndim)])
        return lower.lerp_(upper, share)

    def pick(self, values: Tensor, axis: int) -> Tensor:
        """Take the lower neighbours of a tensor of any type along one axis."""
        return values if self.identity else values.index_select(axis, self.low.to(values.device))

    @cached_property
    def _moved(self) -> dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor, Tensor]]:
        return {}

    def _beside(self, values: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Lower and upper neighbours and shares, brought to the values' device once for all planes."""
        key = (values.device, values.dtype)
        if key not in self._moved:
            low, high = (one.to(values.device) for one in (self.low, (self.low + 1).clamp(max=self.size - 1)))
            self._moved[key] = (low, high, self.share.to(values))
        return self._moved[key]


def _taken(values: Tensor, numbers: Tensor, axis: int) -> Tensor:
    """Elements along an axis; NumPy copies whole runs, where PyTorch goes number by number on the CPU."""
    if values.device.type != "cpu":
        return values.index_select(axis, numbers)
    return torch.from_numpy(np.take(values.numpy(), numbers.numpy(), axis))


def linear_taps(positions: NDArray[np.float64], size: int) -> Taps:
    """Neighbours for linear interpolation at fractional positions on an axis of `size` voxels, clamped to its ends."""
    clamped = np.clip(_snapped(positions), 0, size - 1)
    low = np.minimum(np.floor(clamped), max(size - 2, 0))
    return Taps(torch.from_numpy(low.astype(np.int64)), torch.from_numpy(clamped - low), size)


def nearest_taps(positions: NDArray[np.float64], size: int) -> Taps:
    """The nearest voxel at fractional positions (halves to the even one, as PyTorch's samplers do), clamped."""
    nearest = np.clip(np.rint(_snapped(positions)), 0, size - 1).astype(np.int64)
    return Taps(torch.from_numpy(nearest), torch.zeros(len(nearest), dtype=torch.float64), size)


def stepped_taps(count: int, size: int) -> Taps:
    """The nearest voxel (halves to the upper one) for each of `count` samples that span an axis of `size` voxels.

    Outer faces are aligned; the arithmetic is SciPy's and nnU-Net's to the last bit, so that halves go the same way.
    """
    nearest = np.clip(np.floor(_spanning(count, size) + 0.5), 0, size - 1).astype(np.int64)
    return Taps(torch.from_numpy(nearest), torch.zeros(count, dtype=torch.float64), size)


def spanned_taps(count: int, size: int) -> Taps:
    """Neighbours for linear interpolation at samples as in `stepped_taps`, with SciPy's rounding errors."""
    positions = np.clip(_spanning(count, size), 0, size - 1)
    low = np.minimum(np.floor(positions), max(size - 2, 0))
    return Taps(torch.from_numpy(low.astype(np.int64)), torch.from_numpy(positions - low), size)


@dataclass(frozen=True)
class Means(Taps):
    """For each output sample the mean of the voxels that it covers, at least one, as PyTorch's "area" has it.

    With `against`, samples are counted from the other end.
    """

    against: bool = False

    def apply(self, values: Tensor, axis: int) -> Tensor:
        """Take means of a float tensor along one axis."""
        last = values.movedim(axis, -1)
        means = functional.adaptive_avg_pool1d(last.reshape(1, -1, self.size), len(self.low))
        means = means.flip(-1) if self.against else means
        return means.reshape(*last.shape[:-1], -1).movedim(-1, axis)


def covering_taps(count: int, size: int, against: bool = False) -> Taps:
    """The mean of the voxels that each of `count` samples covers, which together span an axis of `size` voxels.

    As neighbours and shares, for callers that take two planes at a time, this is exact for `count` of at least `size`;
    below, linear interpolation takes its place there. With `against`, samples are counted from the other end.
    """
    if count < size:
        linear = spanned_taps(count, size)
        low, share = (part.flip(0) if against else part for part in (linear.low, linear.share))
        return Means(low, share, size, against)
    samples = np.arange(count)[:: -1 if against else 1]
    first, last = samples * size // count, -(-(samples + 1) * size // count)
    return Means(torch.from_numpy(first), torch.from_numpy((last - first > 1) * 0.5), size, against)


def _spanning(count: int, size: int) -> NDArray[np.float64]:
    positions = float(size) / count * (np.arange(count) + 0.5) - 0.5
    return np.asarray(positions, dtype=np.float64)


def _snapped(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """Positions that differ from a whole number by rounding alone become that number."""
    whole = np.rint(positions)
    return np.where(np.abs(positions - whole) < 1e-6, whole, positions)
