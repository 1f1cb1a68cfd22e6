"""Labelled images on disk: which there are, and which of them are for training and which for validation."""

import json
import random
from dataclasses import dataclass
from pathlib import Path

from MedAILib.errors import InputError

IMAGE_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd")
LAYOUTS = (("imagesTr", "labelsTr"), ("images", "labels"))


@dataclass(frozen=True)
class Case:
    """One labelled image: `images` holds a file per channel, in the model's order."""

    name: str
    images: tuple[Path, ...]
    label: Path


@dataclass(frozen=True)
class Split:
    """Cases to learn from and cases to judge by; no case is in both."""

    training: tuple[Case, ...]
    validation: tuple[Case, ...]


def find_cases(folder: Path, channels: int = 1) -> tuple[Case, ...]:
    """List the labelled images of a data folder, sorted by name.

    The folder holds `images` and `labels`, or `imagesTr` and `labelsTr` (Medical Segmentation Decathlon, nnU-Net). An
    image has the label's name, or that and `_0000`, `_0001`, … for each channel (nnU-Net).

    Raises:
        InputError: no such folders; a label without its image; an image without a label; no cases at all.
    """
    for images_name, labels_name in LAYOUTS:
        images, labels = folder / images_name, folder / labels_name
        if images.is_dir() and labels.is_dir():
            break
    else:
        raise InputError(f"{folder} is no data folder: it needs images and labels, or imagesTr and labelsTr, in it.")
    cases = []
    used: set[Path] = set()
    for label in sorted(labels.iterdir()):
        if (ending := _ending(label)) is None:
            continue
        name = label.name.removesuffix(ending)
        files = _images_of(images, name, ending, channels)
        missing = [file for file in files if not file.is_file()]
        if missing:
            raise InputError(f"The label {label} has no image: {missing[0]} does not exist.")
        cases.append(Case(name, files, label))
        used.update(files)
    unused = sorted(file for file in images.iterdir() if _ending(file) and file not in used)
    if unused:
        raise InputError(f"The image {unused[0]} ({len(unused)} in all) has no label in {labels}; add or remove it.")
    if not cases:
        raise InputError(f"There is no labelled image in {folder}.")
    return tuple(cases)


def split_cases(cases: tuple[Case, ...], folds: int, fold: int, seed: int) -> Split:
    """Deal the cases, shuffled by `seed`, into `folds` hands; hand `fold` is for validation, the others for training.

    Raises:
        InputError: there is no such fold, or there are fewer cases than folds.
    """
    if not 0 <= fold < folds:
        raise InputError(f"There is no fold {fold}: the task has folds 0 to {folds - 1}.")
    if len(cases) < folds:
        raise InputError(f"{len(cases)} cases are too few for {folds} folds.")
    shuffled = list(cases)
    random.Random(seed).shuffle(shuffled)
    validation = tuple(sorted(shuffled[fold::folds], key=lambda case: case.name))
    training = tuple(case for case in cases if case not in validation)
    return Split(training, validation)


def read_labels(folder: Path) -> dict[int, str]:
    """Read label values and names from the folder's `dataset.json`, background left out.

    Raises:
        InputError: the file is missing or not of the decathlon's or nnU-Net's shape.
    """
    path = folder / "dataset.json"
    try:
        entries = json.loads(path.read_text(encoding="utf-8"))["labels"].items()
        pairs = [(key, value) if isinstance(value, int) else (value, int(key)) for key, value in entries]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"{path} can't be read as a decathlon or nnU-Net data description: {error!r}.") from error
    return {value: name for name, value in pairs if value != 0}


def _ending(path: Path) -> str | None:
    return next((ending for ending in IMAGE_ENDINGS if path.name.endswith(ending)), None)


def _images_of(images: Path, name: str, ending: str, channels: int) -> tuple[Path, ...]:
    plain = images / f"{name}{ending}"
    if channels == 1 and plain.is_file():
        return (plain,)
    return tuple(images / f"{name}_{channel:04d}{ending}" for channel in range(channels))
