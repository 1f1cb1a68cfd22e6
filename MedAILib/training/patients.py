"""Which patient a case is of: by a table, by BIDS names, or by what DICOM files say."""

import re
from collections.abc import Collection, Sequence
from pathlib import Path

from MedAILib.errors import InputError
from MedAILib.files.dicom_find import patient_digest
from MedAILib.training.cases import Case
from MedAILib.training.tables import column_of, read_table

TABLE = "patients.csv"
SUBJECT = re.compile(r"(sub-[A-Za-z0-9]+)[_.]")


def patients_of(folder: Path, cases: Sequence[Case]) -> dict[str, str]:
    """The patient of each case, by the folder's `patients.csv`, or else by names and files, as far as these tell.

    Raises:
        InputError: the table can't be read, or lacks a case.
    """
    path = folder / TABLE
    if not path.is_file():
        return {case.name: patient for case, patient in zip(cases, _by_files(cases), strict=True) if patient}
    told = _read_table(path)
    if missing := sorted({case.name for case in cases} - told.keys()):
        raise InputError(f"{path} names no patient for {', '.join(missing[:5])}; add a line for each case.")
    return {case.name: told[case.name] for case in cases}


def known_patients(folder: Path, cases: Sequence[Case], others: Collection[str] = ()) -> dict[str, str]:
    """The patients of those cases whose patient is told, as `patients_of` has it; the table may leave out some.

    Args:
        folder: the data.
        cases: all of a part, also those that are not asked for, since a PatientID tells something where it differs.
        others: names of another part's cases, of which the table tells first.

    Raises:
        InputError: the table can't be read.
    """
    path = folder / TABLE
    if not path.is_file():
        return patients_of(folder, cases)
    told = _read_table(path)
    return {case.name: told[case.name] for case in cases if case.name in told and case.name not in others}


def patients_in_both(folder: Path, trained: Sequence[Case], others: Sequence[Case]) -> dict[str, str]:
    """Of other cases, by name, those of the same patient as one that is trained on, with this one's name.

    The folder's `patients.csv` may leave out the others; a name that cases of both kinds have tells nothing there.

    Raises:
        InputError: the table can't be read.
    """
    path, own = folder / TABLE, {case.name for case in trained}
    if path.is_file():
        told = _read_table(path)
        ours = [told.get(case.name, "") for case in trained]
        theirs = [told.get(case.name, "") if case.name not in own else "" for case in others]
    else:
        found = _by_files([*trained, *others])
        ours, theirs = found[: len(trained)], found[len(trained) :]
    known = {patient: case.name for case, patient in zip(trained, ours, strict=True) if patient}
    return {case.name: known[patient] for case, patient in zip(others, theirs, strict=True) if patient in known}


def _by_files(cases: Sequence[Case]) -> list[str]:
    """Each case's patient by its BIDS name (`sub-07_…`), or a hash of DICOM's PatientID; empty where nothing tells it.

    A PatientID that all DICOM images have, as anonymising leaves it, tells nothing.
    """
    bids = [SUBJECT.match(case.name + "_") for case in cases]
    dicom = ["" if match else patient_digest(case.images[0]) for match, case in zip(bids, cases, strict=True)]
    if len({patient for patient in dicom if patient}) < 2:
        dicom = [""] * len(cases)
    return [match[1] if match else patient for match, patient in zip(bids, dicom, strict=True)]


def _read_table(path: Path) -> dict[str, str]:
    headers, rows = read_table(path)
    names, patients = column_of(headers, ("case",)), column_of(headers, ("patient",))
    if names is None or patients is None or any(row[key] is None for row in rows for key in (names, patients)):
        raise InputError(f"{path} can't be read: it needs the columns case and patient.")
    told: dict[str, str] = {}
    for line, row in enumerate(rows, start=2):
        name, patient = str(row[names]).strip(), str(row[patients]).strip()
        if not name or not patient:
            raise InputError(f"Line {line} of {path} has no {'patient' if name else 'case'}.")
        if told.setdefault(name, patient) != patient:
            raise InputError(f"{path} names two patients for {name}, {told[name]} and {patient}; keep one.")
    return told
