"""What ITK does not check in NIfTI files: that all voxels are there, and that the header says one thing of the grid."""

import gzip
import math
import shutil
import struct
import tempfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import GeometryError, InputError
from MedAILib.volume import Geometry

_CHUNK = 1 << 22
_FLOATS = {16: "f4", 64: "f8"}  # NIfTI's codes of floating-point voxels that ITK reads
_MM_OF_UNIT = {1: 1e3, 3: 1e-3}  # metres and micrometres; ITK converts them likewise
_ENDINGS = (".nii.gz", ".nii", ".hdr.gz", ".hdr", ".img.gz", ".img")


@dataclass(frozen=True, eq=False)
class NiftiHeader:
    """What the checks need of a header.

    Args:
        bytes_of_voxels: size of the voxel data.
        offset: where it begins, in this file or, for header and image pairs, in the other.
        float_type: numpy's name of floating-point voxels, with byte order; None for others.
        is_pair: whether the voxels stand in an `.img` file.
        qform_code, sform_code: 0 when that matrix is unused, otherwise the space it leads to (1 scanner, 2 aligned,
            3 Talairach, 4 MNI, 5 template).
        sform: 4x4, voxel indices to RAS mm.
        qform: likewise.
        shape_ijk: the numbers of voxels along the first three dimensions, 1 for absent ones.
        spacing_ijk_mm: the voxel sizes as they stand there, also what is no size.
    """

    bytes_of_voxels: int
    offset: int
    float_type: str | None
    is_pair: bool
    qform_code: int
    sform_code: int
    sform: NDArray[np.float64]
    qform: NDArray[np.float64]
    shape_ijk: tuple[int, int, int]
    spacing_ijk_mm: tuple[float, float, float]


def read_nifti_header(path: Path) -> NiftiHeader:
    """The header of a NIfTI-1 file, compressed or not.

    Raises:
        InputError: the header is cut short, damaged or of another format; or of NIfTI-2, which ITK does not read.
    """
    with _open(path) as file:
        try:
            head = file.read(348)
        except (EOFError, zlib.error, OSError) as error:
            raise cut_short(path) from error
    if head[4:7] in (b"n+2", b"ni2"):
        raise InputError(f"{path} is of version 2 of NIfTI, which MedAI does not read; convert it to version 1.")
    for order in "<>":
        if len(head) == 348 and struct.unpack(order + "i", head[:4]) == (348,) and head[344:347] in (b"n+1", b"ni1"):
            return _parsed(path, head, order)
    raise InputError(f"{path} is no NIfTI image, though it is named like one.")


@contextmanager
def without_namesakes(path: Path, header: NiftiHeader) -> Iterator[Path]:
    """The file, or a copy in a folder of its own where others share its name up to the ending.

    ITK searches a header's voxels by name: of `a.nii.gz` it would silently take those of an `a.nii` beside it.
    """
    own = {path, _data_file(path)} if header.is_pair else {path}
    stem = _stem(path)
    if all(path.with_name(stem + ending) in own or not path.with_name(stem + ending).exists() for ending in _ENDINGS):
        yield path
        return
    with tempfile.TemporaryDirectory() as folder:
        for file in own:
            shutil.copyfile(file, Path(folder) / file.name)
        yield Path(folder) / path.name


def require_whole(path: Path, header: NiftiHeader) -> int:
    """Refuse a file with fewer voxels than its header says, or a damaged compression.

    ITK would read zeros in place of what is absent; and in place of NaN and infinite voxels too, and say nothing.

    Returns:
        How many voxels are NaN or infinite.

    Raises:
        InputError: voxels are absent or damaged.
    """
    data = _data_file(path) if header.is_pair else path
    expected = header.offset + header.bytes_of_voxels
    with _open(data) as file:
        bad, found = 0, 0
        try:
            found += len(file.read(header.offset))
            while found < expected and (chunk := file.read(min(_CHUNK, expected - found))):
                found += len(chunk)
                if header.float_type is not None:
                    bad += _not_finite(chunk, np.dtype(header.float_type))
            while file.read(_CHUNK):
                pass  # to the end, where the compression's check sum stands
        except (EOFError, zlib.error, OSError) as error:
            raise cut_short(data) from error
    if found < expected:
        raise cut_short(data)
    return bad


