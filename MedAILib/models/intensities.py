"""MONAI's changes of values on the device where an image is.

On the CPU they are MONAI's own. Elsewhere some of these would walk through the CPU, take many times the image's memory,
or round as a GPU's convolutions do; these are done here, with the same numbers but for rounding. What the CPU alone can
do fetches the image and puts it back.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from monai.networks.layers import GaussianFilter
from monai.transforms import (
    ClipIntensityPercentiles,
    GaussianSmooth,
    HistogramNormalize,
    MedianSmooth,
    NormalizeIntensity,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
)
from monai.transforms.utils import soft_clip
from torch import Tensor

from MedAILib.inference.place import by_cpu, mean_and_deviation

Change = Callable[[Any], Any]


def anywhere(transform: Change) -> Change:
    """A transform of an image (C, ...) as a function that works on any device."""
    elsewhere = _elsewhere(transform)
    return lambda image: transform(image) if image.device.type == "cpu" else elsewhere(image)


def _elsewhere(transform: Change) -> Change:
    """A transform as it is done on a GPU."""
    if isinstance(transform, ClipIntensityPercentiles):
        return partial(_each, transform.channel_wise, partial(_clipped, transform))
    if isinstance(transform, ScaleIntensityRangePercentiles):
        return partial(_each, transform.channel_wise, partial(_scaled, transform))
    if isinstance(transform, GaussianSmooth):
        return partial(_smoothed, transform)
    if isinstance(transform, NormalizeIntensity) and transform.nonzero and not _has_numbers(transform):
        return partial(_each, transform.channel_wise, _normalized)
    return partial(by_cpu, transform) if _is_for_cpu(transform) else transform


def _is_for_cpu(transform: Change) -> bool:
    """Whether a transform is NumPy's or ITK's, or takes many times the image's memory.

    A median is one of convolutions, which a GPU rounds.
    """
    masked = isinstance(transform, NormalizeIntensity) and transform.nonzero
    own = not type(transform).__module__.startswith("monai.")
    return own or masked or isinstance(transform, (HistogramNormalize, MedianSmooth))


def _has_numbers(transform: NormalizeIntensity) -> bool:
    """Whether it is told what to subtract or divide by."""
    return transform.subtrahend is not None or transform.divisor is not None


def _each(channel_wise: bool, change: Change, image: Tensor) -> Tensor:
    return torch.stack([change(channel) for channel in image]) if channel_wise else change(image)


def _scaled(transform: ScaleIntensityRangePercentiles, image: Tensor) -> Tensor:
    ends = (transform.b_min, transform.b_max)
    if transform.relative and transform.b_min is not None and transform.b_max is not None:
        width = transform.b_max - transform.b_min
        ends = (transform.b_min + width * transform.lower / 100, transform.b_min + width * transform.upper / 100)
    low, high = (percentile(image, share) for share in (transform.lower, transform.upper))
    return torch.as_tensor(ScaleIntensityRange(low, high, *ends, clip=transform.clip, dtype=transform.dtype)(image))


def _clipped(transform: ClipIntensityPercentiles, image: Tensor) -> Tensor:
    low, high = (None if at is None else percentile(image, at) for at in (transform.lower, transform.upper))
    if transform.sharpness_factor is None:
        return image.clamp(low, high)
    return torch.as_tensor(soft_clip(image, transform.sharpness_factor, low, high, transform.dtype))


def percentile(values: Tensor, share: float) -> float:
    """The value below which a share (0 to 100) of all lies, as NumPy has it: linear between two of them."""
    flat = values.flatten()
    place = share / 100 * (len(flat) - 1)
    low = min(int(place), len(flat) - 1)
    lower = float(flat.kthvalue(low + 1).values)
    if place == low:
        return lower
    return lower + (place - low) * (float(flat.kthvalue(low + 2).values) - lower)


def _normalized(image: Tensor) -> Tensor:
    """What is not 0 brought to a mean of 0 and a deviation of 1."""
    mean, deviation = mean_and_deviation(image, image != 0)
    return torch.where(image != 0, (image - mean).div_(deviation or 1.0), image)


def _smoothed(transform: GaussianSmooth, image: Tensor) -> Tensor:
    """In float64, since a GPU's convolutions of float32 round their input."""
    sigma = transform.sigma if isinstance(transform.sigma, (list, tuple)) else [transform.sigma] * (image.ndim - 1)
    places = [torch.as_tensor(one, dtype=torch.float32).to(image.device) for one in sigma]
    blurred = [
        GaussianFilter(image.ndim - 1, places, approx=transform.approx)(channel.double()[None, None])[0, 0].float()
        for channel in image
    ]
    return torch.stack(blurred)
