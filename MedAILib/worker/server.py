"""The worker process: answers the runs that arrive on standard input, one after another, with models kept warm.

Start it as `python -m MedAILib.worker.server`. The calling thread reads, one other thread computes. What a user sees
of it, and the process as others see it, are the client's business.
"""

import faulthandler
import os
import platform
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn, cast

import numpy as np

from MedAILib.detections import Detections
from MedAILib.errors import InputError, MedAIError
from MedAILib.estimate import demand_of
from MedAILib.progress import Cancelled, Progress
from MedAILib.request import DetectOptions, GenerateOptions, RunOptions, RunRequest
from MedAILib.results import Generated, Result, Segmentation
from MedAILib.spec import ModelSpec
from MedAILib.statistics import segment_statistics
from MedAILib.system_memory import available_memory, keep_freed_memory, process_memory, total_memory
from MedAILib.threads import wait_asleep
from MedAILib.volume import Volume
from MedAILib.worker import protocol, wire, wire_results
from MedAILib.worker.foreign import ProtocolError
from MedAILib.worker.hosting import (
    claim_streams,
    end_tree,
    end_with_parent,
    own_folder,
    scrub,
    trim_memory,
)
from MedAILib.worker.protocol import ByteSink, ByteSource, Kind, Message
from MedAILib.worker.status import Device, WarmModel, WorkerStatus, pack_status
from MedAILib.worker.warm import Limit, Model, Opener, Warm, memory_share, room_on

# Steps closer in time than this are not sent, unless they finish a stage or begin a new one.
PROGRESS_INTERVAL_S = 0.05

Finder = Callable[[str], Path]
Resolver = Callable[[str], str]


def open_any(source: Path, device: str, trust_code: str) -> Model:
    """Open a model of any format that MedAI knows."""
    # Here and not at the top: importing torch takes seconds, and the worker greets its client before that.
    from MedAILib.models.lean import import_monai_for_inference  # noqa: PLC0415

    import_monai_for_inference()
    from MedAILib.models.open import open_model  # noqa: PLC0415

    return cast(Model, open_model(source, device, trust_code))


def find_any(name_or_path: str) -> Path:
    """Where a model of this name, or at this path, lies."""
    from MedAILib.models.store import find_model  # noqa: PLC0415 (see open_any)

    return find_model(name_or_path)


def resolve_any(device: str) -> str:
    """The full name ("cpu", "cuda:0") of what a device's name means here.

    Raises:
        DeviceError: no such device.
    """
    import torch  # noqa: PLC0415 (see open_any)

    from MedAILib.models.device import find_device  # noqa: PLC0415

    found = find_device(device)
    return f"cuda:{torch.cuda.current_device()}" if str(found) == "cuda" else str(found)


@dataclass(frozen=True)
class Library:
    """What the worker runs with; others than these are for tests.

    Args:
        opener: makes a model from its resolved source, a device's full name, and the SHA-256 of a model that may
            execute code of its own.
        finder: makes a source from what the request calls the model; what it gives for a name is absolute.
        resolver: makes a device's full name from what the request calls it.
        limit: bytes that warm models may hold on a device.
    """

    opener: Opener = open_any
    finder: Finder = find_any
    resolver: Resolver = resolve_any
    limit: Limit = memory_share


@dataclass(eq=False)
class _Run:
    """A run that was asked for and not yet answered; `path` is what a relative path means on the client's side."""

    id: str
    request: RunRequest
    volume: Volume | None
    path: str
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
        step = wire.Step(self.stage, done, total, text)
        self._send(Message(Kind.PROGRESS, self._run.id, wire.pack_step(step)))

    def warn(self, text: str) -> None:
        self._send(Message(Kind.WARNING, self._run.id, wire.pack_text(text)))


