"""Images with a class each, or several labels: a MedMNIST file, a folder for each class, or a CSV; what is wrong there.

What is done with them is not decided here.
"""

import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.files.clips import is_clip_folder, read_clip
from MedAILib.files.dicom_find import is_dicom
from MedAILib.files.images import read_image
from MedAILib.progress import Progress
from MedAILib.training.cases import IMAGE_ENDINGS
from MedAILib.training.labelled_patients import told_patients
from MedAILib.training.several_labels import (
    SEPARATOR,
    label_columns,
    labels_of_columns,
    labels_of_rows,
    listed,
    one_spelling,
    require_one_layout,
    single_labels,
)
from MedAILib.training.tables import column_of, first_row, read_table
from MedAILib.volume import Geometry, Volume

SPLITS = ("train", "val", "test")
MADE = "made"  # the part of those that a generator made: to learn from, never to judge by
ENDINGS = IMAGE_ENDINGS
SHOWN = 3
_OTHER_NAMES = {"training": "train", "validation": "val", "valid": "val", "testing": "test"}
_SPLIT_COLUMNS = ("split", "set")
_LABEL_COLUMNS = ("label", "labels", "class")
_PATH_COLUMNS = ("path", "file", "image")
_PATIENT_COLUMNS = ("patient", "patient_id", "subject")


@dataclass(frozen=True, eq=False)
class LabelledImage:
    """One image and what it is said to show.

    Args:
        name: how reports call it; unique.
        label: as the data has it; several with `SEPARATOR` between them.
        split: "train", "val" or "test"; empty where the data has no parts; `MADE` for what a generator made.
        source: the file that it lies in.
        array: its voxels where the file holds many images: (H, W), (H, W, 3) or (D, H, W); None for a file of its own.
        patient: whose image it is; empty where that is not told.
        sequence: its file is a clip, or it is a folder with a picture for each frame.
        labels: where an image may have several, those that it has; None where it has the one `label`.
        among: all labels that the data tells of, where it has a column for each; else empty.
        told_in: where its labels stand, such as "line 5 of labels.csv"; empty where that is its folder.
    """

    name: str
    label: str
    split: str
    source: Path
    array: NDArray[Any] | None = None
    patient: str = ""
    sequence: bool = False
    labels: tuple[str, ...] | None = None
    among: tuple[str, ...] = ()
    told_in: str = ""


def find_labelled_images(data: Path, sequences: bool = False, several: bool | None = None) -> tuple[LabelledImage, ...]:
    """List the labelled images of a MedMNIST `.npz`, a CSV of path and label, or a folder with a folder per class.

    A CSV names its columns in its first line (path and label; perhaps split and patient), or has a path and a label in
    each line and nothing else; paths count from its folder. Several labels for an image are a row of zeros and ones
    for each in an archive, a column of zeros and ones for each in a CSV, or names with ";" between them in its column
    label; an image may have none of them. Between its cells may stand semicolons or tabs, too.
    Labels that differ in case or outer blanks alone are one, spelt as where it comes first.
    A folder may have `train`, `val` and `test` with the classes' folders in them. Where clips are wanted (`sequences`),
    a folder in a class's folder that holds pictures is one: its frames. Else a DICOM file in a class's folder is an
    image, and a folder of DICOM files in it another: their series. `patients.csv` in the folder may tell whose images
    they are (`labelled_patients`).

    Args:
        data: the file or folder.
        sequences: whether clips are wanted.
        several: whether an image may have several labels; None: as the data has it.

    Raises:
        InputError: it is none of these, or is damaged or incomplete; the sentence names the file.
    """
    found = _find(data, _clips_of_class if sequences else _images_of_class, several)
    spelt = one_spelling([(image.label.strip(),) if image.labels is None else () for image in found])
    found = tuple(replace(x, label=own[0]) if own else x for x, own in zip(found, spelt, strict=True))
    if several:
        found = tuple(replace(x, labels=(x.label,)) if x.labels is None else x for x in found)
    return tuple(replace(image, sequence=True) for image in found) if sequences else found


