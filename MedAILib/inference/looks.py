"""Which parts of an image a classifier looks at: all of it, a region, single slices or frames; and their channels."""

from dataclasses import dataclass

import numpy as np

from MedAILib.errors import InputError
from MedAILib.progress import Progress
from MedAILib.request import ClassifyOptions, Slices
from MedAILib.results import Place
from MedAILib.spec import Classes
from MedAILib.volume import Volume

_AXES = "KJI"
# Weights of red, green and blue in a grey picture, as ITU-R BT.601 and Pillow have them.
_LUMINANCE = (0.299, 0.587, 0.114)


@dataclass(frozen=True)
class Look:
    """One part of an image: what it is, and its voxels.

    Args:
        place: which part of the input.
        parts: one volume, or for a sequence one for each frame.
    """

    place: Place
    parts: tuple[Volume, ...]


def looks_at(
    volume: Volume, classes: Classes, channels: int, colour: bool, options: ClassifyOptions, progress: Progress
) -> list[Look]:
    """What the model is to look at, in order.

    Args:
        volume: the image.
        classes: what the model takes: pictures or volumes, single or in sequence.
        channels: of one picture or volume.
        colour: whether three channels are red, green and blue.
        options: region, slices, frames.
        progress: is warned of slices that are left out and of channels that are converted.

    Raises:
        InputError: a volume where pictures are wanted, without a choice of slices, or the other way round; channels
            that don't suit; a slice that does not exist; nothing to see.
    """
    box = _box(volume, options)
    region = volume.cropped(box)
    if classes.sequence:
        return [_sequence(region, box, classes, channels, colour, progress)]
    if options.each_frame:
        frames = _frames(region, channels)
        looks = [Look(_place(box, "frame", n), (frame,)) for n, frame in enumerate(frames)]
        return _sliced(looks, classes, options.slices, volume, progress)
    region = with_channels(region, channels, colour, progress)
    return _sliced([Look(_place(box, "image"), (region,))], classes, options.slices, volume, progress)


def with_channels(volume: Volume, channels: int, colour: bool, progress: Progress) -> Volume:
    """The image with as many channels as the model takes; colour becomes grey and grey colour, which is said.

    Raises:
        InputError: other numbers of channels.
    """
    if volume.channels == channels:
        return volume
    picture = 1 in volume.geometry.shape_kji
    if channels == 1 and volume.channels == 3 and picture:
        progress.warn(f"{volume.name} is in colour; the model takes grey pictures, so it was converted to grey.")
        grey = np.tensordot(np.array(_LUMINANCE), volume.data.astype(np.float64), axes=1)[None]
        return Volume(grey.astype(np.float32), volume.geometry, volume.name, volume.provenance)
    if channels == 3 and volume.channels == 1 and colour:
        progress.warn(f"{volume.name} is grey; the model takes colour pictures, so each colour got the grey values.")
        return Volume(np.repeat(volume.data, 3, axis=0), volume.geometry, volume.name, volume.provenance)
    raise InputError(
        f"{volume.name} has {volume.channels} channel{'s'[: volume.channels != 1]}, but the model takes {channels}; "
        "give one image per channel in the model's order."
    )


def _box(volume: Volume, options: ClassifyOptions) -> tuple[slice, slice, slice]:
    if options.roi is not None:
        return volume.geometry.box_of_roi(options.roi)
    if options.box_kji is None:
        k, j, i = volume.geometry.shape_kji
        return slice(0, k), slice(0, j), slice(0, i)
    sides = list(zip(options.box_kji, volume.geometry.shape_kji, strict=True))
    if not all(0 <= first < end <= size for (first, end), size in sides):
        raise InputError(f"The region {options.box_kji} is no box of voxels of {volume.name}.")
    (k0, k1), (j0, j1), (i0, i1) = options.box_kji
    return slice(k0, k1), slice(j0, j1), slice(i0, i1)


def _place(box: tuple[slice, slice, slice], what: str, index: int | None = None) -> Place:
    return Place(what, tuple((part.start, part.stop) for part in box), index)


def _frames(region: Volume, channels: int) -> list[Volume]:
    """The frames of a volume whose channels are, frame after frame, the model's channels."""
    if region.channels % channels:
        raise InputError(
            f"{region.name} has {region.channels} channels, which are no frames of {channels}, as the model takes them."
        )
    starts = range(0, region.channels, channels)
    return [Volume(region.data[n : n + channels], region.geometry, region.name, region.provenance) for n in starts]


