"""The network over windows of the image, and its blended output one plane at a time.

Blending follows MONAI's sliding-window inference (positions, padding, Gaussian weights), so that labels agree with it.
The output is never held whole: only as many planes as a window is deep, in a ring; a plane is handed on as soon as no
later window touches it.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations, product
from math import ceil, prod

import torch
from monai.data.utils import compute_importance_map
from torch import Tensor
from torch.nn import functional

from MedAILib.errors import ModelError
from MedAILib.inference.agreement import Agreement
from MedAILib.inference.memory import accumulator_dtype
from MedAILib.progress import Progress

CPU = torch.device("cpu")
# Numbers (float32) that stay in the cache of a processor.
IN_CACHE = 1 << 18
Network = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Windows:
    """How windows are laid over an image.

    Args:
        roi: their size along the network's axes in voxels; an entry of 0 or less, or None, takes the image's size.
        overlap: share of a window that overlaps the next, along each axis, 0 to below 1.
        gaussian: weigh a window's voxels by a Gaussian around its centre; else all alike.
        sigma_scale: the Gaussian's standard deviation as a share of the window's size, along each axis.
        padding_mode, padding_value: how an image smaller than a window is padded (names of `torch.nn.functional.pad`).
    """

    roi: tuple[int, ...] | None = None
    overlap: tuple[float, ...] = (0.25, 0.25, 0.25)
    gaussian: bool = False
    sigma_scale: tuple[float, ...] = (0.125, 0.125, 0.125)
    padding_mode: str = "constant"
    padding_value: float = 0.0

    def size_for(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The windows' size on an image of this shape."""
        roi = self.roi or (0, 0, 0)
        return tuple(size if wanted <= 0 else wanted for wanted, size in zip(roi, shape, strict=True))

    def starts(self, shape: tuple[int, ...], roi: tuple[int, ...]) -> list[list[int]]:
        """First voxels of the windows of size `roi` along each axis of an image of at least that size."""
        return [_starts(n, size, part) for n, size, part in zip(shape, roi, self.overlap, strict=True)]

    def weights(self, roi: tuple[int, ...]) -> Tensor:
        """The weight of each voxel of a window of size `roi`, above 0."""
        mode = "gaussian" if self.gaussian else "constant"
        weights = compute_importance_map(roi, mode=mode, sigma_scale=self.sigma_scale, dtype=torch.float32)
        return torch.as_tensor(weights).clamp(min=max(float(weights[weights > 0].min()), 1e-3))


@dataclass(frozen=True)
class Planes:
    """The network's output for a whole working image, plane by plane.

    Args:
        axis: the working axis that `values` walks along, from plane 0 to the last.
        values: each (C, A, B), the network's raw output, in float32 (float16 where `slide` was asked for that); A and B
            are the two other working axes in order.
        accumulation: the number format that overlapping windows were summed in, for provenance.
        device: where the values are, and labels are decided.
    """

    axis: int
    values: Iterator[Tensor]
    accumulation: str
    device: torch.device = CPU


