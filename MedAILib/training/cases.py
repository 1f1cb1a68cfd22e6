"""Labelled images on disk: which there are, and which of them are for training and which for validation."""

import json
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from MedAILib.errors import InputError
from MedAILib.formats import SLICER_ENDING

NUMBERED = re.compile(r"_\d{4}$")
JPEG_ENDINGS = (".jpg", ".jpeg")
WHITE = 255  # what programs for pictures write for "inside"
PICTURE_ENDINGS = (".png", *JPEG_ENDINGS)  # without a grid
DICOM_ENDING = ".dcm"
IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", *PICTURE_ENDINGS)
FAULTS_SHOWN = 20
KEPT_FOR_STOPPING = 10  # one of so many training cases, where a task asks for early stopping
LAYOUTS = (("imagesTr", "labelsTr"), ("images", "labels"))
KEPT_FOR_TESTING = (("imagesTs", "labelsTs"),)


@dataclass(frozen=True)
class Case:
    """One labelled image.

    Args:
        name: of image and label.
        images: a file per channel, in the model's order.
        label: a label map, or a segmentation with named segments.
        values: of such a segmentation each segment's name and label value, in the file's order; see `named_segments`.
    """

    name: str
    images: tuple[Path, ...]
    label: Path
    values: tuple[tuple[str, int], ...] = ()


@dataclass(frozen=True)
class Split:
    """Cases to learn from and cases to judge by; no case is in both."""

    training: tuple[Case, ...]
    validation: tuple[Case, ...]


@dataclass(frozen=True)
class Fault:
    """What is wrong with which file, in one sentence."""

    file: str
    text: str


@dataclass(frozen=True)
class Found:
    """What lies in a data folder: cases that have all their files, and what is wrong with the rest."""

    cases: tuple[Case, ...]
    faults: tuple[Fault, ...]


def require_faultless(faults: Sequence[Fault]) -> None:
    """Raise `InputError` where there are faults: with one its sentence, with several a table of file and sentence.

    What is the same with each file is said once, with the files' names.
    """
    if len({fault.text.replace(fault.file, "") for fault in faults}) == 1:
        others = [fault.file for fault in faults[1:]]
        more = f", and {len(others) - FAULTS_SHOWN} more" if len(others) > FAULTS_SHOWN else ""
        told = f" The same holds for {', '.join(others[:FAULTS_SHOWN])}{more}." if others else ""
        raise InputError(faults[0].text + told)
    if faults:
        lines = "\n".join(f"  {fault.file}: {fault.text}" for fault in faults[:FAULTS_SHOWN])
        rest = f"\n  and {len(faults) - FAULTS_SHOWN} more" if len(faults) > FAULTS_SHOWN else ""
        raise InputError(f"The data has {len(faults)} faults:\n{lines}{rest}")


def scan_folder(folder: Path, channels: int | None = None, layouts: Sequence[tuple[str, str]] = LAYOUTS) -> Found:
    """List the labelled images of a data folder, sorted by name.

    The folder holds `images` and `labels`, or `imagesTr` and `labelsTr` (Medical Segmentation Decathlon, nnU-Net). An
    image has the label's name (a file, one of DICOM's too, or a folder with one DICOM series), or that and `_0000`,
    `_0001`, … for each channel (nnU-Net); or all channels are one file's fourth dimension (decathlon). The files of one
    case may have different endings.

    Args:
        folder: the data.
        channels: how many images a case has; None: as many as there are.
        layouts: what the folders of images and labels may be called; by default those to learn from.

    Raises:
        InputError: no such folders; no cases at all.
    """
    images, labels = _image_and_label_folders(folder, layouts)
    there, faults = _files_by_name(images, "")
    labelled, of_one_name = _files_by_name(labels, " labels")
    faults += of_one_name
    cases = []
    used: set[Path] = set()
    for name, label in labelled.items():
        files = _images_of(there, name, channels)
        used.update(files)
        count = channels or max(len(files), 1)
        if len(files) < count and not _holds_all(files, there.get(name)):
            wanted = images / (f"{name}_{len(files):04d}" if files or count > 1 else name)
            text = f"The label {label} has no image: {wanted}.nii.gz (or the like) is absent."
            faults.append(Fault(label.name, text))
        else:
            cases.append(Case(name, files, label))
    unused = [path for path in there.values() if path not in used]
    for path in unused:
        more = f" ({len(unused)} in all)" if len(unused) > 1 else ""
        faults.append(Fault(path.name, f"The image {path}{more} has no label in {labels}; add or remove it."))
    if not cases and not faults:
        raise InputError(f"There is no labelled image in {folder}.")
    return Found(tuple(cases), tuple(faults))


