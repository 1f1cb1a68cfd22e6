"""The near side of the worker: starts its process, hands it runs, and knows at any moment how each of them stands.

Nothing here blocks its caller but `Job.result` and `WorkerClient.close`; bytes are moved by threads. No torch, no Qt.
"""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal

from MedAILib.errors import MedAIError
from MedAILib.progress import Cancelled
from MedAILib.request import RunRequest
from MedAILib.results import Segmentation
from MedAILib.volume import Volume
from MedAILib.worker import protocol
from MedAILib.worker.protocol import Kind, Message, ProtocolError

# How long a cancelled run may take to notice, before its process is ended.
CANCEL_GRACE_S = 1.5
# How long a process may live on after its output ended.
EXIT_GRACE_S = 0.5
JOIN_S = 5.0
# How often a run may lose its worker, through no run's fault, before it counts as failed.
MAX_LOSSES = 2
LOG_BYTES = 64 * 1024
LAST_LINES = 30
ROOT = Path(__file__).resolve().parents[2]

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
    """One run, from being submitted to its final state; made by `WorkerClient.submit`, usable from any thread."""

    def __init__(self, client: "WorkerClient", request: RunRequest, volume: Volume) -> None:
        self.id = uuid.uuid4().hex
        self.request = request
        self._client = client
        self._lock = client._lock
        self._ended = threading.Event()
        # Guarded by the client's lock:
        self._volume: Volume | None = volume
        self._name = volume.name
        self._state = JobState("queued", "Waiting for the worker")
        self._outcome: Segmentation | Exception | None = None
        self._cancelling = False
        self._grace: threading.Timer | None = None
        self._losses = 0
        self._stage: tuple[str, str] | None = None
        self._stage_start = (0.0, 0)
        self._due: float | None = None

    def poll(self) -> JobState:
        """How the run stands now; returns at once."""
        with self._lock:
            left = None if self._due is None else max(0.0, self._due - time.monotonic())
            return replace(self._state, seconds_left=left)

    def cancel(self) -> None:
        """Ask the run to stop; returns at once, and the run is `cancelled` within 2 seconds.

        A waiting run is so at once. A running one gets a grace period, then its process is ended; the next run starts
        a fresh one. From this call on the run ends as cancelled, unless it had ended before.
        """
        self._client._cancel(self)

    def result(self, timeout: float | None = None) -> Segmentation:
        """Wait for the run and return what it found.

        Raises:
            TimeoutError: not finished after `timeout` seconds; the run goes on.
            Cancelled: it was cancelled.
            MedAIError: it failed by something that the user can mend; WorkerDied where the worker was lost.
            WorkerDefect: it failed by a defect.
        """
        if not self._ended.wait(timeout):
            raise TimeoutError(f"{self.request.model} on {self._name} was not done after {timeout} s.")
        if isinstance(self._outcome, Segmentation):
            return self._outcome
        if self._outcome is None:
            raise Cancelled
        raise self._outcome

    # What follows is called by the client, with the lock held.

    def _finish(self, state: State, text: str, outcome: Segmentation | Exception | None = None) -> None:
        if self._state.finished:
            return
        self._state = replace(self._state, state=state, text=text)
        self._outcome = outcome
        self._due = None
        self._volume = None
        self._ended.set()

    def _fail(self, error: Exception) -> None:
        self._finish("failed", str(error), error)

    def _cancelled(self) -> None:
        self._finish("cancelled", "Cancelled")

    def _requeue(self) -> None:
        self._state = JobState("queued", "Waiting for a new worker")
        self._due = self._stage = None

    def _take(self, message: Message, result: Segmentation | None) -> None:
        """Follow what the worker says of this run."""
        if self._state.finished:
            return
        if self._cancelling:
            if message.kind in (Kind.CANCELLED, Kind.ERROR, Kind.RESULT):
                self._cancelled()
        elif message.kind is Kind.QUEUED and self._state.state == "queued":
            before = int(message.body["before"])
            text = f"Waiting for {before} other run{'s' * (before != 1)}" if before else "Waiting for the worker"
            self._state = replace(self._state, text=text)
        elif message.kind is Kind.STARTED:
            self._state = replace(self._state, state="running", text="Started")
        elif message.kind is Kind.PROGRESS:
            self._advance(protocol.unpack_step(message.body))
        elif message.kind is Kind.WARNING:
            warning = protocol.unpack_text(message.body)
            self._state = replace(self._state, warnings=(*self._state.warnings, warning))
        elif message.kind is Kind.RESULT:
            self._finish("done", "Done", result)
        elif message.kind is Kind.ERROR:
            self._fail(protocol.unpack_error(message.body) or WorkerDefect(message.body["text"]))
        elif message.kind is Kind.CANCELLED:
            self._cancelled()

    def _advance(self, step: protocol.Step) -> None:
        now = time.monotonic()
        if (step.stage, step.text) != self._stage or step.done < self._stage_start[1]:
            self._stage, self._stage_start, self._due = (step.stage, step.text), (now, step.done), None
        start, first = self._stage_start
        if step.done > first:
            self._due = now + (now - start) / (step.done - first) * max(0, step.total - step.done)
        self._state = replace(self._state, state="running", text=step.text, done=step.done, total=step.total)


