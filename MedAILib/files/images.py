"""Image files as volumes and back: NIfTI, NRRD, MetaImage, PNG, JPEG; DICOM through its own file."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import SimpleITK as sitk
from numpy.typing import NDArray

from MedAILib.errors import GeometryError, InputError, OutputError
from MedAILib.files.dicom import read_dicom
from MedAILib.files.dicom_find import is_dicom
from MedAILib.files.nifti import (
    cut_short,
    read_nifti_header,
    require_right_angles,
    require_voxel_size,
    require_whole,
    weighed,
    without_namesakes,
)
from MedAILib.output import whole_file
from MedAILib.progress import Progress
from MedAILib.results import Segmentation
from MedAILib.volume import Geometry, Volume, not_finite

# Endings that results can be written to, on the input's grid; PNG, without a grid, for single slices.
VOLUME_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")
SLICE_ENDING = ".png"
_NIFTI_ENDINGS = (".nii.gz", ".nii", ".hdr", ".hdr.gz")
_KINDS = "NIfTI, NRRD, MetaImage, PNG or JPEG, or a folder of DICOM files"
_LPS_TO_RAS = np.diag((-1.0, -1.0, 1.0, 1.0))
_GREY_WITH_TRANSPARENCY = 4  # PNG's colour types
_EXIF_ORIENTATION = 0x0112
_STANDARD_ERROR = 2
_FAST = 1  # of gzip's 1 to 9: label maps shrink a hundredfold at 1 already


def read_image(path: Path, series: str | None = None, progress: Progress | None = None) -> Volume:
    """Read one image file, one DICOM file or a folder with a DICOM series.

    Voxels keep their type; scaled NIfTI becomes float. What a file has beside three dimensions becomes channels: red,
    green and blue (transparency is dropped), the components of vectors, the time points of 4D files. A 2D picture is
    one slice of 1 mm. NIfTI's qform and sform are weighed against each other as ITK, and so Slicer, does.

    Args:
        path: a file, or a folder of DICOM files.
        series: the SeriesInstanceUID where a folder has several series.
        progress: hears steps and warnings.

    Raises:
        InputError: the file is absent, empty, cut short, no image, or of complex numbers; a series of what is no DICOM.
        GeometryError: its voxels do not lie at right angles.
        Cancelled: by `progress`.
    """
    reader = _image_io(path)
    if reader == "DICOM":
        return read_dicom(path, series, progress)
    if series is not None:
        raise InputError(f"{path} is no DICOM, so it has no series {series}; leave the series out.")
    raster = reader in ("PNGImageIO", "JPEGImageIO")
    if reader == "NiftiImageIO":
        image = _read_nifti(path, progress)
    else:
        image = _read_raster(path, reader, progress) if raster else _read_itk(path, path, reader)
    data = _channels_first(path, image)
    if raster and data.shape[0] in (2, 4):
        data = data[:-1]  # transparency
    try:
        geometry = Geometry(data.shape[1:], _ijk_to_ras(image))
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error
    return Volume(data, geometry, path.name)


def read_channels(paths: Sequence[Path], series: str | None = None, progress: Progress | None = None) -> Volume:
    """Read several images as the channels of one volume on the first one's grid.

    An image on another grid is resampled linearly, as float32, with its own smallest value where it has no voxels;
    `progress` is warned.

    Raises:
        InputError: as `read_image`; no image at all; an image that does not overlap with the first.
        GeometryError: as `read_image`.
        Cancelled: by `progress`.
    """
    progress = progress or Progress()
    if not paths:
        raise InputError("No image was named.")
    first = read_image(paths[0], series, progress)
    if len(paths) == 1:
        return first
    parts = [first.data]
    for path in paths[1:]:
        other = read_image(path, series, progress)
        if other.geometry.same_grid_as(first.geometry):
            parts.append(other.data)
        else:
            progress.warn(f"{path} lies on another grid than {paths[0]}; it was resampled to that grid.")
            parts.append(_resampled(path, other, first.geometry))
    name = ", ".join(path.name for path in paths)
    return Volume(np.concatenate(parts), first.geometry, name, first.provenance)


def write_label_map(segmentation: Segmentation, path: Path) -> None:
    """Write labels with the values of the model's description, on the input's grid, in the smallest unsigned type.

    Several layers of overlapping structures become the fourth dimension of NIfTI, the components of NRRD and MetaImage.
    A PNG holds one layer of one slice, in pixels.

    Raises:
        OutputError: the ending is none of `VOLUME_ENDINGS` and `SLICE_ENDING`, a PNG can't hold that, or the file can't
            be written.
    """
    largest = max([int(segmentation.layers.max()), *(label.value for label in segmentation.labels)])
    kind = np.uint8 if largest <= np.iinfo(np.uint8).max else np.uint16
    _write(segmentation.layers.astype(kind, copy=False), segmentation.geometry, path)


def write_scalar_volume(volume: Volume, path: Path) -> None:
    """Write an image in its own type (bool as uint8, float16 as float32), its channels as `write_label_map`'s layers.

    Raises:
        OutputError: as `write_label_map`.
    """
    simple = {np.dtype(np.bool_): np.uint8, np.dtype(np.float16): np.float32}
    _write(volume.data.astype(simple.get(volume.data.dtype, volume.data.dtype), copy=False), volume.geometry, path)


def write_picture(volume: Volume, path: Path) -> None:
    """Write an image of values from 0 to 1 as a PNG of 8 bits, what lies beyond cut off, as MONAI writes pictures.

    Raises:
        OutputError: as `write_label_map`.
    """
    _write((255 * np.clip(volume.data, 0, 1)).astype(np.uint8), volume.geometry, path)


def write_probabilities(segmentation: Segmentation, path: Path) -> None:
    """Write float32 probabilities, in the order of `probability_names`, arranged as `write_label_map`'s layers.

    Raises:
        InputError: the segmentation came without probabilities.
        OutputError: as `write_label_map`.
    """
    if segmentation.probabilities is None:
        raise InputError("This segmentation came without probabilities; run the model with probabilities asked for.")
    _write(segmentation.probabilities.astype(np.float32, copy=False), segmentation.geometry, path)


def write_uncertainty(segmentation: Segmentation, path: Path) -> None:
    """Write the float32 entropy at each voxel, 0 to 1.

    Raises:
        InputError: the segmentation came without it.
        OutputError: as `write_label_map`.
    """
    if segmentation.uncertainty is None:
        raise InputError("This segmentation came without uncertainty; run the model with uncertainty asked for.")
    _write(segmentation.uncertainty[np.newaxis], segmentation.geometry, path)


def to_itk(data: NDArray[Any], geometry: Geometry) -> sitk.Image:
    """One channel (K, J, I) as an ITK image (its frame is LPS)."""
    image = sitk.GetImageFromArray(data)
    lps = _LPS_TO_RAS @ geometry.ijk_to_ras
    spacing = geometry.spacing_kji_mm[::-1]
    image.SetSpacing(spacing)
    image.SetDirection((lps[:3, :3] / spacing).ravel().tolist())
    image.SetOrigin(lps[:3, 3].tolist())
    return image


def _image_io(path: Path) -> str:
    """The name of ITK's reader for a file, by its content, or "DICOM".

    Raises:
        InputError: the file is absent, empty, unreadable, no image, or a JPEG cut short.
    """
    try:
        if path.is_dir() or is_dicom(path):
            return "DICOM"
        with path.open("rb") as file:
            head = file.read(4096)
            file.seek(-min(4096, file.seek(0, 2)), 2)
            tail = file.read()
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; check its name.") from error
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror or error}.") from error
    if not head:
        raise InputError(f"{path} is empty; copy or download it again.")
    if head[:3] == b"\xff\xd8\xff":
        if b"\xff\xd9" not in tail:  # the end mark; libjpeg would paint the rest grey
            raise cut_short(path)
        return "JPEGImageIO"
    if path.name.lower().endswith(_NIFTI_ENDINGS):
        return "NiftiImageIO"
    if head[:4] == b"NRRD":
        return "NrrdImageIO"
    if head[:8] == b"\x89PNG\r\n\x1a\n":
        return "PNGImageIO"
    if b"NDims" in head and b"ElementType" in head:
        return "MetaImageIO"
    if head[344:348] in (b"n+1\0", b"ni1\0"):
        raise InputError(f"{path} holds a NIfTI image; rename it so that it ends in .nii.")
    if path.suffix.lower() == ".img" and path.with_suffix(".hdr").is_file():
        raise InputError(f"{path} is one half of a NIfTI pair; name the other, {path.with_suffix('.hdr').name}.")
    raise InputError(f"{path} is no image that MedAI reads; it reads {_KINDS}.")


def _read_raster(path: Path, reader: str, progress: Progress | None) -> sitk.Image:
    """Read a PNG or JPEG file; ITK knows every kind but grey with transparency."""
    with path.open("rb") as file:
        bits, colour_type = file.read(26)[24:26]
    if reader == "PNGImageIO" and colour_type == _GREY_WITH_TRANSPARENCY:
        if bits != 8:
            raise InputError(f"{path} has {bits} bits of grey and transparency; save it without transparency first.")
        try:
            with PIL.Image.open(path) as picture:
                return sitk.GetImageFromArray(np.asarray(picture)[..., 0])
        except (OSError, SyntaxError) as error:
            raise cut_short(path) from error
    image = _read_itk(path, path, reader)
    turned = _exif_orientation(path)
    if turned != 1 and progress is not None:
        progress.warn(
            f"{path} is to be shown turned or mirrored (EXIF orientation {turned}), but is taken as it is stored, as "
            "Slicer does; save it upright first if the model expects that."
        )
    return image


def _exif_orientation(path: Path) -> int:
    """How a camera says that its picture is to be turned, 1 for not at all."""
    try:
        with PIL.Image.open(path) as picture:
            return int(picture.getexif().get(_EXIF_ORIENTATION, 1) or 1)
    except (OSError, SyntaxError, ValueError, TypeError):  # a damaged note beside a picture that can be read
        return 1


def _read_nifti(path: Path, progress: Progress | None) -> sitk.Image:
    """Read a NIfTI file after the checks that ITK leaves out."""
    with path.open("rb") as stream:
        compressed = stream.read(2) == b"\x1f\x8b"
    if compressed and not path.name.lower().endswith(".gz"):
        raise InputError(f"{path} is compressed, though its name does not say so; rename it to end in .nii.gz.")
    header = read_nifti_header(path)
    if bad := require_whole(path, header):
        raise not_finite(str(path), bad)
    require_voxel_size(path, header)
    require_right_angles(path, header)
    with without_namesakes(path, header) as place:
        image = _read_itk(path, place, "NiftiImageIO")
    warning = weighed(path, header, _ijk_to_ras(image))
    if warning and progress is not None:
        progress.warn(warning)
    return image


def _read_itk(path: Path, place: Path, reader: str) -> sitk.Image:
    """Read the user's file `path`, which stands at `place`, with ITK's reader of that name."""
    try:
        with _quiet(), _muted():
            return sitk.ReadImage(str(place), imageIO=reader)
    except RuntimeError as error:
        if "orthonormal" in str(error):
            raise GeometryError(
                f"{path}: the voxel axes are sheared; resample the image to a grid with right angles first."
            ) from error
        raise cut_short(path) from error


def _channels_first(path: Path, image: sitk.Image) -> NDArray[Any]:
    """Voxels (C, K, J, I): vector components and dimensions above the third become channels."""
    if "complex" in image.GetPixelIDTypeAsString():
        raise InputError(f"{path} has complex voxels; write their magnitude to a file of its own first.")
    data = sitk.GetArrayFromImage(image)
    extra = max(image.GetDimension() - 3, 0)
    if image.GetNumberOfComponentsPerPixel() > 1:
        data = np.moveaxis(data, -1, 0)
        extra += 1
    spatial = (1,) * (3 - (data.ndim - extra)) + data.shape[extra:]
    return np.ascontiguousarray(data.reshape(-1, *spatial))


def _ijk_to_ras(image: sitk.Image) -> NDArray[np.float64]:
    """The 4x4 matrix of an ITK image's first three dimensions; a 2D one gets a third axis of 1 mm."""
    n = image.GetDimension()
    lps = np.eye(4)
    kept = min(n, 3)
    direction = np.array(image.GetDirection()).reshape(n, n)[:kept, :kept]
    lps[:kept, :kept] = direction * image.GetSpacing()[:kept]
    lps[:kept, 3] = image.GetOrigin()[:kept]
    return np.asarray(_LPS_TO_RAS @ lps, dtype=np.float64)


