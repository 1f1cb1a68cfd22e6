"""The class of the largest value on the input's grid, worked out only where it can change: near boundaries.

Interpolated values are means of the eight around them. Where these have one largest class, by more than rounding can
take away, the mean has the same; only the rest is interpolated, with the same arithmetic as everywhere. Exact.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from MedAILib.inference.interpolate import Taps

# By this share of the largest value the best class has to lead, to be sure of it after rounding: four units in the
# last place of float16, and some hundred of float32.
LEAD_HALF, LEAD_SINGLE = 2.0**-9, 2.0**-17
UNSURE = -1
# Numbers that are interpolated at a time; few enough to stay in the processor's cache.
BLOCK = 1 << 18


def largest_classes(planes: Iterable[Tensor], taps: list[Taps], half: bool) -> Iterator[tuple[int, Tensor]]:
    """Yield (number of the input's slice, class of the largest value (1, A, B)) as soon as its planes have come.

    Args:
        planes: (C, A, B) each, in order; as many as `taps[0]` is for.
        taps: interpolation across planes, and along A and B.
        half: interpolate in float64 and round once to float16 before deciding; of equals the first class wins.
    """
    through, *inside = taps
    if not any(bool(tap.share.any()) for tap in taps):
        yield from _copied(planes, taps)
        return
    slices: dict[int, list[tuple[int, float]]] = {}
    lasting = set()
    for number, (low, share) in enumerate(zip(through.low.tolist(), through.share.tolist(), strict=True)):
        slices.setdefault(low + (share > 0), []).append((number, share))
        if share > 0:
            lasting.add(low)
    before: _Plane | None = None
    for z, values in enumerate(planes):
        if z not in slices and z not in lasting:
            continue
        current = _Plane.of(values, inside, half)
        lone = [number for number, share in slices.get(z, []) if share == 0]
        between = [(number, share) for number, share in slices.get(z, []) if share > 0]
        for number in lone:
            yield number, _decided(current, current, [0.0], inside, half)[0][None]
        if between:
            assert before is not None, "a plane between two comes after the first one"
            shares = [share for _, share in between]
            for (number, _), labels in zip(between, _decided(before, current, shares, inside, half), strict=True):
                yield number, labels[None]
        before = current


@dataclass(frozen=True)
class _Plane:
    """A plane of the network's, and what is known of it at the input's resolution.

    Args:
        values: (C, A * B).
        width: B.
        codes: the class that wins around each of the input's voxels (A', B'), or `UNSURE`.
        dtype: of labels.
    """

    values: Tensor
    width: int
    codes: NDArray[np.int16]
    dtype: torch.dtype

    @classmethod
    def of(cls, values: Tensor, inside: list[Taps], half: bool) -> "_Plane":
        winner, lead, largest = _leading(values)
        sure = lead > (LEAD_HALF if half else LEAD_SINGLE) * largest
        codes = torch.where(sure, winner, UNSURE).numpy()
        for axis, tap in enumerate(inside):
            if bool(tap.share.any()):
                upper = np.take(codes, np.minimum(np.arange(1, tap.size + 1), tap.size - 1), axis)
                codes = np.where(codes == upper, codes, np.int16(UNSURE))
        for axis, tap in enumerate(inside):
            codes = codes if tap.identity else np.take(codes, tap.low.numpy(), axis)
        return cls(values.flatten(1), values.shape[2], codes, _label_dtype(len(values)))


def _leading(values: Tensor) -> tuple[Tensor, Tensor, float]:
    """Of (C, A, B): the class of the largest value, the first of equals, int16; how far it leads; largest magnitude."""
    single = values.float()
    best, winner = single[0].clone(), torch.zeros(single.shape[1:], dtype=torch.int16)
    second = torch.full_like(best, -torch.inf)
    for number, one in enumerate(single[1:], start=1):
        winner.masked_fill_(one > best, number)
        torch.maximum(second, torch.minimum(best, one), out=second)
        torch.maximum(best, one, out=best)
    return winner, best - second, float(best.abs().max())


def _copied(planes: Iterable[Tensor], taps: list[Taps]) -> Iterator[tuple[int, Tensor]]:
    """Where every voxel of the input has its value from one of the network's."""
    slices: dict[int, list[int]] = {}
    for number, low in enumerate(taps[0].low.tolist()):
        slices.setdefault(low, []).append(number)
    for z, values in enumerate(planes):
        if z in slices:
            labels = _leading(values)[0].to(_label_dtype(len(values)))
            labels = taps[1].pick(taps[2].pick(labels, 1), 0)[None]
            yield from ((number, labels) for number in slices[z])


def _decided(lower: _Plane, upper: _Plane, shares: list[float], inside: list[Taps], half: bool) -> list[Tensor]:
    """Labels (A', B') of the slices that lie between two planes."""
    unsure = (lower.codes == UNSURE) | (lower.codes != upper.codes)
    places = np.flatnonzero(unsure)
    known = torch.from_numpy(np.where(unsure, np.int16(0), lower.codes)).to(lower.dtype)
    results = [known.clone() for _ in shares]
    step = max(1, BLOCK // len(lower.values))
    for first in range(0, len(places), step):
        part = places[first : first + step]
        corners = _Corners.around(part, unsure.shape[1], lower.width, inside)
        low = corners.interpolated(lower.values, half)
        up = low if upper is lower else corners.interpolated(upper.values, half)
        for result, share in zip(results, shares, strict=True):
            values = torch.lerp(low, up, share) if share else low
            if half:  # rounded once; PyTorch would go by way of float32
                values = torch.from_numpy(values.numpy().astype(np.float16)).float()
            result.view(-1)[torch.from_numpy(part)] = values.argmax(dim=1).to(result.dtype)
    return results


@dataclass(frozen=True)
class _Corners:
    """The four voxels of a plane around each of some places.

    Args:
        voxels: the voxels of the plane that are among them, as numbers in (A * B).
        corners: for each place the four, as numbers in `voxels`: lower and upper A, each with lower and upper B.
        share_a, share_b: of the upper ones, float64.
    """

    voxels: Tensor
    corners: tuple[Tensor, Tensor, Tensor, Tensor]
    share_a: Tensor
    share_b: Tensor

    @classmethod
    def around(cls, places: NDArray[Any], width: int, plane_width: int, inside: list[Taps]) -> "_Corners":
        """Around places given as numbers in (A' * B')."""
        a, b = (torch.from_numpy(one) for one in np.divmod(places, width))
        along_a, along_b = inside
        low_a, low_b = along_a.low[a], along_b.low[b]
        up_a, up_b = (low_a + 1).clamp(max=along_a.size - 1), (low_b + 1).clamp(max=along_b.size - 1)
        numbers = [row * plane_width + column for row in (low_a, up_a) for column in (low_b, up_b)]
        wanted = torch.zeros(along_a.size * plane_width, dtype=torch.bool)
        for one in numbers:
            wanted[one] = True
        voxels = torch.nonzero(wanted)[:, 0]
        position = torch.empty(len(wanted), dtype=torch.int64)
        position[voxels] = torch.arange(len(voxels))
        first, second, third, fourth = (position[one] for one in numbers)
        return cls(voxels, (first, second, third, fourth), along_a.share[a], along_b.share[b])

    def interpolated(self, values: Tensor, half: bool) -> Tensor:
        """Of a plane (C, A * B), at each place all channels: (places, C), float64 for `half`."""
        rows = torch.from_numpy(np.take(values.numpy(), self.voxels.numpy(), axis=1)).T.contiguous()
        rows = rows.double() if half else rows.float()
        share_a, share_b = self.share_a.to(rows)[:, None], self.share_b.to(rows)[:, None]
        lower, lower_right, upper, upper_right = (rows.index_select(0, one) for one in self.corners)
        return lower.lerp_(lower_right, share_b).lerp_(upper.lerp_(upper_right, share_b), share_a)


def _label_dtype(count: int) -> torch.dtype:
    return torch.uint8 if count <= 256 else torch.int16