class WorkerClient:
    """Runs models in a process of its own, which starts with the first run and stays warm.

    When the process ends by itself or is ended by a cancel, the run that it was computing fails (or is cancelled), and
    the runs that wait behind it move to a fresh process. A run that is lost without having begun is handed over once
    more; where the process did not even greet, all its runs fail, as the next one would not do better.

    Args:
        command: starts a worker that speaks the protocol on its standard streams; None runs this MedAILib with this
            Python (inside Slicer: with PythonSlicer).

    Example::

        with WorkerClient() as client:
            job = client.submit(RunRequest("hippocampus"), volume)
            segmentation = job.result()
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

    def submit(self, request: RunRequest, volume: Volume) -> Job:
        """Hand over a run; returns at once.

        `volume.data` must not change until the run has ended.

        Raises:
            InputError: voxels of a type that can't be sent.
            RuntimeError: the client was closed.
        """
        protocol.wire_dtype(volume.data.dtype)
        with self._lock:
            if self._closed:
                raise RuntimeError("This worker client was closed.")
            job = Job(self, request, volume)
            self._hand_over(job)
            return job

    def free(self) -> None:
        """Let the worker forget its warm models, after the run that it computes now."""
        with self._lock:
            if self._current is not None:
                self._current.send(lambda: protocol.frame(Message(Kind.FREE)))

    def restart(self) -> None:
        """End the worker. The run that it computes fails; the waiting ones move to a fresh worker."""
        with self._lock:
            self._retire(self._current, "was restarted")

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
                    job._cancelling = True
                    job._cancelled()
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
        if self._current is None:
            self._current = _Worker(self._command, self._received, self._worker_ended)
            self._alive.add(self._current)
        worker = self._current
        worker.runs[job.id] = job
        worker.send(lambda: self._run_message(worker, job))

    def _run_message(self, worker: "_Worker", job: Job) -> list[memoryview]:
        """What the writing thread sends for a run: nothing when it was cancelled before, or can't be sent."""
        with self._lock:
            volume = job._volume
            if volume is None:
                worker.runs.pop(job.id, None)
                return []
        try:
            body, arrays = protocol.pack_run(job.request, volume)
            return protocol.frame(Message(Kind.RUN, job.id, body, arrays))
        except (TypeError, ValueError, MemoryError) as error:
            with self._lock:
                worker.runs.pop(job.id, None)
                job._fail(error)
            return []

    def _cancel(self, job: Job) -> None:
        with self._lock:
            if job._state.finished or job._cancelling:
                return
            job._cancelling = True
            job._state = replace(job._state, text="Cancelling")
            job._due = None
            worker = next((worker for worker in self._alive if job.id in worker.runs), None)
            if job._state.state == "queued":
                job._cancelled()
            if worker is not None:
                worker.send(lambda: protocol.frame(Message(Kind.CANCEL, job.id)))
                job._grace = threading.Timer(CANCEL_GRACE_S, self._end_if_computing, (worker, job))
                job._grace.daemon = True
                job._grace.start()

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

    def _received(self, worker: "_Worker", message: Message) -> None:
        """A message came; called by a reading thread. What belongs to no run of this very worker is dropped."""
        result = protocol.unpack_result(message) if message.kind is Kind.RESULT else None
        with self._lock:
            if message.kind is Kind.HELLO:
                worker.greeted = True
                self._versions = dict(message.body)
            job = worker.runs.get(message.run)
            if job is None:
                return
            if message.kind is Kind.STARTED:
                worker.running = job.id
            with protocol.decoding("message"):
                job._take(message, result)
            if message.kind in (Kind.RESULT, Kind.ERROR, Kind.CANCELLED):
                del worker.runs[job.id]
                worker.running = None if worker.running == job.id else worker.running
                _stop(job._grace)

    def _worker_ended(self, worker: "_Worker", reason: str) -> None:
        """The process is gone and all that it said was read; called by the thread that lived with it."""
        with self._lock:
            if self._current is worker:
                self._current = None
            self._alive.discard(worker)
            self._log = (self._log + worker.words())[-LOG_BYTES:]
            for job in worker.runs.values():
                _stop(job._grace)
                if job._cancelling:
                    job._cancelled()
                elif job.id == worker.running or not worker.greeted:
                    job._fail(_death_of(job, worker, reason))
                else:
                    job._losses += 0 if worker.running or worker.retired else 1
                    if job._losses >= MAX_LOSSES:
                        job._fail(_death_of(job, worker, reason))
                    else:
                        job._requeue()
                        self._hand_over(job)


