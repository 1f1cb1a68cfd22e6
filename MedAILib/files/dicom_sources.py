"""Which slices of DICOM files a volume's slices are, for volumes that another reader loaded."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.files.dicom_frames import Frame, frames_of, read_header
from MedAILib.volume import Geometry

# How far a file's slice may lie from a volume's, in slices.
_TOLERANCE = 0.1


def sources_of(paths: Sequence[Path], geometry: Geometry, name: str) -> dict[str, str]:
    """The files of a volume in the order of its slices, as `read_dicom` has them in `provenance`.

    Slices belong together by their place in the patient, so it does not matter which way the reader turned the stack.
    Files that hold none of the volume's slices are left out.

    Args:
        paths: the files that the volume was loaded from, in any order.
        geometry: the volume's grid, in the patient's RAS.
        name: the volume's, for messages.

    Returns:
        "files", one path a line, and for multi-frame files "frames", a number for each slice.

    Raises:
        InputError: a file can't be read, or the volume lies elsewhere than its files say, as one that was resampled.
    """
    if geometry.shape_kji[0] == 1:
        return {"files": "\n".join(str(path.resolve()) for path in dict.fromkeys(paths))}
    frames = [frame for path in dict.fromkeys(paths) for frame in frames_of(path, read_header(path))]
    placed: list[Frame | None] = [None] * geometry.shape_kji[0]
    to_ijk = np.asarray(np.linalg.inv(geometry.ijk_to_ras), dtype=np.float64)
    for frame in frames:
        k = None if frame.position_lps is None else _slice(frame, to_ijk)
        if k is not None and 0 <= k < len(placed):
            if placed[k] is not None:
                raise InputError(
                    f"{name}: several images of its DICOM files share a place (time points, echoes or b-values), so a "
                    "report can't say which it is of; write .json instead."
                )
            placed[k] = frame
    ordered = [frame for frame in placed if frame is not None]
    if len(ordered) < len(placed):
        raise InputError(
            f"{name} does not lie on the slices of its DICOM files (was it resampled?), so a report has nothing to "
            "refer to; write .json instead."
        )
    files = list(dict.fromkeys(str(frame.path.resolve()) for frame in ordered))
    found = {"files": "\n".join(files)}
    if len(files) < len(ordered):
        found["frames"] = "\n".join(str(frame.index) for frame in ordered)
    return found


def _slice(frame: Frame, to_ijk: NDArray[np.float64]) -> int | None:
    """The slice of a grid that a frame lies in; None for one between slices or across them."""
    assert frame.position_lps is not None and frame.axes_lps is not None, "a placed frame has both"
    to_ras = np.array([-1.0, -1.0, 1.0])
    rows, columns = frame.shape_ji
    ends = np.array(
        [
            frame.position_lps,
            frame.position_lps + frame.axes_lps[0] * frame.spacing_ji_mm[1] * (columns - 1),
            frame.position_lps + frame.axes_lps[1] * frame.spacing_ji_mm[0] * (rows - 1),
        ]
    )
    places = (ends * to_ras) @ to_ijk[2, :3] + to_ijk[2, 3]
    k = round(float(places[0]))
    return k if np.abs(places - k).max() <= _TOLERANCE else None
