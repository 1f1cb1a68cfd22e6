"""A segmentation as a DICOM SEG object that belongs to the series it was made from."""

from pathlib import Path

import highdicom as hd
import numpy as np
from highdicom.color import CIELabColor
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code as DicomCode
from pydicom.uid import ExplicitVRLittleEndian

from MedAILib.errors import InputError, OutputError
from MedAILib.files.dicom_frames import read_header
from MedAILib.output import whole_file
from MedAILib.results import Code, Label, Segmentation
from MedAILib.version import VERSION
from MedAILib.volume import Volume

# Elements that the standard asks for but lets be empty; de-identified files often lack them altogether.
_MAY_BE_EMPTY = (
    "PatientID",
    "PatientName",
    "PatientBirthDate",
    "PatientSex",
    "AccessionNumber",
    "StudyID",
    "StudyDate",
    "StudyTime",
    "ReferringPhysicianName",
)
_UNKNOWN = Code("SCT", "85756007", "Tissue")


def write_dicom_seg(segmentation: Segmentation, volume: Volume, path: Path) -> None:
    """Write the structures that were found as binary segments of a DICOM SEG, on the slices of the source series.

    Patient and study are copied from the source files, which `volume.provenance["files"]` names. A structure without
    a single voxel is left out, for DICOM has no empty segments.

    Args:
        segmentation: on the grid of `volume`; its provenance names the model and its version.
        volume: as `read_dicom` gave it.
        path: the file, ending in `.dcm`.

    Raises:
        InputError: `volume` does not come from DICOM, its files are gone, or no structure was found.
        OutputError: the file can't be written.
    """
    sources, frames = source_headers(volume, "a DICOM segmentation", ".nii.gz or .seg.nrrd")
    if any(header.get("FrameOfReferenceUID") is None for header in sources):
        raise InputError(f"{volume.name} has no place in the patient, which a DICOM segmentation needs; write .nii.gz.")
    if not segmentation.geometry.same_grid_as(volume.geometry):
        raise InputError(f"{path} can't be written: the segmentation is not on the grid of {volume.name}.")
    found = [label for label in segmentation.labels if segmentation.mask(label).any()]
    if not found:
        raise InputError(f"{path} can't be written: no structure was found, and DICOM has no empty segmentations.")
    masks = np.stack([segmentation.mask(label) for label in found], axis=-1).astype(np.uint8)
    if frames is not None:
        stored = np.zeros((int(sources[0].NumberOfFrames), *masks.shape[1:]), np.uint8)
        stored[frames] = masks
        masks = stored
    dataset = _dataset(segmentation, found, masks, sources)
    with whole_file(path) as part:
        dataset.save_as(part)


def source_headers(volume: Volume, what: str, instead: str) -> tuple[list[Dataset], NDArray[np.int64] | None]:
    """Headers of the source files in slice order, and for a multi-frame file the frame of each slice.

    Args:
        volume: as `read_dicom` gave it.
        what: is to be made of them, for messages.
        instead: the endings that would do without.

    Raises:
        InputError: the volume is not from DICOM, or its files are gone.
    """
    if "files" not in volume.provenance:
        raise InputError(
            f"{volume.name} does not come from DICOM files, so {what} has nothing to refer to; write {instead} instead."
        )
    paths = [Path(line) for line in volume.provenance["files"].split("\n")]
    for path in paths:
        if not path.is_file():
            raise InputError(f"{path}, a slice of {volume.name}, is gone; {what} needs its header.")
    headers = [read_header(path) for path in paths]
    for header in headers:
        for keyword in _MAY_BE_EMPTY:
            if keyword not in header:
                setattr(header, keyword, "")
    frames = volume.provenance.get("frames")
    return headers, None if frames is None else np.array([int(n) for n in frames.split("\n")])


def _dataset(
    segmentation: Segmentation, found: list[Label], masks: NDArray[np.uint8], sources: list[Dataset]
) -> hd.seg.Segmentation:
    model = segmentation.provenance.get("model", "unknown")
    version = segmentation.provenance.get("version", "unknown")
    algorithm = hd.AlgorithmIdentificationSequence(
        name=model,
        version=version,
        family=codes.cid7162.ArtificialIntelligence,
        source="MedAI",
    )
    try:
        dataset = hd.seg.Segmentation(
            source_images=sources,
            pixel_array=masks,
            segmentation_type=hd.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=[_description(n + 1, label, algorithm) for n, label in enumerate(found)],
            series_instance_uid=hd.UID(),
            series_number=series_number(sources[0]),
            sop_instance_uid=hd.UID(),
            instance_number=1,
            manufacturer="MedAI",
            manufacturer_model_name=model,
            software_versions=VERSION,
            device_serial_number=segmentation.provenance.get("sha256", "none")[:64],
            content_label="SEGMENTATION",
            content_description=f"Segmentation by {model} {version}, research use only"[:64],
            content_creator_name="MedAI^",
            transfer_syntax_uid=ExplicitVRLittleEndian,
        )
    except (AttributeError, ValueError, TypeError, KeyError) as error:
        raise OutputError(
            f"No DICOM segmentation can be made for this series ({error}); write .nii.gz or .seg.nrrd instead."
        ) from error
    dataset.ContentQualification = "RESEARCH"
    dataset.SeriesDescription = f"Segmentation by {model} (research use only)"[:64]
    for label, item in zip(found, dataset.SegmentSequence, strict=True):
        modifier = label.terminology.modifier if label.terminology else None
        if modifier is not None:
            kind = item.SegmentedPropertyTypeCodeSequence[0]
            kind.SegmentedPropertyTypeModifierCodeSequence = [hd.sr.CodedConcept.from_code(_code(modifier))]
    return dataset


def _description(number: int, label: Label, algorithm: hd.AlgorithmIdentificationSequence) -> hd.seg.SegmentDescription:
    terminology = label.terminology
    return hd.seg.SegmentDescription(
        segment_number=number,
        segment_label=label.name[:64],
        segmented_property_category=_code(terminology.category if terminology else _UNKNOWN),
        segmented_property_type=_code(terminology.type if terminology else _UNKNOWN),
        algorithm_type=hd.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=hd.UID(),
        tracking_id=label.name[:64],
        display_color=None
        if label.color is None
        else CIELabColor.from_rgb(*(round(255 * channel) for channel in label.color)),
    )


def series_number(source: Dataset) -> int:
    """A number well away from those of the scanner's own series."""
    number = source.get("SeriesNumber")
    return 1000 + int(number or 0)


def _code(code: Code) -> DicomCode:
    return DicomCode(value=code.value, scheme_designator=code.scheme, meaning=code.meaning)