class _Worker:
    """One process and the threads that live with it: one starts and outlives it, the others move its bytes.

    Args:
        command: as for WorkerClient.
        received: gets every message, from the reading thread.
        ended: gets the reason, once, after the last message.
    """

    def __init__(
        self,
        command: tuple[str, ...] | None,
        received: Callable[["_Worker", Message], None],
        ended: Callable[["_Worker", str], None],
    ) -> None:
        # Guarded by the client's lock:
        self.runs: dict[str, Job] = {}
        self.running: str | None = None
        self.greeted = False
        self.retired = ""

        self._command = command
        self._received = received
        self._ended = ended
        self._outbox: SimpleQueue[Callable[[], list[memoryview]] | None] = SimpleQueue()
        self._process: subprocess.Popen[bytes] | None = None
        self._killing = threading.Lock()
        self._kill_wanted = False
        self._dead = threading.Event()
        self._fault = ""
        self._died_first = True
        self._words = bytearray()
        # This thread starts the process and waits for it: Linux ends the worker with the *thread* that started it.
        self._thread = threading.Thread(target=self._live, name="MedAI worker", daemon=True)
        self._thread.start()

    def send(self, make: Callable[[], list[memoryview]]) -> None:
        """Queue a frame, made when its turn comes."""
        self._outbox.put(make)

    def end(self, reason: str) -> None:
        """Kill the process with all its children; returns at once."""
        self.retired = self.retired or reason
        with self._killing:
            self._kill_wanted = True
            self._kill()

    def join(self, timeout: float) -> None:
        """Wait for the process and the threads to be gone."""
        self._thread.join(timeout)

    def words(self) -> str:
        """The end of what it wrote to standard error."""
        return bytes(self._words).decode(errors="replace")

    def _live(self) -> None:
        try:
            process = _start(self._command)
        except (OSError, MedAIError) as error:
            self._ended(self, f"could not be started ({error})")
            return
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        with self._killing:
            self._process = process
            if self._kill_wanted:
                self._kill()
        threads = [
            threading.Thread(target=move, args=(stream,), name=f"MedAI worker {move.__name__}", daemon=True)
            for move, stream in (
                (self._write, process.stdin),
                (self._read, process.stdout),
                (self._hear, process.stderr),
            )
        ]
        for thread in threads:
            thread.start()
        if sys.platform == "linux":
            # The dead process is left to keep its number, so that the group killed next is surely its own.
            os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        else:
            process.wait()
        self._dead.set()
        with self._killing:
            self._kill()
            self._process = None
        process.wait()
        self._outbox.put(None)
        for thread in threads:
            thread.join(JOIN_S)
        for thread, stream in zip(threads, (process.stdin, process.stdout, process.stderr), strict=True):
            if not thread.is_alive():  # else a child that left the group still holds the other end
                stream.close()
        self._ended(self, self._end_text(process.returncode))

    def _kill(self) -> None:
        """Kill what is there to be killed; called with `_killing` held."""
        if self._process is None:
            return
        if sys.platform == "win32":
            command = ["taskkill", "/F", "/T", "/PID", str(self._process.pid)]
            subprocess.run(command, check=False, capture_output=True)
            return
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            return  # PermissionError is how macOS says that only dead ones are left

    def _write(self, stream: Any) -> None:
        while (make := self._outbox.get()) is not None:
            parts = make()
            try:
                protocol.write_frame(stream, parts)
            except OSError:
                return  # the process is gone or going
            del make, parts  # no voxels are kept while there is nothing to write

    def _read(self, stream: Any) -> None:
        try:
            while (message := protocol.read_message(stream)) is not None:
                self._received(self, message)
                del message
        except ProtocolError as error:
            self._fault = f"did not keep to the protocol ({error})"
        if not self._dead.wait(EXIT_GRACE_S):
            self._fault = self._fault or "closed its output"
            self._died_first = False
            with self._killing:
                self._kill()

    def _end_text(self, code: int) -> str:
        """How the process went; `code` is that of subprocess."""
        if self.retired:
            return self.retired
        if self._fault and not self._died_first:
            return self._fault
        if code < 0:
            return f"was killed ({signal.Signals(-code).name})"
        return f"{self._fault} and ended with exit code {code}" if self._fault else f"ended with exit code {code}"

    def _hear(self, stream: Any) -> None:
        while chunk := stream.read(LOG_BYTES):
            self._words += chunk
            del self._words[:-LOG_BYTES]


