"""The worker process: answers the runs that arrive on standard input, one after another, with models kept warm.

Start it as `python -m MedAILib.worker.server`. The calling thread reads, one other thread computes. What a user sees
of it, and the process as others see it, are the client's business.
"""

import ctypes
import faulthandler
import gc
import io
import os
import platform
import signal
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections import OrderedDict, deque
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, Protocol

import numpy as np

from MedAILib.errors import MedAIError
from MedAILib.progress import Cancelled, Progress
from MedAILib.request import RunOptions, RunRequest
from MedAILib.results import Segmentation
from MedAILib.volume import Volume
from MedAILib.worker import protocol
from MedAILib.worker.protocol import ByteSink, ByteSource, Kind, Message, ProtocolError, Step

WARM_MODELS = 3
# Steps closer in time than this are not sent, unless they finish a stage or begin a new one.
PROGRESS_INTERVAL_S = 0.05
GUARD_INTERVAL_S = 0.25
# Variables that make libraries load pickles, and those that point nnU-Net at the user's own folders.
UNWANTED = ("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "MONAI_ALLOW_PICKLE")
UNWANTED_PREFIX = "nnunet_"
PR_SET_PDEATHSIG = 1


class Model(Protocol):
    """What the worker needs of an opened model."""

    def run(self, volume: Volume, options: RunOptions, progress: Progress) -> Segmentation: ...


Opener = Callable[[Path, str], Model]
Finder = Callable[[str], Path]


def open_any(source: Path, device: str) -> Model:
    """Open a model of any format that MedAI knows."""
    # Here and not at the top: importing torch takes seconds, and the worker greets its client before that.
    from MedAILib.models.open import open_model  # noqa: PLC0415

    return open_model(source, device)


def find_any(name_or_path: str) -> Path:
    """Where a model of this name, or at this path, lies."""
    from MedAILib.models.store import find_model  # noqa: PLC0415 (see open_any)

    return find_model(name_or_path)


@dataclass(eq=False)
class _Run:
    """A run that was asked for and not yet answered."""

    id: str
    request: RunRequest
    volume: Volume
    cancelled: threading.Event = field(default_factory=threading.Event)


class _Reporter(Progress):
    """Sends a run's steps and warnings, and stops it once it was cancelled."""

    def __init__(self, run: _Run, send: Callable[[Message], None]) -> None:
        self.stage = "load"
        self._run = run
        self._send = send
        self._last_time = float("-inf")
        self._last_text: str | None = None

    def step(self, done: int, total: int, text: str = "") -> None:
        if self._run.cancelled.is_set():
            raise Cancelled
        now = time.monotonic()
        if text == self._last_text and done < total and now - self._last_time < PROGRESS_INTERVAL_S:
            return
        self._last_time, self._last_text = now, text
        step = Step(self.stage, done, total, text)
        self._send(Message(Kind.PROGRESS, self._run.id, protocol.pack_step(step)))

    def warn(self, text: str) -> None:
        self._send(Message(Kind.WARNING, self._run.id, protocol.pack_text(text)))


class _Warm:
    """The models that were used last, ready for the next run; they belong to the computing thread.

    A model whose files changed since it was opened is opened again.
    """

    def __init__(self, opener: Opener) -> None:
        self._opener = opener
        self._models: OrderedDict[tuple[Path, str], tuple[int, Model]] = OrderedDict()

    def get(self, source: Path, device: str) -> Model:
        key = (source.resolve(), device)
        known = self._models.pop(key, None)
        if known is None or known[0] != _stamp(key[0]):
            known = None  # lets go of the old one before the new one takes memory
            while len(self._models) >= WARM_MODELS:
                self._models.popitem(last=False)
            model = self._opener(key[0], device)
            known = (_stamp(key[0]), model)  # after opening: what is no model may be a folder without end
        self._models[key] = known
        return known[1]

    def drop(self) -> None:
        self._models.clear()
        gc.collect()
        torch = sys.modules.get("torch")
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.empty_cache()


class _Server:
    """One conversation with a client."""

    def __init__(self, stdout: ByteSink, opener: Opener, finder: Finder) -> None:
        self._stdout = stdout
        self._finder = finder
        self._warm = _Warm(opener)
        self._versions: dict[str, Any] = {}
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        # Guarded by _changed:
        self._waiting: deque[_Run] = deque()
        self._running: _Run | None = None
        self._free_wanted = False

    def serve(self, stdin: ByteSource) -> None:
        self._greet()
        threading.Thread(target=self._compute, name="inference", daemon=True).start()
        while (message := protocol.read_message(stdin)) is not None:
            self._take(message)

    def _take(self, message: Message) -> None:
        if message.kind is Kind.RUN:
            request, volume = protocol.unpack_run(message)
            with self._changed:
                self._waiting.append(_Run(message.run, request, volume))
                self._changed.notify()
            self._tell_places()
        elif message.kind is Kind.CANCEL:
            self._cancel(message.run)
        elif message.kind is Kind.FREE:
            with self._changed:
                self._free_wanted = True
                self._changed.notify()
        else:
            raise ProtocolError(f"The worker was sent a message of the kind {message.kind.value}, which is its own.")

    def _cancel(self, run_id: str) -> None:
        with self._changed:
            if self._running is not None and self._running.id == run_id:
                self._running.cancelled.set()
            waiting = next((run for run in self._waiting if run.id == run_id), None)
            if waiting is not None:
                self._waiting.remove(waiting)
        if waiting is not None:
            self._send(Message(Kind.CANCELLED, run_id))
            self._tell_places()

    def _tell_places(self) -> None:
        """Tell every waiting run how many are before it."""
        with self._changed:
            before = 0 if self._running is None else 1
            places = [(run.id, before + place) for place, run in enumerate(self._waiting)]
        for run_id, place in places:
            self._send(Message(Kind.QUEUED, run_id, {"before": place}))

    def _compute(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting) or self._free_wanted)
                free, self._free_wanted = self._free_wanted, False
                self._running = self._waiting.popleft() if self._waiting else None
                run = self._running
            if free:
                self._warm.drop()
            if run is not None:
                self._tell_places()
                self._write(self._answer(run))
                del run  # its voxels are not kept while the worker waits

    def _answer(self, run: _Run) -> list[memoryview]:
        """Run to the end; the frame of the one message that closes the run."""
        self._send(Message(Kind.STARTED, run.id))
        try:
            body, arrays = protocol.pack_result(self._segment(run))
            answer = protocol.frame(Message(Kind.RESULT, run.id, body, arrays))
        except Cancelled:
            run.cancelled.set()
        except MedAIError as error:
            answer = protocol.frame(Message(Kind.ERROR, run.id, protocol.pack_error(error)))
        except ModuleNotFoundError as error:
            text = (
                f"The Python package '{error.name}' is not installed where the models run; install it as the README of "
                "MedAI says."
            )
            answer = protocol.frame(Message(Kind.ERROR, run.id, protocol.pack_error(MedAIError(text))))
        except MemoryError:
            text = f"Memory ran out while {run.request.model} ran on {run.volume.name}; choose a region of interest."
            answer = protocol.frame(Message(Kind.ERROR, run.id, protocol.pack_error(MedAIError(text))))
        except BaseException:  # noqa: BLE001  also a library's sys.exit(): the user is told, and the worker lives on
            body = {"kind": protocol.DEFECT, "text": traceback.format_exc()}
            answer = protocol.frame(Message(Kind.ERROR, run.id, body))
        with self._changed:
            self._running = None
            # What was cancelled after its last step is cancelled all the same.
            return protocol.frame(Message(Kind.CANCELLED, run.id)) if run.cancelled.is_set() else answer

    def _segment(self, run: _Run) -> Segmentation:
        reporter = _Reporter(run, self._send)
        reporter.step(0, 1, f"Loading {run.request.model}")
        model = self._warm.get(self._finder(run.request.model), run.request.device)
        self._greet()
        reporter.stage = "run"
        return model.run(run.volume, run.request.options, reporter)

    def _greet(self) -> None:
        """Say who we are; again once torch came in."""
        versions = {
            "pid": os.getpid(),
            "python": platform.python_version(),
            "numpy": np.__version__,
            "torch": getattr(sys.modules.get("torch"), "__version__", None),
            "monai": getattr(sys.modules.get("monai"), "__version__", None),
        }
        if versions != self._versions:
            self._versions = versions
            self._send(Message(Kind.HELLO, body=versions))

    def _send(self, message: Message) -> None:
        self._write(protocol.frame(message))

    def _write(self, parts: list[memoryview]) -> None:
        with self._writing:
            try:
                protocol.write_frame(self._stdout, parts)
            except OSError as error:
                # The client is gone; the reading thread sees that too, and ends the process.
                print(f"The worker could not answer: {error}", file=sys.stderr)


