"""From the input's voxels to what the network sees: the steps that a model's preprocessing may consist of.

A working image is a float32 tensor (C, X, Y, Z) and its `Frame`; a step takes both and gives both back, the image on
the device where it was.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from monai.data.utils import affine_to_spacing, compute_shape_offset, zoom_affine
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from MedAILib.errors import InputError, ModelError
from MedAILib.inference.frame import Frame, input_frame
from MedAILib.inference.interpolate import linear_taps
from MedAILib.inference.place import CPU, floats_on
from MedAILib.progress import Progress
from MedAILib.system_memory import available_memory
from MedAILib.volume import Volume, not_finite

# Voxels; in float32 this is 16 GiB for one channel.
LARGEST_IMAGE = 1 << 32
FLOAT = 4


class Step(Protocol):
    """One step of preprocessing."""

    def __call__(self, image: Tensor, frame: Frame, ijk_to_ras: NDArray[np.float64]) -> tuple[Tensor, Frame]: ...


@dataclass(frozen=True)
class Orient:
    """Permute and flip axes until they run along three letters such as "RAS" (to the closest axis, no resampling)."""

    codes: str

    def __call__(self, image: Tensor, frame: Frame, ijk_to_ras: NDArray[np.float64]) -> tuple[Tensor, Frame]:
        order, flips = frame.orientation_steps(ijk_to_ras, self.codes)
        image, frame = image.permute(0, *(axis + 1 for axis in order)), frame.permuted(order)
        for axis in flips:
            frame = frame.flipped(axis)
        return image.flip([axis + 1 for axis in flips]) if flips else image, frame


@dataclass(frozen=True)
class Space:
    """Resample to a voxel spacing along the working axes (mm; 0 or less keeps an axis as it is).

    Size and place of the new grid are MONAI's `Spacing`'s, taken from MONAI itself (the first voxels coincide; on
    oblique grids, by rounding, the centres), so that both see the same voxels. Values outside are the border's; no
    smoothing before coarser sampling.
    """

    spacing_mm: tuple[float, ...]

    def __call__(self, image: Tensor, frame: Frame, ijk_to_ras: NDArray[np.float64]) -> tuple[Tensor, Frame]:
        old = frame.affine(ijk_to_ras)
        wanted = [mm if mm > 0 else now for mm, now in zip(self.spacing_mm, affine_to_spacing(old), strict=True)]
        new = zoom_affine(old, wanted, diagonal=False)
        shape, new[:3, 3] = compute_shape_offset(frame.shape, old, new)
        if np.allclose(old, new, atol=1e-4):
            return image, frame
        to_old = np.linalg.solve(old, new)
        require_possible(shape.tolist())
        for axis in range(3):
            factor, first, size = float(to_old[axis, axis]), float(to_old[axis, 3]), int(shape[axis])
            positions = np.arange(size, dtype=np.float64) * factor + first
            image = linear_taps(positions, frame.shape[axis]).apply(image, axis + 1)
            frame = frame.resampled(axis, factor, size, first)
        return image, frame


@dataclass(frozen=True)
class Resize:
    """Resample to a number of voxels along each axis, outer faces aligned; 0 or less keeps an axis.

    Linearly, or with `area` by the mean of the voxels that a new one covers, as PyTorch's "area" has it.
    """

    shape: tuple[int, ...]
    area: bool = False

    def __call__(self, image: Tensor, frame: Frame, ijk_to_ras: NDArray[np.float64]) -> tuple[Tensor, Frame]:
        require_possible([size if size > 0 else old for size, old in zip(self.shape, frame.shape, strict=True)])
        if self.area:
            whole = [size if size >= 1 else old for size, old in zip(self.shape, frame.shape, strict=True)]
            image = functional.interpolate(image[None], whole, mode="area")[0]
        for axis, size in enumerate(self.shape):
            old = frame.shape[axis]
            if size == old or size < 1:
                continue
            first = 0.5 * old / size - 0.5
            if not self.area:
                positions = np.arange(size, dtype=np.float64) * (old / size) + first
                image = linear_taps(positions, old).apply(image, axis + 1)
            frame = frame.resampled(axis, old / size, size, first)
        return image, frame


@dataclass(frozen=True)
class AddChannels:
    """Add channels of zeros after the image's own."""

    count: int

    def __call__(self, image: Tensor, frame: Frame, ijk_to_ras: NDArray[np.float64]) -> tuple[Tensor, Frame]:
        return torch.cat([image, image.new_zeros((self.count, *image.shape[1:]))]), frame


@dataclass(frozen=True)
class Intensity:
    """Change values alone: a function from a tensor (C, X, Y, Z) to one of the same shape."""

    change: Callable[[Tensor], Tensor]

    def __call__(self, image: Tensor, frame: Frame, ijk_to_ras: NDArray[np.float64]) -> tuple[Tensor, Frame]:
        # MONAI's transforms give tensors of their own kind, with metadata that nobody reads here.
        return torch.as_tensor(self.change(image)).as_subclass(Tensor), frame


