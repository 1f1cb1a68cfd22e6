"""The store changes: models are added from an address, an archive or a folder, removed, and compared with their record.

Whatever goes wrong, and whenever the process ends, the store has a model whole, or as it was before.
"""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

from MedAILib.errors import InputError, MedAIError, ModelError
from MedAILib.output import cannot_write
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.store.arrival import Arrived, Source, Wishes, fetch
from MedAILib.store.content import size_bytes, tree_sha256
from MedAILib.store.download import forget_old_parts
from MedAILib.store.engines import engines_size, forget_engines
from MedAILib.store.find import builtin_checksums, builtin_models
from MedAILib.store.folders import store_folder, work_folder
from MedAILib.store.licence import Licence, licence_of
from MedAILib.store.limits import Limits
from MedAILib.store.lock import locked
from MedAILib.store.names import require_model_name, shown
from MedAILib.store.record import Installed, Record, installed_models
from MedAILib.store.unpacked import forget_unpacked, unpacked_size

PACKAGE = "package"
BEFORE = "before-"


@dataclass(frozen=True)
class Verified:
    """A model compared with its record: its SHA-256 now, and whether one was on record to compare with."""

    name: str
    path: Path
    sha256: str
    recorded: bool


def add_model(source: Source, wishes: Wishes, progress: Progress, limits: Limits | None = None) -> Installed:
    """Add a model to the store.

    What concerns its use (a licence that forbids commercial use, the author's own warnings, a description that MedAI
    can't follow) goes to `progress` before the model takes its place.

    Raises:
        InputError: the name is taken or can't be one.
        DownloadError: it can't be fetched.
        ModelError: the archive is damaged or refused, or what came is no model.
        OutputError: the disk is full, the store can't be written, or another process changes it.
        Cancelled: by `progress`.
    """
    if wishes.name is not None:
        require_model_name(wishes.name)
    with _changing() as staging:
        arrived = fetch(source, wishes, staging, partial(_require_free, wishes), progress, limits or Limits())
        package = staging / PACKAGE
        entry = package / (arrived.name if arrived.path.is_dir() else f"{arrived.name}{arrived.path.suffix}")
        try:
            package.mkdir()
            arrived.path.rename(entry)
            record = _record(source, arrived, entry)
            record.write(package)
        except OSError as error:
            raise cannot_write(package, error) from error
        _warn(entry, record, progress)
        _take_place(package, record.name)
    return installed_models()[record.name]


def require_free_name(name: str) -> None:
    """Raise `InputError` unless a model that is still to be made could join the store by this name."""
    require_model_name(name)
    if name in builtin_models() or name in installed_models():
        raise InputError(f"There is a model '{name}' already; choose another name for the new one, or remove that.")


def remove_model(name: str) -> int:
    """Remove a model from the store.

    Returns:
        The bytes that it took.

    Raises:
        InputError: no added model has this name.
        OutputError: it can't be removed, or another process changes the store.
    """
    if name in builtin_models():
        raise InputError(f"The model '{name}' ships with MedAI and can't be removed.")
    with _changing() as staging:
        if name not in installed_models():
            names = ", ".join(installed_models()) or "none"
            raise InputError(f"There is no added model '{name}' to remove; added are: {names}.")
        folder = store_folder() / name
        size = size_bytes(folder)
        try:
            folder.rename(staging / name)
        except OSError as error:
            raise cannot_write(folder, error) from error
    return size


def clean_store() -> int:
    """Remove what is no model from the store: unpacked archives, conversions, and downloads that are half there.

    Returns:
        The bytes that they took.

    Raises:
        OutputError: another process changes the store.
    """
    with _changing() as staging:
        downloads = work_folder() / "downloads"
        size = unpacked_size() + engines_size() + size_bytes(downloads)
        forget_old_parts(downloads, days=0)
        forget_unpacked(staging)
        forget_engines(staging)
    return size