def serve(stdin: ByteSource, stdout: ByteSink, opener: Opener, finder: Finder = Path) -> None:
    """Answer the messages on `stdin` until it ends.

    Args:
        stdin: unbuffered; the client's messages.
        stdout: unbuffered; the answers.
        opener: makes a model from its resolved source and a device's name.
        finder: makes a source from what the request calls the model.

    Raises:
        ProtocolError: `stdin` carries something else.
    """
    _Server(stdout, opener, finder).serve(stdin)


def main(opener: Opener = open_any, finder: Finder = find_any) -> NoReturn:
    """Be a worker process until standard input closes; then end it and all its children."""
    faulthandler.enable(all_threads=False)
    scrub(os.environ)
    stdin, stdout = _claim_streams()
    _end_with_parent()
    try:
        serve(stdin, stdout, opener, finder)
    except ProtocolError as error:
        print(error, file=sys.stderr)
    except Exception:  # noqa: BLE001  printed here, as the process ends before Python would print it
        traceback.print_exc()
    _end_tree()


def scrub(environment: MutableMapping[str, str]) -> None:
    """Take the variables that change what libraries load, or from where, out of an environment."""
    for name in list(environment):
        if name in UNWANTED or name.lower().startswith(UNWANTED_PREFIX):
            del environment[name]


