"""Models that processes of their own bring into the store, each heard by a thread; nothing here waits.

One is fetched (`Getting`), or trained (`fine_tuning.FineTuning`).
"""

import json
import os
import subprocess
import sys
import tempfile
import threading
import traceback
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from MedAILib.errors import MedAIError, ModelError
from MedAILib.progress import Cancelled
from MedAILib.worker.client import JobState, WorkerDefect
from MedAILib.worker.process import ROOT, worker_python

LAST_WORDS = 4000


class Apart:
    """A process that ends with a model in the store; stands where a `Job` does, usable from any thread.

    Args:
        module: what the process runs.
        argument: of it.
        text: what it does, for the user.
        failed: what to say where it can't even start; "{error}" is the reason.
    """

    def __init__(self, module: str, argument: str, text: str, failed: str) -> None:
        self._command, self._failed, self._text = (module, argument), failed, text
        self._ended = threading.Event()
        self._lock = threading.Lock()
        # Guarded by the lock:
        self._state = JobState("queued", text)
        self._process: subprocess.Popen[str] | None = None
        self._cancelled = False
        self._name = ""
        self._error: Exception | None = None
        threading.Thread(target=self._live, name="MedAI model", daemon=True).start()

    def poll(self) -> JobState:
        """How it stands; returns at once."""
        with self._lock:
            return self._state

    def cancel(self) -> None:
        """Stop it; returns at once. The store is as it was."""
        with self._lock:
            self._cancelled = True
            self._stop()

    def result(self) -> str:
        """The name by which the model is found now; waits for it.

        Raises:
            MedAIError: it can't be had; says why.
            WorkerDefect: by a defect.
            Cancelled: it was cancelled.
        """
        self._ended.wait()
        with self._lock:
            if self._error is not None:
                raise self._error
            if not self._name:
                raise Cancelled
            return self._name

    def _stop(self) -> None:
        """End the process's input, which ends it, also behind a launcher; called with the lock held."""
        if self._process is not None and self._process.stdin is not None:
            self._process.stdin.close()

    def _live(self) -> None:
        try:
            with tempfile.TemporaryFile(mode="w+", errors="replace") as words:
                process = _start(self._command, words)
                with self._lock:
                    self._process = process
                    if self._cancelled:
                        self._stop()
                assert process.stdout is not None
                with process.stdout as lines:
                    self._hear(lines)
                process.wait()
                words.seek(0)
                self._end(words.read()[-LAST_WORDS:])
        except (OSError, MedAIError) as error:
            with self._lock:
                self._error = ModelError(self._failed.format(error=error))
            self._end("")
        except BaseException:
            self._end(traceback.format_exc())
            raise

    def _hear(self, lines: Iterable[str]) -> None:
        for line in lines:
            entry = json.loads(line)
            with self._lock:
                if "added" in entry:
                    self._name = entry["added"]
                elif "error" in entry:
                    self._error = ModelError(entry["error"])
                elif "warning" in entry:
                    self._state = replace(self._state, warnings=(*self._state.warnings, entry["warning"]))
                else:
                    self._state = JobState("running", warnings=self._state.warnings, **entry)

    def _end(self, words: str) -> None:
        with self._lock:
            if self._process is not None and self._process.stdin is not None:
                self._process.stdin.close()
            if self._name:
                self._state = replace(self._state, state="done", text="Done")
            elif self._cancelled:
                self._state = replace(self._state, state="cancelled", text="Cancelled")
            else:
                self._error = self._error or WorkerDefect(words or f"{self._text}: the process ended by itself.")
                self._state = replace(self._state, state="failed", text=str(self._error))
        self._ended.set()


class Getting(Apart):
    """A model that is fetched; the next download goes on where one was cancelled.

    Args:
        source: a name of the catalogue, an address, or the path of a folder, an archive or a file.
    """

    def __init__(self, source: str) -> None:
        told = source.replace("{", "{{").replace("}", "}}")
        failed = f"{told} could not be fetched ({{error}}); restart Slicer and try again."
        super().__init__("MedAILib.store.apart", source, f"Getting {source}", failed)


def _start(command: "tuple[str, str]", words: Any) -> "subprocess.Popen[str]":
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    environment["PYTHONSAFEPATH"] = "1"
    environment["PYTHONIOENCODING"] = "utf-8"
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NO_WINDOW}
    return subprocess.Popen(
        (worker_python(), "-m", *command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=words,
        env=environment,
        text=True,
        encoding="utf-8",
        **options,
    )
