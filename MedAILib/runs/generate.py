"""Runs that make images, of noise or of another image: from the console's options to nodes."""

import weakref
from typing import Any

import slicer
from slicer.i18n import tr as _

from MedAILib.errors import InputError, MedAIError, SpecError
from MedAILib.gui.follow import Arrival
from MedAILib.read_spec import read_spec
from MedAILib.request import GenerateOptions, RunRequest
from MedAILib.results import Generated
from MedAILib.runs.image import ImageRun
from MedAILib.scene.generated import write_generated
from MedAILib.store.find import find_model
from MedAILib.worker.client import Job, JobState, WorkerClient


class NoiseRun:
    """The making of images of noise, which come into the scene where it was not closed meanwhile.

    Args:
        model: a model's name or path.
        device: "auto", "cpu", "cuda" or "cuda:1".
        options: how many, and from which seed on.

    Raises:
        SpecError: the model is at hand and makes no images of noise.
    """

    images = 1
    volume = None

    def __init__(self, model: str, device: str, options: GenerateOptions):
        self.request = RunRequest(model, device, options)
        _require_task(model, "generation")
        self._scene = _SceneStays(slicer.mrmlScene)

    def submit(self, client: WorkerClient) -> Job:
        """Hand the request over."""
        return client.submit(self.request)

    def obstacle(self) -> MedAIError | None:
        """Why the images have no place any more."""
        if self._scene.closed:
            return InputError("The scene was closed before its images came; make them again.")
        return None

    def arrive(self, made: Generated) -> Arrival:
        """Put the images into the scene; returns the new nodes.

        Raises:
            InputError: the scene was closed.
        """
        yield JobState("running", _("Placing the results"))
        obstacle = self.obstacle()
        if obstacle is not None:
            raise obstacle
        return write_generated(made, slicer.mrmlScene)


class TranslateRun(ImageRun):
    """The making of an image of an image, on its grid.

    Args:
        volumeNode: see `ImageRun`.
        model: a model's name or path.
        device: "auto", "cpu", "cuda" or "cuda:1".

    Raises:
        MedAIError: no image, or the model is at hand and makes no image of an image.
    """

    def __init__(self, volumeNode: Any, model: str, device: str):
        super().__init__(volumeNode)
        self.request = RunRequest(model, device, GenerateOptions())
        _require_task(model, "image-to-image")

    def arrive(self, made: Generated) -> Arrival:
        """Put the image into the scene; returns the new nodes, one for each channel.

        Raises:
            MedAIError: there is no place for it any more.
        """
        yield JobState("running", _("Placing the results"))
        return write_generated(made, self._scene, self._place())


def generate_run(model: str, count: int, seed: int, device: str, *, volumeNode: Any = None) -> NoiseRun | TranslateRun:
    """The run that the arguments of `MedAISegmentLogic.generate` mean.

    Raises:
        MedAIError: an argument is at fault.
    """
    options = GenerateOptions(count, seed)
    if volumeNode is None:
        return NoiseRun(model, device, options)
    if count != 1:
        raise InputError("A model makes one image of an image; leave out count, or volumeNode.")
    return TranslateRun(volumeNode, model, device)


class _SceneStays:
    """Knows whether a scene was closed since; what does not hang on a node has no other way to tell."""

    def __init__(self, scene: Any):
        self.closed = False
        me = weakref.ref(self)

        def close(caller: Any, event: str) -> None:
            one = me()
            if one is not None:
                one.closed = True

        tag = scene.AddObserver(scene.StartCloseEvent, close)
        weakref.finalize(self, scene.RemoveObserver, tag).atexit = False


def _require_task(model: str, task: str) -> None:
    """Refuse a model that is at hand and does something else; others are the worker's to find and judge.

    Raises:
        SpecError: it does something else.
    """
    try:
        spec = read_spec(find_model(model))
    except MedAIError:
        return
    if spec.task == task:
        return
    if spec.task == "generation":
        raise SpecError(f"The model {spec.name} makes images of noise; leave out volumeNode.")
    if spec.task == "image-to-image":
        raise SpecError(f"The model {spec.name} makes an image of an image; give one as volumeNode.")
    raise SpecError(f"The model {spec.name} is for {spec.task}; it makes no images.")
