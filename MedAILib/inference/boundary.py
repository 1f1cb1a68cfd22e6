"""The class of the largest value on the input's grid, worked out only where it can change: near boundaries.

Interpolated values are means of the eight around them. Where these have one largest class, by more than rounding can
take away, the mean has the same; only the rest is interpolated, in any order of sums, and where rounding could then
decide, again with the same arithmetic as everywhere. Exact.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from MedAILib.inference.interpolate import Taps

# By this share of the largest value the best class has to lead, to be sure of it after rounding: four units in the
# last place of float16, and some hundred of float32.
LEAD_HALF, LEAD_SINGLE = 2.0**-9, 2.0**-17
# A mean of eight in float32 errs by less than this share of the largest magnitude; float16 ends at about 65504.
ERROR_SINGLE, END_OF_HALF = 2.0**-18, 6e4
# Numbers that are interpolated at a time; few enough to stay in the processor's cache.
BLOCK = 1 << 19


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
        current = _Plane.of(values, inside, half, before)
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
        cells: the class that wins on a voxel (A, B) and those after it along the axes that are interpolated, or the
            largest number of their type where that is not sure.
        codes: the same around each of the input's voxels (A', B').
        winners: (A * B) int64, the class of the largest value, or of one of several equal ones.
        dtype: of labels.
    """

    values: Tensor
    width: int
    cells: NDArray[Any]
    codes: NDArray[Any]
    winners: Tensor
    dtype: torch.dtype

    @classmethod
    def of(cls, values: Tensor, inside: list[Taps], half: bool, before: "_Plane | None") -> "_Plane":
        """`before` is the plane before it, whose winners are mostly the same."""
        dtype = torch.uint8 if len(values) < 256 else torch.int16
        winners, lead, largest = _leading(values, None if before is None else before.winners)
        unsafe = lead <= (LEAD_HALF if half else LEAD_SINGLE) * largest
        cells = winners.to(dtype).masked_fill_(unsafe, torch.iinfo(dtype).max).view(values.shape[1:]).numpy()
        unsure = _nobody(cells)
        for axis, tap in enumerate(inside):
            if tap.between:
                upper = np.take(cells, np.minimum(np.arange(1, tap.size + 1), tap.size - 1), axis)
                cells = np.where(cells == upper, cells, unsure)
        codes = cells
        for axis in (1, 0):  # number by number while there are few rows; these are copied whole
            tap = inside[axis]
            codes = codes if tap.identity else np.take(codes, tap.low.numpy(), axis)
        return cls(values.flatten(1), values.shape[2], cells, codes, winners, _label_dtype(len(values)))


def _nobody(codes: NDArray[Any]) -> Any:
    return codes.dtype.type(np.iinfo(codes.dtype).max)


def _leading(values: Tensor, guess: Tensor | None) -> tuple[Tensor, Tensor, float]:
    """Of (C, A, B): the class of the largest value (A * B), any of equals; how far it leads; largest magnitude.

    A right guess of most classes spares looking for them: only whether it is right is looked at everywhere.
    """
    count = values[0].numel()
    single = values.flatten(1).to(torch.float32, copy=True)
    best, places = single.amax(dim=0), torch.arange(count)
    if guess is None:
        winners = _first_largest(single)
    else:
        winners = guess
        wrong = torch.nonzero(single.view(-1).index_select(0, guess * count + places) != best)[:, 0]
        if len(wrong):
            winners = guess.index_copy(0, wrong, single.index_select(1, wrong).argmax(dim=0))
    single.view(-1).index_fill_(0, winners * count + places, -torch.inf)
    return winners, best - single.amax(dim=0), float(best.abs().max())


def _first_largest(values: Tensor) -> Tensor:
    """The class (int64) of the largest of float32 values (C, ...), the first of equals; by a running maximum."""
    best, winner = values[0].clone(), torch.zeros(values.shape[1:], dtype=torch.int16)
    for number, one in enumerate(values[1:], start=1):
        # Numbers rise, so that the last class to exceed all before it has the largest.
        torch.maximum(winner, (one > best).to(torch.int16).mul_(number), out=winner)
        torch.maximum(best, one, out=best)
    return winner.long()


def _copied(planes: Iterable[Tensor], taps: list[Taps]) -> Iterator[tuple[int, Tensor]]:
    """Where every voxel of the input has its value from one of the network's."""
    slices: dict[int, list[int]] = {}
    for number, low in enumerate(taps[0].low.tolist()):
        slices.setdefault(low, []).append(number)
    for z, values in enumerate(planes):
        if z in slices:
            labels = _first_largest(values.float()).to(_label_dtype(len(values)))
            labels = taps[1].pick(taps[2].pick(labels, 1), 0)[None]
            yield from ((number, labels) for number in slices[z])


