"""How nnU-Net lays its windows: evenly from end to end, weighed by a truncated Gaussian."""

from dataclasses import dataclass
from functools import reduce
from math import ceil

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter1d
from torch import Tensor

from MedAILib.inference.window import Windows

PEAK = 10.0  # of the Gaussian, so that its tails survive in half precision
SIGMA = 1 / 8


@dataclass(frozen=True)
class NnunetWindows(Windows):
    """Windows of a fixed size at nnU-Net's places; a size of 1 walks slice by slice."""

    def starts(self, shape: tuple[int, ...], roi: tuple[int, ...]) -> list[list[int]]:
        """First voxels along each axis: as few windows as overlap by at least what is asked for, evenly spread."""
        return [_spread(n, size, 1 - part) for n, size, part in zip(shape, roi, self.overlap, strict=True)]

    def weights(self, roi: tuple[int, ...]) -> Tensor:
        """The Gaussian of a window, rounded to half precision as nnU-Net's, in float32."""
        flat = roi[0] == 1
        sizes = roi[1:] if flat else roi
        # What is left of one voxel by a Gaussian along each axis in turn is their product, to the bit.
        bell = reduce(np.multiply.outer, [_smoothed(size) for size in sizes])
        bell /= bell.max() / PEAK
        weights = torch.from_numpy(bell).half()
        nothing = weights == 0
        if bool(nothing.any()):
            weights[nothing] = weights[~nothing].min()
        weights = weights.float()
        return weights[None] if flat else weights


def _smoothed(size: int) -> NDArray[np.float64]:
    """A line's middle voxel, smoothed by SciPy's Gaussian."""
    impulse = np.zeros(size)
    impulse[size // 2] = 1
    line: NDArray[np.float64] = gaussian_filter1d(impulse, size * SIGMA, mode="constant", cval=0)
    return line


def _spread(size: int, window: int, step: float) -> list[int]:
    if window == 1:
        return list(range(size))
    count = ceil((size - window) / (window * step)) + 1
    interval = (size - window) / (count - 1) if count > 1 else 0.0
    return [int(np.round(interval * number)) for number in range(count)]
