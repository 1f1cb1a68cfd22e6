"""Patients of images in folders, as a `patients.csv` beside these folders tells them."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from MedAILib.errors import InputError
from MedAILib.training.tables import column_of, read_table

TABLE = "patients.csv"
_NAME_COLUMNS = ("name", "case", "path", "file", "image")
_PATIENT_COLUMNS = ("patient", "patient_id", "subject")


def told_patients(folder: Path, names: Sequence[str]) -> list[str]:
    """The patient of each image; an empty text for each where a folder has no such table.

    The table has a column of names (paths from the folder, or files' names with or without their endings) and one of
    patients.

    Args:
        folder: of the table and the images.
        names: the images' paths in it, with "/".

    Raises:
        InputError: the table can't be read, lacks an image, or means several by one name.
    """
    path = folder / TABLE
    if not path.is_file():
        return [""] * len(names)
    told = _read(path)
    alike: dict[str, set[str]] = defaultdict(set)
    for name in names:
        for short in _short(name):
            alike[short].add(name)
    found, missing = [], []
    for name in names:
        known = next((called for called in (name, *_short(name)) if called in told), None)
        if known is None:
            missing.append(name)
        elif known != name and len(alike[known]) > 1:
            both = " and ".join(sorted(alike[known])[:2])
            raise InputError(f"{path} has a line for {known}, which may be {both}; give their paths from {folder}.")
        else:
            found.append(told[known])
    if missing:
        raise InputError(f"{path} names no patient for {', '.join(missing[:5])}; add a line for each image.")
    return found


def _read(path: Path) -> dict[str, str]:
    """Patients by what the table calls their images."""
    headers, rows = read_table(path)
    names, patients = column_of(headers, _NAME_COLUMNS), column_of(headers, _PATIENT_COLUMNS)
    if names is None or patients is None:
        raise InputError(f"{path} can't be read: it needs the columns name and patient.")
    told: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        name, patient = ((row[column] or "").strip() for column in (names, patients))
        if not name or not patient:
            raise InputError(f"Line {line} of {path} has no {'patient' if name else 'name'}.")
        if told.setdefault(name, patient) != patient:
            raise InputError(f"{path} names two patients for {name}, {told[name]} and {patient}; keep one.")
    return told


def _short(name: str) -> tuple[str, str]:
    """A file's name, and that without its endings."""
    last = PurePosixPath(name).name
    return last, last.partition(".")[0]
