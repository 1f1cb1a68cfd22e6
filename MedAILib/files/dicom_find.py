"""Which image series lie in a folder of DICOM files; their voxels are read elsewhere."""

import hashlib
import warnings
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.errors import InvalidDicomError

from MedAILib.errors import InputError
from MedAILib.progress import Progress

# Objects with pixels that are results about images, not images: segmentations, dose, parametric maps, stored scenes.
_NO_IMAGES = {"SEG", "RTDOSE", "RTSTRUCT", "PR", "KO", "SR", "REG", "DOC"}
_TAGS = [
    "SOPInstanceUID",
    "SOPClassUID",
    "SeriesInstanceUID",
    "SeriesDescription",
    "Modality",
    "PatientID",
    "Rows",
    "NumberOfFrames",
]


@dataclass(frozen=True)
class Series:
    """One image series: its UID, what its header calls it, its files, and how many slices they hold."""

    uid: str
    description: str
    modality: str
    paths: tuple[Path, ...]
    slices: int

    def __str__(self) -> str:
        return f"{self.uid} ({self.modality or 'unknown modality'}, {self.description!r}, slices: {self.slices})"


def is_dicom(path: Path) -> bool:
    """Whether a file begins as DICOM files do, with the preamble or, as old ones, without it.

    Raises:
        OSError: the file can't be read.
    """
    with path.open("rb") as file:
        head = file.read(132)
    return head[128:132] == b"DICM" or (head[:2] == b"\x08\x00" and len(head) > 8 and head[2:4] != b"\x00\x00")


def choose_series(folder: Path, uid: str | None, progress: Progress) -> Series:
    """The image series of that UID in a folder and everything under it, or without a UID the only one there.

    DICOMDIR, files that are no DICOM and objects that are no images are passed over.

    Raises:
        InputError: no image series, none of that UID, or several and no UID.
        Cancelled: by `progress`.
    """
    found = _find_series(folder, progress)
    if not found:
        raise InputError(f"{folder} holds no DICOM images; name a folder with the files of one series.")
    listing = "; ".join(str(series) for series in found)
    if uid is not None:
        for series in found:
            if series.uid == uid:
                return series
        raise InputError(f"{folder} has no image series {uid}; it has: {listing}.")
    if len(found) > 1:
        raise InputError(f"{folder} has {len(found)} image series, choose one by its UID (--series): {listing}.")
    return found[0]


def patient_digest(path: Path) -> str:
    """A hash of the patient's number in a DICOM file, or in the first image of a folder; empty where there is none.

    Raises:
        InputError: a file can't be read.
    """
    paths = sorted(path.rglob("*")) if path.is_dir() else [path] if path.suffix.lower() == ".dcm" else []
    header = next((found for file in paths if file.is_file() and (found := _image_header(file)) is not None), None)
    told = str(header.get("PatientID", "") or "").strip() if header is not None else ""
    return hashlib.sha256(told.encode()).hexdigest()[:12] if told else ""


def _find_series(folder: Path, progress: Progress) -> tuple[Series, ...]:
    try:
        next(folder.iterdir(), None)  # rglob passes over what it may not look into
    except OSError as error:
        raise InputError(f"{folder} can't be read: {error.strerror or error}.") from error
    headers: dict[str, list[tuple[Path, pydicom.Dataset]]] = defaultdict(list)
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    seen = set()
    for done, path in enumerate(paths):
        progress.step(done, len(paths), "Reading DICOM headers")
        header = _image_header(path)
        if header is None or header.get("SOPInstanceUID", str(path)) in seen:  # the same image copied twice counts once
            continue
        seen.add(header.get("SOPInstanceUID", str(path)))
        headers[str(header.get("SeriesInstanceUID", ""))].append((path, header))
    return tuple(
        Series(
            uid,
            str(group[0][1].get("SeriesDescription", "") or ""),
            str(group[0][1].get("Modality", "") or ""),
            tuple(path for path, _ in group),
            sum(int(header.get("NumberOfFrames", 1) or 1) for _, header in group),
        )
        for uid, group in sorted(headers.items())
    )


def _image_header(path: Path) -> pydicom.Dataset | None:
    """A few elements of an image's header; None for whatever is no DICOM image."""
    if path.name.upper() == "DICOMDIR":
        return None
    try:
        if not is_dicom(path):
            return None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sloppy values in elements that nobody asked for
            header = pydicom.dcmread(path, stop_before_pixels=True, specific_tags=_TAGS, force=True)
            known = header.get("Rows") is not None and header.get("Modality", "") not in _NO_IMAGES
            return header if known else None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    except (InvalidDicomError, ValueError, KeyError, NotImplementedError):
        return None
