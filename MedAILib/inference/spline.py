"""Resampling of whole images by splines, as one small matrix for each axis.

A spline through the voxels of an axis is linear in them, so what SciPy does to the unit vectors of an axis, once, says
what it does to any image; three products of matrices then stand for the walk through every voxel.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

# Bytes of a block that is worked on at a time: small enough for the cache of a processor; on a GPU large enough to keep
# it busy.
BLOCK_BYTES, BLOCK_BYTES_GPU = 8 * 2**20, 64 * 2**20
DOUBLE = 8
BLOCK_ROWS = 24
# A spline's weights fall to a quarter from voxel to voxel; from here on they are lost in the rounding to float32.
NOTHING = 1e-15


def spline_zoom(image: Tensor, shape: tuple[int, ...], order: int) -> Tensor:
    """A float32 image (2 or 3 axes) at another number of voxels, outer faces aligned, the border's values outside.

    The same as `scipy.ndimage.zoom` with `mode="nearest"` and `grid_mode`, computed in float64 on the image's device,
    and clipped to the range of what went in, since splines overshoot.
    """
    if image.ndim == 2:
        return spline_zoom(image[None], (1, *shape), order)[0]
    matrices = [_matrix(old, new, order) for old, new in zip(image.shape, shape, strict=True)]
    outer, rows, columns = (None if one is None else one.to(image.device) for one in matrices)
    inner = _planes(image.contiguous(), rows, columns, shape)
    out = _through(inner, outer, shape)
    return clip_in_place(out, image.amin(), image.amax())


def clip_in_place(values: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Values brought into a range (single numbers); on the CPU by NumPy, as nnU-Net's, to the sign of zero."""
    if values.device.type == "cpu":
        np.clip(values.numpy(), low.numpy(), high.numpy(), out=values.numpy())
        return values
    return values.clamp_(low, high)


def _planes(image: Tensor, rows: "_Blocks | None", columns: "_Blocks | None", shape: tuple[int, ...]) -> Tensor:
    """The two inner axes at their new sizes, in float64; a few planes at a time."""
    done = torch.empty((len(image), *shape[1:]), dtype=torch.float64, device=image.device)
    step = _at_a_time(image.device, max(image[0].numel(), done[0].numel()))
    rows_first = image.shape[1] * shape[2] > image.shape[2] * shape[1]  # the order with less in between
    for first in range(0, len(image), step):
        part = image[first : first + step].double()
        if rows is not None and rows_first:
            part = rows.times(part)
        if columns is not None:
            part = columns.times_transposed(part)
        if rows is not None and not rows_first:
            part = rows.times(part)
        done[first : first + step] = part
    return done


def _through(inner: Tensor, matrix: "_Blocks | None", shape: tuple[int, ...]) -> Tensor:
    """The outer axis at its new size, in float32; a few columns at a time."""
    if matrix is None:
        return inner.float()
    columns, out = inner.flatten(1), torch.empty(shape, dtype=torch.float32, device=inner.device)
    wanted = out.flatten(1)
    step = _at_a_time(inner.device, max(len(inner), shape[0]))
    for first in range(0, columns.shape[1], step):
        wanted[:, first : first + step] = matrix.times(columns[:, first : first + step])
    return out


def _at_a_time(device: torch.device, numbers: int) -> int:
    """How many planes or columns of so many numbers are worked on together."""
    return max(1, (BLOCK_BYTES if device.type == "cpu" else BLOCK_BYTES_GPU) // (DOUBLE * numbers))


@dataclass(frozen=True)
class _Blocks:
    """A matrix whose entries are nothing but near its diagonal, as blocks of rows with the columns that count."""

    size: int
    blocks: tuple[tuple[slice, slice, Tensor], ...]

    def to(self, device: torch.device) -> "_Blocks":
        """The matrix on a device; a copy, so that what is kept for the next image takes main memory alone."""
        if device.type == "cpu":
            return self
        return _Blocks(self.size, tuple((rows, columns, block.to(device)) for rows, columns, block in self.blocks))

    def times(self, values: Tensor) -> Tensor:
        """The matrix times (..., old, n), float64."""
        done = values.new_empty((*values.shape[:-2], self.size, values.shape[-1]))
        for rows, columns, block in self.blocks:
            done[..., rows, :] = block @ values[..., columns, :]
        return done

    def times_transposed(self, values: Tensor) -> Tensor:
        """(..., n, old) times the matrix transposed, float64."""
        done = values.new_empty((*values.shape[:-1], self.size))
        for rows, columns, block in self.blocks:
            done[..., rows] = values[..., columns] @ block.T
        return done


@lru_cache(maxsize=32)
def _matrix(old: int, new: int, order: int) -> _Blocks | None:
    """(new, old) float64, on the CPU: what a spline gives for each old voxel at the new ones; None for no change."""
    if old == new:
        return None
    whole = torch.from_numpy(ndimage.zoom(np.eye(old), (new / old, 1), order=order, mode="nearest", grid_mode=True))
    blocks = []
    for first in range(0, new, BLOCK_ROWS):
        rows = slice(first, min(first + BLOCK_ROWS, new))
        counting = torch.nonzero((whole[rows].abs() > NOTHING).any(dim=0))
        columns = slice(int(counting[0]), int(counting[-1]) + 1)
        blocks.append((rows, columns, whole[rows, columns].contiguous()))
    return _Blocks(new, tuple(blocks))