class _Server:
    """One conversation with a client."""

    def __init__(self, stdout: ByteSink, library: Library) -> None:
        self._stdout = stdout
        self._library = library
        self._warm = Warm(library.opener, library.limit)
        self._listed: tuple[WarmModel, ...] = ()
        self._versions: dict[str, Any] = {}
        self._writing = threading.Lock()
        self._changed = threading.Condition()
        # Guarded by _changed:
        self._waiting: deque[_Run] = deque()
        self._running: _Run | None = None
        self._free_wanted = False
        self._wish: wire.Wish | None = None

    def serve(self, stdin: ByteSource) -> None:
        self._greet()
        threading.Thread(target=self._live, name="inference", daemon=True).start()
        while (message := protocol.read_message(stdin)) is not None:
            self._take(message)

    def _take(self, message: Message) -> None:
        if message.kind is Kind.RUN:
            request, volume, path = wire.unpack_run(message)
            with self._changed:
                self._waiting.append(_Run(message.run, request, volume, path))
                self._changed.notify()
            self._tell_places()
        elif message.kind is Kind.CANCEL:
            self._cancel(message.run)
        elif message.kind is Kind.WARM:
            wish = wire.unpack_wish(message)
            with self._changed:
                self._wish = wish
                self._changed.notify()
        elif message.kind is Kind.FREE:
            with self._changed:
                self._free_wanted = True
                self._changed.notify()
        elif message.kind is Kind.ASK:
            self._tell_status()
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

    def _live(self) -> None:
        """Compute, and end with the process: a worker that only listens would keep its client waiting."""
        try:
            self._compute()
        finally:  # a defect, or a driver that no longer answers
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)

    def _compute(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: bool(self._waiting or self._free_wanted or self._wish))
                free, self._free_wanted = self._free_wanted, False
                wish, self._wish = self._wish, None
                self._running = self._waiting.popleft() if self._waiting else None
                run = self._running
            if free:
                self._warm.drop()
            if run is None and wish is not None:
                self._fulfil(wish)
            if run is not None:
                self._tell_places()
                self._write(self._answer(run))
                run = None  # its voxels are not kept while the worker waits
                if not self._waiting:
                    trim_memory()
            self._listed = self._warm.listed()
            self._tell_status()

    def _fulfil(self, wish: wire.Wish) -> None:
        """Open a model before its first run; what goes wrong is left for that run to say."""
        try:
            self._warm.get(self._find(wish.model, wish.path), self._library.resolver(wish.device))
        except (MedAIError, ModuleNotFoundError, MemoryError) as error:
            print(f"{wish.model} could not be made ready: {error}", file=sys.stderr)
        except Exception:  # noqa: BLE001  the worker's loop: who asked for nothing is shown no defect
            traceback.print_exc()
        self._greet()

    def _answer(self, run: _Run) -> list[memoryview]:
        """Run to the end; the frame of the one message that closes the run."""
        self._send(Message(Kind.STARTED, run.id))
        try:
            body, arrays = self._result(run)
            answer = protocol.frame(Message(Kind.RESULT, run.id, body, arrays))
        except Cancelled:
            run.cancelled.set()
        except MedAIError as error:
            answer = protocol.frame(Message(Kind.ERROR, run.id, wire.pack_error(error)))
        except ModuleNotFoundError as error:
            text = (
                f"The Python package '{error.name}' is not installed where the models run; install it as the README of "
                "MedAI says."
            )
            answer = protocol.frame(Message(Kind.ERROR, run.id, wire.pack_error(MedAIError(text))))
        except MemoryError:
            on = "" if run.volume is None else f" on {run.volume.name}"
            text = f"Memory ran out while {run.request.model} ran{on}; choose a region of interest."
            answer = protocol.frame(Message(Kind.ERROR, run.id, wire.pack_error(MedAIError(text))))
        except BaseException:  # noqa: BLE001  also a library's sys.exit(): the user is told, and the worker lives on
            body = {"kind": wire.DEFECT, "text": traceback.format_exc()}
            answer = protocol.frame(Message(Kind.ERROR, run.id, body))
        with self._changed:
            self._running = None
            # What was cancelled after its last step is cancelled all the same.
            return protocol.frame(Message(Kind.CANCELLED, run.id)) if run.cancelled.is_set() else answer

    def _result(self, run: _Run) -> tuple[dict[str, Any], tuple[Any, ...]]:
        """Body and arrays of a run's RESULT message."""
        reporter = _Reporter(run, self._send)
        found = self._run_model(run, reporter)
        rows = None
        if run.request.statistics and isinstance(found, Segmentation) and run.volume is not None:
            reporter.step(0, 1, "Measuring")
            rows = segment_statistics(found, run.volume)
        body, arrays = wire_results.pack_result(found)
        return body | {"statistics": wire_results.pack_statistics(rows)}, arrays

    def _run_model(self, run: _Run, reporter: _Reporter) -> Result:
        reporter.step(0, 1, f"Loading {run.request.model}")
        source, device = self._find(run.request.model, run.path), self._library.resolver(run.request.device)
        model = self._warm.get(source, device, run.request.trust_code)
        self._greet()
        self._make_room(run, model, device)
        reporter.stage = "run"
        options = run.request.options
        if isinstance(options, GenerateOptions):
            return _images(model, run.volume, options, reporter)
        assert run.volume is not None, "only the options of images go without one"
        if isinstance(options, DetectOptions) and _segments(model):
            return _boxes(model, run.volume, options, reporter)
        return model.run(run.volume, options, reporter)

    def _make_room(self, run: _Run, model: Model, device: str) -> None:
        """Let go of the other warm models where this run would not fit beside them."""
        spec, there = getattr(model, "spec", None), room_on(device)
        if not isinstance(spec, ModelSpec) or there is None or run.volume is None:
            return
        wanted = demand_of(spec, run.volume, run.request.options)
        if wanted is None:
            return
        if (wanted.on_cpu() if device == "cpu" else wanted.at_best_on_gpu()) > there:
            self._warm.keep_only(model)

    def _find(self, model: str, path: str) -> Path:
        """Where the model lies; a relative path counts from the client's working folder, where that is known here."""
        there = Path(path) if path and Path(path).exists() else None
        try:
            found = self._library.finder(model)
        except InputError:
            if there is None:
                raise
            return there
        return found if found.is_absolute() or there is None else there

    def _tell_status(self) -> None:
        status = WorkerStatus(True, platform.node(), os.getpid(), process_memory() or 0, _devices(), self._listed)
        self._send(Message(Kind.STATUS, body=pack_status(status)))

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


