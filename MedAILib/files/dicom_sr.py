"""DICOM structured reports (TID 1500) that belong to the series they were made from; those of classifications."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode

from MedAILib.errors import InputError, OutputError
from MedAILib.files.dicom_seg import series_number, source_headers
from MedAILib.output import whole_file
from MedAILib.results import Classification, Code
from MedAILib.version import VERSION
from MedAILib.volume import Volume

# Classes have no place in DICOM's own dictionaries unless their author gives one; codes of this scheme are ours.
_SCHEME = "99MEDAI"
_DECISION = DicomCode("decision", _SCHEME, "Decision of a classification model")
_NOT_SURE = DicomCode("not_sure", _SCHEME, "Not sure")
_NONE = DicomCode("none", _SCHEME, "None of the classes")


def write_dicom_sr(classification: Classification, volume: Volume, path: Path) -> None:
    """Write each class's probability as a measurement of a finding, and the decision, as an enhanced SR document.

    Patient and study are copied from the source files, which `volume.provenance["files"]` names. Each slice or frame
    is a group of its own. The document is preliminary and unverified: it is for research.

    Args:
        classification: on the grid of `volume`; its provenance names the model and its version.
        volume: as `read_dicom` gave it.
        path: the file, ending in `.dcm`.

    Raises:
        InputError: `volume` does not come from DICOM, or its files are gone.
        OutputError: the file can't be written.
    """
    sources, frames = source_headers(volume, "a DICOM report", ".json")
    if not classification.geometry.same_grid_as(volume.geometry):
        raise InputError(f"{path} can't be written: the classification is not of {volume.name}.")
    groups = [
        _group(classification, row, name, sources)
        for row in range(len(classification.places))
        for name in classification.classes
    ]
    save_report(Report(groups, sources, frames, classification.provenance, "Classification"), path)


@dataclass(frozen=True, eq=False)
class Report:
    """What a report says, and of which images.

    Args:
        groups: measurement groups of TID 1500.
        sources: headers of the source files, in slice order.
        frames: the frame of each slice in a multi-frame file; None for single files.
        provenance: names the model, its version and its SHA-256.
        what: the report's kind, for the description of its series.
    """

    groups: list[Any]
    sources: list[Dataset]
    frames: NDArray[np.int64] | None
    provenance: dict[str, str]
    what: str


def save_report(report: Report, path: Path) -> None:
    """Write a report as a 3D structured report document of its own series, in the study of its sources.

    Raises:
        OutputError: the file can't be written, or the sources' headers don't allow it.
    """
    sources, model = report.sources, report.provenance.get("model", "unknown")
    device = hd.sr.DeviceObserverIdentifyingAttributes(
        uid=hd.UID(), name=model, manufacturer_name="MedAI", model_name=model
    )
    observer = hd.sr.ObserverContext(codes.DCM.Device, device)
    try:
        content = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=observer),
            procedure_reported=DicomCode("363679005", "SCT", "Imaging procedure"),
            imaging_measurements=report.groups,
            title=codes.DCM.ImagingMeasurementReport,
            referenced_images=sources if report.frames is None else None,
        )
        document = hd.sr.Comprehensive3DSR if _in_space(report.groups) else hd.sr.EnhancedSR
        dataset = document(
            evidence=sources,
            content=content[0],
            series_instance_uid=hd.UID(),
            series_number=series_number(sources[0]),
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="MedAI",
            software_versions=VERSION,
            device_serial_number=report.provenance.get("sha256", "none")[:64],
            manufacturer_model_name=model,
        )
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise OutputError(f"No DICOM report can be made for this series ({error}); write .json instead.") from error
    dataset.SeriesDescription = f"{report.what} by {model} (research use only)"[:64]
    with whole_file(path) as part:
        dataset.save_as(part)


def _in_space(groups: list[Any]) -> bool:
    """Whether regions of the report lie in the patient's space, which only a 3D document may say."""
    return any(item.ValueType == "SCOORD3D" for group in groups for item in group[0].ContentSequence)


def algorithm(provenance: dict[str, str], *parameters: str) -> hd.sr.AlgorithmIdentification:
    """Which model a group's numbers come from."""
    return hd.sr.AlgorithmIdentification(
        name=provenance.get("model", "unknown"),
        version=provenance.get("version", "") or "unknown",
        parameters=[*parameters, "research use only"],
    )


def _group(
    classification: Classification, row: int, name: str, sources: list[Dataset]
) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """One class at one place: its finding, its probability and whether it was decided for."""
    place, verdict = classification.places[row], classification.verdict(row)
    p = float(classification.probabilities[row, classification.classes.index(name)])
    threshold = classification.thresholds[classification.classes.index(name)]
    decided = [_code(classification, other) for other in verdict.classes] or [_NOT_SURE if verdict.unsure else _NONE]
    images = None
    if place.axis == "K" and len(sources) == classification.geometry.shape_kji[0] and place.index is not None:
        images = [hd.sr.SourceImageForMeasurementGroup.from_source_image(sources[place.index])]
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(hd.UID(), f"{name}, {place.text}"),
        finding_type=_code(classification, name),
        algorithm_id=algorithm(classification.provenance, f"threshold {threshold:g}"),
        measurements=[hd.sr.Measurement(name=codes.DCM.Probability, value=p, unit=codes.UCUM.NoUnits)],
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(name=_DECISION, value=code) for code in decided],
        source_images=images,
    )


def _code(classification: Classification, name: str) -> DicomCode:
    return coded(name, classification.codes[classification.classes.index(name)] if classification.codes else None)


def coded(name: str, told: Code | None) -> DicomCode:
    """A class's code as its author gave it; else its name in our own scheme, of at most 16 signs, as DICOM wants."""
    if told is not None:
        return DicomCode(value=told.value, scheme_designator=told.scheme, meaning=told.meaning)
    return DicomCode(re.sub(r"\W+", "_", name)[:16].strip("_") or "class", _SCHEME, name[:64])
