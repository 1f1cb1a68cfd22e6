"""Clips (cine MRI, ultrasound loops) as images whose channels are frames; what a frame shows is not decided here."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from MedAILib.errors import InputError
from MedAILib.files.dicom import read_dicom_clip
from MedAILib.files.dicom_find import is_dicom
from MedAILib.files.dicom_frames import read_header
from MedAILib.files.images import read_image
from MedAILib.progress import Progress
from MedAILib.volume import Volume

PICTURE_ENDINGS = (".png", ".jpg", ".jpeg")


def read_clip(path: Path, series: str | None = None, progress: Progress | None = None) -> Volume:
    """Read a clip: a file whose last axis is time, or a folder with a picture for each frame, in order of the names.

    DICOM is one multi-frame file or a folder with a file for each frame; see `read_dicom_clip`. Another file is read
    as `read_image` does: a fourth dimension becomes channels, a third one stays the slices K; a model
    of sequences takes either as frames. Numbers in names count as numbers: frame2 comes before frame10.

    Raises:
        InputError: as `read_image`; a single picture; frames of several sizes.
        GeometryError, Cancelled: as `read_image`.
    """
    if pictures := frame_pictures(path):
        return read_frames(pictures, progress, path.name)
    if path.is_file() and path.name.lower().endswith(PICTURE_ENDINGS):
        raise InputError(
            f"{path} is a single frame, but a sequence is wanted; give all its frames, in one file whose last axis is "
            "time, or in a folder."
        )
    if path.is_dir() or (path.is_file() and is_dicom(path)):
        return read_dicom_clip(path, series, progress)
    return read_image(path, series, progress)


def is_clip_folder(folder: Path) -> bool:
    """Whether the files that lie directly in a folder are the frames of one clip: pictures, or DICOM of one frame."""
    if frame_pictures(folder):
        return True
    files = (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))
    first = next((path for path in files if is_dicom(path)), None)
    return first is not None and int(read_header(first).get("NumberOfFrames", 1) or 1) == 1


def frame_pictures(folder: Path) -> list[Path]:
    """The pictures (PNG, JPEG) that lie directly in a folder, in order; none where it is no folder."""
    if not folder.is_dir():
        return []
    found = (path for path in folder.iterdir() if path.name.lower().endswith(PICTURE_ENDINGS))
    return sorted((path for path in found if not path.name.startswith(".")), key=_in_order)


def read_frames(paths: Sequence[Path], progress: Progress | None = None, name: str = "") -> Volume:
    """Read several images of one size as the frames of a sequence, which become channels.

    Raises:
        InputError: as `read_image`; frames of several sizes or kinds.
        GeometryError: as `read_image`.
        Cancelled: by `progress`.
    """
    frames = [read_image(path, None, progress) for path in paths]
    first = frames[0]
    for path, frame in zip(paths, frames, strict=True):
        if frame.data.shape != first.data.shape:
            raise InputError(
                f"{path} is {_size(frame)}, but the first frame, {paths[0]}, is {_size(first)}; a sequence has frames "
                "of one size."
            )
        if frame.channels != 1:
            raise InputError(f"{path} has {frame.channels} channels; give frames of a sequence as grey pictures.")
    name = name or f"{first.name} and {len(frames) - 1} more"
    return Volume(np.concatenate([frame.data for frame in frames]), first.geometry, name, first.provenance)


def _in_order(path: Path) -> list[tuple[bool, int, str]]:
    """Texts and numbers of a name by turns, to be sorted by."""
    parts = re.split(r"(\d+)", path.name)
    return [(part.isdecimal(), int(part) if part.isdecimal() else 0, part) for part in parts]


def _size(volume: Volume) -> str:
    return " x ".join(str(n) for n in volume.data.shape) + " (C, K, J, I)"
