"""A model compared with what is on record of it, by a thread; nothing here waits."""

import threading
import traceback
from pathlib import Path

from MedAILib.errors import MedAIError, ModelError
from MedAILib.progress import Cancelled
from MedAILib.store.adding import Verified, verify_model
from MedAILib.worker.client import JobState, WorkerDefect


class Checking:
    """Stands where a `Job` does; usable from any thread.

    Args:
        name: of the model.
        path: where it lies.
    """

    def __init__(self, name: str, path: Path) -> None:
        self._name, self._path = name, path
        self._lock = threading.Lock()
        # Guarded by the lock:
        self._state = JobState("running", f"Verifying {name}")
        self._found: Verified | None = None
        self._error: Exception | None = None
        threading.Thread(target=self._live, name="MedAI verification", daemon=True).start()

    def poll(self) -> JobState:
        """How it stands; returns at once."""
        with self._lock:
            return self._state

    def cancel(self) -> None:
        """Leave it; returns at once. Nothing was changed."""
        with self._lock:
            if self._state.state == "running":
                self._state = JobState("cancelled", "Cancelled")

    def result(self) -> Verified:
        """What was found, once `poll` says "done".

        Raises:
            ModelError: the model is not as it came; says what to do.
            WorkerDefect: by a defect.
            Cancelled: it was cancelled.
        """
        with self._lock:
            if self._error is not None:
                raise self._error
            if self._found is None or self._state.state != "done":
                raise Cancelled
            return self._found

    def _live(self) -> None:
        found: Verified | None = None
        error: Exception | None = None
        try:
            found = verify_model(self._name, self._path)
        except MedAIError as fault:
            error = fault
        except OSError as fault:
            error = ModelError(f"The model '{self._name}' can't be read: {fault}.")
        except BaseException:
            self._end(None, WorkerDefect(traceback.format_exc()))
            raise
        self._end(found, error)

    def _end(self, found: Verified | None, error: Exception | None) -> None:
        with self._lock:
            if self._state.state == "cancelled":
                return
            self._found, self._error = found, error
            self._state = JobState("failed", str(error)) if error else JobState("done", "Done")
