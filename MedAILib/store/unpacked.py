"""An archive given as a model: unpacked once, kept by its SHA-256, the longest unused forgotten first."""

import os
import shutil
import time
from contextlib import AbstractContextManager
from pathlib import Path

from MedAILib.errors import ModelError
from MedAILib.output import cannot_write
from MedAILib.progress import Progress
from MedAILib.store.archive import archive_stem, unpack
from MedAILib.store.content import file_digest, size_bytes
from MedAILib.store.folders import work_folder
from MedAILib.store.limits import Limits
from MedAILib.store.lock import locked
from MedAILib.store.names import model_name
from MedAILib.store.root import model_root

MOST_BYTES = 10_000_000_000
# What was used so recently may be in use by another run.
IN_USE_S = 600.0
WAIT_S = 1800.0

_known: dict[tuple[Path, int, int], str] = {}


def unpacked(path: Path, progress: Progress | None = None, limits: Limits | None = None) -> Path:
    """The folder of the model in an archive, unpacked into the store's cache unless it is there already.

    Raises:
        ModelError: the archive is damaged or refused, or holds no model.
        OutputError: the cache can't be written, or the disk is full.
        Cancelled: by `progress`.
    """
    cache = work_folder() / "unpacked"
    with _locked():
        place = cache / _digest(path)
        if not place.is_dir():
            _unpack(path, place, progress or Progress(), limits)
        os.utime(place)
        _forget_unused(cache, place)
        return model_root(place, path)


def unpacked_size() -> int:
    """The bytes that unpacked archives take."""
    return size_bytes(work_folder() / "unpacked")


def forget_unpacked(staging: Path) -> None:
    """Move all unpacked archives into a folder that will be removed.

    Raises:
        OutputError: they can't be moved.
    """
    cache = work_folder() / "unpacked"
    with _locked():
        try:
            if cache.is_dir():
                cache.rename(staging / "unpacked")
        except OSError as error:
            raise cannot_write(cache, error) from error


def _locked() -> AbstractContextManager[None]:
    place = work_folder() / "unpacked.lock"
    return locked(place, f"Another run is unpacking models in {place.parent}; wait for it.", WAIT_S)


def _unpack(path: Path, place: Path, progress: Progress, limits: Limits | None) -> None:
    cache = place.parent
    try:
        cache.mkdir(exist_ok=True)
        for left in cache.glob(".unpacking-*"):  # of a run that was killed: nobody else holds the lock
            shutil.rmtree(left, ignore_errors=True)
        staging = cache / f".unpacking-{place.name}"
        staging.mkdir()
    except OSError as error:
        raise cannot_write(cache, error) from error
    try:
        # The model's name is its folder's: that of the archive, where it brings none of its own.
        unpack(path, staging / model_name(archive_stem(path) or path.stem), progress, limits)
        model_root(staging, path)
        staging.rename(place)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def _digest(path: Path) -> str:
    """The archive's SHA-256; worked out once for each state of the file."""
    try:
        state = path.stat()
        key = (path.resolve(), state.st_size, state.st_mtime_ns)
        if key not in _known:
            _known[key] = file_digest(path, "sha256")
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error}.") from error
    return _known[key]


def _forget_unused(cache: Path, keep: Path) -> None:
    """Remove what was used longest ago until the rest takes at most `MOST_BYTES`."""
    places = sorted((path for path in cache.iterdir() if path != keep), key=lambda path: path.stat().st_mtime)
    total = size_bytes(cache)
    for path in places:
        if total <= MOST_BYTES or path.stat().st_mtime > time.time() - IN_USE_S:
            return
        total -= size_bytes(path)
        gone = cache / f".unpacking-{path.name}"
        path.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
