"""The one worker process that all of MedAI's modules use, and the timer that follows their runs."""

import shlex
from typing import Any
from weakref import WeakSet

import slicer

from MedAILib.errors import InputError
from MedAILib.gui.follow import FollowedRun, Follower
from MedAILib.worker.client import WorkerClient

# Where the user's own command for the worker is kept: in the settings, never in a scene.
COMMAND_SETTING = "MedAI/WorkerCommand"
# Whether the worker is started when a module is entered, likewise.
AHEAD_SETTING = "MedAI/StartWorkerAhead"
# How long a message that no run follows is given to reach the worker.
MESSAGE_S = 1.0
# How long a worker that starts for no run is given to come and be told which model to open.
START_S = 15.0


class SharedWorker:
    """Made when first needed, ended when nobody uses it any more.

    Args:
        client: runs the models; None starts a worker by the user's own command, or Slicer's Python.
    """

    def __init__(self, client: WorkerClient | None = None) -> None:
        self.client = client
        self._follower: Follower | None = None
        self._users: WeakSet[Any] = WeakSet()

    def join(self, user: Any) -> None:
        """Count one more who uses it."""
        self._users.add(user)

    def leave(self, user: Any) -> None:
        """Count one less; the last one ends the worker."""
        self._users.discard(user)
        if not self._users:
            self.end()

    def worker(self) -> WorkerClient:
        """The worker, which starts with its first run."""
        if self.client is None:
            self.client = WorkerClient(command_words(worker_command()) or None)
        return self.client

    def follow(self, run: FollowedRun) -> FollowedRun:
        """Take a run further, by a timer, until it is finished."""
        self._timer().follow(run)
        return run

    def breathe(self) -> None:
        """Let a message that no run follows reach the worker."""
        self._timer().breathe(MESSAGE_S)

    def warm(self, model: str, device: str) -> None:
        """Start the worker if there is none, and let it open a model; returns at once."""
        self.worker().warm(model, device)
        self._timer().breathe(START_S)

    def stop(self) -> None:
        """Follow nothing any more; nobody is told."""
        if self._follower is not None:
            self._follower.stop()

    def end(self) -> None:
        """End the worker; the next run starts a new one."""
        self.stop()
        client, self.client = self.client, None
        if client is not None:
            client.close()

    def _timer(self) -> Follower:
        if self._follower is None:
            self._follower = Follower()
        return self._follower


def worker_command() -> str:
    """The user's own command for the worker; empty for this computer's own."""
    return str(slicer.app.settings().value(COMMAND_SETTING, "") or "")


def starts_ahead() -> bool:
    """Whether the user lets the worker start when a module is entered."""
    return str(slicer.app.settings().value(AHEAD_SETTING, "false")).lower() == "true"


def keep_starts_ahead(ahead: bool) -> None:
    """Keep it in the settings."""
    slicer.app.settings().setValue(AHEAD_SETTING, "true" if ahead else "false")


def keep_worker_command(command: str) -> None:
    """Keep the user's own command in the settings.

    Raises:
        InputError: its quotes don't match.
    """
    command_words(command)
    slicer.app.settings().setValue(COMMAND_SETTING, command)


def command_words(command: str) -> list[str]:
    """A command line in its parts, as a shell takes it."""
    try:
        return shlex.split(command)
    except ValueError as error:
        raise InputError(f"The worker command {command} can't be read ({error}); check its quotes.") from error


SHARED = SharedWorker()
