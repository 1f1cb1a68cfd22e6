"""Follows runs from Slicer's main thread, by a timer: nothing here waits, and nothing knows what a scene is.

Slicer's main thread keeps Python's interpreter lock while it waits for events, so the threads of the worker's client
run only while some Python code of the main thread lets go of it. The timer's slot does that, for a few milliseconds
each time, and so moves the bytes to the worker and back.
"""

import time
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from typing import Any, Protocol

import qt
from slicer.i18n import tr as _

from MedAILib.errors import MedAIError
from MedAILib.progress import Cancelled
from MedAILib.worker.client import JobState, WorkerDefect

INTERVAL_MS = 10
# What the main thread gives away to other threads each time; events wait that long.
SHARE_S = 0.012
# How long the steps of a result's arrival may keep the main thread, unless one alone takes longer.
STEPS_S = 0.03

# What the worker says before its model begins.
BEFORE_COMPUTING = ("Started", "Loading")

# Steps that bring a result to the user, each short; they say how far they are, and return what they made.
Arrival = Generator[JobState, None, Any]


class Followed(Protocol):
    """What can be followed: a worker's `Job`, or what stands where one does."""

    def poll(self) -> JobState: ...
    def cancel(self) -> None: ...
    def result(self) -> Any: ...


@dataclass(frozen=True)
class Listener:
    """Who is told of a run, in the main thread.

    Args:
        onDone: gets what the arrival made.
        onError: gets what went wrong; not called for a run that the user cancelled.
        onProgress: gets each new state, the final one too.
    """

    onDone: Callable[[Any], object]
    onError: Callable[[Exception], object]
    onProgress: Callable[[JobState], object]


class FollowedRun:
    """One run, from being submitted until its result has arrived where it belongs.

    Args:
        job: the run in the worker.
        obstacle: says why the result could not be placed any more, or None; asked all the time.
        arrive: begins to place the result.
        listener: told of what happens.
    """

    def __init__(
        self,
        job: Followed,
        obstacle: Callable[[], MedAIError | None],
        arrive: Callable[[Any], Arrival],
        listener: Listener,
    ) -> None:
        self.made: Any = None
        self.error: Exception | None = None
        self.dropped = False
        # About how long it was expected to compute, and how long it did; None where that is not known.
        self.expected_s: float | None = None
        self.computed_s: float | None = None
        self._began: float | None = None
        self._job, self._obstacle, self._arrive, self._listener = job, obstacle, arrive, listener
        self._arrival: Arrival | None = None
        self._cancelled = False
        self._state = JobState("queued")  # and not the job's: what it has done by now is still to be told
        self._told: JobState | None = None

    def poll(self) -> JobState:
        """How the run stands; "done" once its result has arrived."""
        return self._state

    @property
    def finished(self) -> bool:
        return self._state.finished

    @property
    def waits(self) -> bool:
        """Whether it is still the worker's turn."""
        return self._arrival is None

    def cancel(self) -> None:
        """Stop the run; returns at once. What has arrived by then stays."""
        self._cancelled = True
        self._job.cancel()

    def step(self) -> None:
        """Take the run further, as far as it goes without waiting; called by the timer.

        Raises:
            Exception: a defect in placing the result, or what a listener raised; the run is finished then.
        """
        if self.finished:
            return
        obstacle = self._obstacle()
        if obstacle is not None:
            self._job.cancel()
            self.dropped = True
            self._fail(obstacle)
        elif self._arrival is not None:
            self._advance(self._arrival)
        else:
            self._look()

    def _look(self) -> None:
        state = self._job.poll()
        if self._began is None and state.state == "running" and not state.text.startswith(BEFORE_COMPUTING):
            self._began = time.monotonic()
        if state.state == "cancelled":
            self._end(state)
        elif state.finished:
            try:
                result = self._job.result()
            except (ValueError, TypeError, MemoryError, WorkerDefect) as error:  # all that a job fails with
                self._fail(error)
            except Cancelled:
                self._end(replace(state, state="cancelled", text=_("Cancelled")))
            else:
                self.computed_s = None if self._began is None else time.monotonic() - self._began
                self._arrival = self._arrive(result)
                self._tell(replace(state, state="running", text=_("Placing the result"), seconds_left=None))
        else:
            self._tell(state)

    def _advance(self, arrival: Arrival) -> None:
        end = time.monotonic() + STEPS_S
        while time.monotonic() < end:
            try:
                state = next(arrival)
            except StopIteration as stop:
                self.made = stop.value
                self._end(JobState("done", _("Done"), 1, 1, warnings=self._state.warnings))
                return
            except MedAIError as error:
                self._fail(error)
                return
            except BaseException:
                self._state = replace(self._state, state="failed", text=_("Failed by a defect"))
                raise
            if self._cancelled:
                arrival.close()
                self._end(replace(self._state, state="cancelled", text=_("Cancelled")))
                return
            self._tell(replace(state, warnings=self._state.warnings))

    def _fail(self, error: Exception) -> None:
        self.error = error
        self._end(replace(self._state, state="failed", text=str(error), seconds_left=None))

    def _end(self, state: JobState) -> None:
        self._tell(state)
        if state.state == "done":
            self._listener.onDone(self.made)
        elif self.error is not None:
            self._listener.onError(self.error)

    def _tell(self, state: JobState) -> None:
        self._state = state
        left = state.seconds_left
        shown = replace(state, seconds_left=None if left is None else float(round(left)))
        if shown != self._told:
            self._told = shown
            self._listener.onProgress(shown)


class Follower:
    """The timer that takes runs further while there are any."""

    def __init__(self) -> None:
        self._runs: list[FollowedRun] = []
        self._until = 0.0
        self._busy = False
        self._timer = qt.QTimer()
        self._timer.setInterval(INTERVAL_MS)
        self._timer.connect("timeout()", self._tick)

    def follow(self, run: FollowedRun) -> None:
        """Take a run further until it is finished."""
        self._runs.append(run)
        self._timer.start()

    def breathe(self, seconds: float) -> None:
        """Let the threads of the worker's client run for a while, though no run is followed."""
        self._until = time.monotonic() + seconds
        self._timer.start()

    def stop(self) -> None:
        """Follow nothing any more; nobody is told."""
        self._runs.clear()
        self._timer.stop()

    def _tick(self) -> None:
        if self._busy:  # a listener lets events happen: it is to come back first
            return
        self._busy = True
        try:
            if not self._runs or any(run.waits for run in self._runs):
                time.sleep(SHARE_S)
            for run in tuple(self._runs):
                run.step()
        finally:
            self._busy = False
            self._runs = [run for run in self._runs if not run.finished]
            if not self._runs and time.monotonic() > self._until:
                self._timer.stop()
