"""Images with a class each: a MedMNIST file, a folder for each class, or a CSV; which there are, and what is wrong.

What is done with them is not decided here.
"""

import csv
import hashlib
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError, MedAIError
from MedAILib.files.clips import is_clip_folder, read_clip
from MedAILib.files.dicom_find import is_dicom
from MedAILib.files.images import read_image
from MedAILib.progress import Progress
from MedAILib.training.cases import IMAGE_ENDINGS, Fault, require_faultless
from MedAILib.volume import Geometry, Volume

SPLITS = ("train", "val", "test")
MADE = "made"  # the part of those that a generator made: to learn from, never to judge by
ENDINGS = IMAGE_ENDINGS
SHOWN = 3
NO_CHANNELS = -1  # of an image that can't be read
_OTHER_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
_SPLIT_COLUMNS = ("split", "set")
_LABEL_COLUMNS = ("label", "class")
_PATH_COLUMNS = ("path", "file", "image")
_PATIENT_COLUMNS = ("patient", "patient_id", "subject")


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One image and what it is said to show.

    Args:
        name: how reports call it; unique.
        label: as the data has it.
        split: "train", "val" or "test"; empty where the data has no parts; `MADE` for what a generator made.
        source: the file that it lies in.
        array: its voxels where the file holds many images: (H, W), (H, W, 3) or (D, H, W); None for a file of its own.
        patient: whose image it is; empty where that is not told.
        sequence: its file is a clip, or it is a folder with a picture for each frame.
    """

    name: str
    label: str
    split: str
    source: Path
    array: NDArray[Any] | None = None
    patient: str = ""
    sequence: bool = False


def find_labelled_images(data: Path, sequences: bool = False) -> tuple[LabelledImage, ...]:
    """List the labelled images of a MedMNIST `.npz`, a CSV of path and label, or a folder with a folder per class.

    A CSV names its columns in its first line (path and label; perhaps split and patient), or has a path and a label in
    each line and nothing else; paths count from its folder.
    A folder may have `train`, `val` and `test` with the classes' folders in them. Where clips are wanted (`sequences`),
    a folder in a class's folder that holds pictures is one: its frames. Else a DICOM file in a class's folder is an
    image, and a folder of DICOM files in it another: their series.

    Raises:
        InputError: it is none of these, or is damaged or incomplete; the sentence names the file.
    """
    if sequences:
        return tuple(replace(image, sequence=True) for image in _find(data, _clips_of_class))
    return _find(data, _images_of_class)


def _find(data: Path, files_of_class: Callable[[Path], Iterator[Path]]) -> tuple[LabelledImage, ...]:
    if data.is_dir():
        return _of_folder(data, files_of_class)
    if not data.is_file():
        raise InputError(f"{data} does not exist; give a MedMNIST .npz, a .csv of path and label, or a folder.")
    if data.suffix.lower() == ".npz":
        return _of_npz(data)
    if data.suffix.lower() == ".csv":
        return _of_csv(data)
    raise InputError(f"{data} holds no labelled images: give a MedMNIST .npz, a .csv of path and label, or a folder.")


def numbered(images: Sequence[LabelledImage], labels: Mapping[str, Sequence[str]]) -> NDArray[np.int64]:
    """Each image's class, as its place in `labels` (class name: what data may call it).

    A class's own name counts too, whatever its case and its dashes; where nothing else is told, so does its number.

    Raises:
        InputError: a label that is no class's; the sentence names its images.
    """
    known: dict[str, int] = {}
    for number, (name, told) in enumerate(labels.items()):
        known |= {_plain(text): number for text in (name, *told)}
    if not any(_plain(text) != _plain(name) for name, told in labels.items() for text in told):
        known |= {str(number): number for number in range(len(labels)) if str(number) not in known}
    unknown = [image for image in images if _plain(image.label) not in known]
    if unknown:
        raise InputError(
            f"The label '{unknown[0].label}' of {_listed(image.name for image in unknown)} is none of the classes: "
            + "; ".join(f"{name} ({', '.join(told)})" for name, told in labels.items())
            + "."
        )
    return np.array([known[_plain(image.label)] for image in images], dtype=np.int64)


def read_labelled(image: LabelledImage, progress: Progress | None = None) -> Volume:
    """The image as a volume; pictures of an archive lie as those of a PNG do.

    Raises:
        InputError: its file can't be read.
    """
    if image.array is None:
        return (read_clip if image.sequence else read_image)(image.source, None, progress)
    array = image.array
    if array.ndim == 3 and array.shape[-1] == 3 and array.shape[0] != 3:
        data = np.moveaxis(array, -1, 0)[:, None]
    else:
        data = array[None, None] if array.ndim == 2 else array[None]
    data = np.ascontiguousarray(data)
    return Volume(data, Geometry(data.shape[1:], np.diag((-1.0, -1.0, 1.0, 1.0))), image.name)


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
        numbers: their classes, as `numbered` has them.
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
        elif numbers[other] != numbers[number]:
            text = (
                f"{first.name} and {image.name} are the same image under two labels, {first.label} and {image.label}; "
                "correct one."
            )
            faults.append(Fault(image.name, text))
        else:
            twice.append(image.name)
    progress.step(len(images), len(images), "Checking")
    require_faultless([*faults, *_patient_faults(images)])
    _check_channels(images, channels)
    if twice:
        progress.warn(
            f"{len(twice)} images are there twice: {_listed(twice)}; they count twice, and stay in one fold together."
        )
    counts = [int((numbers == n).sum()) for n in range(len(names))]
    if 0 < min(counts) * 10 < max(counts):  # a class without images is an error of its own
        balance = ", ".join(f"{count} {name}" for name, count in zip(names, counts, strict=True))
        progress.warn(f"The classes differ much in size: {balance}.")


def require_classes(numbers: NDArray[np.int64], names: Sequence[str], where: str, least: int = 1) -> None:
    """Raise `InputError` unless there are at least `least` images of every class."""
    counts = Counter(numbers.tolist())
    few = [name for number, name in enumerate(names) if counts[number] < least]
    if len(counts) < 2:
        raise InputError(f"{where} has images of one class only; there must be some of {', '.join(names)}.")
    if few:
        raise InputError(
            f"{where} has {counts[list(names).index(few[0])]} images of {few[0]}, and at least {least} are needed."
        )


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


def _check_channels(images: Sequence[LabelledImage], channels: Sequence[int]) -> None:
    usual = Counter(channels).most_common(1)[0][0]
    others = [image.name for image, count in zip(images, channels, strict=True) if count != usual]
    if others:
        raise InputError(f"{_listed(others)} have not {usual} channels as the others; convert or take them out.")


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


def _of_npz(path: Path) -> tuple[LabelledImage, ...]:
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{path} can't be read as a MedMNIST file: {error}.") from error
    found: list[LabelledImage] = []
    for split in SPLITS:
        images, labels = (arrays.get(f"{split}_{what}") for what in ("images", "labels"))
        if images is None and labels is None:
            continue
        if images is None or labels is None or len(images) != len(labels):
            raise InputError(
                f"{path} has {0 if images is None else len(images)} images and {0 if labels is None else len(labels)} "
                f"labels for {split}; there must be one label for each image."
            )
        flat = labels.reshape(len(labels), -1)
        if flat.shape[1] != 1 or labels.dtype.kind not in "biuU":
            raise InputError(
                f"{path} has {flat.shape[1]} labels of the type {labels.dtype} for each image of {split}; one whole "
                "number or name for each is wanted."
            )
        if images.ndim not in (3, 4) or images.dtype.kind not in "biuf":
            raise InputError(f"{path} has {split}_images of shape {images.shape}, which are no pictures or volumes.")
        found += [
            LabelledImage(f"{split}_{number:04d}", str(label), split, path, array)
            for number, (array, label) in enumerate(zip(images, flat[:, 0].tolist(), strict=True))
        ]
    if not found:
        raise InputError(f"{path} is no MedMNIST file: it has no train_images and train_labels, or val or test ones.")
    return tuple(found)


def _images_of_class(folder: Path) -> Iterator[Path]:
    """Files of images, single DICOM files among them, and folders below that hold a DICOM series each."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and _holds_series(path):
            yield path
        elif path.is_dir():
            yield from _images_of_class(path)
        elif path.name.lower().endswith((*ENDINGS, ".dcm")):
            yield path


