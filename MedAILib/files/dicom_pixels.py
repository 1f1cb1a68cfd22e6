"""The voxels of DICOM frames as values; where they lie is told elsewhere."""

import itertools
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import SimpleITK as sitk
from numpy.typing import NDArray
from pydicom.dataset import Dataset
from pydicom.pixels.processing import apply_color_lut, apply_modality_lut
from pydicom.uid import (
    MultiFrameGrayscaleWordSecondaryCaptureImageStorage,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from MedAILib.errors import InputError
from MedAILib.files.dicom_frames import Frame, is_inverted
from MedAILib.progress import Progress

# The package that lets pydicom undo every kind of compression.
_DECODER = "python-gdcm"


def read_values(frames: Sequence[Frame], progress: Progress) -> NDArray[Any]:
    """The values (C, K, J, I) of frames in the order given; C is 3 (red, green, blue) for colour pictures, else 1.

    Stored numbers keep their type where nothing rescales them. Whole slopes and intercepts give int16 where that
    holds the result, otherwise int32; all others give float32.

    Raises:
        InputError: frames that can't be decoded, or don't fit together.
        Cancelled: by `progress`.
    """
    values: NDArray[Any] | None = None
    done = 0
    for path, group in itertools.groupby(frames, key=lambda frame: frame.path):
        pixels = _pixels(path)
        kind = _value_type(frames, pixels.dtype)
        for frame in group:
            progress.step(done, len(frames), "Reading DICOM slices")
            stored = pixels[:, frame.index]
            if values is None:
                values = np.empty((stored.shape[0], len(frames), *stored.shape[1:]), kind)
            if stored.shape != (values.shape[0], *values.shape[2:]):
                raise InputError(f"{path} holds voxels of shape {stored.shape}, others of its series have another.")
            values = values.astype(np.promote_types(values.dtype, kind), copy=False)
            values[:, done] = (
                stored if _is_plain(frame) else stored * kind.type(frame.slope) + kind.type(frame.intercept)
            )
            done += 1
    assert values is not None, "a series has at least one frame"
    return values if all(_is_plain(frame) for frame in frames) else _smaller(values)


def _is_plain(frame: Frame) -> bool:
    return frame.slope == 1 and frame.intercept == 0


def _value_type(frames: Sequence[Frame], stored: np.dtype[Any]) -> np.dtype[Any]:
    """The type in which the values of frames stored as `stored` are computed."""
    if all(_is_plain(frame) for frame in frames):
        return stored
    if stored.kind == "f" or not all(frame.slope.is_integer() and frame.intercept.is_integer() for frame in frames):
        return np.dtype(np.float32)
    largest = max(abs(frame.slope) * np.iinfo(stored).max + abs(frame.intercept) for frame in frames)
    return np.dtype(np.int32 if largest < np.iinfo(np.int32).max else np.int64)


def _pixels(path: Path) -> NDArray[Any]:
    """Stored numbers (C, frames, J, I) of one file, colours as red, green, blue.

    Raises:
        InputError: the pixels are absent, cut short, or compressed in a way that no installed package undoes.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(path, force=True)
            if "PixelData" not in dataset and "FloatPixelData" not in dataset:
                raise InputError(f"{path} has no pixels; the file is cut short, copy or export it again.")
            return _arranged(dataset)
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    except (RuntimeError, NotImplementedError) as error:
        raise InputError(
            f"{path} is compressed ({_syntax(path)}) in a way that MedAI can't undo; install {_DECODER} (pip install "
            f"{_DECODER}) or export the series uncompressed."
        ) from error
    except (ValueError, AttributeError, KeyError, EOFError, TypeError) as error:
        if isinstance(error, InputError):
            raise
        reason = str(error).split(". ")[0].strip().rstrip(".")
        raise InputError(f"{path} is cut short or damaged ({reason}); copy or export it again.") from error


def _arranged(dataset: Dataset) -> NDArray[Any]:
    try:
        pixels = dataset.pixel_array
    except RuntimeError:
        if _samples(dataset) > 1:
            raise
        pixels = _decoded_by_gdcm(dataset)
    if dataset.get("PhotometricInterpretation") == "PALETTE COLOR":
        pixels = apply_color_lut(pixels, dataset)
    elif "ModalityLUTSequence" in dataset:
        pixels = apply_modality_lut(pixels, dataset).astype(np.float32)
    elif is_inverted(dataset):
        low, high = _stored_range(dataset)
        pixels = (low + high - pixels.astype(np.int64)).astype(pixels.dtype)
    colour = pixels.ndim > 2 and pixels.shape[-1] == 3 and _samples(dataset) == 3
    pixels = np.moveaxis(pixels, -1, 0) if colour else pixels[None]
    return pixels if pixels.ndim == 4 else pixels[:, None]


def _decoded_by_gdcm(dataset: Dataset) -> NDArray[Any]:
    """Stored numbers of a compressed grey image that pydicom has no decoder for, by the one inside SimpleITK.

    Raises:
        RuntimeError: that one can't either.
    """
    plain = Dataset()
    plain.file_meta = dataset.file_meta
    for element in dataset:
        if element.tag.group == 0x28 and "Rescale" not in element.keyword and element.VR != "SQ":
            plain.add(element)
    plain.SOPClassUID, plain.SOPInstanceUID = SecondaryCaptureImageStorage, generate_uid()
    plain.PixelData = dataset.PixelData
    if "NumberOfFrames" in dataset:
        plain.SOPClassUID = MultiFrameGrayscaleWordSecondaryCaptureImageStorage
    plain.file_meta.MediaStorageSOPClassUID = plain.SOPClassUID
    plain.file_meta.MediaStorageSOPInstanceUID = plain.SOPInstanceUID
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "frame.dcm"
        plain.save_as(file, enforce_file_format=True)
        pixels = sitk.GetArrayFromImage(sitk.ReadImage(str(file), imageIO="GDCMImageIO"))
    return np.asarray(pixels if int(dataset.get("NumberOfFrames", 1) or 1) > 1 else pixels.reshape(pixels.shape[-2:]))


def _samples(dataset: Dataset) -> int:
    return 3 if dataset.get("PhotometricInterpretation") == "PALETTE COLOR" else int(dataset.get("SamplesPerPixel", 1))


def _stored_range(dataset: Dataset) -> tuple[int, int]:
    bits = int(dataset.BitsStored)
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)


def _smaller(values: NDArray[Any]) -> NDArray[Any]:
    """Whole numbers in the smallest signed type from 16 bits on that holds them; others as they are."""
    if values.dtype.kind == "f":
        return values
    low, high = int(values.min()), int(values.max())
    for kind in (np.dtype(np.int16), np.dtype(np.int32)):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return values.astype(kind)
    return values


def _syntax(path: Path) -> str:
    meta = pydicom.dcmread(path, stop_before_pixels=True, force=True).file_meta
    return str(meta.TransferSyntaxUID.name) if "TransferSyntaxUID" in meta else "transfer syntax unknown"
