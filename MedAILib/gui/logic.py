"""What the logic of every module of MedAI can do: take a run to the worker, follow it, and speak of models and worker.

A module's own logic adds what its runs are made of: `class MedAISegmentLogic(ModelLogic)`.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from slicer.i18n import tr as _
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleLogic

from MedAILib.errors import MedAIError
from MedAILib.gui.before import Outlook, outlook
from MedAILib.gui.checking import Checking
from MedAILib.gui.diagnostics import diagnostics
from MedAILib.gui.follow import Arrival, Followed, FollowedRun, Listener
from MedAILib.gui.getting import Getting
from MedAILib.gui.models import ModelEntry, known_models
from MedAILib.gui.pace import keep_pace
from MedAILib.gui.shared_worker import SHARED, SharedWorker, keep_worker_command, worker_command
from MedAILib.request import RunRequest
from MedAILib.store.adding import remove_model
from MedAILib.store.find import find_model
from MedAILib.volume import Volume
from MedAILib.worker.client import JobState, WorkerClient, WorkerStatus


class SceneRun(Protocol):
    """What one run needs of the scene: read at its beginning, found again at its end, never kept by pointer."""

    request: RunRequest

    @property
    def images(self) -> int:
        """How many images it has: the frames of a sequence, else one."""

    @property
    def volume(self) -> Volume | None:
        """The image, until it is submitted; None for a run that takes none."""

    def submit(self, client: WorkerClient) -> Followed:
        """Hand the image over."""

    def obstacle(self) -> MedAIError | None:
        """Why the result has no place any more."""

    def arrive(self, result: Any) -> Arrival:
        """Put the result into the scene, in steps; returns the new nodes."""


class ModelLogic(ScriptedLoadableModuleLogic):
    """Takes runs to the worker that all modules share; needs no panel.

    Args:
        client: runs the models; None takes the shared worker, which starts with the first run and stays warm until
            nobody uses it any more.
    """

    # What the module's models do: see `ModelSpec.task`.
    TASKS: tuple[str, ...] = ()

    def __init__(self, client: WorkerClient | None = None):
        super().__init__()
        self._parameters: Any = None
        self.use(client)

    def use(self, client: WorkerClient | None):
        """Run models by this client from here on; None for the shared worker."""
        self._shared = SHARED if client is None else SharedWorker(client)
        self._shared.join(self)

    def wrapped(self, wrapper: Any) -> Any:
        """The module's parameter node in its wrapper: one for each node, as each wrapper observes its node for good.

        Args:
            wrapper: the class that `parameterNodeWrapper` decorated.
        """
        node = ScriptedLoadableModuleLogic.getParameterNode(self)
        if self._parameters is None or self._parameters.parameterNode is not node:
            self._parameters = wrapper(node)
        return self._parameters

    def models(self) -> list[ModelEntry]:
        """The models at hand and those that can be downloaded, with what is known of each."""
        return known_models(self.TASKS)

    def getModelAsync(self, source, *, onDone=print, onError=None, onProgress=None) -> FollowedRun:
        """Begin to download or add a model, and return at once; its licence is the caller's to look at (`models`).

        Args:
            source: a name of the catalogue, an https address, or the path of a folder, an archive or a file.
            onDone: called with the name by which the model is found then.
            onError: called with what went wrong; None writes it to the log.
            onProgress: called with each new state.

        Returns:
            The run: `poll()` says how it stands, `cancel()` stops it and leaves the models as they were.
        """
        listener = listening(onDone, onError, onProgress)
        return self._shared.follow(FollowedRun(Getting(source), lambda: None, as_it_is, listener))

    def verifyModelAsync(self, name, *, onDone=print, onError=None, onProgress=None) -> FollowedRun:
        """Begin to compare a built-in or added model with what is on record of it, and return at once.

        Args:
            name: of the model.
            onDone: called with its `Verified` (name, path, SHA-256, whether there was a record to compare with).
            onError: called with what is wrong with it; None writes it to the log.
            onProgress: called with each new state.

        Raises:
            InputError: no such model.
        """
        listener = listening(onDone, onError, onProgress)
        return self._shared.follow(FollowedRun(Checking(name, find_model(name)), lambda: None, as_it_is, listener))

    def removeModel(self, name) -> int:
        """Remove a model that was added to this computer.

        Returns:
            The bytes that it took.

        Raises:
            InputError: no added model has this name.
            OutputError: it can't be removed now.
        """
        self.freeMemory()  # the worker may keep it ready
        return remove_model(name)

    def freeMemory(self):
        """Let the worker forget the models that it keeps ready."""
        if self._shared.client is not None:
            self._shared.client.free_memory()
            self._shared.breathe()

    def warmWorker(self, model="hippocampus", device="auto"):
        """Start the worker and let it open a model in the background, so that the first run need not wait; returns."""
        self._shared.join(self)
        self._shared.warm(model, device)

    def restartWorker(self):
        """End the worker; the next run starts a new one."""
        if self._shared.client is not None:
            self._shared.client.restart()
            self._shared.breathe()

    def workerStatus(self) -> WorkerStatus:
        """What the worker last said of its memory, devices and warm models."""
        return self._shared.client.status() if self._shared.client is not None else WorkerStatus()

    def workerCommand(self) -> str:
        """The user's own command for the worker; empty for this computer's own."""
        return worker_command()

    def setWorkerCommand(self, command: str):
        """Run models by this command from the next run on, such as "ssh gpu-box /opt/python -m MedAILib.worker.server".

        It is kept for the user. Images are sent to where it leads; empty runs models on this computer.

        Raises:
            MedAIError: the command's quotes don't match.
        """
        if command != self.workerCommand():
            keep_worker_command(command)
            self._shared.end()

    def destination(self) -> str:
        """Where images go: empty for this computer, else the host or the command."""
        return self._shared.worker().destination

    def versions(self) -> "dict[str, Any]":
        """What the worker last said of itself; empty before it started."""
        return self._shared.client.versions if self._shared.client is not None else {}

    def diagnostics(self, model="", log="") -> str:
        """Versions, the model and the worker's last words, to be sent with a question."""
        last_words = self._shared.client.log if self._shared.client is not None else ""
        return diagnostics(self.versions(), last_words, [f"Model: {model}"] if model else [], log)

    def close(self):
        """Leave the worker; the last one who does ends it, and the next run starts a new one."""
        self._shared.leave(self)

    # For the modules' own logics

    def _begin(
        self,
        makeRun: Callable[..., SceneRun],
        *arguments,
        onDone=print,
        onError=None,
        onProgress=None,
        onWarnings=None,
        **options,
    ) -> FollowedRun | None:
        """Make a run of these arguments and options, and follow it, if nothing speaks against it.

        Args:
            makeRun: reads the scene.
            arguments: of `makeRun`.
            onDone: called with the new nodes once they are in the scene.
            onError: called with what went wrong; None writes it to the log.
            onProgress: called with each new state.
            onWarnings: called before the run with what speaks against it, if anything does; returns whether to run
                all the same. None writes it to the log, and runs.
            options: of `makeRun`.

        Returns:
            The run; None where `onWarnings` was against it.

        Raises:
            MedAIError: the input or an option is at fault.
        """
        run = makeRun(*arguments, **options)
        volume = run.volume
        before, grid = self._outlook(run, volume), None if volume is None else volume.geometry
        del volume  # the run lets it go when it is done
        if before.warnings and not (onWarnings or log_all)(before.warnings):
            return None
        self._shared.join(self)

        def arrive(result) -> Arrival:
            if before.spec is not None and grid is not None and followed.computed_s is not None:
                seconds = followed.computed_s / run.images
                keep_pace(run.request, before.spec, grid, before.place, self.destination(), seconds)
            return run.arrive(result)

        job = run.submit(self._shared.worker())
        followed = FollowedRun(job, run.obstacle, arrive, listening(onDone, onError, onProgress))
        followed.expected_s = before.seconds
        return self._shared.follow(followed)

    def _runToEnd(self, run: SceneRun):
        """Run and wait; returns the new nodes."""
        log_all(self._outlook(run, run.volume).warnings)
        arrival = run.arrive(self._wait(run.submit(self._worker())))
        while True:
            try:
                next(arrival)
            except StopIteration as stop:
                return stop.value

    def _outlook(self, run: SceneRun, volume: Volume | None) -> Outlook:
        """What is to be expected of a run; raises InputError where it would be refused."""
        return outlook(run.request, volume, self.workerStatus(), self.destination(), run.images)

    def _worker(self) -> WorkerClient:
        self._shared.join(self)
        return self._shared.worker()

    @staticmethod
    def _wait(job: Followed):
        """A job's result, once it is there; warnings go to the log."""
        try:
            result = job.result()
            for text in job.poll().warnings:
                logging.warning(text)
            return result
        finally:
            job.cancel()  # for who interrupts the waiting; a run that has ended takes no notice


def listening(
    onDone: Callable[[Any], object],
    onError: Callable[[Exception], object] | None,
    onProgress: Callable[[JobState], object] | None,
) -> Listener:
    """Who is told of a run; errors that nobody wants go to the log."""
    return Listener(onDone, onError or _logError, onProgress or _ignore)


def log_all(texts: Sequence[str]) -> bool:
    """Write warnings to the log, and go on."""
    for text in texts:
        logging.warning(text)
    return True


def _logError(error: Exception):
    logging.error(str(error))


def as_it_is(result) -> Arrival:
    """An arrival that has nothing to place."""
    yield JobState("running", _("Finishing"))
    return result


def _ignore(state: JobState):
    """For who does not want to know how a run stands."""
