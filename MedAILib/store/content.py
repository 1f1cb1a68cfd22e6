"""What exactly a model is: one SHA-256 over all that its folder or file holds, and how much room that takes."""

import hashlib
from pathlib import Path

from MedAILib.errors import ModelError

CHUNK = 1 << 20
# No model has so many files, or is so large; a folder that was not meant to be one may be.
MOST_ENTRIES = 20_000
MOST_BYTES = 100_000_000_000


def tree_sha256(source: Path) -> str:
    """SHA-256 of a file, or of a folder's files: their relative names in order, each with the hash of its content.

    Raises:
        ModelError: something in there can't be read, is a link, or is no ordinary file; or it is too much for a model.
    """
    return combined_sha256(source, file_hashes(source))


def combined_sha256(source: Path, hashes: dict[str, str]) -> str:
    """What `tree_sha256` says of a source with these `file_hashes`."""
    if source.is_file():
        return hashes[source.name]
    total = hashlib.sha256()
    for name, digest in hashes.items():
        total.update(f"{name}\0{digest}\n".encode())
    return total.hexdigest()


def file_hashes(source: Path) -> dict[str, str]:
    """The SHA-256 of each file of a model, by its name relative to the folder, in order; of a file, its own.

    Raises:
        ModelError: as `tree_sha256`.
    """
    try:
        if source.is_file():
            return {source.name: file_digest(source, "sha256")}
        files, size = [], 0
        for count, path in enumerate(source.rglob("*")):
            if path.is_symlink() or not (path.is_file() or path.is_dir()):
                raise ModelError(f"{path} is a link or no ordinary file; put the file itself in its place.")
            if path.is_file():
                files.append((path.relative_to(source).as_posix(), path))
                size += path.stat().st_size
            if count > MOST_ENTRIES or size > MOST_BYTES:
                raise ModelError(
                    f"{source} holds more than {MOST_ENTRIES} files or {MOST_BYTES / 1e9:g} GB, which no model does; "
                    "give the model's own folder."
                )
        return {name: file_digest(path, "sha256") for name, path in sorted(files)}
    except OSError as error:
        raise ModelError(f"The model in {source} can't be read: {error}.") from error
    except UnicodeEncodeError as error:
        raise ModelError(f"The model in {source} has a file name that is no text; rename it.") from error


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
