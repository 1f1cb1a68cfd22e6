"""Findings as a DICOM structured report (TID 1500): where each lies in the patient, what it is, how sure."""

from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode

from MedAILib.detections import Box, Detections
from MedAILib.errors import InputError
from MedAILib.files.dicom_seg import source_headers
from MedAILib.files.dicom_sr import Report, algorithm, coded, save_report
from MedAILib.volume import Volume

_PRESENCE = DicomCode("presence", "99MEDAI", "Presence in the image, as a detection model sees it")
_ABSENT = DicomCode("2667000", "SCT", "Absent")
_TO_LPS = np.array([-1.0, -1.0, 1.0])
# The corners of a box's faces, as numbers of 0 (low) and 1 (high) along I, J, K, each face closed.
_FACES = tuple(
    np.insert([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)], axis, end, axis=1) for axis in range(3) for end in (0, 1)
)


def write_findings_sr(detections: Detections, volume: Volume, path: Path) -> None:
    """Write each finding as a measurement group of a 3D SR document: region, code, probability and edge lengths.

    In a volume a region is a box's six faces, each a polygon in the patient's frame of reference; in a single slice it
    is the box's rectangle, in the patient or, where the image has no frame of reference, in its pixels. A class that
    has no finding has a group that says it is absent. Length, width and depth are a box's edges, the longest first.
    Patient and study are copied from the source files, which `volume.provenance["files"]` names. The document is
    preliminary and unverified: it is for research.

    Args:
        detections: on the grid of `volume`; their provenance names the model and its version.
        volume: as `read_dicom` gave it.
        path: the file, ending in `.dcm`.

    Raises:
        InputError: `volume` does not come from DICOM, its files are gone, or it is a stack without frame of reference.
        OutputError: the file can't be written.
    """
    sources, frames = source_headers(volume, "a DICOM report", ".json")
    if not detections.geometry.same_grid_as(volume.geometry):
        raise InputError(f"{path} can't be written: the findings are not of {volume.name}.")
    if volume.geometry.shape_kji[0] > 1 and not sources[0].get("FrameOfReferenceUID"):
        raise InputError(
            f"{volume.name} has no frame of reference, so that findings have no place in a report; write .json instead."
        )
    groups: list[Any] = [
        _group(detections, number, box, sources) for number, box in enumerate(detections.boxes, start=1)
    ]
    found = {box.label for box in detections.boxes}
    groups += [_absent(detections, name) for name in detections.classes if name not in found]
    save_report(Report(groups, sources, frames, detections.provenance, "Findings"), path)


def _group(
    detections: Detections, number: int, box: Box, sources: list[Dataset]
) -> "hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations | hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations":
    """One finding: its place, its code, the model's probability and the box's edges."""
    edges = sorted(detections.size_mm(box).tolist(), reverse=True)
    names = (codes.SCT.Length, codes.SCT.Width, codes.SCT.Depth)
    flat = detections.geometry.shape_kji[0] == 1
    lengths = [
        hd.sr.Measurement(name=name, value=round(edge, 4), unit=codes.UCUM.Millimeter)
        for name, edge in list(zip(names, edges, strict=True))[: 2 if flat else 3]
    ]
    told: dict[str, Any] = {
        "tracking_identifier": hd.sr.TrackingIdentifier(hd.UID(), f"{box.label} {number}"),
        "finding_type": _code(detections, box.label),
        "algorithm_id": algorithm(detections.provenance, f"threshold {detections.threshold:g}"),
        "measurements": [
            hd.sr.Measurement(name=codes.DCM.Probability, value=round(box.score, 6), unit=codes.UCUM.NoUnits),
            *lengths,
        ],
    }
    if flat:
        return hd.sr.PlanarROIMeasurementsAndQualitativeEvaluations(
            referenced_region=_rectangle(detections, box, sources[0]), **told
        )
    surface = hd.sr.VolumeSurface(
        graphic_type=hd.sr.GraphicTypeValues3D.POLYGON,
        graphic_data=[_patient(detections, box, face) for face in _FACES],
        frame_of_reference_uid=sources[0].FrameOfReferenceUID,
        source_series=hd.sr.SourceSeriesForSegmentation(sources[0].SeriesInstanceUID),
    )
    return hd.sr.VolumetricROIMeasurementsAndQualitativeEvaluations(referenced_volume_surface=surface, **told)


def _absent(detections: Detections, name: str) -> hd.sr.MeasurementsAndQualitativeEvaluations:
    """A class of which nothing was found."""
    return hd.sr.MeasurementsAndQualitativeEvaluations(
        tracking_identifier=hd.sr.TrackingIdentifier(hd.UID(), f"{name}, none"),
        finding_type=_code(detections, name),
        algorithm_id=algorithm(detections.provenance, f"threshold {detections.threshold:g}"),
        qualitative_evaluations=[hd.sr.QualitativeEvaluation(name=_PRESENCE, value=_ABSENT)],
    )


def _rectangle(detections: Detections, box: Box, source: Dataset) -> "hd.sr.ImageRegion | hd.sr.ImageRegion3D":
    """The box's outline in its slice."""
    face = np.insert([(0, 0), (0, 1), (1, 1), (1, 0), (0, 0)], 2, 0, axis=1)
    if source.get("FrameOfReferenceUID"):
        corners = _patient(detections, Box(box.label, box.score, box.low_ijk, (*box.high_ijk[:2], 0.5)), face, 0.0)
        return hd.sr.ImageRegion3D(
            graphic_type=hd.sr.GraphicTypeValues3D.POLYGON,
            graphic_data=corners,
            frame_of_reference_uid=source.FrameOfReferenceUID,
        )
    ends = np.array([box.low_ijk[:2], box.high_ijk[:2]]) + 0.5  # a pixel reaches from its number to the next there
    limits = np.array(detections.geometry.shape_kji[:0:-1], float)
    pixels = np.clip(ends, 0, limits)[face[:, :2], [0, 1]]
    return hd.sr.ImageRegion(
        graphic_type=hd.sr.GraphicTypeValues.POLYLINE,
        graphic_data=pixels,
        source_image=hd.sr.SourceImageForRegion.from_source_image(source),
    )


def _patient(detections: Detections, box: Box, face: NDArray[np.int64], k: float | None = None) -> NDArray[np.float64]:
    """Corners (n, 3) of a box, picked by 0 and 1, in the patient (LPS, mm); all in the plane `k`, where it is given."""
    ends = np.array([box.low_ijk, box.high_ijk])
    corners = ends[face, [0, 1, 2]]
    if k is not None:
        corners[:, 2] = k
    return np.asarray(detections.geometry.ras_of(corners) * _TO_LPS, dtype=np.float64)


def _code(detections: Detections, name: str) -> DicomCode:
    return coded(name, detections.codes[detections.classes.index(name)] if detections.codes else None)