def _claim_streams() -> tuple[io.FileIO, io.FileIO]:
    """The process's input and output for the protocol alone.

    Whatever a library or a child prints from now on goes to standard error, from Python and from C, and whoever
    reads standard input finds it empty.
    """
    stdin, stdout = io.FileIO(os.dup(0), "rb"), io.FileIO(os.dup(1), "wb")
    sys.stdout.flush()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    protocol.widen_pipe(stdin.fileno())
    protocol.widen_pipe(stdout.fileno())
    return stdin, stdout


def _end_with_parent() -> None:
    """See to it that no process of ours outlives the parent, however that ends and however busy we are.

    The group that gets ended is one of our own; the client says in the environment that it made one for us.
    """
    made_for_us = os.environ.pop(protocol.GROUP_VARIABLE, None) is not None
    if sys.platform == "win32":
        return
    if not made_for_us and os.getpgrp() != os.getpid():
        os.setpgid(0, 0)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    server = os.getpid()
    with warnings.catch_warnings():
        # Python 3.12 warns of forks beside threads (numpy has some); this child needs none of what they may hold.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        _guard(server)


def _guard(server: int) -> NoReturn:
    """Life of the child that ends the group once the server is gone, even if the server was killed."""
    try:
        os.closerange(0, 256)
        while os.getppid() == server:
            time.sleep(GUARD_INTERVAL_S)
        os.killpg(os.getpgrp(), signal.SIGKILL)
    finally:
        os._exit(0)


def _end_tree() -> NoReturn:
    """End this process and its children at once; there is nothing to save."""
    sys.stderr.flush()
    if sys.platform == "win32":
        subprocess.run(["taskkill", "/F", "/T", "/PID", str(os.getpid())], check=False, capture_output=True)
    else:
        os.killpg(os.getpgrp(), signal.SIGKILL)
    os._exit(0)


def _stamp(source: Path) -> int:
    """A number that changes when a file of the model does."""
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    return hash(tuple((str(path), *_size_and_time(path)) for path in files))


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns


if __name__ == "__main__":
    main()
