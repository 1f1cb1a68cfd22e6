"""What a process says to a window that started it and must not wait: lines of JSON on standard output."""

import json
import os
import sys
import threading
import time
from collections.abc import Callable

from MedAILib.errors import MedAIError
from MedAILib.progress import Cancelled, Progress

INTERVAL_S = 0.1
# After this long without a step the process ends all the same; whatever it writes is whole or absent.
GRACE_S = 1.0


class Lines(Progress):
    """Progress as lines: {"done", "total", "text"} and {"warning"}; stops when standard input ends.

    Which it also does when the window's process is gone.
    """

    def __init__(self) -> None:
        self._last = (float("-inf"), "")
        self._stopped = threading.Event()
        threading.Thread(target=self._watch, daemon=True).start()

    def step(self, done: int, total: int, text: str = "") -> None:
        if self._stopped.is_set():
            raise Cancelled
        now, stage = time.monotonic(), text[:8]
        if now - self._last[0] >= INTERVAL_S or stage != self._last[1]:
            self._last = now, stage
            say(done=done, total=total, text=text)

    def warn(self, text: str) -> None:
        say(warning=text)

    def _watch(self) -> None:
        while os.read(0, 1024):
            pass
        self._stopped.set()
        time.sleep(GRACE_S)
        os._exit(1)


def say(**entry: object) -> None:
    """One line, by the stream that was standard output when the process began."""
    print(json.dumps(entry), flush=True, file=sys.__stdout__)


def watched(work: Callable[[Progress], str]) -> None:
    """Do some work that makes a model, and say at the end {"added": its name} or {"error": a sentence}."""
    progress = Lines()
    try:
        name = work(progress)
    except MedAIError as error:
        say(error=str(error))
    except Cancelled:
        return
    else:
        say(added=name)
