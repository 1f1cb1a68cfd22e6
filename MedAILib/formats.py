"""Which format a model has, by what is in its folder or file and not by its name; and why something is none."""

import re
import zipfile
from collections.abc import Iterator
from enum import Enum
from pathlib import Path

from MedAILib.bundle_plan import is_bundle
from MedAILib.config import read_json
from MedAILib.errors import SpecError
from MedAILib.nnunet_folder import why_no_nnunet

DESCRIPTION = "medai.json"
SLICER_ENDING = ".seg.nrrd"  # of segmentations as Slicer saves them
WEIGHT_ENDINGS = (".bin", ".ckpt", ".model", ".pt", ".pth", ".safetensors", ".tar")
# The most entries of a zip file that are looked at; the largest networks' TorchScript has some thousand.
MOST_ENTRIES = 20_000
HEAD_BYTES = 4096
_DESCRIBE = f"put it into a folder with a {DESCRIPTION} that describes the network (see docs/models.md)"


class Format(Enum):
    """The formats that MedAI runs."""

    BUNDLE = "MONAI bundle"
    NNUNET = "nnU-Net result"
    STATE_DICT = "weights with a description"
    TORCHSCRIPT = "TorchScript"
    ENSEMBLE = "ensemble"


def find_format(source: Path) -> Format:
    """The format of the model in a folder or file.

    Raises:
        SpecError: there is none, with what is there instead, or it can't be read.
    """
    try:
        if source.is_dir():
            return _of_folder(source)
        if not source.exists():
            raise SpecError(f"There is no model at {source}.")
        if not source.is_file():
            raise _none(source, "it is a device or a pipe, and no ordinary file")
        return _of_file(source)
    except OSError as error:
        raise SpecError(f"{source} can't be read: {error.strerror or error}.") from error


def is_torchscript(path: Path) -> bool:
    """Whether a file is TorchScript: a zip file of code and constants, whatever its name.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        if file.read(4) != b"PK\x03\x04":
            return False
    names = _members(path)
    return any(name.endswith("/constants.pkl") for name in names) and any("/code/" in name for name in names)


def holds_model(path: Path) -> bool:
    """Whether a file is a zip archive with a model's folder in it, whatever its ending.

    Raises:
        OSError: it can't be read.
    """
    if not zipfile.is_zipfile(path) or is_torchscript(path):
        return False
    described = ("configs/metadata.json", "plans.json", DESCRIPTION)
    return any(name == end or name.endswith(f"/{end}") for name in _members(path) for end in described)


def _of_folder(folder: Path) -> Format:
    if is_bundle(folder):
        return Format.BUNDLE
    if (folder / DESCRIPTION).is_file():
        return Format.ENSEMBLE if "members" in read_json(folder / DESCRIPTION) else Format.STATE_DICT
    reason = why_no_nnunet(folder)
    if not reason:
        return Format.NNUNET
    raise _none(folder, _lacking(folder, reason))


def _lacking(folder: Path, no_nnunet: str) -> str:
    """What a folder would need to be a model."""
    names = sorted(path.name for path in folder.iterdir())
    if not names:
        return "the folder is empty"
    if "saved_model.pb" in names:
        return "it is a TensorFlow model, which MedAI does not run; export it to PyTorch"
    if any(folder.glob("constants.pkl")) or any(folder.glob("*/constants.pkl")):
        return "it is the inside of a TorchScript file; give the file itself, by a name that ends in .ts"
    weights = [name for name in names if Path(name).suffix.lower() in WEIGHT_ENDINGS]
    if weights and "configs" not in names and "plans.json" not in names:
        return (
            f"{weights[0]} holds numbers, and nothing says which network they belong to; add a {DESCRIPTION} that "
            "describes it (see docs/models.md)"
        )
    return (
        f"a MONAI bundle has configs/metadata.json and configs/inference.json in it; {no_nnunet}; weights of another "
        f"origin need a {DESCRIPTION} beside them"
    )


def _of_file(path: Path) -> Format:
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if head.startswith(b"PK\x03\x04") or head.startswith(b"PK\x05\x06"):
        return _of_zip(path)
    raise _none(path, _what_instead(head, path))


def _of_zip(path: Path) -> Format:
    if is_torchscript(path):
        return Format.TORCHSCRIPT
    names = _members(path)
    if any(name.endswith("data.pkl") for name in names):
        raise _none(path, f"it holds a PyTorch checkpoint's numbers without a description of the network; {_DESCRIBE}")
    if any(name.endswith(("config.json", "model.weights.h5")) for name in names) and len(names) < 5:
        raise _none(path, "it is a Keras model, which MedAI does not run; export it to PyTorch")
    if names and path.suffix.lower() != ".zip":
        raise _none(path, "it is a zip archive without a model's folder in it")
    if not names:
        raise _none(path, "it is an empty or damaged zip archive; download or copy it again")
    raise _none(path, "it is a zip archive; unpack it, or add it with `medai models add`")


def _members(path: Path) -> list[str]:
    """The names in a zip file; none where it is damaged."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.namelist()[:MOST_ENTRIES]
    except (zipfile.BadZipFile, ValueError, NotImplementedError, EOFError, OverflowError):
        return []


