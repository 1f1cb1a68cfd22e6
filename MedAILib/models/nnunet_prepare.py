"""From the input's voxels to what an nnU-Net network sees, and where that lies in the input."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor

from MedAILib.errors import InputError
from MedAILib.inference.frame import Frame, input_frame
from MedAILib.inference.prepare import require_possible
from MedAILib.models.nnunet_resample import resample_image, resample_labels, resampled_shape, separate_axis
from MedAILib.nnunet_plan import NnunetPlan, Normalization
from MedAILib.progress import Progress
from MedAILib.volume import Geometry, Volume

SMALLEST_DEVIATION = 1e-8
OUTSIDE = -1  # in place of label 0 where no channel has a value
Box = tuple[slice, slice, slice]


@dataclass(frozen=True)
class View:
    """The image's axes K, J, I in the order and direction of the network's.

    Args:
        order: for each of the network's axes the image's (0 for K).
        flips: which of the network's axes run against the image's.
    """

    order: tuple[int, ...]
    flips: tuple[int, ...] = ()

    def of(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array (C, K, J, I) along the network's axes."""
        moved: NDArray[Any] = array.transpose(0, *(axis + 1 for axis in self.order))
        return np.flip(moved, tuple(axis + 1 for axis in self.flips))

    def undo(self, array: NDArray[Any]) -> NDArray[Any]:
        """An array (C, X, Y, Z) of the network's axes back along K, J, I."""
        back = np.flip(array, tuple(axis + 1 for axis in self.flips))
        return np.ascontiguousarray(back.transpose(0, *(self.order.index(axis) + 1 for axis in range(3))))


@dataclass(frozen=True)
class Prepared:
    """What the network gets.

    Args:
        image: (C, X, Y, Z) float32.
        frame: how its grid lies in the crop; axes X, Y, Z of the network stand for K, J, I there.
        box: the crop in the view.
        stepped: axes along which outputs are taken from the nearest voxel (see `Decision`).
    """

    image: Tensor
    frame: Frame
    box: Box
    stepped: tuple[int, ...]


def view_of(plan: NnunetPlan, geometry: Geometry) -> View:
    """How a plan's network looks at an image: as its axes lie, or turned to RAS; then transposed."""
    if not plan.to_ras:
        return View(plan.transpose)
    order, flips = input_frame(geometry.shape_kji).orientation_steps(geometry.ijk_to_ras, "RAS")
    # From axes I, J, K and R, A, S to K, J, I and S, A, R.
    turned = [2 - axis for axis in order[::-1]]
    flipped = [2 - axis for axis in flips]
    return View(
        tuple(turned[axis] for axis in plan.transpose),
        tuple(axis for axis, source in enumerate(plan.transpose) if source in flipped),
    )


def prepare_nnunet(
    volume: Volume, plan: NnunetPlan, view: View, labels: NDArray[Any] | None, progress: Progress
) -> Prepared:
    """Crop to what is not zero, normalise, resample; add a previous stage's labels as channels of 0 and 1.

    Args:
        volume: the image.
        plan: what to do.
        view: of the image, see `view_of`.
        labels: (K, J, I), the previous stage's, for a cascade.
        progress: told of each channel; may cancel between two.

    Raises:
        InputError: an RGB image with values outside 0 to 255.
        ModelError: the network wants more voxels than can be.
        Cancelled: by `progress`.
    """
    whole = view.of(volume.data)
    inside = whole[0] != 0
    for channel in whole[1:]:
        inside |= channel != 0
    box = _box(inside)
    inside = inside[box]
    if labels is not None or any(one.masked for one in plan.normalizations):
        inside = ndimage.binary_fill_holes(inside)  # slow on large images; the box is the same without
    stage = None
    if labels is not None:
        stage = view.of(labels[None])[0][box].astype(np.int16)
        stage[(stage == 0) & ~inside] = OUTSIDE
        inside = stage >= 0
    spacing = tuple(volume.geometry.spacing_kji_mm[axis] for axis in view.order)
    wanted = plan.spacing_mm if len(plan.spacing_mm) == 3 else (spacing[0], *plan.spacing_mm)
    how = plan.image_resampling
    old = tuple(int(n) for n in inside.shape)
    shape = resampled_shape(old, spacing, wanted, how)
    require_possible(shape)
    channels = [] if stage is None else list(plan.stage_values)
    image = np.empty((len(plan.channels) + len(channels), *shape), np.float32)
    axis = separate_axis(how, spacing, wanted)
    for number, normalization in enumerate(plan.normalizations):
        progress.step(number, len(plan.normalizations), "Preparing")
        # A view of a copy in the image's own order of axes: means are then summed as nnU-Net sums them, to the bit.
        values = view.of(volume.data[number : number + 1].astype(np.float32, order="C"))[0][box]
        image[number] = resample_image(_normalized(values, inside, normalization, volume.name), shape, axis, how)
    if stage is not None:
        axis = separate_axis(plan.label_resampling, spacing, wanted)
        there = resample_labels(stage, shape, axis, plan.label_resampling)
        for number, value in enumerate(channels):
            image[len(plan.channels) + number] = there == value
    return Prepared(torch.from_numpy(image), _frame(old, shape), box, _stepped(plan, wanted, spacing))


def _frame(old: Sequence[int], shape: Sequence[int]) -> Frame:
    frame = input_frame((old[0], old[1], old[2])).permuted((2, 1, 0))
    for axis, (before, after) in enumerate(zip(old, shape, strict=True)):
        if before != after:
            frame = frame.resampled(axis, before / after, after, 0.5 * before / after - 0.5)
    return frame


def _stepped(plan: NnunetPlan, spacing: tuple[float, ...], wanted: tuple[float, ...]) -> tuple[int, ...]:
    """On the way back: from the network's spacing to the image's."""
    if plan.output_resampling.order == 0:
        return (0, 1, 2)
    axis = separate_axis(plan.output_resampling, spacing, wanted)
    return () if axis is None else (axis,)


def _box(mask: NDArray[np.bool_]) -> Box:
    """The smallest box that holds a mask (X, Y, Z); all of it where it is empty."""
    lines = [np.asarray(np.any(mask, axis=others)) for others in ((1, 2), (0, 2), (0, 1))]
    ends = [np.flatnonzero(line)[[0, -1]] if line.any() else (0, len(line) - 1) for line in lines]
    x, y, z = (slice(int(first), int(last) + 1) for first, last in ends)
    return x, y, z


def _normalized(
    values: NDArray[np.float32], inside: NDArray[np.bool_], how: Normalization, name: str
) -> NDArray[np.float32]:
    """One channel (X, Y, Z), changed in place."""
    if how.scheme == "ZScoreNormalization":
        part = values[inside] if how.masked else values
        mean, deviation = part.mean(), max(part.std(), SMALLEST_DEVIATION)
        if how.masked:
            values[inside] = (part - mean) / deviation
        else:
            values -= mean
            values /= deviation
    elif how.scheme == "CTNormalization":
        np.clip(values, *how.bounds, out=values)
        values -= how.mean
        values /= max(how.deviation, SMALLEST_DEVIATION)
    elif how.scheme == "RescaleTo01Normalization":
        values -= values.min()
        values /= max(values.max(), SMALLEST_DEVIATION)
    elif how.scheme == "RGBTo01Normalization":
        if values.min() < 0 or values.max() > 255:
            raise InputError(f"{name} has values outside of 0 to 255, where the model takes a colour photograph.")
        values /= 255.0
    return values