@dataclass(frozen=True)
class CropForeground:
    """Cut the box of voxels above a value in any channel, `margin` voxels wider on each side, sizes divisible by `k`.

    Where that reaches beyond the image it is padded with zeros, unless `allow_smaller`.
    """

    margin: tuple[int, ...] = (0, 0, 0)
    k: tuple[int, ...] = (1, 1, 1)
    allow_smaller: bool = False
    above: float = 0.0

    def __call__(self, image: Tensor, frame: Frame, ijk_to_ras: NDArray[np.float64]) -> tuple[Tensor, Frame]:
        mask = (image > self.above).any(dim=0)
        start, stop = [0, 0, 0], list(frame.shape)
        for axis in range(3):
            found = torch.nonzero(mask.amax(dim=[other for other in range(3) if other != axis]))
            if len(found):
                start[axis] = int(found[0]) - self.margin[axis]
                stop[axis] = int(found[-1]) + 1 + self.margin[axis]
            if self.allow_smaller:
                start[axis], stop[axis] = max(start[axis], 0), min(stop[axis], frame.shape[axis])
        size = [b - a for a, b in zip(start, stop, strict=True)]
        whole = [math.ceil(n / k) * k for n, k in zip(size, self.k, strict=True)]
        start = [a - (w - n) // 2 for a, w, n in zip(start, whole, size, strict=True)]
        return _window(image, frame, start, whole)


@dataclass(frozen=True)
class Pad:
    """Pad both ends alike with a constant until each axis has at least `shape` voxels and a size divisible by `k`."""

    shape: tuple[int, ...] = (1, 1, 1)
    k: tuple[int, ...] = (1, 1, 1)
    value: float = 0.0

    def __call__(self, image: Tensor, frame: Frame, ijk_to_ras: NDArray[np.float64]) -> tuple[Tensor, Frame]:
        whole = [math.ceil(max(n, m) / k) * k for n, m, k in zip(frame.shape, self.shape, self.k, strict=True)]
        start = [-((w - n) // 2) for w, n in zip(whole, frame.shape, strict=True)]
        return _window(image, frame, start, whole, self.value)


@dataclass(frozen=True)
class CenterCrop:
    """Cut to at most `shape` voxels around the centre (0 or less keeps an axis)."""

    shape: tuple[int, ...]

    def __call__(self, image: Tensor, frame: Frame, ijk_to_ras: NDArray[np.float64]) -> tuple[Tensor, Frame]:
        size = [n if m < 1 else min(n, m) for n, m in zip(frame.shape, self.shape, strict=True)]
        start = [max(n // 2 - m // 2, 0) for n, m in zip(frame.shape, size, strict=True)]
        return _window(image, frame, start, size)


def prepare(
    volume: Volume, steps: Sequence[Step], progress: Progress, device: torch.device = CPU
) -> tuple[Tensor, Frame]:
    """Take a volume through preprocessing, on a device.

    Returns:
        The working image (C, X, Y, Z), float32, and how its grid lies in the volume's.

    Raises:
        InputError: voxels that are not finite, or an image without any contrast.
        Cancelled: by `progress`, between two steps.
    """
    require_usable(volume, progress)
    return prepared(volume, steps, progress, device)


def prepared(
    volume: Volume, steps: Sequence[Step], progress: Progress, device: torch.device = CPU
) -> tuple[Tensor, Frame]:
    """What `prepare` does, for a volume that is known to be usable."""
    image = floats_on(volume.data, device).permute(0, 3, 2, 1)
    frame = input_frame(volume.geometry.shape_kji)
    for done, step in enumerate(steps):
        progress.step(done, len(steps), "Preparing")
        image, frame = step(image, frame, volume.geometry.ijk_to_ras)
    return image, frame


def require_usable(volume: Volume, progress: Progress) -> None:
    """Refuse an image from which a network would make an answer without meaning.

    Raises:
        InputError: NaN or infinite voxels, or too large ones; one value everywhere (a single voxel is let through).
    """
    data = volume.data
    if data.dtype.kind == "f":
        bad = int(data.size - np.count_nonzero(np.isfinite(data)))
        if bad:
            raise not_finite(volume.name, bad)
        if data.dtype.itemsize > 4 and max(-data.min(), data.max()) > np.finfo(np.float32).max:
            raise InputError(
                f"{volume.name} has values beyond {np.finfo(np.float32).max:.1e}, more than a network can take; "
                "scale it down first."
            )
    if data[0].size == 1:
        return
    flat = [channel for channel in range(len(data)) if data[channel].min() == data[channel].max()]
    if len(flat) == len(data):
        raise InputError(f"{volume.name} has the value {data.flat[0]} in every voxel; there is nothing to see in it.")
    for channel in flat:
        progress.warn(f"Channel {channel + 1} of {volume.name} has the same value in every voxel.")


def require_possible(shape: Sequence[int]) -> None:
    """Raise `ModelError` for a working image that no machine of today, or not this one, should be asked for."""
    voxels, there = math.prod(int(n) for n in shape), available_memory()
    if voxels > LARGEST_IMAGE or (there is not None and 2 * FLOAT * voxels > there):
        raise ModelError(
            f"The model wants this image at {' x '.join(str(int(n)) for n in shape)} voxels, which is too large; give "
            "a region of interest, or check the model's voxel spacing."
        )


def _window(
    image: Tensor, frame: Frame, start: Sequence[int], shape: Sequence[int], value: float = 0.0
) -> tuple[Tensor, Frame]:
    """Cut or pad to the box of `shape` voxels from voxel `start`, which may begin before the image."""
    require_possible(shape)
    padding: list[int] = []
    for axis in reversed(range(3)):
        before, after = -start[axis], start[axis] + shape[axis] - frame.shape[axis]
        padding += [before, after]
    if any(padding):
        image = functional.pad(image, padding, value=value)
    return image, frame.windowed(start, shape)