def other_content(path: Path) -> str:
    """What a file is that is neither a model nor its weights, such as a web page; empty where that is not known.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        return next((reason for applies, reason in _others(file.read(HEAD_BYTES)) if applies), "")


def _others(head: bytes) -> Iterator[tuple[bool, str]]:
    """What a file may be that is neither a model nor weights, by its first bytes."""
    text = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    yield not head, "the file is empty; download or copy it again"
    yield text.startswith((b"<!doctype html", b"<html", b"<?xml", b"<head")), _WEB_PAGE
    yield text.startswith(b"version https://git-lfs"), _POINTER
    yield from ((head.startswith(start), reason) for start, reason in _STARTS)


def _what_instead(head: bytes, path: Path) -> str:
    """What a file is that is no model, as far as its first bytes tell."""
    text = head[:1024].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    kinds = (
        *_others(head),
        (_ONNX.match(head) is not None or path.suffix.lower() == ".onnx", _EXPORT),
        (_is_safetensors(head), f"it holds weights (safetensors) without a description of the network; {_DESCRIBE}"),
        (head[:1] == b"\x80" and head[1:2] <= b"\x05", f"{_PICKLE}; if it is a PyTorch checkpoint, {_DESCRIBE}"),
        (text.startswith(b"{"), f"it is a JSON file; give its folder, where it is a bundle's or a {DESCRIPTION}"),
        (head[257:262] == b"ustar", _UNPACK),
    )
    other = "it is neither TorchScript nor a zip archive, and a model of any other format is a folder"
    return next((reason for applies, reason in kinds if applies), other)


def _is_safetensors(head: bytes) -> bool:
    return 2 <= int.from_bytes(head[:8], "little") < 100_000_000 and head[8:9] == b"{"


_ONNX = re.compile(rb"\x08[\x01-\x20]([\x12\x1a\x22\x3a\x42]|\x28)")
_EXPORT = "it is an ONNX model, which MedAI does not run; export it to TorchScript instead"
_POINTER = "it is a pointer of Git LFS; fetch the file with `git lfs pull`"
_WEB_PAGE = "it is a web page, saved in place of the model; open its address in a browser to see why"
_PICKLE = "it is a Python pickle, which could execute code and is not read"
_UNPACK = "it is an archive that MedAI does not unpack; unpack it yourself and give the folder"
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\x89HDF\r\n", "it is a Keras or other HDF5 file, which MedAI does not run; export the model to PyTorch"),
    (b"\x1f\x8b", "it is compressed; if it is an archive with a model, give it a name that ends in .tar.gz"),
    (b"7z\xbc\xaf", _UNPACK),
    (b"Rar!", _UNPACK),
    (b"BZh", _UNPACK),
    (b"\xfd7zXZ", _UNPACK),
    (b"(\xb5/\xfd", _UNPACK),
    (b"\x93NUMPY", "it is a NumPy array, and no model"),
    (b"\x89PNG", "it is an image, and no model"),
    (b"NRRD", "it is an image, and no model"),
    (b"GGUF", "it is a language model, which does not segment images"),
    (b"\x7fELF", "it is a program, and no model"),
    (b"MZ", "it is a program, and no model"),
    (b"#!", "it is a script, and no model"),
)


def _none(source: Path, reason: str) -> SpecError:
    return SpecError(f"{source} is no model that MedAI knows: {reason}.")
