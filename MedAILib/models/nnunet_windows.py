"""How nnU-Net lays its windows: evenly from end to end, weighed by a truncated Gaussian."""

from dataclasses import dataclass
from math import ceil

import numpy as np
import torch
from scipy.ndimage import gaussian_filter
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
        impulse = np.zeros(sizes)
        impulse[tuple(size // 2 for size in sizes)] = 1
        bell = gaussian_filter(impulse, [size * SIGMA for size in sizes], 0, mode="constant", cval=0)
        bell /= bell.max() / PEAK
        weights = torch.from_numpy(bell).half().float()
        weights[weights == 0] = weights[weights > 0].min()
        return weights[None] if flat else weights


def _spread(size: int, window: int, step: float) -> list[int]:
    if window == 1:
        return list(range(size))
    count = ceil((size - window) / (window * step)) + 1
    interval = (size - window) / (count - 1) if count > 1 else 0.0
    return [int(np.round(interval * number)) for number in range(count)]
