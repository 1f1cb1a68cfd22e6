"""Memory for cases that are computed side by side: as many at a time as fit."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from MedAILib.progress import Progress

WAIT_S = 0.2


class MemoryRoom:
    """Lets a case begin when it fits beside those that run; one alone always may.

    Args:
        available: bytes for all of them together; None where that is not known.
        tell: is told, once, that memory allows fewer at a time than were asked for.
    """

    def __init__(self, available: int | None, tell: Callable[[str], None]) -> None:
        self._available, self._tell = available, tell
        self._used, self._told = 0, False
        self._change = threading.Condition()

    @contextmanager
    def taken(self, wanted: int, progress: Progress) -> Iterator[None]:
        """Hold so many bytes.

        Raises:
            Cancelled: by `progress`, while it waits.
        """
        with self._change:
            while self._used and self._available is not None and self._used + wanted > self._available:
                self._say(wanted)
                self._change.wait(WAIT_S)
                progress.step(0, 1)
            self._used += wanted
        try:
            yield
        finally:
            with self._change:
                self._used -= wanted
                self._change.notify_all()

    def _say(self, wanted: int) -> None:
        if not self._told:
            self._told = True
            assert self._available is not None
            self._tell(
                f"Memory allows fewer cases at a time than workers were asked for: a case takes about "
                f"{wanted / 2**30:.1f} GiB, {self._available / 2**30:.1f} GiB are free for all."
            )
