"""The worker's process as its client has it: started, fed, listened to, and surely ended; runs are not known here."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from typing import Any

from MedAILib.errors import MedAIError
from MedAILib.worker import protocol
from MedAILib.worker.foreign import ProtocolError
from MedAILib.worker.protocol import Message

# How long a process may live on after its output ended.
EXIT_GRACE_S = 0.5
JOIN_S = 5.0
LOG_BYTES = 64 * 1024
ROOT = Path(__file__).resolve().parents[2]


class WorkerProcess:
    """One process and the threads that live with it: one starts and outlives it, the others move its bytes.

    Args:
        command: as for WorkerClient.
        received: gets every message, from the reading thread.
        ended: gets the reason, once, after the last message.
    """

    def __init__(
        self,
        command: tuple[str, ...] | None,
        received: Callable[["WorkerProcess", Message], None],
        ended: Callable[["WorkerProcess", str], None],
    ) -> None:
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

    def start(self) -> None:
        """Start the process, once; returns at once."""
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
        reason = "could not be followed to its end"  # a defect of ours, whose traceback is printed: no run waits for it
        try:
            reason = self._life()
        finally:
            self._ended(self, reason)

    def _life(self) -> str:
        """The process from its start to its end; how it went."""
        folder = ""
        try:
            folder = tempfile.mkdtemp(prefix=protocol.FOLDER_PREFIX)
            process = _start(self._command, folder)
        except (OSError, ValueError, TypeError) as error:  # MedAIError is a ValueError; so is a NUL in the command
            shutil.rmtree(folder, ignore_errors=True)
            return f"could not be started ({error})"
        with self._killing:
            self._process = process
            if self._kill_wanted:
                self._kill()
        try:
            self._follow(process)
        except BaseException:
            with self._killing:
                self._kill()
                self._process = None
            raise
        finally:
            process.wait()
            shutil.rmtree(folder, ignore_errors=True)
        return self._end_text(process.returncode)

    def _follow(self, process: "subprocess.Popen[bytes]") -> None:
        """Move its bytes until it is dead and all that it wrote was read."""
        assert process.stdin is not None and process.stdout is not None and process.stderr is not None
        threads = [
            threading.Thread(target=self._move, args=(move, stream), name=f"MedAI worker {move.__name__}", daemon=True)
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

    def _move(self, move: Callable[[Any], None], stream: Any) -> None:
        """Move one stream's bytes; where that fails by a defect, end the process, so that no run waits for it."""
        try:
            move(stream)
        except BaseException:
            with self._killing:
                self._fault, self._died_first = self._fault or "could not be talked with", self._dead.is_set()
                self._kill()
            raise

    def _kill(self) -> None:
        """Kill what is there to be killed; called with `_killing` held."""
        if self._process is None:
            return
        if sys.platform == "win32":
            if self._process.poll() is not None:
                return
            # In a thread of its own: it may take seconds, and who ends a worker holds locks.
            threading.Thread(target=_taskkill, args=(self._process.pid,), daemon=True).start()
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


def _taskkill(pid: int) -> None:
    """Windows' way to end a process with all its children."""
    subprocess.run(["taskkill", "/F", "/T", "/PID", str(pid)], check=False, capture_output=True)


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


def _start(command: tuple[str, ...] | None, folder: str) -> "subprocess.Popen[bytes]":
    """Start a worker's process in a group of its own, with a folder for its temporary files.

    Raises:
        OSError, ValueError, TypeError: there is no such program, or it may not be started.
        MedAIError: there is no Python to run our own worker.
    """
    if command is not None and not command:
        raise MedAIError("The worker command is empty; give a command, or none for this computer's own.")
    environment = dict(os.environ)
    environment[protocol.GROUP_VARIABLE] = "1"
    environment[protocol.FOLDER_VARIABLE] = folder
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
