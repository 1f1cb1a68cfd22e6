"""Which images a batch goes through: from a folder, or from a list in a file."""

import csv
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from MedAILib.errors import InputError

ENDINGS = (".nii.gz", ".nii", ".nrrd", ".nhdr", ".mha", ".mhd", ".png", ".jpg", ".jpeg", ".dcm")
# Where data folders of the Medical Segmentation Decathlon and of nnU-Net keep their images.
IMAGE_FOLDERS = ("imagesTs", "imagesTr", "images")


# What an earlier batch leaves in its folder, by which that is told from a folder of images.
TABLE, RECORDS = "cases.csv", "records"


@dataclass(frozen=True)
class BatchCase:
    """One case.

    Args:
        name: one that no other case of the batch has, and that can be a file's.
        images: a file or DICOM folder per channel.
        problem: why it can't be run, for people; empty where nothing is known to speak against it.
    """

    name: str
    images: tuple[Path, ...]
    problem: str = ""


def find_batch_cases(source: Path, channels: int | None, output: Path | None = None) -> tuple[BatchCase, ...]:
    """List the cases of a folder or of a list.

    A folder: every image file in it is a case, and every folder in it that is not empty (a DICOM series), but for those
    that hold a batch's results; where there are none, those of its `imagesTs`, `imagesTr` or `images`. Files that end
    in `_0000`, `_0001`, … are channels of one case, as nnU-Net has them. A list: `.txt` with a path on each line, or
    `.csv` whose column `case` (may be absent) names the case and whose other columns give its channels in order; paths
    are relative to the list. Cases that would have one name get the names of their folders, or their endings, too.

    Args:
        source: folder or list.
        channels: how many images a case has; None where any number is right.
        output: the folder of the batch's results, which is no case.

    Raises:
        InputError: no such folder or list; no case in it, or none that could be run; an image that is named twice.
    """
    if source.is_dir():
        cases = _from_folder(source, channels or 1, output)
    elif source.is_file() and source.suffix.lower() in (".csv", ".txt"):
        cases = _from_list(source)
    else:
        raise InputError(f"{source} is no folder and no list of cases; give a folder, or a .txt or .csv file.")
    if not cases:
        raise InputError(f"There is no image in {source}; a batch takes {', '.join(ENDINGS)} and DICOM folders.")
    found = _told_apart([_checked(case, channels, source) for case in cases])
    if all(case.problem for case in found):
        raise InputError(found[0].problem)
    return found


def _checked(case: BatchCase, channels: int | None, source: Path) -> BatchCase:
    """The case with what speaks against it."""
    if case.problem or channels is None or len(case.images) == channels:
        return case
    return replace(
        case,
        problem=f"The case {case.name} in {source} has {len(case.images)} image{'s'[: len(case.images) != 1]}, the "
        f"model takes {channels}; name them {case.name}_0000, {case.name}_0001 and so on, or give a .csv list.",
    )


def _told_apart(cases: Sequence[BatchCase]) -> tuple[BatchCase, ...]:
    """Cases whose names differ, whatever the file system thinks of capitals.

    Raises:
        InputError: one image is named twice.
    """
    ways: tuple[Callable[[BatchCase], str], ...] = (
        lambda case: case.name,
        lambda case: f"{case.images[0].absolute().parent.name}_{case.name}",
        lambda case: (
            f"{case.images[0].absolute().parent.parent.name}_{case.images[0].absolute().parent.name}_{case.name}"
        ),
        lambda case: f"{case.name}_{case.images[0].name.removeprefix(case.name).strip('.').replace('.', '_')}",
    )
    left, done = list(cases), dict[str, BatchCase]()
    for way in ways:
        count = Counter(way(case).lower() for case in left)
        for case in [one for one in left if count[way(one).lower()] == 1 and way(one).lower() not in done]:
            done[way(case).lower()] = replace(case, name=way(case))
            left.remove(case)
    if left:
        one, other = (
            left[0],
            next(case for case in left[1:] + list(done.values()) if case.name.lower() == left[0].name.lower()),
        )
        raise InputError(
            f"{one.images[0]} and {other.images[0]} would both be the case {one.name}; rename one, or give a .csv list "
            "with a column 'case'."
        )
    names = {id(case.images): case for case in done.values()}
    return tuple(names[id(case.images)] for case in cases)


def _from_folder(folder: Path, channels: int, output: Path | None) -> list[BatchCase]:
    try:
        entries = sorted(path for path in folder.iterdir() if not path.name.startswith("."))
        images = [path for path in entries if path.is_file() and _ending(path) is not None]
        if not images:
            inner = next((folder / name for name in IMAGE_FOLDERS if (folder / name).is_dir()), None)
            if inner is not None:
                return _from_folder(inner, channels, output)
        images += [path for path in entries if path.is_dir() and any(path.iterdir()) and not _of_results(path, output)]
    except OSError as error:
        raise InputError(f"{error.filename or folder} can't be read: {error.strerror or error}.") from error
    grouped: dict[tuple[str, Path | None], list[Path]] = {}
    for path in images:
        stem = _stem(path)
        base, _, number = stem.rpartition("_")
        is_channel = base and len(number) == 4 and number.isdigit() and (channels > 1 or number == "0000")
        # Files of one stem that are no channels are cases of their own.
        grouped.setdefault((base, None) if is_channel else (stem, path), []).append(path)
    return [BatchCase(name, tuple(sorted(paths))) for (name, _), paths in sorted(grouped.items(), key=_by_name)]


def _by_name(item: tuple[tuple[str, Path | None], list[Path]]) -> tuple[str, Path]:
    return item[0][0], item[1][0]


def _of_results(folder: Path, output: Path | None) -> bool:
    """Whether a folder is a batch's, or has nothing but this batch's in it."""
    if (folder / TABLE).is_file() and (folder / RECORDS).is_dir():
        return True
    if output is None:
        return False
    own, there = output.resolve(), folder.resolve()
    return there == own or (there in own.parents and len(list(folder.iterdir())) == 1)


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
        name, problem = given or (_stem(images[0]) if images else f"case {number}"), ""
        if missing is not None or not images:
            problem = f"{path}, case {number}: {missing or 'its image'} does not exist; mend the list."
        if name != Path(name).name or name in (".", "..") or "\0" in name:
            raise InputError(f"{path}, case {number}: '{name}' can't be a file's name; choose another name.")
        cases.append(BatchCase(name, images or (path,), problem))
    return cases


def _ending(path: Path) -> str | None:
    return next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)


def _stem(path: Path) -> str:
    ending = None if path.is_dir() else _ending(path)
    return path.name[: -len(ending)] if ending else path.name
