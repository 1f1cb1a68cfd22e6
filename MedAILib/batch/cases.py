"""Which images a batch goes through: from a folder, or from a list in a file."""

import csv
from dataclasses import dataclass
from pathlib import Path

from MedAILib.errors import InputError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".dcm")
# Where data folders of the Medical Segmentation Decathlon and of nnU-Net keep their images.
IMAGE_FOLDERS = ("imagesTs", "imagesTr", "images")


@dataclass(frozen=True)
class BatchCase:
    """One case: a name that no other case of the batch has, and a file or DICOM folder per channel."""

    name: str
    images: tuple[Path, ...]


def find_batch_cases(source: Path, channels: int) -> tuple[BatchCase, ...]:
    """List the cases of a folder or of a list.

    A folder: every image file in it is a case, and every folder in it that is not empty (a DICOM series); where there
    are none, those of its `imagesTs`, `imagesTr` or `images`. Files that end in `_0000`, `_0001`, … are channels of one
    case, as nnU-Net has them. A list: `.txt` with a path on each line, or `.csv` whose column `case` (may be absent)
    names the case and whose other columns give its channels in order; paths are relative to the list.

    Raises:
        InputError: no such folder or list; no case in it; a case without all its channels; two cases of one name.
    """
    if source.is_dir():
        cases = _from_folder(source, channels)
    elif source.is_file() and source.suffix.lower() in (".csv", ".txt"):
        cases = _from_list(source)
    else:
        raise InputError(f"{source} is no folder and no list of cases; give a folder, or a .txt or .csv file.")
    if not cases:
        raise InputError(f"There is no image in {source}; a batch takes {', '.join(ENDINGS)} and DICOM folders.")
    taken: dict[str, BatchCase] = {}
    for case in cases:
        if len(case.images) != channels:
            raise InputError(
                f"The case {case.name} in {source} has {len(case.images)} image{'s'[: len(case.images) != 1]}, the "
                f"model takes {channels}; name them {case.name}_0000, {case.name}_0001 and so on, or give a .csv list."
            )
        if case.name.lower() in taken:
            raise InputError(
                f"{case.images[0]} and {taken[case.name.lower()].images[0]} would both be the case {case.name}; rename "
                "one, or give a .csv list with a column 'case'."
            )
        taken[case.name.lower()] = case
    return tuple(cases)


def _from_folder(folder: Path, channels: int) -> list[BatchCase]:
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"The folder {folder} can't be read: {error.strerror or error}.") from error
    images = [path for path in entries if path.is_file() and _ending(path) is not None]
    if not images:
        inner = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
        if inner is not None:
            return _from_folder(inner, channels)
    images += [path for path in entries if path.is_dir() and any(path.iterdir())]
    grouped: dict[str, list[Path]] = {}
    for path in images:
        stem = _stem(path)
        base, _, number = stem.rpartition("_")
        is_channel = base and len(number) == 4 and number.isdigit() and (channels > 1 or number == "0000")
        grouped.setdefault(base if is_channel else stem, []).append(path)
    return [BatchCase(name, tuple(sorted(paths))) for name, paths in sorted(grouped.items())]


def _from_list(path: Path) -> list[BatchCase]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list {path} can't be read: {error}.") from error
    if path.suffix.lower() == ".txt":
        rows = [("", [line.strip()]) for line in text.splitlines() if line.strip()]
    else:
        reader = csv.DictReader(text.splitlines())
        columns = [name for name in reader.fieldnames or () if name.strip().lower() != "case"]
        named = next((name for name in reader.fieldnames or () if name.strip().lower() == "case"), None)
        rows = [((row[named] or "").strip() if named else "", [row[c] or "" for c in columns]) for row in reader]
    cases = []
    for number, (given, words) in enumerate(rows, start=1):
        images = tuple(path.parent / Path(word.strip()).expanduser() for word in words if word.strip())
        missing = next((image for image in images if not image.exists()), None)
        if missing is not None or not images:
            raise InputError(f"{path}, case {number}: {missing or 'its image'} does not exist; mend the list.")
        name = given or _stem(images[0])
        if name != Path(name).name or name in (".", ".."):
            raise InputError(f"{path}, case {number}: '{name}' can't be a file's name; choose another name.")
        cases.append(BatchCase(name, images))
    return cases


def _ending(path: Path) -> str | None:
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)


def _stem(path: Path) -> str:
    ending = _ending(path) if path.is_file() else None
    return path.name[: -len(ending)] if ending else path.name
