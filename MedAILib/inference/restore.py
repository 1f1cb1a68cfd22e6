"""From the network's output back to labels on the input's own grid, without ever holding full-size logits.

Planes come in one after another; an input slice is decided as soon as the two planes around it are there. Where the
largest class wins, `boundary` decides on the CPU; for all else a plane is brought to the input's resolution in its own
two axes first, and slices are interpolated between two of these. Planes on a GPU stay there: labels, and what else was
asked for, alone come back.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from MedAILib.inference.boundary import largest_classes
from MedAILib.inference.entropy import entropy
from MedAILib.inference.frame import Frame
from MedAILib.inference.interpolate import Taps, covering_taps, linear_taps, nearest_taps, spanned_taps, stepped_taps
from MedAILib.inference.window import Planes


@dataclass(frozen=True)
class Decision:
    """How values become labels.

    Args:
        activation: "softmax", "sigmoid" or None, applied on the network's grid, before interpolation; "identity" where
            the values are wanted as they are.
        threshold: None takes the class of the largest value; a number makes each channel a layer of its own, which is
            1 where the value reaches it.
        first: decide on the network's grid, clean up there, and take the nearest decision for each input voxel.
        nearest: take the nearest value instead of interpolating.
        stepped: working axes along which the nearest value is taken, where the working grid spans the input exactly.
        covering: take the mean of the network's voxels that an input voxel covers; the working grid spans the input.
        priority: each channel is a region where its sigmoid is above a half, and writes this label value there, later
            channels over earlier; None for the ways above.
        late: probabilities are taken after interpolation instead of before.
        half: interpolate in float64 and round once to float16 before deciding, as nnU-Net does; the working grid spans
            the input exactly.
    """

    activation: str | None = None
    threshold: float | None = None
    first: bool = False
    nearest: bool = False
    stepped: tuple[int, ...] = ()
    covering: bool = False
    priority: tuple[int, ...] | None = None
    late: bool = False
    half: bool = False

    @property
    def exclusive(self) -> bool:
        """Whether one class excludes the others, so that probabilities add up to 1; else each is by itself."""
        return self.likelihood == "softmax"

    @property
    def by_largest(self) -> bool:
        """Whether the largest value of all wins, each between two voxels along every axis of the input."""
        return self.threshold is None and self.priority is None and not self.first and not self.covering

    @property
    def likelihood(self) -> str:
        """The activation that turns the network's output into probabilities."""
        several = self.threshold is not None or self.priority is not None
        return self.activation or ("sigmoid" if several else "softmax")


@dataclass(frozen=True)
class Restored:
    """What came of the output, on the input's grid.

    Args:
        layers: (L, K, J, I) uint8 or uint16: class numbers, or for each channel a layer of 0 and 1.
        probabilities: (C, K, J, I) float32, if they were asked for; 0 outside the network's grid.
        uncertainty: (K, J, I) float32, each voxel's entropy, likewise.
    """

    layers: NDArray[Any]
    probabilities: NDArray[np.float32] | None
    uncertainty: NDArray[np.float32] | None = None


def restore(
    planes: Planes,
    frame: Frame,
    shape_kji: tuple[int, int, int],
    decision: Decision,
    probabilities: bool,
    tidy: Callable[[NDArray[Any]], None] | None = None,
    *,
    uncertainty: bool = False,
) -> Restored:
    """Bring the network's output back.

    Args:
        planes: the network's raw output on the working grid.
        frame: how that grid lies in the input's.
        shape_kji: the input's shape.
        decision: how values become labels.
        probabilities: also keep every channel's activated value (softmax where the model names no activation).
        tidy: changes the labels (L, A, B, C) on the working grid in place, where they are decided there; axes in the
            planes' order.
        uncertainty: also keep each voxel's entropy, which takes no more memory than one channel.
    """
    order = (planes.axis, *(axis for axis in range(3) if axis != planes.axis))
    sizes = [shape_kji[2 - frame.axes[axis]] for axis in order]
    positions = [frame.coordinates(axis, size) for axis, size in zip(order, sizes, strict=True)]
    make = nearest_taps if decision.nearest or decision.first else linear_taps
    taps = [
        stepped_taps(len(where), frame.shape[axis])
        if axis in decision.stepped
        else covering_taps(len(where), frame.shape[axis], frame.scale[axis] < 0)
        if decision.covering and not decision.nearest and not decision.first
        else spanned_taps(len(where), frame.shape[axis])
        if decision.half
        else make(np.clip(where, *frame.extent[axis]), frame.shape[axis])
        for where, axis in zip(positions, order, strict=True)
    ]
    arrays = _Arrays((sizes[0], sizes[1], sizes[2]))
    decided: list[NDArray[Any]] = []
    values = _deciding(planes.values, decision, decided) if decision.first else planes.values
    _fill(arrays, replace(planes, values=values), taps, decision, (probabilities, uncertainty))
    if decision.first:
        on_grid = np.stack(decided, axis=1)
        if tidy is not None:
            tidy(on_grid)
        layers = np.arange(len(on_grid))
        arrays.labels = on_grid[np.ix_(layers, *(tap.low.numpy() for tap in taps))]
    if frame.zero_outside:
        for dimension, (axis, where) in enumerate(zip(order, positions, strict=True)):
            low, high = frame.extent[axis]
            arrays.clear(dimension, (where <= low - 1) | (where >= high + 1))
    back = (0, *(1 + order.index(frame.axes.index(axis)) for axis in (2, 1, 0)))
    found, kept, unsure = arrays.all()
    assert found is not None, "an image has at least one plane"
    return Restored(
        np.ascontiguousarray(found.transpose(back)),
        None if kept is None else np.ascontiguousarray(kept.transpose(back)),
        None if unsure is None else np.ascontiguousarray(unsure.transpose(back)[0]),
    )