def serve(stdin: ByteSource, stdout: ByteSink, library: Library) -> None:
    """Answer the messages on `stdin` until it ends.

    Args:
        stdin: unbuffered; the client's messages.
        stdout: unbuffered; the answers.
        library: what the runs are done with.

    Raises:
        ProtocolError: `stdin` carries something else.
    """
    _Server(stdout, library).serve(stdin)


def main(library: Library | None = None) -> NoReturn:
    """Be a worker process until standard input closes; then end it and all its children."""
    faulthandler.enable(all_threads=False)
    scrub(os.environ)
    folder = own_folder()
    keep_freed_memory()
    wait_asleep()
    stdin, stdout = claim_streams()
    end_with_parent(stdin.fileno(), folder)
    try:
        serve(stdin, stdout, library or Library())
    except ProtocolError as error:
        print(error, file=sys.stderr)
    except Exception:  # noqa: BLE001  printed here, as the process ends before Python would print it
        traceback.print_exc()
    end_tree(folder)


def _segments(model: Model) -> bool:
    spec = getattr(model, "spec", None)
    return isinstance(spec, ModelSpec) and spec.task == "segmentation"


def _boxes(model: Model, volume: Volume, options: DetectOptions, progress: Progress) -> Detections:
    """Boxes around what a model that segments finds."""
    from MedAILib.models.detect import boxes_of_segments  # noqa: PLC0415 (see open_any)
    from MedAILib.models.open import OpenedModel  # noqa: PLC0415

    return boxes_of_segments(cast(OpenedModel, model), volume, options, progress)


def _images(model: Model, volume: Volume | None, options: GenerateOptions, progress: Progress) -> Generated:
    """Images of noise, or one of an image."""
    from MedAILib.models.generate import made_of_image, made_of_noise  # noqa: PLC0415 (see open_any)

    if volume is None:
        return made_of_noise(model, options, progress)
    return made_of_image(model, volume, RunOptions(), progress)


def _devices() -> tuple[Device, ...]:
    """The places where networks run; GPUs once PyTorch uses them, as asking it earlier would load it."""
    devices = [Device("cpu", platform.machine(), available_memory() or 0, total_memory() or 0)]
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        for number in range(torch.cuda.device_count()):
            free, total = torch.cuda.mem_get_info(number)
            devices.append(Device(f"cuda:{number}", torch.cuda.get_device_name(number), free, total))
    return tuple(devices)


if __name__ == "__main__":
    main()
