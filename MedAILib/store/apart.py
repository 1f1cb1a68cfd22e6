"""Adds a model in a process of its own, for a window that must not wait: `python -m MedAILib.store.apart SOURCE`.

Says how it goes in lines of JSON on standard output: {"done", "total", "text"}, {"warning"}, and at the end {"added"}
or {"error"}. Stops when standard input ends, which it also does when the window's process is gone.
"""

import json
import os
import sys
import threading
import time

from MedAILib.errors import MedAIError
from MedAILib.progress import Cancelled, Progress
from MedAILib.store.adding import add_model
from MedAILib.store.arrival import Wishes, find_source

INTERVAL_S = 0.1
# After this long without a step the process ends all the same; the store clears up with its next change.
GRACE_S = 1.0


class _Lines(Progress):
    """Progress as lines, until it is stopped."""

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
    print(json.dumps(entry), flush=True)


def main(source: str) -> None:
    """Add what an address, a path or a name of the catalogue means."""
    progress = _Lines()
    try:
        there = add_model(find_source(source), Wishes(), progress)
    except MedAIError as error:
        say(error=str(error))
    except Cancelled:
        return
    else:
        say(added=there.record.name)


if __name__ == "__main__":
    main(sys.argv[1])
