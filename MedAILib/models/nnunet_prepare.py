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
from MedAILib.inference.place import CPU, by_cpu, floats_on, mean_and_deviation
from MedAILib.inference.prepare import require_possible
from MedAILib.inference.spline import clip_in_place
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

    def ordered(self, values: Tensor) -> Tensor:
        """A tensor (C, K, J, I) in the order of the network's axes, not yet in their direction: nothing is moved."""
        return values.permute(0, *(axis + 1 for axis in self.order))

    def flipped(self, box: Box, shape: Sequence[int]) -> Box:
        """A box of what `ordered` gives, of so many voxels, in the direction of the network's axes; and back."""
        x, y, z = (
            slice(size - part.stop, size - part.start) if axis in self.flips else part
            for axis, (part, size) in enumerate(zip(box, shape, strict=True))
        )
        return x, y, z

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
    volume: Volume,
    plan: NnunetPlan,
    view: View,
    labels: NDArray[Any] | None,
    progress: Progress,
    device: torch.device = CPU,
) -> Prepared:
    """Crop to what is not zero, normalise, resample; add a previous stage's labels as channels of 0 and 1.

    Args:
        volume: the image.
        plan: what to do.
        view: of the image, see `view_of`.
        labels: (K, J, I), the previous stage's, for a cascade.
        progress: told of each channel; may cancel between two.
        device: where it is done; on the CPU with nnU-Net's own values to the bit, elsewhere but for rounding.

    Raises:
        InputError: an RGB image with values outside 0 to 255.
        ModelError: the network wants more voxels than can be.
        Cancelled: by `progress`.
    """
    data = view.ordered(floats_on(volume.data, device))
    inside = data[0].bool()
    for channel in data[1:]:
        inside |= channel.bool()
    crop = _box(inside)
    box, inside = view.flipped(crop, inside.shape), inside[crop]
    if labels is not None or any(one.masked for one in plan.normalizations):
        # Slow on large images; the box is the same without.
        inside = by_cpu(lambda mask: torch.from_numpy(ndimage.binary_fill_holes(mask.numpy())), inside)
    stage = None
    if labels is not None:
        stage = view.of(labels[None])[0][box].astype(np.int16)
        known = inside.flip(view.flips).cpu().numpy()
        stage[(stage == 0) & ~known] = OUTSIDE
        inside = torch.from_numpy(stage >= 0).flip(view.flips).to(device)
    spacing = tuple(volume.geometry.spacing_kji_mm[axis] for axis in view.order)
    wanted = plan.spacing_mm if len(plan.spacing_mm) == 3 else (spacing[0], *plan.spacing_mm)
    how = plan.image_resampling
    old = tuple(int(n) for n in inside.shape)
    shape = resampled_shape(old, spacing, wanted, how)
    require_possible(shape)
    channels = [] if stage is None else list(plan.stage_values)
    image = torch.empty((len(plan.channels) + len(channels), *shape), device=device)
    axis = separate_axis(how, spacing, wanted)
    for number, normalization in enumerate(plan.normalizations):
        progress.step(number, len(plan.normalizations), "Preparing")
        values = _normalized(data[number][crop], inside, normalization, view.flips, volume.name)
        image[number] = resample_image(values.flip(view.flips) if view.flips else values, shape, axis, how)
    if stage is not None:
        axis = separate_axis(plan.label_resampling, spacing, wanted)
        there = resample_labels(stage, shape, axis, plan.label_resampling)
        for number, value in enumerate(channels):
            image[len(plan.channels) + number] = torch.from_numpy(there == value).to(device)
    return Prepared(image, _frame(old, shape), box, _stepped(plan, wanted, spacing))


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


def _box(mask: Tensor) -> Box:
    """The smallest box that holds a mask (X, Y, Z); all of it where it is empty."""
    marks = mask.view(torch.uint8)  # bytes have the faster maximum
    seen = marks.amax(dim=0)
    sides = []
    for line in (marks.amax(dim=(1, 2)), seen.amax(dim=1), seen.amax(dim=0)):
        found = torch.nonzero(line)
        sides.append(slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, len(line)))
    x, y, z = sides
    return x, y, z


def _normalized(values: Tensor, inside: Tensor, how: Normalization, flips: tuple[int, ...], name: str) -> Tensor:
    """One channel (X, Y, Z), in the axes' order and not yet in their direction (`flips`); may be changed in place."""
    if how.scheme == "ZScoreNormalization":
        mean, deviation = _mean_and_deviation(values, inside if how.masked else None, flips)
        deviation = max(deviation, SMALLEST_DEVIATION)
        if how.masked:
            return torch.where(inside, (values - mean).div_(deviation), values)
        return values.sub_(mean).div_(deviation)
    if how.scheme == "CTNormalization":
        clipped = clip_in_place(values, *torch.tensor(how.bounds, device=values.device))
        return clipped.sub_(how.mean).div_(max(how.deviation, SMALLEST_DEVIATION))
    if how.scheme == "RescaleTo01Normalization":
        values.sub_(values.min())
        return values.div_(max(float(values.max()), SMALLEST_DEVIATION))
    if how.scheme == "RGBTo01Normalization":
        if values.min() < 0 or values.max() > 255:
            raise InputError(f"{name} has values outside of 0 to 255, where the model takes a colour photograph.")
        return values.div_(255.0)
    return values


def _mean_and_deviation(values: Tensor, inside: Tensor | None, flips: tuple[int, ...]) -> tuple[float, float]:
    """Of all values, or of those inside."""
    if values.device.type == "cpu":
        # A view of the copy in the image's own order of axes: summed as nnU-Net sums it, to the bit.
        part = np.flip(values.numpy(), flips)
        if inside is not None:
            part = part[np.flip(inside.numpy(), flips)]
        return float(part.mean()), float(part.std())
    if inside is None:
        deviation, mean = torch.std_mean(values, correction=0)
        return float(mean), float(deviation)
    return mean_and_deviation(values, inside)
