"""The near side of the worker: starts its process, hands it runs, and knows at any moment how each of them stands.

Nothing here blocks its caller but `Job.result` and `WorkerClient.close`; bytes are moved by threads. No torch, no Qt.
"""

import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any

from MedAILib.request import RunRequest
from MedAILib.volume import Volume
from MedAILib.worker import protocol
from MedAILib.worker.destination import destination_of
from MedAILib.worker.foreign import decoding
from MedAILib.worker.job import Job, JobState, WorkerDefect, WorkerDied
from MedAILib.worker.process import JOIN_S, LOG_BYTES, WorkerProcess
from MedAILib.worker.protocol import Kind, Message
from MedAILib.worker.status import WorkerStatus, unpack_status
from MedAILib.worker.wire import Wish, pack_run, pack_wish
from MedAILib.worker.wire_results import unpack_result

__all__ = ["Job", "JobState", "WorkerClient", "WorkerDefect", "WorkerDied", "WorkerStatus"]

# How long a cancelled run may take to notice, before its process is ended.
CANCEL_GRACE_S = 1.5
# How often a run may lose its worker, through no run's fault, before it counts as failed.
MAX_LOSSES = 2
LAST_LINES = 30
# A status older than this is asked for again, once somebody looks at it.
STATUS_AGE_S = 1.0