def _sequence(
    region: Volume, box: tuple[slice, slice, slice], classes: Classes, channels: int, colour: bool, progress: Progress
) -> Look:
    """All frames at once, or as many of them as the model was taught with.

    Frames are channels, or for a model of pictures the slices of a volume along K.
    """
    k, j, i = region.geometry.shape_kji
    if classes.dimensions == 2 and k > 1:
        if region.channels not in (1, 3, channels):
            raise InputError(
                f"{region.name} is a sequence of volumes of {k} x {j} x {i} voxels (K, J, I), but the model takes "
                "sequences of pictures; give a sequence of one slice."
            )
        parts = [region.cropped((slice(n, n + 1), slice(0, j), slice(0, i))) for n in range(k)]
        told = [progress] + [Progress()] * (k - 1)  # of colours that are converted, once
        parts = [with_channels(part, channels, colour, told[n]) for n, part in enumerate(parts)]
    else:
        parts = _frames(region, channels)
    if len(parts) < 2:
        raise InputError(f"{region.name} is a single frame, but the model takes a sequence; give all its frames.")
    if classes.dimensions == 3 and 1 in region.geometry.shape_kji:
        raise InputError(f"{region.name} is a sequence of pictures, but the model takes sequences of volumes.")
    return Look(_place(box, "image"), tuple(parts[n] for n in frames_taken(len(parts), classes.frames)))


def frames_taken(count: int, wanted: int) -> list[int]:
    """Which of a sequence's frames a model takes: `wanted` of them from the first to the last, evenly spaced.

    Of a sequence with fewer frames some are taken twice or more; all are taken once where `wanted` is 0.
    """
    if not wanted:
        return list(range(count))
    return [int(n) for n in np.floor(np.linspace(0, count - 1, wanted) + 0.5)]


def _sliced(
    looks: list[Look], classes: Classes, slices: Slices | None, volume: Volume, progress: Progress
) -> list[Look]:
    """Each look cut to the slices that a model of pictures is to see; a model of volumes sees it whole."""
    shape = looks[0].parts[0].geometry.shape_kji
    if classes.dimensions == 3:
        if slices is not None:
            raise InputError("The model takes whole volumes, not single slices; leave the choice of slices out.")
        if 1 in shape:
            raise InputError(f"{volume.name} is a single slice there, but the model takes volumes.")
        return looks
    if slices is None:
        if 1 not in shape:
            raise InputError(
                f"{volume.name} is a volume of {' x '.join(str(n) for n in shape)} voxels (K, J, I), but the model "
                "takes single pictures; choose one slice (--slice K 12) or each slice along an axis (--each-slice K)."
            )
        return looks
    if looks[0].place.what == "frame" and slices.index is None:
        raise InputError("Each slice of each frame is too much at once; choose one slice, or take single frames.")
    cut = [found for look in looks for found in _cut(look, slices, volume)]
    if slices.index is not None:
        return cut
    seen = [look for look in cut if any(channel.min() != channel.max() for channel in look.parts[0].data)]
    if not seen:
        raise InputError(f"{volume.name} has the same value everywhere in each slice; there is nothing to see in it.")
    if len(seen) < len(cut):
        progress.warn(f"{len(cut) - len(seen)} slices of {volume.name} show nothing and were left out.")
    return seen


def _cut(look: Look, slices: Slices, volume: Volume) -> list[Look]:
    axis = _AXES.index(slices.axis)
    first, end = look.place.box_kji[axis]
    if slices.index is not None and not first <= slices.index < end:
        raise InputError(
            f"{volume.name} has no slice {slices.axis} {slices.index} there; there are {first} to {end - 1}, counted "
            "from 0."
        )
    numbers = range(first, end) if slices.index is None else (slices.index,)
    spacing = volume.geometry.spacing_kji_mm[axis]
    found = []
    for number in numbers:
        part = look.parts[0]
        box = [slice(0, size) for size in part.geometry.shape_kji]
        box[axis] = slice(number - first, number - first + 1)
        sides = list(look.place.box_kji)
        sides[axis] = (number, number + 1)
        place = Place("slice", tuple(sides), number, slices.axis, number * spacing)
        if look.place.what == "frame":
            place = Place("frame", tuple(sides), look.place.index)
        found.append(Look(place, (part.cropped((box[0], box[1], box[2])),)))
    return found
