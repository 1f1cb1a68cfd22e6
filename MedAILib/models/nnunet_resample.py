"""Resampling of images and labels as nnU-Net does it, with SciPy's splines; outputs come back in `inference.restore`.

Axes are the network's; spacings are in mm along them. Outer faces of the first and the last voxel stay where they are.
"""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional

from MedAILib.inference.spline import spline_zoom
from MedAILib.nnunet_plan import Resampling

Shape = tuple[int, ...]
Spacing = tuple[float, ...]
Array = NDArray[Any]
Zoom = Callable[[Tensor, Shape], Tensor]


def resampled_shape(shape: Shape, spacing: Spacing, wanted: Spacing, how: Resampling) -> Shape:
    """The number of voxels along each axis at the wanted spacing, at least 1."""
    if how.function == "no_resampling_hack":
        return shape
    return tuple(max(round(old / new * n), 1) for old, new, n in zip(spacing, wanted, shape, strict=True))


def separate_axis(how: Resampling, spacing: Spacing, wanted: Spacing) -> int | None:
    """The axis that is resampled on its own, by the nearest voxel: the coarsest, if there is one."""
    if how.separate is False:
        return None
    for one in (spacing, wanted):
        if how.separate or max(one) / min(one) > how.threshold:
            coarsest = [axis for axis, mm in enumerate(one) if max(one) / mm < 1 + 1e-9]
            return coarsest[0] if len(coarsest) == 1 else None
    return None


def resample_image(image: Tensor, shape: Shape, axis: int | None, how: Resampling) -> Tensor:
    """Resample one float32 channel (X, Y, Z) to a shape where it lies, `axis` (see `separate_axis`) on its own."""
    if tuple(image.shape) == shape or how.function == "no_resampling_hack":
        return image
    if how.function == "resample_torch_fornnunet":
        return _by_planes(image, shape, axis, _linear)
    return _by_planes(image, shape, axis, lambda part, size: spline_zoom(part, size, how.order))


def resample_labels(labels: NDArray[np.int16], shape: Shape, axis: int | None, how: Resampling) -> NDArray[np.int16]:
    """Resample labels (X, Y, Z) to a shape: the label of the largest interpolated share, as nnU-Net resamples them.

    On the CPU, by SciPy.
    """
    if labels.shape == shape or how.function == "no_resampling_hack":
        return labels
    done = _by_planes(
        torch.from_numpy(np.ascontiguousarray(labels)),
        shape,
        axis,
        _linear_labels
        if how.function == "resample_torch_fornnunet"
        else lambda part, size: torch.from_numpy(_zoom_labels(part.numpy(), size, how.order)),
    )
    return np.asarray(done.numpy(), dtype=np.int16)


def _by_planes(values: Tensor, shape: Shape, axis: int | None, zoom: Zoom) -> Tensor:
    """Resample whole, or plane by plane across `axis` and then that axis by the nearest plane."""
    if axis is None:
        return zoom(values, shape)
    planes = values.movedim(axis, 0)
    size = tuple(n for other, n in enumerate(shape) if other != axis)
    nearest = np.floor(len(planes) / shape[axis] * (np.arange(shape[axis]) + 0.5) - 0.5 + 0.5).astype(int)
    taken = nearest.clip(0, len(planes) - 1).tolist()
    resampled = {z: zoom(planes[z], size) if tuple(planes[z].shape) != size else planes[z] for z in sorted(set(taken))}
    return torch.stack([resampled[z] for z in taken]).movedim(0, axis)


def _zoom_labels(labels: NDArray[np.int16], shape: Shape, order: int) -> NDArray[np.int16]:
    factors = [1 / (old / new) for old, new in zip(labels.shape, shape, strict=True)]

    def zoom(values: Array, degree: int) -> Array:
        return np.asarray(ndimage.zoom(values, factors, order=degree, mode="nearest", grid_mode=True))

    nearest = zoom(labels, 0)
    if order == 0:
        return nearest
    return _largest(
        ((int(label), zoom((labels == label).astype(float), order)) for label in np.unique(labels)), nearest
    )


def _largest(shares: Iterator[tuple[int, Array]], nearest: NDArray[np.int16]) -> NDArray[np.int16]:
    """The label of the largest share; of equals the nearest one's if it is among them, else the lowest."""
    label, best = next(shares)
    winner = np.full(nearest.shape, label, np.int16)
    at_top = (nearest == label) & (best > 0)
    for label, share in shares:
        better = share > best
        at_top |= (share == best) & (share > 0) & (nearest == label)
        np.copyto(at_top, nearest == label, where=better)
        winner[better] = label
        np.maximum(best, share, out=best)
    np.copyto(winner, nearest, where=at_top)
    return winner


def _linear(values: Tensor, size: Shape) -> Tensor:
    """By PyTorch's linear interpolation, as nnU-Net's plans with "torchres" have it."""
    mode = "trilinear" if values.ndim == 3 else "bilinear"
    done: Tensor = functional.interpolate(values.contiguous()[None, None], size=size, mode=mode)
    return done[0, 0]


def _linear_labels(labels: Tensor, size: Shape) -> Tensor:
    """The first label with the largest share in half precision, as nnU-Net decides there."""
    known = torch.unique(labels)
    shares = [_linear((labels == label).float() * 1000, size).half().numpy() for label in known]
    found: Tensor = known[torch.from_numpy(np.argmax(shares, axis=0))]
    return found