def _image_and_label_folders(folder: Path, layouts: Sequence[tuple[str, str]]) -> tuple[Path, Path]:
    """Where a data folder's images are, and where its labels are.

    Raises:
        InputError: no such folders.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} does not exist; give a folder with images and labels in it.")
    for images, labels in layouts:
        if (folder / images).is_dir() and (folder / labels).is_dir():
            return folder / images, folder / labels
    wanted = ", or ".join(f"{images} and {labels}" for images, labels in reversed(layouts))
    raise InputError(f"{folder} is no data folder: it needs {wanted}{',' if len(layouts) > 1 else ''} in it.")


def case_names(images: Path) -> set[str]:
    """What the cases of a folder of images may be called: its files' names, with and without a channel's number."""
    stems = {stem_of(path) for path in image_paths(images)}
    return stems | {NUMBERED.sub("", stem) for stem in stems}


def _files_by_name(folder: Path, what: str) -> tuple[dict[str, Path], list[Fault]]:
    """A folder's images by name, sorted; and which are of one name (`what` says in a word what they are)."""
    there: dict[str, Path] = {}
    faults = []
    for path in image_paths(folder):
        if (other := there.setdefault(stem_of(path), path)) != path:
            faults.append(Fault(path.name, f"{other} and {path} are{what} of one name; keep one of them."))
    return there, faults


def images_by_name(folder: Path, channels: int) -> dict[str, tuple[Path, ...]]:
    """The files of each image in a folder's `images` or `imagesTr`, by the case's name, sorted.

    Raises:
        InputError: no such folder, no image in it, one that lacks a channel, or two of one name.
    """
    images = next((folder / name for name, _ in LAYOUTS if (folder / name).is_dir()), None)
    there, faults = ({}, []) if images is None else _files_by_name(images, "")
    if faults:
        raise InputError(faults[0].text)
    if not there:
        raise InputError(f"There is no image in {folder}; it needs a folder images, or imagesTr, with some.")
    single = channels == 1 and not all(name.endswith("_0000") for name in there)
    if single or not all(NUMBERED.search(name) for name in there):  # one file may hold all channels
        return {name: (path,) for name, path in there.items()}
    names = sorted({name.rpartition("_")[0] for name in there})
    found = {name: _images_of(there, name, channels) for name in names}
    if lacking := [name for name, files in found.items() if len(files) < channels]:
        raise InputError(f"The image {lacking[0]} in {images} has not all of its {channels} channels (_0000, ...).")
    return found


def split_cases(
    cases: tuple[Case, ...], folds: int, fold: int, seed: int, groups: Mapping[str, str] | None = None
) -> Split:
    """Deal the cases, shuffled by `seed`, into `folds` hands; hand `fold` is for validation, the others for training.

    Args:
        cases: all of them, sorted by name.
        folds: how many hands.
        fold: which hand is for validation.
        seed: of the shuffling.
        groups: for cases by name what they share (a patient); all cases of a group fall into one hand.

    Raises:
        InputError: there is no such fold, or a single one, or there are fewer cases, or groups, than folds.
    """
    if folds < 2:
        raise InputError(
            "The task has one fold only, so that nothing is left to learn from; give --set folds=2 or more."
        )
    if not 0 <= fold < folds:
        raise InputError(f"There is no fold {fold}: the task has folds 0 to {folds - 1}.")
    if len(cases) < folds:
        raise InputError(f"{len(cases)} cases are too few for {folds} folds.")
    named = groups or {}
    shared: dict[str, list[Case]] = {}
    for case in cases:
        shared.setdefault(named.get(case.name, f"case {case.name}"), []).append(case)
    if len(shared) < folds:
        raise InputError(
            f"The cases are of {len(shared)} patients, too few for {folds} folds; give --set folds={len(shared)}."
            if len(shared) > 1
            else "All cases are of one patient, so that nothing is left to validate on; add another patient's."
        )
    shuffled = list(shared.values())
    random.Random(seed).shuffle(shuffled)
    dealt = [case for group in shuffled[fold::folds] for case in group]
    validation = tuple(sorted(dealt, key=lambda case: case.name))
    training = tuple(case for case in cases if case not in validation)
    return Split(training, validation)