class WorkerClient:
    """Runs models in a process of its own, which starts with the first run and stays warm.

    When the process ends by itself or is ended by a cancel, the run that it was computing fails (or is cancelled), and
    the runs that wait behind it move to a fresh process. A run that is lost without having begun is handed over once
    more; where the process did not even greet, all its runs fail, as the next one would not do better.

    Args:
        command: starts a worker that speaks the protocol on its standard streams, here or on another computer; None
            runs this MedAILib with this Python (inside Slicer: with PythonSlicer).

    Example::

        with WorkerClient() as client:
            job = client.submit(RunRequest("hippocampus"), volume)
            segmentation = job.result()

        WorkerClient(["ssh", "gpu-box", "/opt/python", "-m", "MedAILib.worker.server"])  # images go to gpu-box
    """

    def __init__(self, command: Sequence[str] | None = None) -> None:
        self._command = tuple(command) if command is not None else None
        self._lock = threading.RLock()
        # Guarded by the lock:
        self._current: _Worker | None = None
        self._alive: set[_Worker] = set()
        self._closed = False
        self._log = ""
        self._versions: dict[str, Any] = {}
        self._status = WorkerStatus()
        self._asked = float("-inf")

    def submit(self, request: RunRequest, volume: Volume | None = None) -> Job:
        """Hand over a run; returns at once. Without a volume its options are `GenerateOptions`: images of noise.

        A relative path as the model's name counts from this process's working folder, as it is now. `volume.data` must
        not change until the run has ended.

        Raises:
            InputError: voxels of a type that can't be sent.
            RuntimeError: the client was closed.
        """
        if volume is not None:
            protocol.wire_dtype(volume.data.dtype)
        with self._lock:
            if self._closed:
                raise RuntimeError("This worker client was closed.")
            job = Job(request, volume, self._lock, self._cancel)
            job.path = _local_path(request.model)
            self._hand_over(job)
            return job

    @property
    def destination(self) -> str:
        """Where images go: empty for this computer's own worker, else the host of an `ssh` command, else the command.

        What is not `ssh` may lead anywhere, so the window says the whole command then.
        """
        return "" if self._command is None else destination_of(self._command)

    def warm(self, model: str, device: str = "auto") -> None:
        """Start the worker if there is none, and let it open a model before the first run; returns at once.

        What can't be opened is not said: the run says it. Runs that are waiting come first.

        Args:
            model: as in a `RunRequest`.
            device: likewise.
        """
        wish = Wish(model, device, _local_path(model))
        with self._lock:
            if not self._closed:
                self._present().send(lambda: protocol.frame(Message(Kind.WARM, body=pack_wish(wish))))

    def free_memory(self) -> None:
        """Let the worker forget its warm models and empty its caches, after the run that it computes now."""
        with self._lock:
            if self._current is not None:
                self._current.send(lambda: protocol.frame(Message(Kind.FREE)))

    free = free_memory

    def restart(self) -> None:
        """End the worker. The run that it computes fails; the waiting ones move to a fresh worker."""
        with self._lock:
            self._retire(self._current, "was restarted")

    def status(self) -> WorkerStatus:
        """What the worker last said of its memory, devices and warm models; returns at once.

        Asks the worker to say it again where that is over a second old, so that who looks every second or two sees
        what is. The worker also says it by itself after each run.
        """
        with self._lock:
            if self._current is None:
                return WorkerStatus()
            now = time.monotonic()
            if now - self._asked > STATUS_AGE_S:
                self._asked = now
                self._current.send(lambda: protocol.frame(Message(Kind.ASK)))
            return self._status

    @property
    def versions(self) -> dict[str, Any]:
        """What the worker last said of itself: pid, python, numpy, torch, monai (None until imported)."""
        with self._lock:
            return dict(self._versions)

    @property
    def log(self) -> str:
        """The end of what workers wrote to standard error, for diagnostics."""
        with self._lock:
            running = [worker.words() for worker in self._alive]
            return (self._log + "".join(running))[-LOG_BYTES:]

    def close(self) -> None:
        """Cancel every run and end the worker with all its children; a second call does nothing."""
        with self._lock:
            self._closed = True
            workers = list(self._alive)
            for worker in workers:
                for job in worker.runs.values():
                    job.cancelling = True
                    job.end_cancelled()
                self._retire(worker, "was closed")
        for worker in workers:
            worker.join(JOIN_S)

    def __enter__(self) -> "WorkerClient":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _hand_over(self, job: Job) -> None:
        """Give a run to the current worker, or to a new one; called with the lock held."""
        worker = self._present()
        worker.runs[job.id] = job
        worker.send(lambda: self._run_message(worker, job))

    def _present(self) -> "_Worker":
        """The current worker, or a new one; called with the lock held."""
        if self._current is None:
            self._current = _Worker(self._command, self._received, self._worker_ended)
            self._alive.add(self._current)
            self._status, self._asked = WorkerStatus(), float("-inf")
            self._current.start()
        return self._current

    def _run_message(self, worker: "_Worker", job: Job) -> list[memoryview]:
        """What the writing thread sends for a run: nothing when it was cancelled before, or can't be sent."""
        with self._lock:
            volume = job.volume
            if job.state.finished:
                worker.runs.pop(job.id, None)
                return []
        try:
            body, arrays = pack_run(job.request, volume, job.path)
            return protocol.frame(Message(Kind.RUN, job.id, body, arrays))
        except (TypeError, ValueError, MemoryError) as error:
            with self._lock:
                worker.runs.pop(job.id, None)
                job.fail(error)
            return []

    def _cancel(self, job: Job) -> None:
        with self._lock:
            if job.state.finished or job.cancelling:
                return
            job.cancelling = True
            job.state = replace(job.state, text="Cancelling")
            job.due = None
            worker = next((worker for worker in self._alive if job.id in worker.runs), None)
            if job.state.state == "queued":
                job.end_cancelled()
            if worker is not None:
                worker.send(lambda: protocol.frame(Message(Kind.CANCEL, job.id)))
                self._give_grace(worker, job)

    def _give_grace(self, worker: "_Worker", job: Job) -> None:
        """Begin the time in which a cancelled run may end by itself; called with the lock held."""
        _stop(job.grace)
        job.grace = threading.Timer(CANCEL_GRACE_S, self._end_if_computing, (worker, job))
        job.grace.daemon = True
        job.grace.start()

    def _end_if_computing(self, worker: "_Worker", job: Job) -> None:
        """End of the grace period. A run that was cancelled before it began does not cost another its worker."""
        with self._lock:
            if worker.running == job.id:
                self._retire(worker, "was ended by a cancelled run")

    def _retire(self, worker: "_Worker | None", reason: str) -> None:
        """End a worker, and give it no more runs; called with the lock held."""
        if worker is None:
            return
        if worker is self._current:
            self._current = None
        worker.end(reason)

    def _received(self, process: WorkerProcess, message: Message) -> None:
        """A message came; called by a reading thread. What belongs to no run of this very worker is dropped."""
        assert isinstance(process, _Worker)
        worker = process
        result = unpack_result(message) if message.kind is Kind.RESULT else None
        status = unpack_status(message.body) if message.kind is Kind.STATUS else None
        with self._lock:
            if message.kind is Kind.HELLO:
                worker.greeted = True
                self._versions = dict(message.body)
            if status is not None and worker is self._current:
                self._status = status
            job = worker.runs.get(message.run)
            if job is None:
                return
            if message.kind is Kind.STARTED:
                worker.running = job.id
                if job.cancelling:  # a worker that was long in starting begins what it was told to leave only after
                    self._give_grace(worker, job)
            with decoding("message"):
                job.take(message, result)
            if message.kind in (Kind.RESULT, Kind.ERROR, Kind.CANCELLED):
                del worker.runs[job.id]
                worker.running = None if worker.running == job.id else worker.running
                _stop(job.grace)

    def _worker_ended(self, process: WorkerProcess, reason: str) -> None:
        """The process is gone and all that it said was read; called by the thread that lived with it."""
        assert isinstance(process, _Worker)
        worker = process
        with self._lock:
            if self._current is worker:
                self._current = None
            self._alive.discard(worker)
            self._log = (self._log + worker.words())[-LOG_BYTES:]
            for job in worker.runs.values():
                _stop(job.grace)
                if job.cancelling:
                    job.end_cancelled()
                elif job.id == worker.running or not (worker.greeted or worker.retired):
                    job.fail(_death_of(job, worker, reason))
                else:
                    job.losses += 0 if worker.running or worker.retired else 1
                    if job.losses >= MAX_LOSSES:
                        job.fail(_death_of(job, worker, reason))
                    else:
                        job.requeue()
                        self._hand_over(job)


class _Worker(WorkerProcess):
    """A process with the runs that it was given; all of this is guarded by the client's lock."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.runs: dict[str, Job] = {}
        self.running: str | None = None
        self.greeted = False


def _local_path(model: str) -> str:
    """What a relative path means in this process's working folder, where something is there; else nothing.

    Whether it is a path at all, and not a model's name, is known to the worker alone.
    """
    try:
        path = Path(model)
        return str(path.absolute()) if model and not path.is_absolute() and path.exists() else ""
    except (OSError, ValueError):
        return ""


def _death_of(job: Job, worker: _Worker, reason: str) -> WorkerDied:
    last_words = "\n".join(worker.words().splitlines()[-LAST_LINES:])
    cause = "most often this means that memory ran out" if "SIGKILL" in reason else "nothing else is affected"
    return WorkerDied(
        f"The worker process {reason} during {job.request.model} on {job.name}; {cause}, and the next run starts a "
        "new worker.",
        last_words,
    )


def _stop(timer: threading.Timer | None) -> None:
    if timer is not None:
        timer.cancel()