def _find(
    data: Path, files_of_class: Callable[[Path], Iterator[Path]], several: bool | None
) -> tuple[LabelledImage, ...]:
    if data.is_dir():
        return _of_folder(data, files_of_class)
    if not data.is_file():
        raise InputError(f"{data} does not exist; give a MedMNIST .npz, a .csv of path and label, or a folder.")
    if data.suffix.lower() == ".npz":
        return _of_npz(data, several)
    if data.suffix.lower() == ".csv":
        return _of_csv(data, several)
    raise InputError(f"{data} holds no labelled images: give a MedMNIST .npz, a .csv of path and label, or a folder.")


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


def _of_npz(path: Path, several: bool | None) -> tuple[LabelledImage, ...]:
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
        if images.ndim not in (3, 4) or images.dtype.kind not in "biuf":
            raise InputError(f"{path} has {split}_images of shape {images.shape}, which are no pictures or volumes.")
        found += _of_part(path, split, images, labels.reshape(len(labels), -1), several)
    widths = {image.split: len(image.among) for image in found}
    if len(set(widths.values())) > 1:
        told = ", ".join(f"{width or 1} for {split}" for split, width in widths.items())
        raise InputError(f"{path} has different numbers of labels for an image: {told}; they have to be the same.")
    if not found:
        raise InputError(f"{path} is no MedMNIST file: it has no train_images and train_labels, or val or test ones.")
    return tuple(found)


def _of_part(
    path: Path, split: str, images: NDArray[Any], labels: NDArray[Any], several: bool | None
) -> list[LabelledImage]:
    """The images of one part of an archive, with one label each, or a row (L,) of zeros and ones.

    Raises:
        InputError: labels of a wrong kind.
    """
    width = labels.shape[1]
    if width == 1 and labels.dtype.kind in "biuU":
        told: list[tuple[str, tuple[str, ...] | None]] = [(str(label), None) for label in labels[:, 0].tolist()]
    elif width > 1 and labels.dtype.kind in "biuf" and several is False:
        told = [(label, None) for label in single_labels(labels, split, path)]
        width = 1
    elif width > 1 and labels.dtype.kind in "biuf":
        told = [(SEPARATOR.join(own), own) for own in labels_of_rows(labels, split, path)]
    else:
        raise InputError(
            f"{path} has {width} labels of the type {labels.dtype} for each image of {split}; one whole number or name "
            "for each is wanted, or several of 0 and 1."
        )
    among = tuple(str(n) for n in range(width)) if width > 1 else ()
    return [
        LabelledImage(
            *(f"{split}_{number:04d}", label, split, path, array),
            labels=own,
            among=among,
            told_in=f"row {number} (counted from 0) of {split}_labels in {path}",
        )
        for number, (array, (label, own)) in enumerate(zip(images, told, strict=True))
    ]


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
    if parts := _parts(folder, inside, files_of_class):
        classes = [(path, split) for part, split in parts.items() for path in sorted(part.iterdir()) if path.is_dir()]
    else:
        classes = [(path, "") for path in inside]
    listed_files = [(file, path.name, split) for path, split in classes for file in files_of_class(path)]
    if not listed_files:
        raise InputError(f"{folder} holds no images in folders, one folder for each class.")
    names = [file.relative_to(folder).as_posix() for file, _, _ in listed_files]
    patients = told_patients(folder, names)
    found = [
        LabelledImage(name, label, split, file, None, patient)
        for name, (file, label, split), patient in zip(names, listed_files, patients, strict=True)
    ]
    empty = [path for path, _ in classes if not any(image.source.is_relative_to(path) for image in found)]
    if empty:
        raise InputError(f"The folder {empty[0]} stands for a class, but holds no image; fill or remove it.")
    return tuple(found)


def _parts(folder: Path, inside: Sequence[Path], files_of_class: Callable[[Path], Iterator[Path]]) -> dict[Path, str]:
    """The folders that are parts of the data, such as train and val, and what each is; none where all are classes.

    Raises:
        InputError: images in folders beside such parts, so that it can't be told which are classes.
    """
    parts = {path: split for path in inside if (split := _split(path.name)) in SPLITS}
    others = [path for path in inside if path not in parts]
    if others and "train" not in parts.values() and len(parts) < 2:  # a class may be called "test"
        return {}
    beside = next((path for path in others if any(True for _ in files_of_class(path))), None)
    if parts and beside is not None:
        raise InputError(
            f"{folder} has {' and '.join(path.name for path in parts)}, which are parts of data, and images in "
            f"{beside.name} beside them; put a folder for each class into each part, or give classes other names."
        )
    return parts