def kept_for_stopping(
    cases: tuple[Case, ...], seed: int, groups: Mapping[str, str]
) -> tuple[tuple[Case, ...], tuple[Case, ...]]:
    """Of cases to be learnt from those that stay so, and those that decide when to stop, which share no patient.

    Raises:
        InputError: all are of one patient.
    """
    parts = min(KEPT_FOR_STOPPING, len({groups.get(case.name, case.name) for case in cases}))
    if parts < 2:
        raise InputError("The training cases are of one patient, too few to stop early by; give --set patience=0.")
    split = split_cases(cases, parts, 0, seed, groups)
    return split.training, split.validation


def read_labels(folder: Path) -> dict[int, str]:
    """Read label values and names from the folder's `dataset.json`, background left out.

    Raises:
        InputError: the file is missing or not of the decathlon's or nnU-Net's shape.
    """
    path = folder / "dataset.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8-sig"))["labels"].items()
        pairs = [(value, int(key)) if key.isdecimal() else (key, value) for key, value in entries]
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}; it has to name the labels.") from error
    except (ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
        raise InputError(f"{path} can't be read as a decathlon or nnU-Net data description: {error!r}.") from error
    if any(not isinstance(value, int) for _, value in pairs):
        raise InputError(f"{path} has structures of several label values (regions); give each value its own name.")
    if "ignore" in dict(pairs):
        raise InputError(f"{path} has an 'ignore' label, which training does not leave out; label these voxels.")
    named = {value: name for name, value in pairs if value != 0}
    # Masks of black and white are read as 0 and 1.
    return {1: named[WHITE]} if list(named) == [WHITE] else named


def image_paths(folder: Path) -> list[Path]:
    """Image files and folders of DICOM files, sorted; hidden ones, which macOS leaves in archives, are none."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and (_ending(path) or (path.is_dir() and any(path.iterdir())))
    )


def _ending(path: Path) -> str | None:
    name = path.name.lower()
    endings = (SLICER_ENDING, *IMAGE_ENDINGS, DICOM_ENDING)
    return next((path.name[-len(ending) :] for ending in endings if name.endswith(ending)), None)


def stem_of(path: Path) -> str:
    """An image file's name without its ending, or a folder's name."""
    return path.name.removesuffix(_ending(path) or "")


def _holds_all(files: tuple[Path, ...], plain: Path | None) -> bool:
    """Whether one file may hold all channels: one of the case's own name, or a picture (nnU-Net calls it `_0000`)."""
    return files == (plain,) or (len(files) == 1 and is_picture(files[0]))


def is_picture(path: Path) -> bool:
    """Whether a file is a picture (PNG, JPEG), which has pixels and no grid."""
    return path.name.lower().endswith(PICTURE_ENDINGS)


def _images_of(there: dict[str, Path], name: str, channels: int | None) -> tuple[Path, ...]:
    if name in there and channels in (1, None):
        return (there[name],)
    numbered = [there.get(f"{name}_{channel:04d}") for channel in range(channels or len(there))]
    files = tuple(takewhile(lambda path: path is not None, numbered))
    return tuple(path for path in files if path is not None) or ((there[name],) if name in there else ())
