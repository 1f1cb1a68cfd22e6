"""Where images are prepared: on the network's device, from the voxels of a volume on."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

# What a device makes floats of as the CPU does; all else is turned into float32 before it gets there.
TAKEN_AS_THEY_ARE = tuple(np.dtype(name) for name in ("uint8", "int8", "int16", "int32", "float32"))
CPU = torch.device("cpu")


def preparing_place(device: torch.device) -> torch.device:
    """Where images are prepared for a network on a device: there, or on the CPU where it has no float64."""
    return CPU if device.type == "mps" else device


def floats_on(data: NDArray[Any], device: torch.device) -> Tensor:
    """Voxels as float32 on a device: a copy of the same shape in C order, which may be changed."""
    if device.type == "cpu":
        return torch.from_numpy(data.astype(np.float32, order="C"))
    if data.dtype not in TAKEN_AS_THEY_ARE:
        data = data.astype(np.float32)
    # Over the bus as few bytes as there are; PyTorch wants them writable, which they are not from everywhere.
    return torch.from_numpy(np.require(data, requirements=("C", "W"))).to(device).float()


def by_cpu(change: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """What a change that the CPU alone can do makes of an image anywhere, back where the image was."""
    return change(image.cpu()).to(image.device)


def mean_and_deviation(values: Tensor, inside: Tensor) -> tuple[float, float]:
    """Of the values inside a mask, without a list of them; 0 where it is empty."""
    count = max(int(inside.sum()), 1)
    part = torch.where(inside, values, 0.0)
    mean = float(part.sum()) / count
    return mean, (float(part.sub_(mean).mul_(inside).square_().sum()) / count) ** 0.5