def worker_python() -> str:
    """The Python that runs the worker: this one, or PythonSlicer when this process is Slicer's window.

    Raises:
        MedAIError: neither is there.
    """
    beside = Path(sys.prefix).parents[1] / "bin" if len(Path(sys.prefix).parents) > 1 else Path(sys.prefix)
    found = shutil.which("PythonSlicer", path=str(beside)) or shutil.which("PythonSlicer")
    if found is None and sys.executable and Path(sys.executable).stem.lower().startswith("python"):
        return sys.executable
    if found is None:
        raise MedAIError(f"PythonSlicer is neither on PATH nor in {beside}; reinstall Slicer, or set a worker command.")
    return found


def _start(command: tuple[str, ...] | None) -> "subprocess.Popen[bytes]":
    environment = dict(os.environ)
    environment[protocol.GROUP_VARIABLE] = "1"
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    # The folder that the user happens to work in is no place to import code from.
    environment["PYTHONSAFEPATH"] = "1"
    options: dict[str, Any] = {"start_new_session": True}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NEW_PROCESS_GROUP | subprocess.CREATE_NO_WINDOW}
    process = subprocess.Popen(
        command or (worker_python(), "-m", "MedAILib.worker.server"),
        bufsize=0,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=environment,
        **options,
    )
    assert process.stdin is not None and process.stdout is not None
    protocol.widen_pipe(process.stdin.fileno())
    protocol.widen_pipe(process.stdout.fileno())
    return process


def _death_of(job: Job, worker: _Worker, reason: str) -> WorkerDied:
    last_words = "\n".join(worker.words().splitlines()[-LAST_LINES:])
    cause = "most often this means that memory ran out" if "SIGKILL" in reason else "nothing else is affected"
    return WorkerDied(
        f"The worker process {reason} during {job.request.model} on {job._name}; {cause}, and the next run starts a "
        "new worker.",
        last_words,
    )


def _stop(timer: threading.Timer | None) -> None:
    if timer is not None:
        timer.cancel()
