"""The runs of a sequence's frames, one after the other, as one run that can be followed; nothing here waits."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import replace
from typing import Protocol, cast

from slicer.i18n import tr as _

from MedAILib.results import Segmentation
from MedAILib.volume import Volume
from MedAILib.worker.client import Job, JobState, WorkerDefect


class Frames(Protocol):
    """Images out one by one, results in: what `SequenceRun` is."""

    @property
    def count(self) -> int: ...
    @property
    def done(self) -> int: ...
    @property
    def text(self) -> str: ...
    def volume(self) -> Volume: ...
    def add(self, result: Segmentation) -> None: ...
    def naming(self) -> AbstractContextManager[None]: ...


class FrameJobs:
    """Hands one frame to the worker at a time; stands where a `Job` does, and is used from the main thread alone.

    Args:
        frames: of which none has been run yet.
        submit: begins the run of one frame.

    Raises:
        MedAIError: the first frame is at fault; the text names it.
    """

    def __init__(self, frames: Frames, submit: Callable[[Volume], Job]) -> None:
        self._frames, self._submit = frames, submit
        self._start = time.monotonic()
        self._due: float | None = None
        self._warnings: tuple[str, ...] = ()
        self._error: Exception | None = None
        self._cancelled = False
        self._job = self._next()

    def poll(self) -> JobState:
        """How the run stands; takes a frame's result in and hands on the next, where one has come."""
        state = self._job.poll()
        if state.finished and not self._cancelled and self._error is None and self._frames.done < self._frames.count:
            self._take(state)
            state = self._job.poll()
        state = replace(state, warnings=self._warnings)
        if self._cancelled:
            return state if not state.finished else replace(state, state="cancelled", text=_("Cancelled"))
        if self._error is not None:
            return replace(state, state="failed", text=str(self._error))
        done, count = self._frames.done, self._frames.count
        if done == count:
            return JobState("done", _("Done"), count, count, warnings=self._warnings)
        left = None if self._due is None else max(0.0, self._due - time.monotonic())
        name = self._frames.text
        if state.state == "queued":
            return replace(state, text=f"{name}: {state.text}", done=done, total=count, seconds_left=left)
        return JobState("running", name, done, count, left, self._warnings)

    def cancel(self) -> None:
        """Stop with this frame; returns at once."""
        self._cancelled = True
        self._job.cancel()

    def result(self) -> Frames:
        """The frames with all their results, once `poll` says "done".

        Raises:
            MedAIError: a frame failed by something that the user can mend; the text names it.
            WorkerDefect: it failed by a defect.
        """
        if self._error is not None:
            raise self._error
        return self._frames

    def _next(self) -> Job:
        with self._frames.naming():
            return self._submit(self._frames.volume())

    def _take(self, state: JobState) -> None:
        self._warnings += tuple(text for text in state.warnings if text not in self._warnings)
        try:
            with self._frames.naming():
                self._frames.add(cast(Segmentation, self._job.result()))
            done, count = self._frames.done, self._frames.count
            now = time.monotonic()
            self._due = now + (now - self._start) / done * (count - done)
            if done < count:
                self._job = self._next()
        except (ValueError, TypeError, MemoryError, WorkerDefect) as error:  # all that a job fails with
            self._error = error
