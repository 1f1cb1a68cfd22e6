"""A zip or tar.gz archive becomes a folder, whole or not at all; nothing in it can write elsewhere or fill the disk.

Python's `zipfile` reads the members; which of them are written, where and how much, is decided here.
"""

import io
import shutil
import stat
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from MedAILib.errors import ModelError
from MedAILib.formats import holds_model, other_content
from MedAILib.output import cannot_write
from MedAILib.progress import Progress
from MedAILib.store.limits import Limits, in_kilobytes
from MedAILib.store.names import Members
from MedAILib.store.tar_archive import JUNK, is_gzipped, make_folder, write_members

CHUNK = 1 << 20
METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
ENCRYPTED = 0x1 | 0x40 | 0x2000
ENDINGS = (".zip", ".tar.gz", ".tgz")
# What zipfile raises for archives that are damaged or made to look so.
_DAMAGED = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    RuntimeError,
    ValueError,
    OverflowError,
    OSError,
)


@dataclass(frozen=True)
class _Member:
    info: zipfile.ZipInfo
    parts: tuple[str, ...]

    @property
    def is_folder(self) -> bool:
        return self.info.orig_filename.endswith("/")


class _Sparing(io.BufferedReader):
    """A file that refuses to be read in large pieces: `zipfile` takes the whole list of members at once."""

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(io.FileIO(path))
        self._most = most

    def read(self, size: int | None = -1, /) -> bytes:
        if size is not None and size > self._most:
            raise zipfile.BadZipFile(f"{size} bytes at once")
        return super().read(size)


def archive_stem(path: Path) -> str | None:
    """An archive's name without its ending; None for what does not end as archives do that MedAI unpacks."""
    ending = next((ending for ending in ENDINGS if path.name.lower().endswith(ending)), None)
    return None if ending is None else path.name[: -len(ending)]


def is_archive(path: Path) -> bool:
    """Whether a path is an archive that MedAI unpacks: by its ending, or a zip with a model in it by any name.

    Raises:
        ModelError: it can't be read.
    """
    if not path.is_file():
        return False
    try:
        return archive_stem(path) is not None or holds_model(path)
    except OSError as error:
        raise ModelError(f"{path} can't be read: {error}.") from error


def unpack(archive: Path, target: Path, progress: Progress, limits: Limits | None = None) -> None:
    """Unpack an archive, told by its content, into `target`, which must not exist and appears only when all is there.

    Raises:
        ModelError: it is damaged, encrypted, too large, or holds what could write elsewhere.
        OutputError: the disk is full, or `target` can't be written.
        Cancelled: by `progress`.
    """
    limits = limits or Limits()
    try:
        part = Path(tempfile.mkdtemp(prefix=".unpacking-", dir=target.parent))
    except OSError as error:
        raise cannot_write(target, error) from error
    try:
        (write_members if _is_tar(archive) else _unpack_to)(archive, part, progress, limits)
        try:
            part.rename(target)
        except OSError as error:
            raise cannot_write(target, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _is_tar(archive: Path) -> bool:
    try:
        return is_gzipped(archive)
    except OSError as error:
        raise ModelError(f"{archive} can't be read: {error}.") from error


def _no_archive(archive: Path) -> str:
    """What a file is that has an archive's name and is none."""
    try:
        other = other_content(archive)
    except OSError:
        other = ""
    if other:
        return f"{archive} can't be unpacked: {other}."
    return f"{archive} is no zip or tar.gz archive, or a damaged one; download or copy it again."


def _unpack_to(archive: Path, folder: Path, progress: Progress, limits: Limits) -> None:
    with ExitStack() as files:
        try:
            raw = files.enter_context(_Sparing(archive, limits.small_bytes))
            file = files.enter_context(zipfile.ZipFile(raw))
        except _DAMAGED as error:
            raise ModelError(_no_archive(archive)) from error
        members = _accepted(archive, file.infolist(), limits)
        total, done = sum(member.info.file_size for member in members), 0
        for member in members:
            place = folder.joinpath(*member.parts)
            if member.is_folder:
                make_folder(place)
                continue
            make_folder(place.parent)
            for size in _write(archive, file, member, place):
                done += size
                progress.step(*in_kilobytes(done, total, "Unpacking"))


def _accepted(archive: Path, infos: list[zipfile.ZipInfo], limits: Limits) -> list[_Member]:
    """The members to write, after every one was looked at.

    Raises:
        ModelError: one of them is not acceptable.
    """
    names, accepted, packed, total = Members(archive, limits), [], 0, 0
    for info in infos:
        member = _Member(info, ())
        reason = _wrong(member, limits)
        if reason is not None:
            raise ModelError(
                f"{archive} was refused: its member {info.orig_filename[:100]!r} {reason}; nothing was kept of it."
            )
        parts = names.add(info.orig_filename, member.is_folder)
        packed, total = packed + info.compress_size, total + info.file_size
        if parts and not set(parts) & set(JUNK):
            accepted.append(replace(member, parts=parts))
    if total > limits.total_bytes:
        raise ModelError(
            f"{archive} was refused: it would take {total / 1e6:,.0f} MB, over the {limits.total_bytes / 1e6:,.0f} MB "
            "that a model may."
        )
    if packed > archive.stat().st_size:
        raise ModelError(f"{archive} was refused: its members overlap, as no honest archive's do.")
    if not any(not member.is_folder for member in accepted):
        raise ModelError(f"{archive} holds no file.")
    return accepted


def _wrong(member: _Member, limits: Limits) -> str | None:
    """Why a member is refused, its name apart; None where it is not."""
    info = member.info
    kind = stat.S_IFMT(info.external_attr >> 16)
    grows = info.file_size > limits.small_bytes and info.file_size > limits.ratio * info.compress_size
    reasons = {
        "is a link or no ordinary file": kind not in (0, stat.S_IFREG, stat.S_IFDIR),
        "is a file and a folder at once": kind != 0 and member.is_folder != (kind == stat.S_IFDIR),
        "is a folder with content": member.is_folder and info.file_size > 0,
        "is encrypted; unpack it with its password and add the folder": bool(info.flag_bits & ENCRYPTED),
        "is compressed in an unusual way; pack it again with plain zip": info.compress_type not in METHODS,
        f"would grow more than {limits.ratio} times, as bombs do": grows,
    }
    return next((reason for reason, true in reasons.items() if true), None)


def _write(archive: Path, file: zipfile.ZipFile, member: _Member, place: Path) -> Iterator[int]:
    """Write one member, giving the size of each piece; its length and its CRC-32 must be as the archive says."""
    written = 0
    try:
        out = place.open("xb")
    except OSError as error:
        raise cannot_write(place, error) from error
    with out:
        for piece in _pieces(archive, file, member):
            written += len(piece)
            if written > member.info.file_size:
                raise _damaged(archive, member)
            try:
                out.write(piece)
                out.flush()
            except OSError as error:
                raise cannot_write(place, error) from error
            yield len(piece)
    if written != member.info.file_size:
        raise _damaged(archive, member)


def _pieces(archive: Path, file: zipfile.ZipFile, member: _Member) -> Iterator[bytes]:
    try:
        stream = file.open(member.info)
    except _DAMAGED as error:
        raise _damaged(archive, member) from error
    with stream:
        while True:
            try:
                piece = stream.read(CHUNK)
            except _DAMAGED as error:
                raise _damaged(archive, member) from error
            if not piece:
                return
            yield piece


def _damaged(archive: Path, member: _Member) -> ModelError:
    return ModelError(f"{archive} is damaged at its member {'/'.join(member.parts)!r}; download or copy it again.")
