"""One process at a time: a lock on a file that the system itself gives back when its holder ends, however it ends."""

import errno
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from MedAILib.errors import OutputError
from MedAILib.output import cannot_write

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

PAUSE_S = 0.05
_HELD = (errno.EACCES, errno.EAGAIN, errno.EDEADLK)


@contextmanager
def locked(path: Path, busy: str, wait_s: float = 0.0) -> Iterator[None]:
    """Hold the lock `path` while the block runs; the file stays behind, empty.

    Another process that holds it is waited for `wait_s` seconds; then `busy` is what the user is told.

    Raises:
        OutputError: another holds it, or the file can't be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("ab")
    except OSError as error:
        raise cannot_write(path, error) from error
    with file:
        end = time.monotonic() + wait_s
        while not _try(file, path):
            if time.monotonic() >= end:
                raise OutputError(busy)
            time.sleep(PAUSE_S)
        yield


def _try(file: BinaryIO, path: Path) -> bool:
    """Take the lock unless another process has it; closing the file gives it back."""
    try:
        if sys.platform == "win32":
            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_NBLCK, 1)
        else:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in _HELD:
            return False
        raise cannot_write(path, error) from error
    return True
