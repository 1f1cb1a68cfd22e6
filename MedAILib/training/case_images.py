"""A case's files as arrays on one grid: its image, and a label map that is one."""

from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.files.images import read_channels, read_image
from MedAILib.progress import Progress
from MedAILib.training.cases import DICOM_ENDING, JPEG_ENDINGS, WHITE, Case, is_picture
from MedAILib.training.named_segments import segment_values
from MedAILib.volume import Volume

ROUNDED = 1e-3  # a label stored as a floating-point number may be off by so much


def read_case(case: Case, progress: Progress | None = None) -> tuple[Volume, NDArray[np.uint16]]:
    """Read a case.

    Pictures (PNG, JPEG) have no grid: as a label or an image beside a file that has one, they are taken pixel by pixel.
    A picture of black and white alone (0 and 255) is a mask, and white is 1.

    Returns:
        the image (C, K, J, I), and its label's values (K, J, I).

    Raises:
        MedAIError: a file can't be read, has NaN, is no label map, or lies on another grid than its image.
    """
    image = read_channels(case.images, progress=progress)
    values = read_label(case, image)
    require_finite(image, case.images[0])
    return image, values


def require_finite(image: Volume, file: Path) -> None:
    """Raise `InputError` where an image has values that are no numbers."""
    if not np.isfinite(image.data).all():
        raise InputError(f"{file} has values that are no numbers (NaN or infinite); mend or remove it.")


def read_label(case: Case, image: Volume | None) -> NDArray[np.uint16]:
    """A case's label values (K, J, I), as `read_case` gives them; without an image the grids stay uncompared.

    Raises:
        MedAIError: the label can't be read, lies on another grid than its image, or has values that are no labels.
    """
    if case.values:
        return segment_values(case, None if image is None else image.geometry)
    label = _read_label(case)
    if label.channels != 1:
        raise InputError(f"{case.label} has {label.channels} values per voxel; a label map has one.")
    if image is not None:
        _require_same_grid(case, image, label)
    return _whole(case, label.data[0])


def _require_same_grid(case: Case, image: Volume, label: Volume) -> None:
    if label.geometry.shape_kji != image.geometry.shape_kji:
        ours, theirs = (" x ".join(map(str, v.geometry.shape_kji[::-1])) for v in (label, image))
        raise InputError(
            f"The label {case.label} is on another grid than its image {case.images[0]} ({ours} voxels, not {theirs}); "
            "resample the label to the image's grid with nearest-neighbour interpolation."
        )
    pictures = is_picture(case.label) or is_picture(case.images[0])
    if not pictures and not label.geometry.same_grid_as(image.geometry):
        raise InputError(
            f"The label {case.label} is on another grid than its image {case.images[0]} (of the same size, but another "
            "place, direction or spacing); give both the same header, or resample the label."
        )


def _read_label(case: Case) -> Volume:
    if case.label.name.lower().endswith(DICOM_ENDING):
        raise InputError(
            f"{case.label} is DICOM and no DICOM segmentation; give that, or export the label as NIfTI or NRRD."
        )
    if case.label.name.lower().endswith(JPEG_ENDINGS):
        raise InputError(
            f"{case.label} is a JPEG, which changes label values a little; save the label as PNG or NIfTI."
        )
    label = read_image(case.label)
    if label.channels > 1 and is_picture(case.label):
        with PIL.Image.open(case.label) as picture:
            if picture.mode == "P":  # the values are the numbers of colours, not the colours
                return Volume(np.asarray(picture)[None, None], label.geometry, label.name)
    return label


def _whole(case: Case, values: NDArray[Any]) -> NDArray[np.uint16]:
    rounded, wrong = values, False
    if values.dtype.kind == "f":
        rounded = np.round(values)
        wrong = not np.isfinite(values).all() or bool((abs(values - rounded) > ROUNDED).any())
    if wrong or rounded.min() < 0 or rounded.max() > 65535:
        raise InputError(f"{case.label} is no label map: it has values that are no whole numbers from 0 to 65535.")
    whole = rounded.astype(np.uint16)
    if is_picture(case.label) and (whole == WHITE).any() and not np.setdiff1d(whole, (0, WHITE)).size:
        return (whole == WHITE).astype(np.uint16)
    return whole