def verify_model(name: str, path: Path) -> Verified:
    """Compare a model, which `find_model` found at `path` by `name`, with what is on record of it.

    Raises:
        ModelError: it is not as it was when it was shipped or added.
    """
    digest = tree_sha256(path)
    recorded, again = None, ""
    if builtin_models().get(name) == path:
        recorded, again = builtin_checksums().get(name), "install MedAI again"
    elif (there := installed_models().get(name)) is not None and there.path == path:
        recorded, again = there.record.sha256, f"add it again with --replace from {there.record.source}"
    if recorded not in (None, digest):
        raise ModelError(f"The model '{name}' is not as it came (SHA-256 {digest}, recorded {recorded}); {again}.")
    return Verified(name, path, digest, recorded is not None)


@contextmanager
def _changing() -> Iterator[Path]:
    """A staging folder in the store, for the one process that may change it now."""
    work = work_folder()
    busy = f"Another MedAI is changing the models in {store_folder()}; try again when it has finished."
    with locked(work / "lock", busy):
        _heal(work)
        try:
            staging = Path(tempfile.mkdtemp(prefix="staging-", dir=work))
        except OSError as error:
            raise cannot_write(work, error) from error
        try:
            yield staging
        finally:
            shutil.rmtree(staging, ignore_errors=True)


def _heal(work: Path) -> None:
    """Clear away what a process that was killed left; a model that was about to be replaced goes back."""
    for before in work.glob(f"{BEFORE}*"):
        place = store_folder() / before.name.removeprefix(BEFORE)
        if not place.exists():
            before.rename(place)
        else:
            shutil.rmtree(before, ignore_errors=True)
    for left in work.glob("staging-*"):
        shutil.rmtree(left, ignore_errors=True)
    forget_old_parts(work / "downloads")


def _take_place(package: Path, name: str) -> None:
    """Move a whole package into the store; one of that name goes only when this has worked."""
    place, before = store_folder() / name, work_folder() / f"{BEFORE}{name}"
    try:
        if place.exists():
            place.rename(before)
        try:
            package.rename(place)
        except OSError:
            if before.exists():
                before.rename(place)
            raise
    except OSError as error:
        raise cannot_write(place, error) from error
    shutil.rmtree(before, ignore_errors=True)


def _require_free(wishes: Wishes, name: str) -> None:
    """Raise `InputError` if a model has this name already, in any case of letters, and may not be replaced."""
    if name.casefold() in {known.casefold() for known in builtin_models()}:
        raise InputError(f"A model '{name}' ships with MedAI; add this one under another name with --name.")
    store = store_folder()
    taken = next((path for path in store.iterdir() if path.name.casefold() == name.casefold()), None)
    if taken is None:
        return
    if not wishes.replace:
        raise InputError(f"There is a model '{taken.name}' already; use --replace, or another name with --name.")
    if taken.name != name or taken.name not in installed_models():
        raise InputError(f"{taken} can't be replaced by '{name}'; give another name with --name.")


def _record(source: Source, arrived: Arrived, entry: Path) -> Record:
    licence = _licence(entry)
    return Record(
        name=arrived.name,
        entry=entry.name,
        source=source.remote.address if source.remote else str(source.path.resolve() if source.path else ""),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        sha256=tree_sha256(entry),
        licence=licence.name,
        commercial=licence.commercial,
        size=size_bytes(entry),
        archive=arrived.archive,
        pinned=arrived.pinned,
    )


def _licence(path: Path) -> Licence:
    try:
        return licence_of(path, read_spec(path).licence)
    except MedAIError:
        return licence_of(path)


def _warn(entry: Path, record: Record, progress: Progress) -> None:
    if record.commercial is False:
        progress.warn(f"The licence of '{record.name}' is {Licence(record.licence, False).in_words()}")
    if "://" in record.source and not record.pinned:
        progress.warn(f"'{record.name}' was compared with no promised hash; the archive's is {record.archive}.")
    try:
        spec = read_spec(entry)
    except MedAIError as error:
        progress.warn(f"'{record.name}' is added but does not run: {error}")
        return
    if spec.obstacle:
        progress.warn(f"'{record.name}' is added but does not run: {spec.obstacle}")
    for text in (spec.intended_use, *spec.warnings):
        if text:
            progress.warn(f"The author of '{record.name}' says: {shown(text)}")