def _of_csv(path: Path, several: bool | None) -> tuple[LabelledImage, ...]:
    first = first_row(path)
    # Without a first line of names: paths and labels alone.
    bare = len(first) == 2 and (path.parent / first[0].strip()).is_file()
    headers, rows = read_table(path, ("path", "label") if bare else None)
    files, labels = column_of(headers, _PATH_COLUMNS), column_of(headers, _LABEL_COLUMNS)
    splits, patients = column_of(headers, _SPLIT_COLUMNS), column_of(headers, _PATIENT_COLUMNS)
    others = [name for name in headers if name and name not in (files, labels, splits, patients)]
    own = () if labels else label_columns(others, rows)
    if files is None or (labels is None and not own):
        raise InputError(
            f"{path} needs the columns path and label in its first line; it has "
            f"{', '.join(header.strip().lower() for header in headers if header)}."
        )
    start = 1 if bare else 2
    told = _labels_of_table(path, rows, (labels, own, others), start, several)
    found = []
    for number, (row, (label, given)) in enumerate(zip(rows, told, strict=True), start=start):
        name = (row[files] or "").strip()
        if not name or (not label and given is None):
            raise InputError(f"Line {number} of {path} has no {'label' if name else 'path'}.")
        split = _split((row[splits] or "").strip()) if splits else ""
        if split not in ("", *SPLITS):
            raise InputError(f"Line {number} of {path} has the split '{split}', which is none of {', '.join(SPLITS)}.")
        source = path.parent / name
        if not source.exists():
            raise InputError(f"Line {number} of {path} names {source}, which does not exist.")
        patient = (row[patients] or "").strip() if patients else ""
        among = tuple(header.strip() for header in own) if given is not None else ()
        where = f"line {number} of {path}"
        found.append(LabelledImage(name, label, split, source, None, patient, labels=given, among=among, told_in=where))
    if not found:
        raise InputError(f"{path} names no image.")
    double = [name for name, count in Counter(image.name for image in found).items() if count > 1]
    if double:
        raise InputError(f"{path} names {listed_names(double)} more than once; give each image one line.")
    return tuple(found)


def _labels_of_table(
    path: Path,
    rows: list[dict[str, Any]],
    headers: tuple[str | None, tuple[str, ...], list[str]],
    start: int,
    several: bool | None,
) -> list[tuple[str, tuple[str, ...] | None]]:
    """For each row of a table its label as a text, and where an image may have several, each.

    Args:
        path: of the table.
        rows: cells by header.
        headers: the column of labels, or None; else a column for each label; all that are of no other use.
        start: the line that the first row is.
        several: as `find_labelled_images` has it.

    Raises:
        InputError: cells that are no labels, or labels told twice.
    """
    column, own, others = headers
    if column is None:
        told = labels_of_columns(path, rows, own, start)
        if several is False:
            wrong = next((n for n, labels in enumerate(told, start=start) if len(labels) != 1), None)
            if wrong is not None:
                raise InputError(
                    f"Line {wrong} of {path} has {len(told[wrong - start])} labels, but one class for each image is "
                    "wanted; only the decision 'multilabel' takes several."
                )
            return [(labels[0], None) for labels in told]
        return [(SEPARATOR.join(labels), labels) for labels in told]
    cells = [(row[column] or "").strip() for row in rows]
    parts = one_spelling([listed(cell) for cell in cells])
    require_one_layout(path, parts, others, rows)
    if several is False or (several is None and not any(SEPARATOR in cell for cell in cells)):
        return [(cell, None) for cell in cells]
    return [(SEPARATOR.join(labels), labels) for labels in parts]


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


def listed_names(names: Iterable[str]) -> str:
    """The first few names, and how many more there are."""
    every = list(names)
    return ", ".join(every[:SHOWN]) + (f" and {len(every) - SHOWN} more" if len(every) > SHOWN else "")
