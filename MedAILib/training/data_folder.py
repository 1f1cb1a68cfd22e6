"""What a data folder says of itself beside its images: channels, label names, patients, splits."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedAILib.errors import InputError
from MedAILib.training.cases import LAYOUTS, PICTURE_ENDINGS, Case, Fault, Split, read_labels, scan_folder
from MedAILib.training.examine import CaseFacts
from MedAILib.training.named_segments import names_by_value, with_values
from MedAILib.training.patients import patients_of


@dataclass(frozen=True)
class DataFolder:
    """A folder of labelled images.

    Args:
        folder: where it is.
        cases: those that are whole.
        faults: what is wrong with the others.
        channels: names in order; None: not told.
        labels: names by value, background left out; None: not told.
        patients: by case name, as far as told.
        splits: names of (training, validation) cases that the data prescribes, fold by fold.
    """

    folder: Path
    cases: tuple[Case, ...]
    faults: tuple[Fault, ...]
    channels: tuple[str, ...] | None
    labels: dict[int, str] | None
    patients: dict[str, str]
    splits: tuple[tuple[frozenset[str], frozenset[str]], ...]


def open_folder(
    folder: Path, names: Mapping[int, str] | None = None, first: Mapping[int, str] | None = None
) -> DataFolder:
    """Read what a data folder holds, no image yet.

    `dataset.json` (decathlon, nnU-Net) names channels and labels; `patients.csv` has the columns case and patient, and
    without it BIDS names (`sub-07_…`) or DICOM's tell patients; `splits_final.json` (nnU-Net) prescribes the folds.

    Args:
        folder: the data.
        names: by label value, for named segments where there is no `dataset.json`; None: not told.
        first: the same of a model that training starts from, beside which segments may have other names.

    Raises:
        InputError: there are no images and labels, or one of these files can't be read.
    """
    channels = channel_names(folder / "dataset.json")
    found = scan_folder(folder, None if channels is None else _per_case(folder, len(channels)))
    labels = read_labels(folder) if (folder / "dataset.json").is_file() else None
    cases, faults = with_values(found.cases, names if labels is None else labels, first or {})
    return DataFolder(
        folder,
        cases,
        (*found.faults, *faults),
        channels,
        names_by_value(cases) if labels is None else labels,
        patients_of(folder, found.cases),
        splits_of(folder / "splits_final.json", {case.name for case in found.cases}),
    )


def find_cases(
    folder: Path,
    channels: int = 1,
    layouts: Sequence[tuple[str, str]] = LAYOUTS,
    names: Mapping[int, str] | None = None,
) -> tuple[Case, ...]:
    """List the labelled images of a data folder, sorted by name; see `scan_folder`.

    Args:
        folder: the data.
        channels: how many images a case has.
        layouts: what the folders of images and labels may be called; by default those to learn from.
        names: by label value, for named segments where there is no `dataset.json`.

    Raises:
        InputError: no such folders; a label without its image; an image without a label; no cases at all; segments of
            names that stand for nothing.
    """
    found = scan_folder(folder, channels, layouts)
    known = read_labels(folder) if (folder / "dataset.json").is_file() else names
    cases, faults = with_values(found.cases, known)
    if every := (*found.faults, *faults):
        raise InputError(every[0].text)
    return cases


def prescribed_split(data: DataFolder, fold: int) -> Split:
    """The split that the data prescribes.

    Raises:
        InputError: there is no such fold.
    """
    if not 0 <= fold < len(data.splits):
        raise InputError(f"There is no fold {fold}: {data.folder / 'splits_final.json'} has {len(data.splits)}.")
    training, validation = data.splits[fold]
    return Split(
        tuple(case for case in data.cases if case.name in training),
        tuple(case for case in data.cases if case.name in validation),
    )


def split_faults(
    folder: Path,
    splits: Sequence[tuple[frozenset[str], frozenset[str]]],
    groups: Mapping[str, str],
    facts: Sequence[CaseFacts],
) -> list[Fault]:
    """Patients and images that stand on both sides of a prescribed split.

    Args:
        folder: the data.
        splits: see `splits_of`.
        groups: what cases share, by name (`examine.groups_of`).
        facts: of each case.
    """
    digests = {fact.case.name: fact.image_sha256 for fact in facts}
    faults = []
    for number, (training, validation) in enumerate(splits):
        known = {groups[name]: name for name in training}
        for name in sorted(validation):
            if (other := known.get(groups[name])) is not None:
                what = "the same image" if digests[name] == digests[other] else "of the same patient"
                text = f"{other} and {name} are {what}, one for training and one for validation in fold {number}"
                faults.append(Fault(name, f"{text}; mend {folder / 'splits_final.json'}."))
    return faults


def _per_case(folder: Path, channels: int) -> int | None:
    """How many files a case has: several channels may be one file's fourth dimension, as in the decathlon."""
    images = next((folder / name for name in ("imagesTr", "images") if (folder / name).is_dir()), folder)
    names = [path.name for path in images.iterdir()] if images.is_dir() else []
    # A picture in colour is one file with all channels, which nnU-Net calls _0000 all the same.
    numbered = any(re.search(r"_\d{4}\.", name) and not name.lower().endswith(PICTURE_ENDINGS) for name in names)
    numbered = numbered or any(re.search(r"_000[1-9]\.", name) for name in names)
    return channels if numbered and channels > 1 else None


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read as JSON: {error}.") from error


def channel_names(path: Path) -> tuple[str, ...] | None:
    """The channels that a `dataset.json` names, in order; None where there is no file, or no name in it.

    Raises:
        InputError: it can't be read.
    """
    if not path.is_file():
        return None
    content = _read_json(path)
    named = content.get("channel_names", content.get("modality")) if isinstance(content, dict) else None
    if named is None:
        return None
    if not isinstance(named, dict) or not named:
        raise InputError(f"{path}: 'channel_names' is no list of channels by number.")
    return tuple(str(named[key]) for key in sorted(named, key=lambda key: (len(key), key)))


def splits_of(path: Path, names: set[str]) -> tuple[tuple[frozenset[str], frozenset[str]], ...]:
    """The folds that a `splits_final.json` prescribes: names for training, names for validation; none without it.

    Raises:
        InputError: it can't be read, names a case that there is not, or one on both sides; a part is empty.
    """
    if not path.is_file():
        return ()
    content = _read_json(path)
    try:
        splits = tuple((frozenset(entry["train"]), frozenset(entry["val"])) for entry in content)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is no list of folds with 'train' and 'val'.") from error
    for fold, (training, validation) in enumerate(splits):
        if not (training and validation):
            part = "validation" if training else "training"
            raise InputError(f"{path} has no case for {part} in fold {fold}; name some, or take the fold out.")
        if unknown := sorted((training | validation) - names):
            raise InputError(f"{path} names {', '.join(map(str, unknown[:5]))}, which {path.parent} has not.")
        if both := sorted(training & validation):
            raise InputError(f"{path} has {', '.join(both[:5])} both for training and for validation; choose one.")
    return splits
