"""What speaks against a run before it starts: an image that the model was not made for, a region beside it.

Looks at image, model description and options alone; nothing is loaded or computed, and nothing is refused here.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.request import ClassifyOptions, GenerateOptions, Options
from MedAILib.spec import ModelSpec
from MedAILib.volume import Geometry, Roi, Volume, closest_axes, not_finite

# Times the model's voxel spacing from which an image counts as too coarse. nnU-Net trains its networks on images made
# up to twice as coarse (its augmentation of low resolution goes down to a half), and treats an axis as a different kind
# of axis from three times on (its anisotropy threshold); 2.5 lies between.
COARSE = 2.5
# Voxels this much finer than the model's are no scanner's of the same kind: mostly a unit that was mistaken.
FINE = 10.0
# Share of the model's window below which most of what the network sees is padding. The built-in model's own training
# images go down to 0.6 of its window.
SMALL = 0.5
# Times the window from which an image is more than the crop that a model's description asks for.
LARGE = 2.0
# Share of a region of interest that has to lie in the image.
ROI_INSIDE = 0.75
FEW_VOXELS = 1000

# Hounsfield units: air is at -1000, which no other modality's values reach; beyond -3100 there is no scanner's padding.
_HU_AIR = (-1100, -800)
_HU_LOWEST = -3100
_HU_AIR_SHARE = 0.01
_HU_SPAN = 100
_SAMPLE = 1 << 20

_MODALITIES = {
    "CT": ("ct", "cbct"),
    "MR": ("mr", "mri", "mrt", "fmri"),
    "US": ("us", "ultrasound"),
    "PT": ("pt", "pet"),
    "MG": ("mg", "mammogram", "mammography"),
    "XR": ("cr", "dx", "xr", "xray", "radiograph"),
}

Severity = Literal["warning", "stop"]


@dataclass(frozen=True)
class Concern:
    """One thing that speaks against a run.

    Args:
        text: a sentence for the user: what is unusual, and what to do.
        severity: "warning": the run works, but its result may be wrong; "stop": the run will be refused.
    """

    text: str
    severity: Severity = "warning"


@dataclass(frozen=True)
class MemoryNeed:
    """Bytes that a run is estimated to take, and those that are free where it is to run."""

    needed: int
    free: int


def concerns_before_run(
    volume: Volume, spec: ModelSpec, options: Options, memory: MemoryNeed | None = None
) -> tuple[Concern, ...]:
    """Everything that speaks against this run; empty for an image that the model was made for.

    Takes about as long as copying the image.

    Args:
        volume: all channels, on the first one's grid.
        spec: the model's description.
        options: of the model's task, or to find things with a model that segments; the region counts.
        memory: None where no estimate is known.
    """
    found = list(
        _classified(volume, spec, options) if isinstance(options, ClassifyOptions) else _channels(volume, spec)
    )
    region, roi = volume, None if isinstance(options, GenerateOptions) else options.roi
    if roi is not None:
        found += _roi(volume, roi)
        try:
            region = volume.cropped(volume.geometry.box_of_roi(roi))
        except InputError as error:
            return (*found, Concern(str(error), "stop"))
    found += _values(region, spec)
    if spec.task == "segmentation":
        found += _spacing(region, spec)
        found += _extent(region, spec, roi is not None)
    if memory is not None and memory.needed > memory.free:
        found.append(
            Concern(
                f"The run needs about {_gib(memory.needed)} of memory, and {_gib(memory.free)} are free; close other "
                "programs, choose a region of interest, or let it fall back to slower ways."
            )
        )
    return tuple(found)


def _channels(volume: Volume, spec: ModelSpec) -> Iterator[Concern]:
    if volume.channels != len(spec.channels):
        plural = "" if volume.channels == 1 else "s"
        yield Concern(
            f"{volume.name} has {volume.channels} channel{plural}, the model {spec.name} takes {len(spec.channels)}: "
            f"{', '.join(spec.channels)}; give one image for each, in this order.",
            "stop",
        )


def wants_slices(volume: Volume, spec: ModelSpec, options: ClassifyOptions) -> bool:
    """Whether a model of single pictures is given a volume without a choice of its slices."""
    if spec.classes is None or spec.classes.dimensions == 3 or spec.classes.sequence or options.slices is not None:
        return False
    sizes = volume.geometry.shape_kji
    if options.box_kji is not None:
        sizes = tuple(end - first for first, end in options.box_kji)  # type: ignore[assignment]
    return 1 not in sizes


def _classified(volume: Volume, spec: ModelSpec, options: ClassifyOptions) -> Iterator[Concern]:
    """What the worker would refuse; channels that it converts are its own to tell."""
    if spec.classes is None:
        yield Concern(f"The model {spec.name} is for {spec.task}, it does not classify; choose another.", "stop")
        return
    if options.roi is None and wants_slices(volume, spec, options):
        yield Concern(
            f"{volume.name} is a volume, but the model {spec.name} takes single pictures; choose one slice, or each "
            "slice along an axis.",
            "stop",
        )
    missing = [covariate.name for covariate in spec.classes.covariates if covariate.name not in options.covariates]
    if missing:
        yield Concern(
            f"The model {spec.name} also wants numbers beside the image; {', '.join(missing)} is missing: type it, or "
            "choose a table that has it.",
            "stop",
        )


def _roi(volume: Volume, roi: Roi) -> Iterator[Concern]:
    """Whether much of a region lies beside the image; one that misses it whole is for the caller."""
    axis = (np.arange(8) + 0.5) / 8 - 0.5
    points = np.stack(np.meshgrid(axis, axis, axis), axis=-1).reshape(-1, 3) * roi.size_mm + np.array(roi.center_ras)
    ijk = volume.geometry.ijk_of(points)
    inside = ((ijk >= -0.5) & (ijk <= np.array(volume.geometry.shape_kji[::-1]) - 0.5)).all(axis=1).mean()
    if 0 < inside < ROI_INSIDE:
        yield Concern(
            f"{100 * (1 - inside):.0f} % of the region of interest lie outside of {volume.name}; move it onto the "
            "structure if this is not meant."
        )


def _values(region: Volume, spec: ModelSpec) -> Iterator[Concern]:
    bad = _not_finite(region.data)
    if bad:
        yield Concern(str(not_finite(region.name, bad)), "stop")
        return
    if region.data[0].size > 1 and all(channel.min() == channel.max() for channel in region.data):
        yield Concern(
            f"{region.name} has the value {region.data.flat[0]} in every voxel; there is nothing to see in it.", "stop"
        )
        return
    if spec.task == "segmentation" and np.prod(region.geometry.shape_kji) < FEW_VOXELS:
        yield Concern(
            f"Only {int(np.prod(region.geometry.shape_kji))} voxels of {region.name} are to be segmented; choose a "
            "larger image or region."
        )
    yield from _modality(region, spec)


def _modality(region: Volume, spec: ModelSpec) -> Iterator[Concern]:
    """By what the image says of itself, else by its values."""
    wanted, said = _family(spec.modality), _family(region.provenance.get("Modality", ""))
    if wanted is None:
        return
    if said is not None and said != wanted:
        yield Concern(
            f"{region.name} says that it is of the modality {region.provenance['Modality']}, the model {spec.name} is "
            f"for {spec.modality}; its result will probably be wrong."
        )
        return
    sample = _sample(region.data[0])
    low, high = sample.min(), sample.max()
    if wanted == "CT" and (low >= 0 or high - low < _HU_SPAN):
        yield Concern(
            f"The values of {region.name}, {low:g} to {high:g}, are no Hounsfield units (air -1000, water 0), which "
            f"the model {spec.name} wants; undo a window or an offset first."
        )
    air = ((sample >= _HU_AIR[0]) & (sample <= _HU_AIR[1])).mean()
    if wanted == "MR" and said is None and low >= _HU_LOWEST and air >= _HU_AIR_SHARE:
        yield Concern(
            f"The values of {region.name}, {low:g} to {high:g}, look like Hounsfield units of a CT, the model "
            f"{spec.name} is for {spec.modality}; its result will probably be wrong."
        )


def _spacing(region: Volume, spec: ModelSpec) -> Iterator[Concern]:
    if spec.spacing_mm is None:
        return
    own = _along_network_axes(region.geometry, spec, region.geometry.spacing_kji_mm)
    ratios = [mm / wanted for mm, wanted in zip(own, spec.spacing_mm, strict=False) if wanted > 0]
    image, model = _mm(own), _mm(spec.spacing_mm)
    if ratios and max(ratios) > COARSE:
        yield Concern(
            f"The voxels of {region.name}, {image} mm, are up to {max(ratios):.1f} times as far apart as those that "
            f"the model {spec.name} was trained on, {model} mm; its result will be coarse and may be wrong."
        )
    if ratios and min(ratios) < 1 / FINE:
        yield Concern(
            f"The voxels of {region.name}, {image} mm, are more than {FINE:g} times as fine as those that the model "
            f"{spec.name} was trained on, {model} mm; check the unit of the image's spacing."
        )


def _extent(region: Volume, spec: ModelSpec, with_roi: bool) -> Iterator[Concern]:
    if spec.patch is None:
        return
    geometry = region.geometry
    own = _along_network_axes(geometry, spec, geometry.spacing_kji_mm)
    size = [n * mm for n, mm in zip(_along_network_axes(geometry, spec, geometry.shape_kji), own, strict=True)]
    spacing = [wanted if wanted > 0 else mm for wanted, mm in zip(spec.spacing_mm or own, own, strict=False)]
    window = [n * mm for n, mm in zip(spec.patch, spacing, strict=False)]
    shares = [a / b for a, b in zip(size, window, strict=False) if b > 0]
    what = "The region of interest" if with_roi else region.name
    if shares and min(shares) < SMALL:
        yield Concern(
            f"{what} is {_mm(size)} mm large, less than half of the window of {_mm(window)} mm that the model "
            f"{spec.name} looks through; choose a larger one."
        )
    if not with_roi and shares and max(shares) > LARGE:
        for text in spec.warnings:
            if re.search(r"\b(crop|cropped|region of interest|roi)\b", text, re.IGNORECASE):
                yield Concern(f"{what} is {_mm(size)} mm large. {text}")


def _along_network_axes(geometry: Geometry, spec: ModelSpec, values_kji: tuple[Any, ...]) -> list[Any]:
    """Values of the axes K, J, I of a grid, in the order of the network's axes."""
    values_ijk = values_kji[::-1]
    if spec.orientation is None:
        return list(values_ijk)
    world = [axis for axis, _ in closest_axes(geometry.ijk_to_ras)]
    return [values_ijk[world.index("RASLPI".index(letter) % 3)] for letter in spec.orientation]


def _not_finite(data: NDArray[Any]) -> int:
    """How many voxels are NaN or infinite."""
    if data.dtype.kind != "f":
        return 0
    slabs = (data[:, k] for k in range(data.shape[1]))
    return sum(int(slab.size - np.count_nonzero(np.isfinite(slab))) for slab in slabs)


def _sample(channel: NDArray[Any]) -> NDArray[np.float64]:
    """At most about a million voxels, evenly over the image."""
    step = max(1, int(np.ceil((channel.size / _SAMPLE) ** (1 / 3))))
    return channel[::step, ::step, ::step].astype(np.float64)


def _family(text: str) -> str | None:
    """The DICOM modality that a word in a text means, if it is one of those known."""
    words = re.findall(r"[a-z]+", text.lower().replace("x-ray", "xray"))
    return next((family for family, names in _MODALITIES.items() if set(names) & set(words)), None)


def _mm(values: Any) -> str:
    return " x ".join(f"{value:.3g}" for value in values)


def _gib(count: int) -> str:
    return f"{count / 2**30:.1f} GiB"
