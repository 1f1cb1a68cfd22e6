"""A DICOM series as one volume: its slices sorted, checked for gaps and stacked. No segmentations, no writing."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from MedAILib.errors import GeometryError, InputError
from MedAILib.files.dicom_find import choose_series
from MedAILib.files.dicom_frames import Frame, frames_of, read_header
from MedAILib.files.dicom_pixels import read_values
from MedAILib.progress import Progress
from MedAILib.volume import Geometry, Volume

# Scanners round positions: slices count as evenly spaced within 1 % of the usual distance, or 0.05 mm.
_RELATIVE_TOLERANCE = 0.01
_TOLERANCE_MM = 0.05
_PROVENANCE = ("Modality", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "SeriesDescription")


def read_dicom(path: Path, series: str | None = None, progress: Progress | None = None) -> Volume:
    """Read one series from a folder (and everything under it), or one DICOM file.

    Slices are sorted by position along their normal, so that the result doesn't depend on file names. Values are
    rescaled as the header says (HU for CT). Colour pictures have three channels. Pictures without a place in the
    patient lie at the origin, their columns running to the left and their rows to the back. `provenance` holds
    modality and UIDs, and under "files" the paths in slice order, one a line, with "frames" for multi-frame files;
    no name and no patient number.

    Args:
        path: a folder or a file.
        series: the SeriesInstanceUID to take where the folder has several.
        progress: hears of slices that are left out.

    Raises:
        InputError: no or several series, missing slices, several images at one position, files that can't be decoded.
        GeometryError: slices sheared by a tilted gantry.
        Cancelled: by `progress`.
    """
    progress = progress or Progress()
    paths = choose_series(path, series, progress).paths if path.is_dir() else (path,)
    headers = {file: read_header(file) for file in paths}
    for file, header in headers.items():
        if header.get("Rows") is None or header.get("Columns") is None:
            raise InputError(f"{file} is DICOM, but holds no image.")
    frames = _one_stack(path, [f for file, header in headers.items() for f in frames_of(file, header)], progress)
    ordered = _sorted(path, frames)
    data = read_values(ordered, progress)
    return Volume(data, _geometry(path, ordered), path.name, _provenance(ordered, headers[ordered[0].path]))


def read_dicom_clip(path: Path, series: str | None = None, progress: Progress | None = None) -> Volume:
    """Read a clip: one multi-frame file, or a folder with a file for each frame, all at one place in the patient.

    The frames become the slices K, 1 mm or the slice's thickness apart, in the order of their trigger times where all
    have one and they differ, else of their instance numbers; those of a file in its own. A series whose slices lie in
    different places is no clip, and read as `read_dicom` does.

    Raises:
        InputError: as `read_dicom`; frames of several sizes.
        GeometryError, Cancelled: as `read_dicom`.
    """
    progress = progress or Progress()
    paths = choose_series(path, series, progress).paths if path.is_dir() else (path,)
    headers = {file: read_header(file) for file in paths}
    if any(header.get("Rows") is None or header.get("Columns") is None for header in headers.values()):
        return read_dicom(path, series, progress)  # which says so
    frames = [frame for file in _in_time(headers) for frame in frames_of(file, headers[file], film=True)]
    first = frames[0]
    if not all(_in_one_place(frame, first) for frame in frames):
        return read_dicom(path, series, progress)
    for frame in frames:
        if frame.shape_ji != first.shape_ji:
            raise InputError(
                f"{path}: {_name(frame)} has {frame.shape_ji[0]} x {frame.shape_ji[1]} voxels, the first frame "
                f"{first.shape_ji[0]} x {first.shape_ji[1]}; a sequence has frames of one size."
            )
    one = _geometry(path, frames[:1])
    geometry = Geometry((len(frames), *first.shape_ji), one.ijk_to_ras)
    return Volume(read_values(frames, progress), geometry, path.name, _provenance(frames, headers[first.path]))


def _in_time(headers: Mapping[Path, Dataset]) -> list[Path]:
    """Files in the order in which their frames were taken."""
    for key in ("TriggerTime", "InstanceNumber"):
        told = [(header.get(key), path) for path, header in headers.items()]
        times = {float(value) for value, _ in told if value not in (None, "")}
        if len(times) == len(told):
            return [path for _, path in sorted((float(value), path) for value, path in told)]
    return sorted(headers)


def _in_one_place(frame: Frame, first: Frame) -> bool:
    if frame.position_lps is None or first.position_lps is None:
        return frame.position_lps is first.position_lps
    return bool(np.allclose(frame.position_lps, first.position_lps, atol=_TOLERANCE_MM))


def _one_stack(path: Path, frames: Sequence[Frame], progress: Progress) -> list[Frame]:
    """The slices of the largest stack of one size and orientation; single stray ones (a scout) are left out aloud."""
    stacks: list[list[Frame]] = []
    for frame in frames:
        for stack in stacks:
            if _parallel(frame, stack[0]):
                stack.append(frame)
                break
        else:
            stacks.append([frame])
    ranked = sorted(stacks, key=len, reverse=True)
    stack, strays = ranked[0], [frame for other in ranked[1:] for frame in other]
    if strays and (len(stack) < 3 or len(strays) * 2 > len(stack)):
        sizes = ", ".join(str(len(other)) for other in ranked)
        raise InputError(
            f"{path} mixes images of {len(ranked)} sizes or directions ({sizes} slices), as localizers do; choose a "
            "series of parallel slices."
        )
    if strays:
        names = ", ".join(sorted({frame.path.name for frame in strays})[:5])
        progress.warn(f"{path}: left out images of another size or direction than the others: {names}.")
    return stack


def _parallel(one: Frame, other: Frame) -> bool:
    """Whether two slices have one size, pixel spacing and direction."""
    if one.shape_ji != other.shape_ji or not np.allclose(one.spacing_ji_mm, other.spacing_ji_mm, rtol=1e-3):
        return False
    if one.axes_lps is None or other.axes_lps is None:
        return one.axes_lps is other.axes_lps
    return np.allclose(one.axes_lps, other.axes_lps, atol=1e-3)


def _sorted(path: Path, frames: Sequence[Frame]) -> list[Frame]:
    """Frames in order of position along the normal.

    Raises:
        InputError: slices are missing, doubled or not in one line.
    """
    if len(frames) == 1:
        return list(frames)
    if any(frame.position_lps is None for frame in frames):
        raise InputError(f"{path} has {len(frames)} pictures without a place in the patient; name one of the files.")
    normal = frames[0].normal_lps
    places = np.array([frame.position_lps for frame in frames]) @ normal
    order = np.argsort(places, kind="stable")
    ordered, places = [frames[n] for n in order], places[order]
    steps = np.diff(places)
    _refuse_doubles(path, ordered, steps)
    usual = float(np.median(steps))
    tolerance = max(_RELATIVE_TOLERANCE * usual, _TOLERANCE_MM)
    for n in np.flatnonzero(np.abs(steps - usual) > tolerance):
        missing = round(float(steps[n]) / usual) - 1
        what = f"{missing} missing" if missing >= 1 else "unevenly spaced slices"
        raise InputError(
            f"{path}: {what} between {_name(ordered[n])} and {_name(ordered[n + 1])}: {steps[n]:.2f} mm apart at "
            f"{places[n]:.1f} mm along the stack, where slices are usually {usual:.2f} mm apart; copy the whole series."
        )
    return ordered


def _refuse_doubles(path: Path, ordered: Sequence[Frame], steps: NDArray[np.float64]) -> None:
    same = np.flatnonzero(steps < 1e-3)
    if len(same):
        raise InputError(
            f"{path} has several images at one position ({_name(ordered[same[0]])}, {_name(ordered[same[0] + 1])}; "
            f"{len(same) + 1} images share places): time points, echoes or b-values; export one of them as a series."
        )


def _geometry(path: Path, ordered: Sequence[Frame]) -> Geometry:
    """The grid of sorted slices in RAS.

    Raises:
        GeometryError: the slices lie askew.
        InputError: their first voxels are not in one line.
    """
    first, last = ordered[0], ordered[-1]
    matrix = np.eye(4)
    axes = np.eye(3)[:2] if first.axes_lps is None else first.axes_lps
    matrix[:3, 0] = axes[0] * first.spacing_ji_mm[1]
    matrix[:3, 1] = axes[1] * first.spacing_ji_mm[0]
    matrix[:3, 2] = first.normal_lps * first.thickness_mm
    if first.position_lps is not None and last.position_lps is not None:
        matrix[:3, 3] = first.position_lps
        if len(ordered) > 1:
            matrix[:3, 2] = (last.position_lps - first.position_lps) / (len(ordered) - 1)
            line = first.position_lps + np.arange(len(ordered))[:, None] * matrix[:3, 2]
            places = np.array([frame.position_lps for frame in ordered])
            aside = np.linalg.norm(places - line, axis=1)
            if aside.max() > max(_TOLERANCE_MM * len(ordered) ** 0.5, 0.5 * min(first.spacing_ji_mm)):
                raise InputError(
                    f"{path}: the slice {_name(ordered[int(aside.argmax())])} lies {aside.max():.1f} mm beside the "
                    "line of the others; resample the series to an even grid first."
                )
    matrix[:2] *= -1  # LPS to RAS
    try:
        return Geometry((len(ordered), *first.shape_ji), matrix)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error


def _provenance(ordered: Sequence[Frame], header: Dataset) -> dict[str, str]:
    found = {name: str(header.get(name)) for name in _PROVENANCE if header.get(name)}
    paths = list(dict.fromkeys(str(frame.path.resolve()) for frame in ordered))
    found["files"] = "\n".join(paths)
    if len(paths) < len(ordered) or ordered[0].index > 0:
        found["frames"] = "\n".join(str(frame.index) for frame in ordered)
    return found


def _name(frame: Frame) -> str:
    return frame.path.name if frame.index == 0 else f"frame {frame.index + 1} of {frame.path.name}"
