"""What exactly a model is: one SHA-256 over all that its folder or file holds, and how much room that takes."""

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
            return file_digest(source, "sha256")
        total = hashlib.sha256()
        for name, path in sorted((path.relative_to(source).as_posix(), path) for path in source.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise ModelError(f"{path} is a link or no ordinary file; put the file itself in its place.")
            if path.is_file():
                total.update(f"{name}\0{file_digest(path, 'sha256')}\n".encode())
        return total.hexdigest()
    except OSError as error:
        raise ModelError(f"The model in {source} can't be read: {error}.") from error


def file_digest(path: Path, algorithm: str) -> str:
    """A file's hash in hexadecimal: `sha256`, or `sha1` where a publisher gives no better one."""
    digest = hashlib.new(algorithm, usedforsecurity=algorithm != "sha1")
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def size_bytes(source: Path) -> int:
    """What a model's file, or all files of its folder, take."""
    if source.is_file():
        return source.stat().st_size
    return sum(path.lstat().st_size for path in source.rglob("*") if path.is_file())