def slide(
    networks: Network | Sequence[Network],
    image: Tensor,
    windows: Windows,
    mirror_axes: tuple[int, ...],
    channels: int,
    progress: Progress,
    *,
    half: bool = False,
    sums: torch.device | None = None,
    agreement: Agreement | None = None,
) -> Planes:
    """Run the network over an image.

    Args:
        networks: each takes (1, C, X, Y, Z), gives (1, `channels`, X, Y, Z); their outputs are averaged.
        image: (C, X, Y, Z) float32, on the network's device or elsewhere.
        windows: how to lay the windows.
        mirror_axes: also run every window mirrored along each combination of these axes, and average.
        channels: number of the network's output channels.
        progress: told of each window; may cancel between two.
        half: sum in float16 and in the order of the axes, so that every bit is nnU-Net's.
        sums: where overlapping windows are added up, and planes come; None is the CPU.
        agreement: hears each pass of several (networks, mirrored copies) over each window, before windows are blended.
    """
    shape = tuple(image.shape[1:])
    roi = windows.size_for(shape)
    padding = [max(size - n, 0) for size, n in zip(roi, shape, strict=True)]
    before = [p // 2 for p in padding]
    if sums is not None:
        image = image.to(sums)  # once, instead of each window by itself
    if any(padding):
        pads = [n for p, b in zip(reversed(padding), reversed(before), strict=True) for n in (b, p - b)]
        image = _padded(image, pads, windows)
    padded = tuple(image.shape[1:])
    starts = windows.starts(padded, roi)
    axis = 0 if half else min(range(3), key=lambda a: roi[a] * padded[0] * padded[1] * padded[2] // padded[a])
    plane = tuple(n for a, n in enumerate(padded) if a != axis)
    dtype = torch.float16 if half else accumulator_dtype(channels * roi[axis] * plane[0] * plane[1])
    weights = windows.weights(roi).to(sums or "cpu")
    each = tuple(networks) if isinstance(networks, Sequence) else (networks,)
    passes = ((), *_flips(mirror_axes))
    heard = agreement if len(each) * len(passes) > 1 else None
    run = _Sliding(each, image, roi, weights.half() if half else weights, passes, heard, progress)
    values = run.planes(axis, starts, channels, dtype)
    inner = tuple(slice(before[a], before[a] + shape[a]) for a in range(3) if a != axis)
    kept = (value[:, inner[0], inner[1]] for z, value in values if before[axis] <= z < before[axis] + shape[axis])
    return Planes(axis, kept, str(dtype).removeprefix("torch."), weights.device)


@dataclass(frozen=True)
class _Sliding:
    """One pass over one padded image."""

    networks: tuple[Network, ...]
    image: Tensor
    roi: tuple[int, ...]
    weights: Tensor
    flips: tuple[tuple[int, ...], ...]
    agreement: Agreement | None
    progress: Progress

    def planes(
        self, axis: int, starts: list[list[int]], channels: int, dtype: torch.dtype
    ) -> Iterator[tuple[int, Tensor]]:
        """Yield (number of the plane along `axis`, blended output (C, A, B)) in order."""
        others = [a for a in range(3) if a != axis]
        depth = self.roi[axis]
        plane = [self.image.shape[a + 1] for a in others]
        place = self.weights.device
        sums = torch.zeros((depth, channels, *plane), dtype=dtype, device=place)
        weights = self.weights.permute(axis, *others)
        counts = torch.zeros((depth, *plane), dtype=weights.dtype, device=place)
        total, done, finished = len(starts[0]) * len(starts[1]) * len(starts[2]), 0, 0
        for first in starts[axis]:
            yield from _finish(sums, counts, finished, first)
            finished = first
            for second, third in product(starts[others[0]], starts[others[1]]):
                self.progress.step(done, total, "Segmenting")
                corner = [0, 0, 0]
                corner[axis], corner[others[0]], corner[others[1]] = first, second, third
                output = self.window(corner).permute(axis + 1, 0, *(a + 1 for a in others))
                where = (slice(second, second + self.roi[others[0]]), slice(third, third + self.roi[others[1]]))
                for ring, part in _ring_parts(first, depth):
                    _add(sums[(ring, slice(None), *where)], output[part], weights[part])
                    counts[(ring, *where)] += weights[part]
                done += 1
        self.progress.step(total, total, "Segmenting")
        yield from _finish(sums, counts, finished, finished + depth)

    def window(self, corner: list[int]) -> Tensor:
        """The network's output (C, X, Y, Z), float32 where sums are kept, for the window at a corner."""
        x, y, z = (slice(c, c + size) for c, size in zip(corner, self.roi, strict=True))
        patch = self.image[None, :, x, y, z].contiguous()
        total: Tensor | None = None
        for flip in self.flips:
            seen = patch.flip(flip) if flip else patch
            for network in self.networks:
                output = network(seen).flip(flip) if flip else network(seen)
                if self.agreement is not None:
                    self.agreement.hear(output[0])
                total = output if total is None else total + output
        assert total is not None, "there is a network, and a pass without mirroring"
        passes = len(self.flips) * len(self.networks)
        mean = total[0] / passes if passes > 1 else total[0]
        if self.agreement is not None:
            self.agreement.settle(mean)
        return mean.to(self.weights.device).float()


def _add(sums: Tensor, output: Tensor, weights: Tensor) -> None:
    """Add an output (D, C, A, B), float32, times its weights (D, A, B), to the sums in their place.

    In float16 the product is rounded to float32 and the sum once more, as nnU-Net has it.
    """
    if sums.dtype == torch.float32:
        sums.addcmul_(output, weights[:, None])
    elif sums.device.type != "cpu" or sums.numel() <= IN_CACHE:
        sums += output * weights[:, None]
    else:  # plane by plane, so that what is in between stays in the processor's cache
        for place, values, weight in zip(sums, output, weights.float(), strict=True):
            place.copy_(torch.mul(values, weight).add_(place))


def forwards(shape: tuple[int, ...], windows: Windows, mirror_axes: tuple[int, ...]) -> int:
    """How many times `slide` runs the network on an image of this shape (X, Y, Z)."""
    roi = windows.size_for(shape)
    padded = tuple(max(n, size) for n, size in zip(shape, roi, strict=True))
    return prod(len(along) for along in windows.starts(padded, roi)) * int(2 ** len(mirror_axes))


def all_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite; the sum tells at a fraction of the cost, unless it overflows."""
    return bool(torch.isfinite(values.sum(dtype=torch.float32))) or bool(torch.isfinite(values).all())


def _padded(image: Tensor, pads: list[int], windows: Windows) -> Tensor:
    mode, value = windows.padding_mode, windows.padding_value if windows.padding_mode == "constant" else None
    try:
        return functional.pad(image[None], pads, mode=mode, value=value)[0]
    except RuntimeError as error:
        shape = " x ".join(str(n) for n in image.shape[1:])
        raise ModelError(
            f"The image, at {shape} voxels, is too small to be padded by '{mode}' to the model's window."
        ) from error


def _finish(sums: Tensor, counts: Tensor, start: int, stop: int) -> Iterator[tuple[int, Tensor]]:
    """Hand on the planes `start` to `stop` - 1 and clear their places in the ring."""
    depth = len(sums)
    for z in range(start, stop):
        plane = torch.div(sums[z % depth], counts[z % depth])
        if not all_finite(plane):
            raise ModelError(
                "The sums of the network's output are not finite; its outputs are not, or too large to be added up."
            )
        yield z, plane
        sums[z % depth].zero_()
        counts[z % depth].zero_()


def _ring_parts(first: int, depth: int) -> list[tuple[slice, slice]]:
    """Where planes `first` to `first + depth - 1` stand in a ring of `depth`: (in the ring, in the window)."""
    turn = first % depth
    parts = [(slice(turn, depth), slice(0, depth - turn)), (slice(0, turn), slice(depth - turn, depth))]
    return parts[:1] if turn == 0 else parts


def _starts(size: int, roi: int, overlap: float) -> list[int]:
    """First voxels of the windows along one axis; the last window ends with the image."""
    interval = roi if size == roi else max(int(roi * (1 - overlap)), 1)
    count = ceil((size - roi) / interval) + 1
    return [min(number * interval, size - roi) for number in range(count)]


def _flips(axes: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Every combination of axes but the empty one, as dimensions of (1, C, X, Y, Z)."""
    sizes = range(1, len(axes) + 1)
    return [tuple(axis + 2 for axis in chosen) for size in sizes for chosen in combinations(axes, size)]
