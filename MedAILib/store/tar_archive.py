"""A gzipped tar archive's members, written under the rules that a zip archive's are written by.

Its list of members is not known before it is read to the end, so that it is read twice: to look at every member, and to
write. Limits count what has come so far; whoever calls throws the folder away when anything is refused.
"""

import gzip
import io
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

from MedAILib.errors import ModelError
from MedAILib.output import cannot_write
from MedAILib.progress import Progress
from MedAILib.store.limits import Limits, in_kilobytes
from MedAILib.store.names import Members

CHUNK = 1 << 20
GZIP = b"\x1f\x8b"
# What macOS puts beside the real files.
JUNK = ("__MACOSX", ".DS_Store")
KINDS = (tarfile.REGTYPE, tarfile.AREGTYPE, tarfile.DIRTYPE)
# What tarfile and gzip raise for archives that are damaged or made to look so.
_DAMAGED = (
    tarfile.TarError,
    zlib.error,
    struct.error,
    EOFError,
    OSError,
    ValueError,
    LookupError,
    OverflowError,
    RecursionError,
    NotImplementedError,
)


def is_gzipped(path: Path) -> bool:
    """Whether a file begins as gzip does, whatever its name.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        return file.read(2) == GZIP


def write_members(archive: Path, folder: Path, progress: Progress, limits: Limits) -> None:
    """Write an archive's files into an empty folder.

    Raises:
        ModelError: it is damaged, too large, or holds what could write elsewhere.
        OutputError: the disk is full.
        Cancelled: by `progress`.
    """
    _pass(archive, None, progress, limits)  # nothing is written before every member was looked at
    _pass(archive, folder, progress, limits)


def _pass(archive: Path, folder: Path | None, progress: Progress, limits: Limits) -> None:
    """Go through an archive once, and write its files if there is a folder for them."""
    names, files = Members(archive, limits), 0
    with ExitStack() as opened:
        stream = opened.enter_context(_Metered(archive, limits))
        for info, tar in _members(archive, stream, opened):
            parts = _accepted(archive, info, names)
            if not parts or set(parts) & set(JUNK):
                stream.expected += info.size
                continue
            files += info.isreg()
            stream.require_room(info.size)
            if folder is None:
                stream.expected += info.size
                progress.step(*in_kilobytes(stream.done, None, "Looking"))
                continue
            place = folder.joinpath(*parts)
            make_folder(place if info.isdir() else place.parent)
            for size in _write(archive, tar, info, place) if info.isreg() else ():
                stream.expected += size
                progress.step(*in_kilobytes(stream.done, None, "Unpacking"))
        _drain(archive, stream)
    if not files:
        raise ModelError(f"{archive} holds no file.")


def _accepted(archive: Path, info: tarfile.TarInfo, names: Members) -> tuple[str, ...]:
    """The parts of a member's name, after it was looked at.

    Raises:
        ModelError: it is not acceptable.
    """
    reason = _wrong(info)
    if reason is not None:
        name = info.name[:100]
        raise ModelError(f"{archive} was refused: its member {name!r} {reason}; nothing was kept of it.")
    return names.add(info.name, info.isdir())


def make_folder(folder: Path) -> None:
    """Make a folder and those above it.

    Raises:
        OutputError: it can't be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise cannot_write(folder, error) from error


class _Metered(io.RawIOBase):
    """What is in a gzipped file, with a limit on how much comes out of it, and how much between two files' contents."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        super().__init__()
        self._archive, self._limits = archive, limits
        self._packed = archive.stat().st_size
        self._file = gzip.GzipFile(archive, "rb")
        self.done = 0
        self.expected = 0  # of `done`, what is content of files

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        """The next bytes, at most `CHUNK`; raises `ModelError` beyond the limits."""
        piece = self._file.read(CHUNK if size < 0 else min(size, CHUNK))
        self.done += len(piece)
        if self.done > self._limits.small_bytes and self.done > self._limits.ratio * self._packed:
            raise self._refused(f"it would grow more than {self._limits.ratio} times, as bombs do")
        around = self._limits.small_bytes + 2048 * self._limits.members  # heads, and content filled up to whole blocks
        if self.done > self._limits.total_bytes + around:
            raise self._refused(f"it would take over the {self._limits.total_bytes / 1e6:,.0f} MB that a model may")
        if self.done - self.expected > around + 2 * CHUNK:
            raise self._refused("it has more of other things in it than of files")
        return piece

    def require_room(self, size: int) -> None:
        """Raise `ModelError` where a file of that size is more than a model may have."""
        if self.expected + size > self._limits.total_bytes:
            raise self._refused(f"it would take over the {self._limits.total_bytes / 1e6:,.0f} MB that a model may")

    def close(self) -> None:
        self._file.close()
        super().close()

    def _refused(self, reason: str) -> ModelError:
        return ModelError(f"{self._archive} was refused: {reason}.")


def _members(archive: Path, stream: _Metered, opened: ExitStack) -> Iterator[tuple[tarfile.TarInfo, tarfile.TarFile]]:
    """Each member as it comes; its content must be read before the next one."""
    try:
        tar = opened.enter_context(tarfile.open(fileobj=stream, mode="r|"))  # noqa: SIM115
    except ModelError:
        raise
    except _DAMAGED as error:
        raise _damaged(archive) from error
    while True:
        try:
            info = tar.next()
        except ModelError:
            raise
        except _DAMAGED as error:
            raise _damaged(archive) from error
        tar.members = []  # type: ignore[attr-defined]  # it would remember all
        if info is None:
            return
        yield info, tar


def _wrong(info: tarfile.TarInfo) -> str | None:
    """Why a member is refused, its name apart; None where it is not."""
    if info.type not in KINDS or info.issparse() or info.linkname:
        return "is a link, a sparse or no ordinary file"
    if info.size < 0 or (info.isdir() and info.size):
        return "has a size that it can't have"
    return None


def _write(archive: Path, tar: tarfile.TarFile, info: tarfile.TarInfo, place: Path) -> Iterator[int]:
    """Write one member, giving the size of each piece; its length must be as the archive says."""
    written = 0
    try:
        out = place.open("xb")
    except OSError as error:
        raise cannot_write(place, error) from error
    with out:
        for piece in _pieces(archive, tar, info):
            written += len(piece)
            try:
                out.write(piece)
                out.flush()
            except OSError as error:
                raise cannot_write(place, error) from error
            yield len(piece)
    if written != info.size:
        raise _damaged(archive)


def _pieces(archive: Path, tar: tarfile.TarFile, info: tarfile.TarInfo) -> Iterator[bytes]:
    content = tar.extractfile(info)
    assert content is not None, "it was seen to be an ordinary file"
    while True:
        try:
            piece = content.read(CHUNK)
        except ModelError:
            raise
        except _DAMAGED as error:
            raise _damaged(archive) from error
        if not piece:
            return
        yield piece


def _drain(archive: Path, stream: _Metered) -> None:
    """Read to the end, where gzip's own checksum of everything stands."""
    try:
        while stream.read():
            pass
    except ModelError:
        raise
    except _DAMAGED as error:
        raise _damaged(archive) from error


def _damaged(archive: Path) -> ModelError:
    return ModelError(f"{archive} is no archive of gzipped tar, or a damaged one; download or copy it again.")
