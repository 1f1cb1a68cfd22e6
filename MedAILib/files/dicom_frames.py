"""Where each frame of a DICOM file lies in the patient and how its stored numbers become values."""

import warnings
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from MedAILib.errors import InputError

# Pictures, not measurements: here MONOCHROME1 says that small numbers are bright in the picture.
_PROJECTIONS = {"CR", "DX", "MG", "IO", "PX", "RG", "XA", "RF", "SC", "OT", "US", "XC"}


@dataclass(frozen=True, eq=False)
class Frame:
    """One slice in a file.

    Args:
        path, index: the file, and the slice's number in it from 0.
        shape_ji: rows, columns.
        spacing_ji_mm: between rows, between columns.
        thickness_mm: distance to the next slice as the header says; 1 when it says nothing.
        axes_lps: (2, 3) unit vectors along which the column index (i) and the row index (j) grow; None when the
            header gives no place in the patient.
        position_lps: centre of the first voxel in mm; None as above.
        slope, intercept: from stored numbers to values.
    """

    path: Path
    index: int
    shape_ji: tuple[int, int]
    spacing_ji_mm: tuple[float, float]
    thickness_mm: float
    axes_lps: NDArray[np.float64] | None
    position_lps: NDArray[np.float64] | None
    slope: float
    intercept: float

    @property
    def normal_lps(self) -> NDArray[np.float64]:
        """Unit vector (3,) at right angles to the slice; along the third axis when the header gives no place."""
        if self.axes_lps is None:
            return np.array([0.0, 0.0, 1.0])
        normal = np.cross(self.axes_lps[0], self.axes_lps[1])
        return np.asarray(normal / np.linalg.norm(normal), dtype=np.float64)


def read_header(path: Path) -> Dataset:
    """A file's elements without its pixels.

    Raises:
        InputError: the file can't be read or is damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(path, stop_before_pixels=True, force=True)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    except (ValueError, KeyError, NotImplementedError) as error:
        raise InputError(f"{path} is a damaged DICOM file: {error}.") from error


def frames_of(path: Path, header: Dataset, film: bool = False) -> list[Frame]:
    """The frames of one file, in its order.

    Args:
        path: the file.
        header: its elements.
        film: frames without a place of their own are taken too; all have the file's.

    Raises:
        InputError: elements that every image has are absent or contradict each other.
    """
    count = int(header.get("NumberOfFrames", 1) or 1)
    try:
        if "PerFrameFunctionalGroupsSequence" in header:
            groups = header.PerFrameFunctionalGroupsSequence
            if len(groups) != count:
                raise InputError(f"{path} says it has {count} frames, but describes {len(groups)}; export it again.")
            shared = header.get("SharedFunctionalGroupsSequence") or [Dataset()]
            return [_enhanced_frame(path, header, shared[0], group, n) for n, group in enumerate(groups)]
        if count > 1 and film:
            only = _classic_frame(path, header)
            return [replace(only, index=n) for n in range(count)]
        if count > 1:
            raise InputError(
                f"{path} holds {count} frames without places in the patient (a film loop?); export the frame or the "
                "volume that you want to run."
            )
        return [_classic_frame(path, header)]
    except (ValueError, TypeError, IndexError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} has a header with wrong or absent elements: {error}.") from error


def is_inverted(header: Dataset) -> bool:
    """Whether a picture's small numbers are its bright ones.

    Only projections and photographs count as pictures: in CT, MR and PET MONOCHROME1 changes the display, while the
    numbers stay measurements.
    """
    return header.get("PhotometricInterpretation") == "MONOCHROME1" and header.get("Modality", "OT") in _PROJECTIONS


def _classic_frame(path: Path, header: Dataset) -> Frame:
    placed = header.get("ImagePositionPatient") and header.get("ImageOrientationPatient")
    return Frame(
        path,
        0,
        (int(header.Rows), int(header.Columns)),
        _pixel_spacing(path, header, bool(placed)),
        _positive(header.get("SpacingBetweenSlices")) or _positive(header.get("SliceThickness")) or 1.0,
        _axes(path, header.ImageOrientationPatient) if placed else None,
        np.array(header.ImagePositionPatient, dtype=np.float64) if placed else None,
        _number(header.get("RescaleSlope"), 1.0),
        _number(header.get("RescaleIntercept"), 0.0),
    )


def _enhanced_frame(path: Path, header: Dataset, shared: Dataset, group: Dataset, index: int) -> Frame:
    def item(name: str) -> Dataset:
        sequence = group.get(name) or shared.get(name)
        return sequence[0] if sequence else Dataset()

    position = item("PlanePositionSequence").get("ImagePositionPatient")
    orientation = item("PlaneOrientationSequence").get("ImageOrientationPatient")
    placed = bool(position and orientation)
    measures = item("PixelMeasuresSequence")
    values = item("PixelValueTransformationSequence")
    return Frame(
        path,
        index,
        (int(header.Rows), int(header.Columns)),
        _pixel_spacing(path, measures, placed),
        _positive(measures.get("SpacingBetweenSlices")) or _positive(measures.get("SliceThickness")) or 1.0,
        _axes(path, orientation) if placed else None,
        np.array(position, dtype=np.float64) if placed else None,
        _number(values.get("RescaleSlope"), 1.0),
        _number(values.get("RescaleIntercept"), 0.0),
    )


def _axes(path: Path, orientation: list[float]) -> NDArray[np.float64]:
    axes = np.array(orientation, dtype=np.float64).reshape(2, 3)
    length = np.linalg.norm(axes, axis=1)
    if not np.isfinite(axes).all() or np.abs(length - 1).max() > 0.01:
        raise InputError(f"{path} has directions that are no unit vectors: {list(orientation)}; export it again.")
    return np.asarray(axes / length[:, None], dtype=np.float64)


def _pixel_spacing(path: Path, header: Dataset, placed: bool) -> tuple[float, float]:
    """Row and column distance in mm; a picture without any is taken as 1 mm, a slice in a patient is refused."""
    for name in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        value = header.get(name)
        if value:
            row, column = float(value[0]), float(value[1])
            if min(row, column) <= 0:
                raise InputError(f"{path} has a pixel spacing of {row} x {column} mm; export it again.")
            return row, column
    regions = header.get("SequenceOfUltrasoundRegions") or []
    if len(regions) == 1 and regions[0].get("PhysicalUnitsXDirection") == 3 == regions[0].get(
        "PhysicalUnitsYDirection"
    ):
        x, y = abs(float(regions[0].PhysicalDeltaX)), abs(float(regions[0].PhysicalDeltaY))  # unit 3: cm
        if min(x, y) > 0:
            return 10 * y, 10 * x
    if placed:
        raise InputError(f"{path} says where it lies but not its pixel spacing; export it again.")
    return 1.0, 1.0


def _positive(value: object) -> float | None:
    number = abs(_number(value, 0.0))
    return number if number > 0 else None


def _number(value: object, absent: float) -> float:
    return absent if value is None or value == "" else float(str(value))
