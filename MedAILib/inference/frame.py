"""How the grid that a network works on lies in the input's grid: an exact, axis-aligned, invertible record.

Every spatial step of preprocessing (reorienting, resampling, cropping, padding) permutes, flips, scales or shifts axes,
so that one scale and one offset for each axis say it all, and the way back is one interpolation for each axis.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from MedAILib.volume import closest_axes


@dataclass(frozen=True)
class Frame:
    """A working grid relative to the input's.

    Args:
        shape: voxels along the working axes 0, 1, 2.
        axes: for each working axis the input's axis it runs along: 0 for I, 1 for J, 2 for K.
        scale, offset: voxel x of working axis a lies at input index `scale[a] * x + offset[a]` along `axes[a]`.
        extent: for each working axis the first and last place that stand for the input, in working voxels: padding
            is left out, and beyond it the voxels at the border reach outwards.
        zero_outside: they reach by less than one voxel, and behind that there is background (after a crop).
    """

    shape: tuple[int, ...]
    axes: tuple[int, ...]
    scale: tuple[float, ...]
    offset: tuple[float, ...]
    extent: tuple[tuple[float, float], ...]
    zero_outside: bool = False

    def affine(self, ijk_to_ras: NDArray[np.float64]) -> NDArray[np.float64]:
        """Matrix (4x4, mm) from working voxel indices to world, given the input's."""
        to_input = np.zeros((4, 4))
        to_input[3, 3] = 1
        for working, axis in enumerate(self.axes):
            to_input[axis, working] = self.scale[working]
            to_input[axis, 3] = self.offset[working]
        return ijk_to_ras @ to_input

    def orientation_steps(self, ijk_to_ras: NDArray[np.float64], codes: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Which working axis comes first, second, third, and which of these to flip, to run along `codes` ("RAS")."""
        current = closest_axes(self.affine(ijk_to_ras))
        order: list[int] = []
        flips: list[int] = []
        for code in codes:
            world, sign = ("RAS".index(code), 1) if code in "RAS" else ("LPI".index(code), -1)
            source = next(axis for axis, (w, _) in enumerate(current) if w == world)
            if current[source][1] != sign:
                flips.append(len(order))
            order.append(source)
        return tuple(order), tuple(flips)

    def permuted(self, order: Sequence[int]) -> "Frame":
        """The same grid with its axes in another order."""
        return replace(
            self,
            shape=tuple(self.shape[axis] for axis in order),
            axes=tuple(self.axes[axis] for axis in order),
            scale=tuple(self.scale[axis] for axis in order),
            offset=tuple(self.offset[axis] for axis in order),
            extent=tuple(self.extent[axis] for axis in order),
        )

    def flipped(self, axis: int) -> "Frame":
        """The same grid counted from the other end of one axis."""
        last = self.shape[axis] - 1
        low, high = self.extent[axis]
        scale, offset = self.scale[axis], self.offset[axis]
        return self._with(axis, self.shape[axis], -scale, offset + scale * last, (last - high, last - low))

    def resampled(self, axis: int, factor: float, size: int, first: float = 0.0) -> "Frame":
        """Another sampling along one axis: new voxel x lies at old index `factor * x + first`."""
        scale, offset = self.scale[axis], self.offset[axis]
        return self._with(axis, size, scale * factor, offset + scale * first, (0, size - 1))

    def windowed(self, start: Sequence[int], shape: Sequence[int]) -> "Frame":
        """The box of `shape` voxels from voxel `start`; a negative start or a larger shape is padding."""
        frame, cut = self, False
        for axis, (begin, size) in enumerate(zip(start, shape, strict=True)):
            low, high = (place - begin for place in self.extent[axis])
            cut = cut or low < 0 or high > size - 1
            extent = (max(low, 0), min(high, size - 1))
            offset = self.offset[axis] + self.scale[axis] * begin
            frame = frame._with(axis, int(size), self.scale[axis], offset, extent)
        return replace(frame, zero_outside=self.zero_outside or cut)

    def coordinates(self, axis: int, size: int) -> NDArray[np.float64]:
        """Where the input's voxels 0 to size - 1 along `axes[axis]` lie on working axis `axis`, unclamped."""
        return (np.arange(size, dtype=np.float64) - self.offset[axis]) / self.scale[axis]

    def _with(self, axis: int, size: int, scale: float, offset: float, extent: tuple[float, float]) -> "Frame":
        new = (size, scale, offset, extent)
        old = (self.shape, self.scale, self.offset, self.extent)
        shapes, scales, offsets, extents = (
            (*values[:axis], value, *values[axis + 1 :]) for values, value in zip(old, new, strict=True)
        )
        return Frame(shapes, self.axes, scales, offsets, extents, self.zero_outside)  # type: ignore[arg-type]


def input_frame(shape_kji: tuple[int, int, int]) -> Frame:
    """The input's own grid with axes in the order I, J, K, as networks and NIfTI files have them."""
    k, j, i = shape_kji
    extent = ((0.0, i - 1.0), (0.0, j - 1.0), (0.0, k - 1.0))
    return Frame((i, j, k), (0, 1, 2), (1.0, 1.0, 1.0), (0.0, 0.0, 0.0), extent)