def _fill(arrays: "_Arrays", planes: Planes, taps: list[Taps], decision: Decision, wanted: tuple[bool, bool]) -> None:
    """Decide labels slice by slice, and keep probabilities and entropy where they are `wanted`."""
    (probabilities, uncertainty), values = wanted, planes.values
    shows = probabilities or uncertainty
    if decision.first and not shows:
        for _ in values:
            pass
    elif decision.by_largest and not shows and planes.device.type == "cpu":
        values = (_activate(plane, decision.activation) for plane in values) if decision.activation else values
        for slice_number, labels in largest_classes(values, taps, decision.half):
            arrays.labels_at(slice_number, labels)
    else:
        for slice_number, blend, shown in _slices(values, taps, decision, shows):
            if not decision.first:
                arrays.labels_at(slice_number, blend.decide(decision))
            if shown is not None:
                likely = shown.all()
                likely = _activate(likely.float(), decision.likelihood) if decision.late else likely
                if probabilities:
                    arrays.probabilities_at(slice_number, likely)
                if uncertainty:
                    arrays.uncertainty_at(slice_number, entropy(likely, decision.exclusive))


def decided_by(values: Tensor, decision: Decision) -> Tensor:
    """The labels (L, ...) of the network's raw output (C, ...), without a grid or clean-ups."""
    values = _activate(values, decision.activation) if decision.activation else values
    return _decide(values, decision)


def _deciding(planes: Iterable[Tensor], decision: Decision, decided: list[NDArray[Any]]) -> Iterator[Tensor]:
    """Hand planes on as they come, and keep what is decided on each."""
    for plane in planes:
        values = _activate(plane, decision.activation) if decision.activation else plane
        labels = _decide(values, decision).cpu().numpy()
        decided.append(labels if labels.dtype == np.uint8 else labels.astype(np.uint16))
        yield plane


@dataclass(frozen=True)
class _Blend:
    """One input slice: the values of two planes of the network, and the share of the upper one."""

    lower: Tensor
    upper: Tensor
    share: float
    half: bool = False

    def channels(self) -> Iterator[Tensor]:
        for low, up in zip(self.lower, self.upper, strict=True):
            values = up if self.share == 1 else torch.lerp(low, up, self.share)
            yield _rounded(values) if self.half else values

    def all(self) -> Tensor:
        if self.upper.device.type == "cpu":
            return torch.stack(list(self.channels()))
        values = self.upper if self.share == 1 else torch.lerp(self.lower, self.upper, self.share)
        return _rounded(values) if self.half else values

    def decide(self, decision: Decision) -> Tensor:
        """Labels, channel by channel on the CPU, where these stay in its cache; on a GPU all at once."""
        if self.upper.device.type == "cpu":
            return _decided(self.channels(), len(self.upper), decision)
        return _decide(self.all(), decision)


class _Arrays:
    """The growing result, in the order (layer or channel, slice, A, B)."""

    def __init__(self, shape: tuple[int, int, int]) -> None:
        self.shape = shape
        self.labels: NDArray[Any] | None = None
        self.probabilities: NDArray[np.float32] | None = None
        self.uncertainty: NDArray[np.float32] | None = None

    def labels_at(self, number: int, values: Tensor) -> None:
        if self.labels is None:
            dtype = np.uint8 if values.dtype == torch.uint8 else np.uint16
            self.labels = np.zeros((len(values), *self.shape), dtype)
        self.labels[:, number] = values.cpu().numpy()

    def probabilities_at(self, number: int, values: Tensor) -> None:
        if self.probabilities is None:
            self.probabilities = np.zeros((len(values), *self.shape), np.float32)
        self.probabilities[:, number] = values.cpu().numpy()

    def uncertainty_at(self, number: int, values: Tensor) -> None:
        if self.uncertainty is None:
            self.uncertainty = np.zeros((1, *self.shape), np.float32)
        self.uncertainty[0, number] = values.cpu().numpy()

    def clear(self, dimension: int, outside: NDArray[np.bool_]) -> None:
        for array in self.all():
            if array is not None:
                np.moveaxis(array, dimension + 1, 0)[outside] = 0

    def all(self) -> tuple[NDArray[Any] | None, NDArray[np.float32] | None, NDArray[np.float32] | None]:
        return self.labels, self.probabilities, self.uncertainty