def _decided(lower: _Plane, upper: _Plane, shares: list[float], inside: list[Taps], half: bool) -> list[Tensor]:
    """Labels (A', B') of the slices that lie between two planes."""
    unsure, needed = _open(lower.codes, upper.codes), _reached(_open(lower.cells, upper.cells), inside)
    places = np.flatnonzero(unsure)
    known = torch.from_numpy(np.where(unsure, lower.codes.dtype.type(0), lower.codes)).to(lower.dtype)
    results = [known.clone() for _ in shares]
    planes = [lower.values] if upper is lower else [lower.values, upper.values]
    step = max(1, BLOCK // len(lower.values))
    for first in range(0, len(places), step):
        part = places[first : first + step]
        around = _Around.places(part, unsure.shape[1], needed, inside, planes)
        for result, share in zip(results, shares, strict=True):
            result.view(-1)[torch.from_numpy(part)] = around.largest(share, half).to(result.dtype)
    return results


def _open(lower: NDArray[Any], upper: NDArray[Any]) -> NDArray[np.bool_]:
    """Where no class wins for sure."""
    found: NDArray[np.bool_] = (lower == _nobody(lower)) | (lower != upper)
    return found


def _reached(cells: NDArray[np.bool_], inside: list[Taps]) -> NDArray[np.bool_]:
    """The voxels (A, B) of cells: each cell's own and those after it along the axes that are interpolated."""
    found = cells.copy()
    if inside[0].between:
        found[1:] |= found[:-1].copy()
    if inside[1].between:
        found[:, 1:] |= found[:, :-1].copy()
    return found


@dataclass(frozen=True)
class _Around:
    """The voxels around some places, of one plane or of two.

    Args:
        rows: (planes * V, C) float32, the voxels that are among them, of each plane the same.
        corners: (N, 4) numbers in V: lower and upper A, each with lower and upper B.
        share_a, share_b: (N,) of the upper ones, float64.
        count: V.
        magnitude: the largest of the rows' values.
    """

    rows: Tensor
    corners: Tensor
    share_a: Tensor
    share_b: Tensor
    count: int
    magnitude: float

    @classmethod
    def places(
        cls, places: NDArray[Any], width: int, needed: NDArray[np.bool_], inside: list[Taps], planes: list[Tensor]
    ) -> "_Around":
        """Around places given as numbers in (A' * B'), in order; `needed` (A, B) holds all voxels around them."""
        a, b = (torch.from_numpy(one) for one in np.divmod(places, width))
        along_a, along_b = inside
        low_a, low_b = along_a.low[a], along_b.low[b]
        up_a = (low_a + 1).clamp(max=along_a.size - 1) if along_a.between else low_a
        top, bottom = int(low_a.min()), int(up_a.max()) + 1
        part = needed[top:bottom].ravel()
        position = torch.from_numpy(np.cumsum(part) - 1)
        lower, upper = (position[(row - top) * along_b.size + low_b] for row in (low_a, up_a))
        # The voxel after a needed one is the next of those that are kept.
        right = (low_b < along_b.size - 1).long() if along_b.between else torch.zeros_like(low_b)
        voxels = np.flatnonzero(part) + top * along_b.size
        rows = torch.cat([torch.from_numpy(np.take(plane.numpy(), voxels, axis=1)).T.float() for plane in planes])
        corners = torch.stack([lower, lower + right, upper, upper + right], dim=1)
        lowest, highest = rows.aminmax()
        magnitude = max(-float(lowest), float(highest))
        return cls(rows, corners, along_a.share[a], along_b.share[b], len(voxels), magnitude)

    def largest(self, share: float, half: bool) -> Tensor:
        """(N,) the class of the largest value, `share` of the way from the first plane to the second."""
        magnitude = self.magnitude
        values = self._means(share).T.contiguous()  # each step then goes through long rows
        best = values.amax(dim=0)
        room = best.abs().mul_(LEAD_HALF if half else 0.0).add_(ERROR_SINGLE * magnitude + 2.0**-23)
        near = (values >= best.sub_(room)).float()
        # How many classes are near the largest, and, of one alone, which.
        told = torch.stack([torch.ones(len(near)), torch.arange(len(near)).float()]) @ near
        found, several = told[1].long(), told[0] > 1
        if half and magnitude > END_OF_HALF:
            several[:] = True
        close = torch.nonzero(several)[:, 0]
        if len(close):
            found[close] = self._exactly(share, half, close)
        return found

    def _means(self, share: float) -> Tensor:
        """(N, C): the weighted means of the voxels around, in one go."""
        a, b = self.share_a.float(), self.share_b.float()
        weights = torch.stack([(1 - a) * (1 - b), (1 - a) * b, a * (1 - b), a * b], dim=1)
        corners = self.corners
        if len(self.rows) > self.count:
            weights = torch.cat([weights * (1 - share), weights * share], dim=1)
            corners = torch.cat([corners, corners + self.count], dim=1)
        return functional.embedding_bag(corners, self.rows, per_sample_weights=weights, mode="sum")

    def _exactly(self, share: float, half: bool, chosen: Tensor) -> Tensor:
        """As everywhere else; for `half` in float64, rounded once, where PyTorch goes by way of float32."""
        rows = self.rows.double() if half else self.rows
        corners = self.corners[chosen]
        values = self._interpolated(rows, corners, chosen)
        if share:
            values = torch.lerp(values, self._interpolated(rows, corners + self.count, chosen), share)
        if half:
            values = torch.from_numpy(values.numpy().astype(np.float16)).float()
        return values.argmax(dim=1)

    def _interpolated(self, rows: Tensor, corners: Tensor, chosen: Tensor) -> Tensor:
        share_a, share_b = (share[chosen].to(rows)[:, None] for share in (self.share_a, self.share_b))
        lower, lower_right, upper, upper_right = (rows.index_select(0, one) for one in corners.unbind(dim=1))
        return lower.lerp_(lower_right, share_b).lerp_(upper.lerp_(upper_right, share_b), share_a)


def _label_dtype(count: int) -> torch.dtype:
    return torch.uint8 if count <= 256 else torch.int16
