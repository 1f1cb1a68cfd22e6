"""What exactly a model is: one SHA-256 over all that its folder or file holds."""

import hashlib
from pathlib import Path

from MedAILib.errors import ModelError

CHUNK = 1 << 20


def tree_sha256(source: Path) -> str:
    """SHA-256 of a file, or of a folder's files: their relative names in order, each with the hash of its content.

    Raises:
        ModelError: something in there can't be read, is a link, or is no ordinary file.
    """
    try:
        if source.is_file():
            return _file_sha256(source)
        total = hashlib.sha256()
        for name, path in sorted((path.relative_to(source).as_posix(), path) for path in source.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise ModelError(f"{path} is a link or no ordinary file; put the file itself in its place.")
            if path.is_file():
                total.update(f"{name}\0{_file_sha256(path)}\n".encode())
        return total.hexdigest()
    except OSError as error:
        raise ModelError(f"The model in {source} can't be read: {error}.") from error


def _file_sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()