def _holds_series(folder: Path) -> bool:
    """Whether DICOM files lie directly in a folder, and no images of other kinds."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith(".")]
    if any(path.name.lower().endswith(ENDINGS) for path in files):
        return False
    return any(looks_like_dicom(path) for path in files)


def looks_like_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do; one that can't be read does not."""
    try:
        return is_dicom(path)
    except OSError:
        return False


def _clips_of_class(folder: Path) -> Iterator[Path]:
    """Files of clips, and folders of frames; a picture beside them is told to be a single frame when it is read."""
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            continue
        if path.is_dir() and is_clip_folder(path):
            yield path
        elif path.is_dir():
            yield from _clips_of_class(path)
        elif path.name.lower().endswith((*ENDINGS, ".dcm")):
            yield path


def _of_folder(folder: Path, files_of_class: Callable[[Path], Iterator[Path]]) -> tuple[LabelledImage, ...]:
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    splits = {path: _split(path.name) for path in inside}
    if inside and all(splits[path] in SPLITS for path in inside):
        classes = [(path, splits[part]) for part in inside for path in sorted(part.iterdir()) if path.is_dir()]
    else:
        classes = [(path, "") for path in inside]
    found = [
        LabelledImage(file.relative_to(folder).as_posix(), path.name, split, file)
        for path, split in classes
        for file in files_of_class(path)
    ]
    if not found:
        raise InputError(f"{folder} holds no images in folders, one folder for each class.")
    empty = [path for path, _ in classes if not any(image.source.is_relative_to(path) for image in found)]
    if empty:
        raise InputError(f"The folder {empty[0]} stands for a class, but holds no image; fill or remove it.")
    return tuple(found)


