"""Segmentations that Slicer (`.seg.nrrd`) or DICOM programs saved: named segments, as one label map."""

import re
import sqlite3
from collections.abc import Iterable
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
from MedAILib.formats import SLICER_ENDING
from MedAILib.volume import Geometry

WHOLE = 0.01  # voxels; how far a segmentation's grid may be off the image's
SEGMENT = re.compile(r"Segment(\d+)_Name")
# What highdicom raises on files that are not as they should be.
UNREADABLE = (
    *(OSError, InvalidDicomError, RuntimeError, ValueError, TypeError, AttributeError, KeyError, IndexError),
    sqlite3.Error,
)
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
    files = [x for x in path.iterdir() if not x.name.startswith(".")] if path.is_dir() else [path]
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
        return _distinct(path, [name for name, _, _ in _entries(path)])
    return _distinct(path, _dicom_names(_read_dicom(path)).values())


def read_segments(path: Path) -> Segments:
    """Read all segments of a file.

    Raises:
        InputError: it can't be read, has two segments of one name, some that overlap, or voxels of no segment.
        GeometryError: its voxels do not lie at right angles.
    """
    slicers = path.name.lower().endswith(SLICER_ENDING)
    names, masks, geometry = _slicer_masks(path) if slicers else _dicom_masks(path)
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

    How thick a single slice is makes no difference: files of one slice often tell it wrongly, or not at all.

    Returns:
        None where their grid is another.
    """
    own = segments.geometry
    matrix = np.linalg.inv(target.ijk_to_ras) @ own.ijk_to_ras
    matrix[:, :3][:, [n == 1 for n in own.shape_kji[::-1]]] = 0
    whole = np.round(matrix)
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in own.shape_kji[::-1]])).reshape(3, -1).T
    off = corners @ (matrix - whole)[:3, :3].T + (matrix - whole)[:3, 3]
    if np.abs(off).max() > WHOLE or np.abs(whole[:3, :3]).sum(axis=0).max() > 1:
        return None
    places = np.argwhere(segments.labels)
    found = np.zeros(target.shape_kji, np.uint16)
    there = (places[:, ::-1] @ whole[:3, :3].T + whole[:3, 3]).astype(np.int64)[:, ::-1]
    if places.size and ((there < 0) | (there >= target.shape_kji)).any():
        return None
    found[tuple(there.T)] = segments.labels[tuple(places.T)]
    return found


def _distinct(path: Path, names: Iterable[str]) -> tuple[str, ...]:
    told = list(names)
    if twice := sorted({name for name in told if told.count(name) > 1}):
        raise InputError(f"{path} has two segments '{twice[0]}'; merge them, or rename one.")
    return tuple(told)


def _entries(path: Path) -> list[tuple[str, int, int]]:
    """Name, layer and value of each segment of Slicer's file; before Slicer 4.11 each had a layer of its own."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError as error:
        raise InputError(f"{path} can't be read; it is damaged, or no segmentation.") from error
    numbers = sorted(int(found[1]) for key in reader.GetMetaDataKeys() if (found := SEGMENT.fullmatch(key)))
    told = {key: reader.GetMetaData(key) for key in reader.GetMetaDataKeys() if key.startswith("Segment")}
    entries: list[tuple[str, int, int]] = []
    for place, number in enumerate(numbers):
        name = told[f"Segment{number}_Name"].strip()
        layer, value = told.get(f"Segment{number}_Layer", str(place)), told.get(f"Segment{number}_LabelValue", "1")
        if not (layer.isdecimal() and value.isdecimal()):
            raise InputError(f"{path} has no number for the layer or the value of the segment '{name}'; save it anew.")
        entries.append((name, int(layer), int(value)))
    if not entries:
        raise InputError(f"{path} names no segment; save the segmentation from Slicer, or rename a label map .nrrd.")
    return entries


def _slicer_masks(path: Path) -> tuple[tuple[str, ...], Iterable[NDArray[np.bool_]], Geometry]:
    entries = _entries(path)
    names, volume = _distinct(path, [name for name, _, _ in entries]), read_image(path)
    if (most := max(layer for _, layer, _ in entries)) >= volume.channels:
        raise InputError(f"{path} tells of {most + 1} layers and has {volume.channels}; save the segmentation anew.")
    for layer, values in enumerate(volume.data):
        own = [value for _, place, value in entries if place == layer]
        if (left := np.setdiff1d(values, [0, *own])).size:
            raise InputError(f"{path} has voxels of the value {left[0]}, which no segment has; save it anew.")
    return names, (volume.data[layer] == value for _, layer, value in entries), volume.geometry


def _read_dicom(path: Path) -> Any:
    try:
        return hd.seg.segread(path)
    except UNREADABLE as error:
        raise InputError(f"{path} can't be read as a DICOM segmentation: {_reason(error)}.") from error


def _dicom_names(seg: Any) -> dict[int, str]:
    """Segments' names by number; 0 stands for what is outside of all."""
    return {int(x.SegmentNumber): str(x.SegmentLabel).strip() for x in seg.SegmentSequence if int(x.SegmentNumber)}


def _dicom_masks(path: Path) -> tuple[tuple[str, ...], Iterable[NDArray[np.bool_]], Geometry]:
    seg = _read_dicom(path)
    called = _dicom_names(seg)
    names, numbers = _distinct(path, called.values()), list(called)
    try:
        volume, together = _dicom_volume(seg, numbers)
    except UNREADABLE as error:
        raise InputError(f"{path} is no DICOM segmentation of a volume: {_reason(error)}.") from error
    array, matrix = np.asarray(volume.array), _LPS_TO_RAS @ np.asarray(volume.affine)[:, [2, 1, 0, 3]]
    try:
        geometry = Geometry(array.shape[:3], matrix)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    if together:
        return names, (array == number for number in range(1, len(numbers) + 1)), geometry
    return names, (array[..., place] >= 0.5 for place in range(len(numbers))), geometry


def _dicom_volume(seg: Any, numbers: list[int]) -> tuple[Any, bool]:
    """All segments in one volume, 1, 2, 3, …; where they overlap or are shares, each in its own, which takes more room.

    Returns:
        highdicom's volume, and whether they are in one.
    """
    if str(seg.SegmentationType) != "FRACTIONAL":
        try:
            return seg.get_volume(combine_segments=True, relabel=True, segment_numbers=numbers), True
        except RuntimeError:  # they overlap
            pass
    return seg.get_volume(combine_segments=False, segment_numbers=numbers), False


def _reason(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".") or type(error).__name__
