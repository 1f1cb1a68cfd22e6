"""A classification or findings as a file for others: JSON, CSV or a DICOM structured report, by the file's ending."""

import json
from pathlib import Path

from MedAILib import classification_record, detections
from MedAILib.detections import Detections
from MedAILib.errors import OutputError
from MedAILib.files import tables
from MedAILib.output import whole_file
from MedAILib.results import Classification
from MedAILib.volume import Volume

REPORT_ENDINGS = (".json", ".csv", ".dcm")


def write_report(result: "Classification | Detections", path: Path, volume: Volume | None = None) -> None:
    """Write a result as its path's ending says.

    Args:
        result: what was found.
        path: the file, ending in one of `REPORT_ENDINGS`.
        volume: the image, for `.dcm`; its `provenance["files"]` names the DICOM files, in the order of its slices.

    Raises:
        OutputError: another ending, or the file can't be written.
        InputError: the image does not come from DICOM files.
    """
    ending = path.suffix.lower()
    if ending == ".json":
        found = detections.record(result) if isinstance(result, Detections) else classification_record.record(result)
        with whole_file(path) as part:
            part.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    elif ending == ".csv":
        if isinstance(result, Detections):
            tables.write_detections(result, path)
        else:
            tables.write_classification(result, path)
    elif ending == ".dcm" and volume is not None:
        _write_dicom(result, path, volume)
    else:
        raise OutputError(f"{path}: reports are written as {', '.join(REPORT_ENDINGS)}; choose such an ending.")


def _write_dicom(result: "Classification | Detections", path: Path, volume: Volume) -> None:
    # highdicom takes a while to load, and is not in every Slicer.
    if isinstance(result, Detections):
        from MedAILib.files.dicom_findings import write_findings_sr  # noqa: PLC0415

        write_findings_sr(result, volume, path)
    else:
        from MedAILib.files.dicom_sr import write_dicom_sr  # noqa: PLC0415

        write_dicom_sr(result, volume, path)
