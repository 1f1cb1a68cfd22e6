"""Files appear whole or not at all; what is written into them is the caller's business."""

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from MedAILib.errors import OutputError

# Folders of files that are being written begin so; one that stays behind is of a process that was killed.
UNFINISHED = ".medai-"
_ADVICE = {
    errno.ENOSPC: "the disk is full; free some space or write to another disk",
    errno.EFBIG: "the file would be larger than allowed here; raise the limit or write to another disk",
    errno.EACCES: "there is no permission to write there; choose another folder",
    errno.EPERM: "there is no permission to write there; choose another folder",
    errno.EROFS: "that disk is read-only; choose another folder",
    errno.ENOENT: "its folder does not exist and can't be made there; choose another folder",
    errno.EEXIST: "what would have to be a folder is a file; choose another name",
    errno.ENOTDIR: "what would have to be a folder is a file; choose another name",
    errno.ENAMETOOLONG: "that name is too long; choose a shorter one",
}
if hasattr(errno, "EDQUOT"):  # absent on Windows
    _ADVICE[errno.EDQUOT] = "your disk quota is used up; free some space or write to another disk"


@contextmanager
def whole_file(target: Path) -> Iterator[Path]:
    """A path of the same name, in a folder of its own beside `target`, that becomes `target` when the block succeeds.

    When the block raises anything, `target` stays as it was, absent or of an earlier run, and nothing else is left
    behind. The name is kept because some formats write it into the file. A link is followed: the file it names is
    replaced, the link stays.

    Example::

        with whole_file(Path("volumes.csv")) as path:
            path.write_text("segment,volume_ml")

    Raises:
        OutputError: the folder is absent or may not be written to, the disk is full, `target` is a folder or
            write-protected, or the block wrote nothing.
    """
    with whole_files() as files, files.writing(target) as part:
        yield part


@contextmanager
def whole_files() -> "Iterator[WholeFiles]":
    """Several files that take their places together: all when the block succeeds, none when it raises anything.

    Example::

        with whole_files() as files:
            for target in targets:
                with files.writing(target) as path:
                    path.write_text("...")
    """
    with ExitStack() as folders:
        files = WholeFiles(folders)
        yield files
        files.take_places()


class WholeFiles:
    """Files written aside, each in a folder of its own beside its target, until all of them are whole."""

    def __init__(self, folders: ExitStack) -> None:
        self._folders = folders
        self._parts: list[tuple[Path, Path, Path]] = []

    @contextmanager
    def writing(self, target: Path) -> Iterator[Path]:
        """A path to write `target`'s content to; as `whole_file`, but `target` is not touched before all are whole."""
        place = _writable_place(target)
        try:
            folder = Path(tempfile.mkdtemp(prefix=UNFINISHED, dir=place.parent))
        except OSError as error:
            raise cannot_write(target, error) from error
        self._folders.callback(shutil.rmtree, folder, ignore_errors=True)
        part = folder / place.name
        try:
            yield part
            if not part.is_file() or part.stat().st_size == 0:
                raise OutputError(f"{target} was not written: nothing came out; check the disk's free space.")
            _flush(part)
        except OSError as error:
            raise cannot_write(target, error) from error
        self._parts.append((target, part, place))

    def take_places(self) -> None:
        """Rename each whole file to its target, older files replaced.

        Raises:
            OutputError: one can't be: its folder was changed by somebody else meanwhile.
        """
        for target, part, place in self._parts:
            try:
                part.replace(place)
            except OSError as error:
                raise cannot_write(target, error) from error


def cannot_write(target: Path, error: OSError) -> OutputError:
    """The sentence for a failed attempt to write `target`, for the caller to raise."""
    reason = _ADVICE.get(error.errno or 0, error.strerror or str(error))
    return OutputError(f"{target} can't be written: {reason}.")


def is_folder(target: Path) -> bool:
    """Whether there is a folder where something is to be written.

    Raises:
        OutputError: its name is too long, or a folder above it may not be looked into.
    """
    try:
        return target.is_dir()
    except OSError as error:
        raise cannot_write(target, error) from error


def require_writable(folder: Path) -> None:
    """Find out before the work whether a folder can be written to, or made; nothing is made.

    Raises:
        OutputError: it can't.
    """
    try:
        there = next(place for place in (folder, *folder.absolute().parents) if place.exists())
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise cannot_write(folder, error) from error


def _writable_place(target: Path) -> Path:
    """The file that `target` names, links followed.

    Raises:
        OutputError: nothing can be written there.
    """
    try:
        place = target.resolve()
        if not place.parent.is_dir():
            raise OutputError(f"{target} can't be written: the folder {place.parent} does not exist; create it first.")
        if place.exists() and not place.is_file():
            what = "a folder" if place.is_dir() else "no ordinary file"
            raise OutputError(f"{target} can't be written: it is {what}; name a file instead.")
        if place.exists() and not (place.stat().st_mode & 0o222 and os.access(place, os.W_OK)):
            raise OutputError(f"{target} can't be written: the file is write-protected; choose another name.")
    except OSError as error:
        raise cannot_write(target, error) from error
    return place


def _flush(path: Path) -> None:
    """Wait until the disk has taken the file: network and quota errors come up here, not after the renaming."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
