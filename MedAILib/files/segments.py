"""Segmentations that Slicer (`.seg.nrrd`) or DICOM programs saved: named segments, as one label map."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.errors import InvalidDicomError

from MedAILib.errors import GeometryError, InputError
from MedAILib.files.dicom_find import is_dicom
from MedAILib.files.images import read_image
from MedAILib.volume import Geometry

SLICER_ENDING = ".seg.nrrd"
WHOLE = 0.01  # voxels; how far a segmentation's grid may be off the image's
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))


@dataclass(frozen=True, eq=False)
class Segments:
    """Named segments, none of which overlap.

    Args:
        names: in the file's order.
        labels: (K, J, I), uint16; n is the segment `names[n - 1]`, 0 none.
        geometry: of these voxels, which may be a part of the image's.
    """

    names: tuple[str, ...]
    labels: NDArray[np.uint16]
    geometry: Geometry


def segmentation_file(path: Path) -> Path | None:
    """The file of a segmentation with named segments, given it or a DICOM folder with it alone; None: it is none."""
    if path.name.lower().endswith(SLICER_ENDING):
        return path
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    if len(files) != 1 or not files[0].is_file() or not is_dicom(files[0]):
        return None
    try:
        header = pydicom.dcmread(files[0], stop_before_pixels=True, specific_tags=["Modality"])
    except (OSError, InvalidDicomError):
        return None
    return files[0] if header.get("Modality") == "SEG" else None


def segment_names(path: Path) -> tuple[str, ...]:
    """The names of a file's segments, without its voxels.

    Raises:
        InputError: it can't be read, or two segments have one name.
    """
    if path.name.lower().endswith(SLICER_ENDING):
        names = [name for name, _, _ in _entries(path)]
    else:
        names = [str(entry.SegmentLabel) for entry in _read_dicom(path).SegmentSequence]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise InputError(f"{path} has two segments '{twice[0]}'; merge them, or rename one.")
    return tuple(names)


def read_segments(path: Path) -> Segments:
    """Read all segments of a file.

    Raises:
        InputError: it can't be read, has two segments of one name, or some that overlap.
        GeometryError: its voxels do not lie at right angles.
    """
    names = segment_names(path)
    slicers = path.name.lower().endswith(SLICER_ENDING)
    masks, geometry = _slicer_masks(path) if slicers else _dicom_masks(path)
    labels = np.zeros(geometry.shape_kji, np.uint16)
    for number, mask in enumerate(masks, start=1):
        if (other := int(labels[mask].max(initial=0))) > 0:
            raise InputError(
                f"{path} has the segments '{names[other - 1]}' and '{names[number - 1]}', which overlap; a label map "
                "has one of them at each voxel, so take the shared voxels out of one."
            )
        labels[mask] = number
    return Segments(names, labels, geometry)


def on_grid(segments: Segments, target: Geometry) -> NDArray[np.uint16] | None:
    """The labels (K, J, I) on an image's grid, of which theirs is a part, perhaps with axes turned by right angles.

    Returns:
        None where their grid is another.
    """
    own = segments.geometry
    matrix = np.linalg.inv(target.ijk_to_ras) @ own.ijk_to_ras
    whole = np.round(matrix)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in own.shape_kji[::-1]])).reshape(3, -1).T
    off = corners @ (matrix - whole)[:3, :3].T + (matrix - whole)[:3, 3]
    turns = np.abs(whole[:3, :3])
    if np.abs(off).max() > WHOLE or not (turns.sum(axis=0) == 1).all() or not (turns.sum(axis=1) == 1).all():
        return None
    places = np.argwhere(segments.labels)
    found = np.zeros(target.shape_kji, np.uint16)
    there = (places[:, ::-1] @ whole[:3, :3].T + whole[:3, 3]).astype(np.int64)[:, ::-1]
    if places.size and ((there < 0) | (there >= target.shape_kji)).any():
        return None
    found[tuple(there.T)] = segments.labels[tuple(places.T)]
    return found


def _entries(path: Path) -> list[tuple[str, int, int]]:
    """Name, layer and value of each segment of Slicer's file; before Slicer 4.11 each had a layer of its own."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path} can't be read; it is damaged, or no segmentation.") from error
    told = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys() if key.startswith("Segment")}
    found: list[tuple[str, int, int]] = []
    while (name := told.get(f"Segment{len(found)}_Name")) is not None:
        start = f"Segment{len(found)}_"
        layer, value = told.get(f"{start}Layer", str(len(found))), told.get(f"{start}LabelValue", "1")
        if not (layer.isdecimal() and value.isdecimal()):
            raise InputError(f"{path} has no number for the layer or the value of the segment '{name}'; save it anew.")
        found.append((name.strip(), int(layer), int(value)))
    if not found:
        raise InputError(f"{path} names no segment; save the segmentation from Slicer, or rename a label map .nrrd.")
    return found


def _slicer_masks(path: Path) -> tuple[Sequence[NDArray[np.bool_]], Geometry]:
    volume = read_image(path)
    entries = _entries(path)
    if (most := max(layer for _, layer, _ in entries)) >= volume.channels:
        raise InputError(f"{path} tells of {most + 1} layers and has {volume.channels}; save the segmentation anew.")
    return [volume.data[layer] == value for _, layer, value in entries], volume.geometry


def _read_dicom(path: Path) -> Any:
    try:
        return hd.seg.segread(path)
    except (OSError, InvalidDicomError, ValueError, TypeError, AttributeError, KeyError) as error:
        raise InputError(f"{path} can't be read as a DICOM segmentation: {error}.") from error


def _dicom_masks(path: Path) -> tuple[Sequence[NDArray[np.bool_]], Geometry]:
    seg = _read_dicom(path)
    try:
        volume = seg.get_volume(combine_segments=False, segment_numbers=list(seg.segment_numbers))
    except (RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError) as error:
        raise InputError(f"{path} is no DICOM segmentation of a volume: {error}.") from error
    array, matrix = np.asarray(volume.array), _LPS_TO_RAS @ np.asarray(volume.affine)[:, [2, 1, 0, 3]]
    try:
        geometry = Geometry(array.shape[:3], matrix)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    return [array[..., number] >= 0.5 for number in range(array.shape[3])], geometry
