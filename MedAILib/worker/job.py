"""One run as its caller sees it: how it stands, its end, and how its worker's messages move it there."""

import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from MedAILib.errors import MedAIError
from MedAILib.progress import Cancelled
from MedAILib.request import RunRequest
from MedAILib.results import Result
from MedAILib.statistics import SegmentStatistics
from MedAILib.volume import Volume
from MedAILib.worker.protocol import Kind, Message
from MedAILib.worker.wire import Step, unpack_error, unpack_step, unpack_text
from MedAILib.worker.wire_results import unpack_statistics

State = Literal["queued", "running", "done", "failed", "cancelled"]


class WorkerDied(MedAIError):
    """The worker process ended in the middle of a run, or could not be started.

    Args:
        text: what happened and what to do.
        last_words: the last lines that it wrote to standard error.
    """

    def __init__(self, text: str, last_words: str = "") -> None:
        super().__init__(f"{text}\nIts last words:\n{last_words}" if last_words else text)
        self.last_words = last_words


class WorkerDefect(Exception):
    """A run failed by a defect of MedAI or of a library; the text is the worker's traceback."""


@dataclass(frozen=True)
class JobState:
    """How a run stands.

    Args:
        state: queued and running may change; done, failed and cancelled are final.
        text: what is being done, for people.
        done, total: units of `text` that are finished; total is 0 while unknown.
        seconds_left: of what `text` says, estimated from its pace so far; None while unknown.
        warnings: what the user should know of the result, in the order it arose.
    """

    state: State
    text: str = ""
    done: int = 0
    total: int = 0
    seconds_left: float | None = None
    warnings: tuple[str, ...] = ()

    @property
    def finished(self) -> bool:
        return self.state in ("done", "failed", "cancelled")


class Job:
    """One run, from being submitted to its final state; made by `WorkerClient.submit`, usable from any thread.

    `statistics` are those of the segments, once the run is done, where the request asked for them.
    """

    def __init__(
        self, request: RunRequest, volume: Volume | None, lock: "threading.RLock", cancel: Callable[["Job"], None]
    ) -> None:
        self.id = uuid.uuid4().hex
        self.request = request
        self._lock = lock
        self._cancel = cancel
        self._ended = threading.Event()
        # Guarded by the lock; the client's business:
        self.volume: Volume | None = volume
        self.path = ""
        self.name = volume.name if volume is not None else "noise"
        self.state = JobState("queued", "Waiting for the worker")
        self.statistics: tuple[SegmentStatistics, ...] | None = None
        self._outcome: Result | Exception | None = None
        self.cancelling = False
        self.grace: threading.Timer | None = None
        self.losses = 0
        self._stage: tuple[str, str] | None = None
        self._stage_start = (0.0, 0)
        self.due: float | None = None

    def poll(self) -> JobState:
        """How the run stands now; returns at once."""
        with self._lock:
            left = None if self.due is None else max(0.0, self.due - time.monotonic())
            return replace(self.state, seconds_left=left)

    def cancel(self) -> None:
        """Ask the run to stop; returns at once, and the run is `cancelled` within 2 seconds.

        A waiting run is so at once. A running one gets a grace period, then its process is ended; the next run starts
        a fresh one. From this call on the run ends as cancelled, unless it had ended before.
        """
        self._cancel(self)

    def result(self, timeout: float | None = None) -> Result:
        """Wait for the run and return what it found, of the kind that its request's options ask for.

        Raises:
            TimeoutError: not finished after `timeout` seconds; the run goes on.
            Cancelled: it was cancelled.
            MedAIError: it failed by something that the user can mend; WorkerDied where the worker was lost.
            WorkerDefect: it failed by a defect.
        """
        if not self._ended.wait(timeout):
            stands = self.poll().text or "not begun"
            raise TimeoutError(f"{self.request.model} on {self.name} was not done after {timeout} s: {stands}.")
        if self._outcome is None:
            raise Cancelled
        if isinstance(self._outcome, Exception):
            raise self._outcome
        return self._outcome

    # What follows is called by the client, with the lock held.

    def finish(self, state: State, text: str, outcome: Result | Exception | None = None) -> None:
        if self.state.finished:
            return
        self.state = replace(self.state, state=state, text=text)
        self._outcome = outcome
        self.due = None
        self.volume = None
        self._ended.set()

    def fail(self, error: Exception) -> None:
        self.finish("failed", str(error), error)

    def end_cancelled(self) -> None:
        self.finish("cancelled", "Cancelled")

    def requeue(self) -> None:
        self.state = JobState("queued", "Waiting for a new worker")
        self.due = self._stage = None

    def take(self, message: Message, result: Result | None) -> None:
        """Follow what the worker says of this run."""
        if self.state.finished:
            return
        if self.cancelling:
            if message.kind in (Kind.CANCELLED, Kind.ERROR, Kind.RESULT):
                self.end_cancelled()
        elif message.kind is Kind.QUEUED and self.state.state == "queued":
            before = int(message.body["before"])
            text = f"Waiting for {before} other run{'s' * (before != 1)}" if before else "Waiting for the worker"
            self.state = replace(self.state, text=text)
        elif message.kind is Kind.STARTED:
            self.state = replace(self.state, state="running", text="Started")
        elif message.kind is Kind.PROGRESS:
            self._advance(unpack_step(message.body))
        elif message.kind is Kind.WARNING:
            warning = unpack_text(message.body)
            self.state = replace(self.state, warnings=(*self.state.warnings, warning))
        elif message.kind is Kind.RESULT:
            self.statistics = unpack_statistics(message)
            self.finish("done", "Done", result)
        elif message.kind is Kind.ERROR:
            self.fail(unpack_error(message.body) or WorkerDefect(message.body["text"]))
        elif message.kind is Kind.CANCELLED:
            self.end_cancelled()

    def _advance(self, step: Step) -> None:
        now = time.monotonic()
        if (step.stage, step.text) != self._stage or step.done < self._stage_start[1]:
            self._stage, self._stage_start, self.due = (step.stage, step.text), (now, step.done), None
        start, first = self._stage_start
        if step.done > first:
            self.due = now + (now - start) / (step.done - first) * max(0, step.total - step.done)
        self.state = replace(self.state, state="running", text=step.text, done=step.done, total=step.total)
