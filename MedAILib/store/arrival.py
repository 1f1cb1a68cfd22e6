"""A model comes from an address, an archive or a folder into a staging folder; the store is not touched here."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from MedAILib.errors import InputError, ModelError
from MedAILib.output import cannot_write
from MedAILib.progress import Progress
from MedAILib.read_spec import require_model
from MedAILib.store.archive import archive_stem, is_archive, unpack
from MedAILib.store.catalogue import catalogue
from MedAILib.store.content import CHUNK, file_digest
from MedAILib.store.download import download
from MedAILib.store.find import existing
from MedAILib.store.folders import store_folder, work_folder
from MedAILib.store.limits import Limits, in_kilobytes
from MedAILib.store.names import Members, model_name
from MedAILib.store.remote import Remote
from MedAILib.store.root import model_root
from MedAILib.store.tar_archive import is_gzipped

OTHER_ARCHIVES = (".7z", ".bz2", ".gz", ".rar", ".tar", ".xz", ".zst")


@dataclass(frozen=True)
class Wishes:
    """How a model is to be added.

    Args:
        name: by which it will be found; None for its own.
        replace: whether one of that name may be replaced.
        sha256: what the downloaded file, or the given archive, must hash to.
    """

    name: str | None = None
    replace: bool = False
    sha256: str | None = None


@dataclass(frozen=True)
class Source:
    """What is to be added: exactly one of a remote file and a path; a name where the catalogue gives one."""

    words: str
    remote: Remote | None = None
    path: Path | None = None
    name: str | None = None


@dataclass(frozen=True)
class Arrived:
    """A model in a staging folder: where, under which name, and the archive's hash it came with."""

    path: Path
    name: str
    archive: str = ""
    pinned: bool = False


def find_source(words: str, sha256: str | None = None) -> Source:
    """What the user means by an address, a path or a name of the catalogue, in this order.

    Raises:
        InputError: nothing of these.
    """
    if sha256 is not None and (len(sha256) != 64 or not set(sha256.lower()) <= set("0123456789abcdef")):
        raise InputError(f"'{sha256}' is no SHA-256; that has 64 digits and letters from a to f.")
    if "://" in words:
        return Source(words, remote=Remote(words, sha256=sha256))
    path = existing(words) if words.strip() else None
    if path is not None:
        return Source(words, path=path)
    entry = catalogue().get(words)
    if entry is not None:
        remote = entry.remote if sha256 is None else replace(entry.remote, sha256=sha256)
        return Source(words, remote=remote, name=entry.name)
    raise InputError(
        f"There is nothing to add at '{words}'; give a folder, an archive, an https address, or a name that "
        "`medai models list` shows as available."
    )


def fetch(
    source: Source, wishes: Wishes, staging: Path, accept: Callable[[str], None], progress: Progress, limits: Limits
) -> Arrived:
    """Bring the model into the staging folder.

    `accept` is called with the model's name as soon as that is known, before a long copy; it raises if it can't be.

    Raises:
        DownloadError, ModelError, InputError, OutputError, Cancelled: see `adding.add_model`.
    """
    early = wishes.name or source.name
    if early is not None:
        accept(early)
    if source.remote is None:
        assert source.path is not None
        arrived = _from_path(source.path, wishes, staging, accept, progress, limits)
    else:
        file = download(source.remote, work_folder() / "downloads", progress, limits)
        named = Path(unquote(urlsplit(source.remote.address).path))
        name = model_name(archive_stem(named) or named.stem)
        try:
            shown = staging / f"{name}{'.tar.gz' if is_gzipped(file) else '.zip'}"
            file.rename(shown)
        except OSError as error:
            raise cannot_write(file, error) from error
        arrived = _from_archive(shown, wishes, staging, progress, limits)
        arrived = replace(arrived, pinned=source.remote.checksum is not None, name=source.name or arrived.name)
    arrived = replace(arrived, name=wishes.name or arrived.name)
    accept(arrived.name)
    return arrived


def _from_path(
    path: Path, wishes: Wishes, staging: Path, accept: Callable[[str], None], progress: Progress, limits: Limits
) -> Arrived:
    store = store_folder().resolve()
    if path.resolve() in (store, *store.parents):
        raise InputError(f"{path} holds the model store itself; give the model's own folder.")
    if is_archive(path):
        return _from_archive(path, wishes, staging, progress, limits)
    if wishes.sha256 is not None:
        raise InputError(f"{path} is no archive, and --sha256 is for one; leave it out.")
    if path.is_file() and path.suffix.lower() in OTHER_ARCHIVES:
        raise InputError(f"{path} is none of the archives that MedAI unpacks, .zip and .tar.gz; unpack it and add it.")
    root = path if path.is_file() else model_root(path, path)
    require_model(root)
    name = wishes.name or model_name(root.resolve().stem if root.is_file() else root.resolve().name)
    accept(name)
    copy = staging / f"copy{root.suffix if root.is_file() else ''}"
    _copy(root, copy, progress, limits)
    return Arrived(copy, name)


def _from_archive(archive: Path, wishes: Wishes, staging: Path, progress: Progress, limits: Limits) -> Arrived:
    try:
        digest = file_digest(archive, "sha256")
    except OSError as error:
        raise ModelError(f"{archive} can't be read: {error}.") from error
    if wishes.sha256 is not None and digest != wishes.sha256.lower():
        raise ModelError(
            f"{archive} is not what --sha256 says (it has {digest}); nothing was kept of it. Get it again, or ask its "
            "publisher."
        )
    folder = staging / "unpacked"
    unpack(archive, folder, progress, limits)
    root = model_root(folder, archive.name)
    name = model_name((archive_stem(archive) or archive.stem) if root == folder else root.name)
    return Arrived(root, name, f"sha256:{digest}", pinned=wishes.sha256 is not None)


def _copy(source: Path, target: Path, progress: Progress, limits: Limits) -> None:
    """Copy a model's folder or file: ordinary files only, under the same rules as an archive's members.

    Raises:
        ModelError: it holds a link, something that is no ordinary file, or is too large.
        OutputError: it can't be written.
    """
    files = [source] if source.is_file() else sorted(source.rglob("*"))
    names, total = Members(source, limits), 0
    for path in files:
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise ModelError(f"{path} is a link or no ordinary file; put the file itself in its place.")
        if path != source:
            names.add(path.relative_to(source).as_posix(), path.is_dir())
        total += 0 if path.is_dir() else path.stat().st_size
    if total > limits.total_bytes:
        raise ModelError(
            f"{source} takes {total / 1e6:,.0f} MB, over the {limits.total_bytes / 1e6:,.0f} that a model may."
        )
    done = 0
    try:
        for path in files:
            place = target / path.relative_to(source) if path != source else target
            if path.is_dir():
                place.mkdir(parents=True, exist_ok=True)
                continue
            place.parent.mkdir(parents=True, exist_ok=True)
            with path.open("rb") as stream, place.open("xb") as out:
                while piece := stream.read(CHUNK):
                    out.write(piece)
                    done += len(piece)
                    progress.step(*in_kilobytes(done, total, "Copying"))
    except OSError as error:
        raise cannot_write(target, error) from error