def _of_csv(path: Path) -> tuple[LabelledImage, ...]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            first = next(csv.reader(stream), [])
            stream.seek(0)
            # Without a first line of names: paths and labels alone.
            bare = len(first) == 2 and (path.parent / first[0].strip()).is_file()
            reader = csv.DictReader(stream, ("path", "label") if bare else None)
            columns = {(name or "").strip().lower(): name for name in reader.fieldnames or ()}
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as a table: {error}.") from error

    def column(names: Sequence[str]) -> str | None:
        return next((columns[name] for name in names if name in columns), None)

    files, labels = column(_PATH_COLUMNS), column(_LABEL_COLUMNS)
    if files is None or labels is None:
        raise InputError(f"{path} needs the columns path and label in its first line; it has {', '.join(columns)}.")
    splits, patients = column(_SPLIT_COLUMNS), column(_PATIENT_COLUMNS)
    found = []
    for number, row in enumerate(rows, start=1 if bare else 2):
        name, label = (row[files] or "").strip(), (row[labels] or "").strip()
        if not name or not label:
            raise InputError(f"Line {number} of {path} has no {'label' if name else 'path'}.")
        split = _split((row[splits] or "").strip()) if splits else ""
        if split not in ("", *SPLITS):
            raise InputError(f"Line {number} of {path} has the split '{split}', which is none of {', '.join(SPLITS)}.")
        source = path.parent / name
        if not source.exists():
            raise InputError(f"Line {number} of {path} names {source}, which does not exist.")
        patient = (row[patients] or "").strip() if patients else ""
        found.append(LabelledImage(name, label, split, source, None, patient))
    if not found:
        raise InputError(f"{path} names no image.")
    double = [name for name, count in Counter(image.name for image in found).items() if count > 1]
    if double:
        raise InputError(f"{path} names {_listed(double)} more than once; give each image one line.")
    return tuple(found)


def part_of(images: Sequence[LabelledImage], splits: Sequence[str]) -> tuple[LabelledImage, ...]:
    """Those of some parts; all where the data has no parts."""
    if not any(image.split for image in images):
        return tuple(images)
    return tuple(image for image in images if image.split in splits)


def without_parts(images: Iterable[LabelledImage]) -> tuple[LabelledImage, ...]:
    """The same images, their parts forgotten."""
    return tuple(replace(image, split="") for image in images)


def _split(text: str) -> str:
    plain = text.strip().lower()
    return _OTHER_NAMES.get(plain, plain)


def _plain(text: str) -> str:
    return " ".join(re.split(r"[\s_,/-]+", text.casefold().strip()))


def _listed(names: Iterable[str]) -> str:
    every = list(names)
    return ", ".join(every[:SHOWN]) + (f" and {len(every) - SHOWN} more" if len(every) > SHOWN else "")
