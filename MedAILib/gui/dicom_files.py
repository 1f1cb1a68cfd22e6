"""The files behind DICOM volumes, as Slicer's DICOM database knows them."""

import importlib.util
from pathlib import Path

import slicer

from MedAILib.errors import InputError


def require_highdicom() -> None:
    """Raise `InputError` where the package that writes DICOM reports is not installed."""
    if importlib.util.find_spec("highdicom") is None:
        raise InputError(
            "DICOM reports are written by the Python package highdicom, which this Slicer does not have; run "
            "slicer.util.pip_install('highdicom') in the Python console, or save as .json or .csv."
        )


def dicom_files(name: str, instanceUIDs: str) -> "list[Path]":
    """The files of a volume's instances, in their order.

    Args:
        name: the volume's, for messages.
        instanceUIDs: its attribute "DICOM.instanceUIDs", separated by spaces; empty for what is not from DICOM.

    Raises:
        InputError: the volume was not loaded from DICOM, or the database or the disk has lost a file of it.
    """
    uids = instanceUIDs.split()
    if not uids:
        raise InputError(
            f"{name} was not loaded by Slicer's DICOM module, so a DICOM report has nothing to refer to; save as .json "
            "or .csv."
        )
    database = slicer.dicomDatabase
    files = [Path(database.fileForInstance(uid) or "") for uid in uids]
    if not all(file.is_file() for file in files):
        raise InputError(
            f"Slicer's DICOM database does not have the files of {name} any more; import them again, or save as .json "
            "or .csv."
        )
    return list(dict.fromkeys(files))
