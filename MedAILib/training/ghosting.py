"""Ghosts: faint copies of an object along one axis, as motion during an MR acquisition makes them."""

from collections.abc import Hashable, Mapping
from typing import Any

import numpy as np
import torch
from monai.transforms import MapTransform, RandomizableTransform
from monai.utils import convert_to_tensor
from torch import Tensor


class RandGhostingd(RandomizableTransform, MapTransform):
    """Weakens every n-th line of the spectrum along a random axis, all but the innermost.

    Args:
        keys: entries of a sample, each (C, *spatial).
        prob: how often.
        ghosts: fewest and most lines from one weakened line to the next, which is the number of copies.
        strength: least and most share that such a line loses.
    """

    def __init__(
        self, keys: Any, prob: float = 0.1, ghosts: tuple[int, int] = (2, 5), strength: tuple[float, float] = (0.2, 0.6)
    ) -> None:
        MapTransform.__init__(self, keys)
        RandomizableTransform.__init__(self, prob)
        self.ghosts, self.strength = ghosts, strength

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample = dict(data)
        self.randomize(None)
        if not self._do_transform:
            return sample
        pick, every = self.R.uniform(), int(self.R.randint(self.ghosts[0], self.ghosts[1] + 1))
        strength = float(self.R.uniform(*self.strength))
        for key in self.key_iterator(sample):
            image = convert_to_tensor(sample[key])
            sample[key] = ghosted(image, 1 + int(pick * (image.ndim - 1)), every, strength)
        return sample


def ghosted(image: Tensor, axis: int, every: int, strength: float) -> Tensor:
    """An image (C, *spatial) with ghosts along one axis, counted from 0 for the channels."""
    spectrum = torch.fft.fft(image, dim=axis)
    size = image.shape[axis]
    keep = torch.ones(size)
    keep[::every] = 1 - strength
    keep[np.abs(np.fft.fftfreq(size)) < 0.02] = 1.0  # the innermost carries the object itself
    shape = [1] * image.ndim
    shape[axis] = size
    return torch.fft.ifft(spectrum * keep.reshape(shape).to(image.device), dim=axis).real.to(image.dtype)
