"""Values on the grid that a network works on, brought back to the input's own grid by linear interpolation."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from MedAILib.inference.frame import Frame
from MedAILib.inference.interpolate import linear_taps


def onto_input(values: Tensor, frame: Frame, shape_kji: tuple[int, int, int]) -> NDArray[np.float32]:
    """Bring values back; what the network did not see (cropped away by the model) is 0.

    Args:
        values: (X, Y, Z), float, on the working grid.
        frame: how that grid lies in the input's.
        shape_kji: the input's shape.

    Returns:
        Values (K, J, I).
    """
    values = values.detach().cpu().float()
    for axis in range(3):
        places = frame.coordinates(axis, shape_kji[2 - frame.axes[axis]])
        low, high = frame.extent[axis]
        values = linear_taps(np.clip(places, low, high), frame.shape[axis]).apply(values, axis).clone()
        if frame.zero_outside:
            outside = np.flatnonzero((places <= low - 1) | (places >= high + 1))
            values.index_fill_(axis, torch.from_numpy(outside), 0.0)
    back = [frame.axes.index(axis) for axis in (2, 1, 0)]
    return np.ascontiguousarray(values.permute(back).numpy())