def _resampled(path: Path, volume: Volume, grid: Geometry) -> NDArray[np.float32]:
    corners = np.array(np.meshgrid(*[(-0.5, n - 0.5) for n in volume.geometry.shape_kji[::-1]])).reshape(3, -1).T
    places = grid.ijk_of(volume.geometry.ras_of(corners))
    if (places.max(axis=0) < -0.5).any() or (places.min(axis=0) > np.array(grid.shape_kji[::-1]) - 0.5).any():
        raise InputError(f"{path} lies elsewhere in the patient than the first image; register the two first.")
    target = to_itk(np.zeros(grid.shape_kji, np.uint8), grid)
    channels = []
    for channel in volume.data:
        image = to_itk(channel.astype(np.float32), volume.geometry)
        outside = float(channel.min())
        channels.append(
            sitk.GetArrayFromImage(sitk.Resample(image, target, sitk.Transform(), sitk.sitkLinear, outside))
        )
    return np.stack(channels)


def _write(data: NDArray[Any], geometry: Geometry, path: Path) -> None:
    """Write channels (C, K, J, I), whole or not at all."""
    endings = (*VOLUME_ENDINGS, SLICE_ENDING)
    ending = next((known for known in endings if path.name.lower().endswith(known)), None)
    if ending is None:
        raise OutputError(f"{path} can't be written: its name must end in one of {', '.join(endings)}.")
    images = [to_itk(channel, geometry) for channel in data]
    if ending == SLICE_ENDING:
        if data.shape[:2] != (1, 1) or data.dtype not in (np.uint8, np.uint16):
            raise OutputError(
                f"{path} can't be written: a PNG holds one slice of whole numbers up to 65535 and no grid; use .nii.gz."
            )
        image = images[0][:, :, 0]
    elif len(images) == 1:
        image = images[0]
    else:
        image = sitk.JoinSeries(images) if ending.startswith(".nii") else sitk.Compose(images)
    with whole_file(path) as part:
        try:
            with _quiet():
                sitk.WriteImage(image, str(part), useCompression=ending != ".nii", compressionLevel=_FAST)
            if ending.startswith(".nii"):
                require_whole(part, read_nifti_header(part))  # ITK does not notice a full disk here
        except (RuntimeError, InputError) as error:
            raise OutputError(
                f"{path} can't be written: the disk did not take the whole file; free some space or write elsewhere."
            ) from error


@contextmanager
def _quiet() -> Iterator[None]:
    """Without ITK's warnings on standard error: what matters of them is checked and said in our own words."""
    before = sitk.ProcessObject.GetGlobalWarningDisplay()
    sitk.ProcessObject.SetGlobalWarningDisplay(False)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalWarningDisplay(before)


@contextmanager
def _muted() -> Iterator[None]:
    """Without what libraries of ITK, MetaIO for one, write to the process's standard error past ITK."""
    try:
        before = os.dup(_STANDARD_ERROR)
    except OSError:  # closed: then there is nobody to hear it
        yield
        return
    try:
        with Path(os.devnull).open("wb") as nowhere:
            os.dup2(nowhere.fileno(), _STANDARD_ERROR)
        yield
    finally:
        os.dup2(before, _STANDARD_ERROR)
        os.close(before)
