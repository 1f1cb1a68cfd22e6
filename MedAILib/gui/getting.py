"""A model on its way into the store, by a process of its own that a thread listens to; nothing here waits."""

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


class Getting:
    """Stands where a `Job` does; usable from any thread.

    Args:
        source: a name of the catalogue, an address, or the path of a folder, an archive or a file.
    """

    def __init__(self, source: str) -> None:
        self._source = source
        self._lock = threading.Lock()
        # Guarded by the lock:
        self._state = JobState("queued", f"Getting {source}")
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
        """Stop it; returns at once. The store is as it was, and the next download goes on from there."""
        with self._lock:
            self._cancelled = True
            self._stop()

    def result(self) -> str:
        """The name by which the model is found now, once `poll` says "done".

        Raises:
            MedAIError: it can't be had; says why.
            WorkerDefect: by a defect.
            Cancelled: it was cancelled.
        """
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
                process = _start(self._source, words)
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
                self._error = ModelError(
                    f"{self._source} could not be fetched ({error}); restart Slicer and try again."
                )
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
                self._error = self._error or WorkerDefect(words or f"{self._source}: the process ended by itself.")
                self._state = replace(self._state, state="failed", text=str(self._error))


def _start(source: str, words: Any) -> "subprocess.Popen[str]":
    environment = dict(os.environ)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (str(ROOT), environment.get("PYTHONPATH"))))
    environment["PYTHONSAFEPATH"] = "1"
    environment["PYTHONIOENCODING"] = "utf-8"
    options: dict[str, Any] = {}
    if sys.platform == "win32":
        options = {"creationflags": subprocess.CREATE_NO_WINDOW}
    return subprocess.Popen(
        (worker_python(), "-m", "MedAILib.store.apart", source),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=words,
        env=environment,
        text=True,
        encoding="utf-8",
        **options,
    )