def _not_finite(chunk: bytes, kind: np.dtype[Any]) -> int:
    """How many numbers in these bytes are NaN or infinite; a torn last number is left out."""
    values = np.frombuffer(chunk, kind, len(chunk) // kind.itemsize)
    return int(values.size - np.count_nonzero(np.isfinite(values)))


def require_right_angles(path: Path, header: NiftiHeader) -> None:
    """Refuse a sheared sform unless the qform leads to another space, where the voxels do lie at right angles.

    An sform from a registration to a template (codes 3 to 5) beside the scanner's qform may be sheared: ITK and Slicer
    then take the qform. With equal codes, or without a qform, the right-angled matrix is only a coerced copy.

    Raises:
        GeometryError: the voxels have no right-angled grid.
    """
    if header.sform_code <= 0 or header.qform_code not in (0, header.sform_code):
        return
    try:
        Geometry((1, 1, 1), header.sform)
    except GeometryError as error:
        raise GeometryError(f"{path}: {error}") from error


def require_voxel_size(path: Path, header: NiftiHeader) -> None:
    """Refuse a file that says no size of its voxels: ITK would take 1 mm, or mirror the image, and say nothing.

    Raises:
        GeometryError: a size is not above zero, or infinite, along an axis of more than one voxel.
    """
    pairs = zip(header.shape_ijk, header.spacing_ijk_mm, strict=True)
    if any(count > 1 and not (math.isfinite(size) and size > 0) for count, size in pairs):
        sizes = " x ".join(f"{size:g}" for size in header.spacing_ijk_mm)
        raise GeometryError(f"{path} says that its voxels are {sizes} mm large; write it again with their true size.")


def weighed(path: Path, header: NiftiHeader, ijk_to_ras: NDArray[np.float64]) -> str:
    """How the grid that ITK took of a file stands to what else its header says of it.

    ITK takes voxel sizes from one place of the header and directions from another.

    Args:
        path: of the file, for messages.
        header: of the file.
        ijk_to_ras: the grid that ITK took.

    Returns:
        What to warn of: a header that names two places; empty where it does not.

    Raises:
        GeometryError: the grid is none that the header describes.
    """
    codes = {"sform": header.sform_code, "qform": header.qform_code}
    forms = {"sform": header.sform, "qform": header.qform}
    away = {name: _away_mm(ijk_to_ras, forms[name], header.shape_ijk) for name in forms if codes[name] > 0}
    voxel = float(np.linalg.norm(ijk_to_ras[:3, :3], axis=0).min())
    fitting = [name for name, distance in away.items() if distance <= voxel]
    if away and not fitting:
        name = next(iter(away))
        by_form, said = (
            " x ".join(f"{size:.3g}" for size in sizes)
            for sizes in (np.linalg.norm(forms[name][:3, :3], axis=0), header.spacing_ijk_mm)
        )
        raise GeometryError(
            f"{path} contradicts itself: by its {name} voxels are {by_form} mm large, by its voxel sizes {said} mm; "
            "write it again with the true ones."
        )
    if len(fitting) == 1 and len(away) == 2:
        other = "qform" if fitting == ["sform"] else "sform"
        return (
            f"{path} names two places in the patient, up to {away[other]:.3g} mm apart; the {fitting[0]}'s was taken, "
            f"as Slicer does, not the {other}'s."
        )
    return ""


def _away_mm(one: NDArray[np.float64], other: NDArray[np.float64], shape_ijk: tuple[int, int, int]) -> float:
    """How far apart two matrices put a grid's corner voxels, at most; infinite for what is no matrix."""
    corners = np.array(np.meshgrid(*[(0, n - 1) for n in shape_ijk])).reshape(3, -1)
    between = (one - other) @ np.vstack([corners, np.ones(corners.shape[1])])
    return float(np.linalg.norm(between[:3], axis=0).max()) if np.isfinite(between).all() else math.inf


def cut_short(path: Path) -> InputError:
    """The error for a file whose end is absent or whose compression is damaged."""
    return InputError(f"{path} is cut short or damaged; copy or download it again.")


def _parsed(path: Path, head: bytes, order: str) -> NiftiHeader:
    def numbers(form: str, at: int) -> tuple[Any, ...]:
        return struct.unpack_from(order + form, head, at)

    dim, (kind, bits), (offset,) = numbers("8h", 40), numbers("2h", 70), numbers("f", 108)
    if not 1 <= dim[0] <= 7 or min(dim[1 : dim[0] + 1]) < 1 or bits < 1:
        raise InputError(f"{path} has a NIfTI header with an impossible size {list(dim[1:])}; write it again.")
    qform_code, sform_code = numbers("2h", 252)
    mm = _MM_OF_UNIT.get(head[123] & 7, 1.0)
    sform = np.vstack([mm * np.array(numbers("12f", 280), dtype=np.float64).reshape(3, 4), [0, 0, 0, 1]])
    fraction, *sizes = numbers("4f", 76)
    spacing = tuple(mm * size for size in sizes)
    i, j, k = (dim[axis] if axis <= dim[0] else 1 for axis in (1, 2, 3))
    place = [mm * position for position in numbers("3f", 268)]
    qform = _qform(numbers("3f", 256), place, spacing, -1.0 if fraction < 0 else 1.0)
    count = -(-math.prod(dim[1 : dim[0] + 1]) * bits // 8)
    float_type = order + _FLOATS[kind] if kind in _FLOATS else None
    is_pair = head[344:347] == b"ni1"
    at = max(int(offset), 0)
    return NiftiHeader(count, at, float_type, is_pair, qform_code, sform_code, sform, qform, (i, j, k), spacing)


def _qform(
    turn: Sequence[float], place: Sequence[float], spacing: Sequence[float], handedness: float
) -> NDArray[np.float64]:
    """The 4x4 matrix of a quaternion's last three parts, the first voxel's place, and voxel sizes."""
    b, c, d = turn
    a = math.sqrt(max(0.0, 1 - b * b - c * c - d * d))
    matrix = np.eye(4)
    matrix[:3, :3] = [
        [a * a + b * b - c * c - d * d, 2 * (b * c - a * d), 2 * (b * d + a * c)],
        [2 * (b * c + a * d), a * a + c * c - b * b - d * d, 2 * (c * d - a * b)],
        [2 * (b * d - a * c), 2 * (c * d + a * b), a * a + d * d - b * b - c * c],
    ]
    matrix[:3, :3] *= np.where(np.isfinite(spacing), spacing, 0) * (1, 1, handedness)
    matrix[:3, 3] = place
    return matrix


def _stem(path: Path) -> str:
    for ending in _ENDINGS:
        if path.name.lower().endswith(ending):
            return path.name[: -len(ending)]
    return path.stem


def _data_file(path: Path) -> Path:
    for ending in (".img", ".img.gz"):
        if path.with_name(_stem(path) + ending).is_file():
            return path.with_name(_stem(path) + ending)
    raise InputError(f"{path} needs its voxels in {_stem(path)}.img beside it; copy that file too.")


def _open(path: Path) -> IO[bytes]:
    with path.open("rb") as file:
        compressed = file.read(2) == b"\x1f\x8b"
    return gzip.open(path, "rb") if compressed else path.open("rb")  # type: ignore[return-value]
