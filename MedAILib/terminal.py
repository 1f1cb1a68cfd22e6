"""Progress for people at a terminal, and for logs."""

import sys
from typing import TextIO

from tqdm import tqdm

from MedAILib.progress import Progress


class TerminalProgress(Progress):
    """A bar for each stage on a terminal; elsewhere a plain line at each stage's quarters."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream
        self._bar: tqdm | None = None
        self._stage = ""
        self._quarter = -1

    def step(self, done: int, total: int, text: str = "") -> None:
        if self._stream.isatty():
            self._draw(done, total, text)
        else:
            self._line(done, total, text)

    def warn(self, text: str) -> None:
        self.close()
        print(f"medai: {text}", file=self._stream, flush=True)

    def close(self) -> None:
        """End the bar's line, if one is drawn."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _draw(self, done: int, total: int, text: str) -> None:
        if self._bar is None or self._bar.total != total or _stage(text) != self._stage:
            self.close()
            self._stage = _stage(text)
            self._bar = tqdm(total=total, file=self._stream, leave=False, dynamic_ncols=True)
        self._bar.set_description_str(text, refresh=False)
        self._bar.update(done - self._bar.n)

    def _line(self, done: int, total: int, text: str) -> None:
        quarter = 4 * done // max(total, 1)
        if _stage(text) != self._stage or quarter != self._quarter:
            self._stage, self._quarter = _stage(text), quarter
            print(f"{text} {100 * done // max(total, 1)} %", file=self._stream, flush=True)


class WarningsOnly(Progress):
    """Says nothing but what changes how far a result can be trusted."""

    def __init__(self, stream: TextIO = sys.stderr) -> None:
        self._stream = stream

    def warn(self, text: str) -> None:
        print(f"medai: {text}", file=self._stream, flush=True)


def _stage(text: str) -> str:
    """The part of a step's text that names its stage: up to the first digit ("Epoch 3 …" stays one stage)."""
    return next((text[:place] for place, sign in enumerate(text) if sign.isdigit()), text)
