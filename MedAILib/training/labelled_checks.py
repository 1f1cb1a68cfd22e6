"""What is wrong with labelled images, seen before anything is learnt from them or evaluated on them."""

import hashlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError, MedAIError
from MedAILib.progress import Progress
from MedAILib.training.cases import Fault, require_faultless
from MedAILib.training.labelled_images import LabelledImage, listed_names, read_labelled
from MedAILib.volume import Volume

NO_CHANNELS = -1  # of an image that can't be read


def check_images(
    images: Sequence[LabelledImage],
    numbers: NDArray[np.int64],
    names: Sequence[str],
    dimensions: int,
    progress: Progress,
) -> None:
    """Read every image and see that together they can be learnt from or evaluated on.

    What speaks against the data but need not stop the work (the same image twice in one part, two classes of very
    different size) is told to `progress`.

    Args:
        images: to check.
        numbers: their classes, as `truth_of` has them.
        names: the classes.
        dimensions: 2 for pictures, 3 for volumes (of each frame, where the images are sequences).
        progress: is told of each image and warned.

    Raises:
        InputError: an image that can't be read, of other dimensions or with other numbers of channels, of one value
            everywhere or with values that are none; the same image or patient in two parts or under two labels.
    """
    channels: list[int] = []
    seen: dict[str, int] = {}
    twice: list[str] = []
    faults: list[Fault] = []
    for number, image in enumerate(images):
        progress.step(number, len(images), f"Checking {image.name}")
        try:
            volume = read_labelled(image, progress)
            _check_one(image, volume, dimensions)
        except MedAIError as error:
            faults.append(Fault(image.name, str(error)))
            channels.append(NO_CHANNELS)
            continue
        channels.append(0 if image.sequence else volume.channels)  # a sequence's are as many as it has frames
        key = hashlib.sha256(f"{volume.data.shape}{volume.data.dtype}".encode() + volume.data.tobytes()).hexdigest()
        other = seen.setdefault(key, number)
        if other == number:
            continue
        first = images[other]
        if first.split != image.split:
            text = (
                f"{first.name} and {image.name} are the same image, one for {first.split}, the other for "
                f"{image.split}; keep one, since figures on images that were learnt from mean nothing."
            )
            faults.append(Fault(image.name, text))
        elif not np.array_equal(numbers[other], numbers[number]):
            text = (
                f"{first.name} and {image.name} are the same image under two labels, {first.label or 'none'} and "
                f"{image.label or 'none'}; correct one."
            )
            faults.append(Fault(image.name, text))
        else:
            twice.append(image.name)
    progress.step(len(images), len(images), "Checking")
    require_faultless([*faults, *_patient_faults(images)])
    _check_channels(images, channels, dimensions, progress)
    if twice:
        progress.warn(
            f"{len(twice)} images are there twice: {listed_names(twice)}; they count twice, and stay in one fold "
            "together."
        )
    counts = class_counts(numbers, len(names))
    if 0 < min(counts) * 10 < max(counts):  # a class without images is an error of its own
        balance = ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))
        progress.warn(f"The classes differ much in size: {balance}.")


def class_counts(numbers: NDArray[np.int64], classes: int) -> list[int]:
    """How many images each class has, from numbers (N,) or from ones and zeros (N, classes)."""
    if numbers.ndim == 2:
        return [int(count) for count in numbers.sum(axis=0)]
    return [int((numbers == number).sum()) for number in range(classes)]


def _check_one(image: LabelledImage, volume: Volume, dimensions: int) -> None:
    if image.sequence:
        _check_frames(image, volume, dimensions)
    elif (1 in volume.geometry.shape_kji) != (dimensions == 2):
        shape = " x ".join(str(n) for n in volume.geometry.shape_kji)
        what = "pictures" if dimensions == 2 else "volumes"
        raise InputError(f"{image.name} is of {shape} voxels (K, J, I), but {what} are wanted; take it out.")
    if volume.data.dtype.kind == "f" and not np.isfinite(volume.data).all():
        raise InputError(f"{image.name} has values that are not finite (NaN); mend the image or take it out.")
    if volume.data.min() == volume.data.max():
        raise InputError(f"{image.name} has the same value everywhere, so that nothing can be seen in it; take it out.")


def _check_frames(image: LabelledImage, volume: Volume, dimensions: int) -> None:
    """Raise `InputError` for what is no sequence, or one of the other kind of frames."""
    k, slices = volume.channels, volume.geometry.shape_kji[0]
    shape = " x ".join(str(n) for n in volume.data.shape)
    if dimensions == 2 and slices > 1 and k not in (1, 3):
        raise InputError(
            f"{image.name} is a sequence of volumes ({shape}: frames, K, J, I), but sequences of pictures are wanted; "
            "take it out."
        )
    if dimensions == 3 and 1 in volume.geometry.shape_kji:
        raise InputError(
            f"{image.name} is a sequence of pictures ({shape}: frames, K, J, I), but sequences of volumes are wanted; "
            "take it out."
        )
    if max(k, slices if dimensions == 2 else 1) < 2:
        raise InputError(
            f"{image.name} is a single frame ({shape}: frames, K, J, I), but sequences are wanted; give all its frames "
            "in one file, the last axis time, or in a folder of its own, a picture for each."
        )


def _check_channels(
    images: Sequence[LabelledImage], channels: Sequence[int], dimensions: int, progress: Progress
) -> None:
    """Raise `InputError` where images differ in channels; of pictures grey and colour ones are only told of."""
    if dimensions == 2 and set(channels) == {1, 3}:
        progress.warn(
            f"{channels.count(1)} pictures are grey and {channels.count(3)} in colour; those that are not as the model "
            "takes them are converted."
        )
        return
    usual = Counter(channels).most_common(1)[0][0]
    others = [image.name for image, count in zip(images, channels, strict=True) if count != usual]
    if others:
        raise InputError(f"{listed_names(others)} have not {usual} channels as the others; convert or take them out.")


def _patient_faults(images: Sequence[LabelledImage]) -> list[Fault]:
    """Patients in two parts of the data, each told once."""
    parts: dict[str, LabelledImage] = {}
    faults: dict[str, Fault] = {}
    for image in images:
        if image.patient and (first := parts.setdefault(image.patient, image)).split != image.split:
            text = (
                f"Images of the patient {image.patient} are in two parts of the data: {first.name} is for "
                f"{first.split}, {image.name} for {image.split}; keep each patient in one."
            )
            faults.setdefault(image.patient, Fault(image.name, text))
    return list(faults.values())