def _slices(
    planes: Iterable[Tensor], taps: list[Taps], decision: Decision, probabilities: bool
) -> Iterator[tuple[int, _Blend, _Blend | None]]:
    """Yield (number of the input's slice, what decides it, its probabilities) as soon as the planes it needs have come.

    Labels are decided on the values that the model decides on; asking for probabilities changes nothing of that.
    """
    through, *inside = taps
    ready: dict[int, list[int]] = {}
    lasting = set()
    for number, (low, share) in enumerate(zip(through.low.tolist(), through.share.tolist(), strict=True)):
        ready.setdefault(low + (share > 0), []).append(number)
        if share > 0:
            lasting.add(low)
    likely = decision.likelihood
    before, shown_before = torch.empty(0), torch.empty(0)
    for z, plane in enumerate(planes):
        if z not in ready and z not in lasting:
            continue
        plane = plane.double() if decision.half else plane  # noqa: PLW2901
        values = _activate(plane, decision.activation) if decision.activation else plane
        current = values if decision.first else _at_full_size(values, inside)
        shown = torch.empty(0)
        if probabilities:
            same = decision.late or (decision.activation and not decision.first)
            shown = current if same else _at_full_size(_activate(plane, likely), inside)
        for number in ready.get(z, ()):
            share = float(through.share[number]) or 1.0
            lone = float(through.share[number]) == 0
            blend = _Blend(current if lone else before, current, share, decision.half)
            likely_blend = _Blend(shown if lone else shown_before, shown, share, decision.half)
            yield number, blend, likely_blend if probabilities else None
        before, shown_before = current, shown


def _at_full_size(values: Tensor, taps: list[Taps]) -> Tensor:
    """A plane (C, A, B) at the input's resolution; the last axis first, while there is less."""
    return taps[0].apply(taps[1].apply(values, 2), 1)


def _activate(values: Tensor, activation: str) -> Tensor:
    if activation == "identity":
        return values
    return values.softmax(dim=0) if activation == "softmax" else values.sigmoid()


def _decide(values: Tensor, decision: Decision) -> Tensor:
    """As `_decided`, of values (C, A, B) on any device."""
    if values.device.type == "cpu" or not decision.by_largest:
        return _decided(iter(values), len(values), decision)
    return first_largest(values)[None].to(torch.uint8 if len(values) <= 256 else torch.int16)


def first_largest(values: Tensor) -> Tensor:
    """The class (int16) of the largest of values (C, ...), the first of equals, in a few steps over all of them."""
    # Of numbers that fall from class to class the largest is the first class's.
    falling = torch.arange(len(values), 0, -1, dtype=torch.int16, device=values.device)
    reached = (values == values.amax(dim=0)) * falling.view(-1, *(1 for _ in values.shape[1:]))
    return len(values) - reached.amax(dim=0)


def _decided(channels: Iterator[Tensor], count: int, decision: Decision) -> Tensor:
    """Class of the largest value (1, A, B), the first of equals; by priority (1, A, B); or a layer each (C, A, B)."""
    if decision.threshold is not None:
        return torch.stack([(values >= decision.threshold).to(torch.uint8) for values in channels])
    if decision.priority is not None:
        return _by_priority(channels, decision.priority)
    best = next(channels).clone()
    kind = torch.uint8 if count <= 256 else torch.int16
    labels = torch.zeros(best.shape, dtype=kind, device=best.device)
    for number, values in enumerate(channels, start=1):
        labels.masked_fill_(values > best, number)
        torch.maximum(best, values, out=best)
    return labels[None]


def _rounded(values: Tensor) -> Tensor:
    """From float64 to float16 at once; PyTorch would round to float32 in between."""
    if values.device.type == "cpu":
        return torch.from_numpy(values.numpy().astype(np.float16))
    return by_odd(values).half()


def by_odd(values: Tensor) -> Tensor:
    """From float64 to float32 so that rounding once more is as rounding once: what is between two is the odd one."""
    single = values.float()
    bits = single.view(torch.int32)
    bits = bits - (single.double().abs() > values.abs()).int()  # towards zero
    inexact = bits.view(torch.float32).double() != values
    return (bits | inexact.int()).view(torch.float32)


def _by_priority(channels: Iterator[Tensor], priority: tuple[int, ...]) -> Tensor:
    labels = torch.empty(0)
    for values, label in zip(channels, priority, strict=True):
        if not labels.numel():
            kind = torch.uint8 if max(priority) <= 255 else torch.int32
            labels = torch.zeros(values.shape, dtype=kind, device=values.device)
        labels.masked_fill_(values.float().sigmoid() > 0.5, label)
    return labels[None]
