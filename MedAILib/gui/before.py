"""What speaks against a run before its image leaves for the worker, and what it will take; no window, no scene."""

from dataclasses import dataclass

from MedAILib.checks import MemoryNeed, concerns_before_run
from MedAILib.errors import InputError, MedAIError
from MedAILib.estimate import demand_of
from MedAILib.gui.devices import nvidia_cards
from MedAILib.gui.pace import expected_seconds
from MedAILib.gui.words import estimate_text
from MedAILib.models.store import find_model
from MedAILib.read_spec import read_spec
from MedAILib.request import RunRequest
from MedAILib.spec import ModelSpec
from MedAILib.system_memory import available_memory
from MedAILib.volume import Volume
from MedAILib.worker.client import WorkerStatus

# A run that takes longer is asked about, though nothing else speaks against it.
LONG_S = 600.0


@dataclass(frozen=True)
class Outlook:
    """What is known of a run beforehand.

    Args:
        warnings: what the user should know before it, in sentences; empty where the image is what the model was made
            for and the run does not take long.
        seconds: about how long it will compute; None where nothing tells.
        spec: its model's description; None where that is for the worker to find or read.
        place: the device that it will run on, as far as can be told: "cpu", "cuda:0".
    """

    warnings: tuple[str, ...] = ()
    seconds: float | None = None
    spec: ModelSpec | None = None
    place: str = "cpu"


def outlook(
    request: RunRequest, volume: Volume | None, status: WorkerStatus, destination: str, frames: int = 1
) -> Outlook:
    """What is to be expected of a run.

    Args:
        request: the run.
        volume: its image, or the first of a sequence's; None for a run that takes none.
        status: what the worker last said of itself.
        destination: the other computer that the worker runs on; empty for this one.
        frames: how many such images there are.

    Raises:
        InputError: the run would be refused; the text says why.
    """
    place = place_of(request, status, destination)
    try:
        spec = read_spec(find_model(request.model))
    except MedAIError:
        return Outlook(place=place)
    if volume is None:
        return Outlook(spec=spec, place=place)
    memory = memory_need(request, spec, volume, status, destination)
    found = concerns_before_run(volume, spec, request.options, memory)
    stops = [concern.text for concern in found if concern.severity == "stop"]
    if stops:
        raise InputError(" ".join(stops))
    one = expected_seconds(request, spec, volume.geometry, place, destination)
    seconds = None if one is None else one * frames
    warnings = [concern.text for concern in found]
    if warnings or (seconds or 0.0) >= LONG_S:
        about = estimate_text(seconds, memory)
        warnings += [about] if about else []
    return Outlook(tuple(warnings), seconds, spec, place)


def place_of(request: RunRequest, status: WorkerStatus, destination: str) -> str:
    """The device that a run will be on, as far as can be told before the worker has said what it has."""
    gpus = [device for device in status.devices if device.device != "cpu"]
    if request.device.startswith("cuda") or (
        request.device == "auto" and (gpus or (not destination and nvidia_cards()))
    ):
        return "cuda:0" if request.device in ("auto", "cuda") else request.device
    return "cpu"


def memory_need(
    request: RunRequest, spec: ModelSpec, volume: Volume, status: WorkerStatus, destination: str
) -> MemoryNeed | None:
    """Bytes that a run takes and that are free where it will run; None where one of them is not known."""
    try:
        wanted = demand_of(spec, volume, request.options)
    except InputError:  # a region beside the image
        return None
    if wanted is None:
        return None
    name = place_of(request, status, destination)
    told = next((one.free_bytes for one in status.devices if one.device == name and one.total_bytes), None)
    if name == "cpu":
        free, needed = told if destination else available_memory(), wanted.on_cpu()
    else:
        free, needed = told, wanted.at_best_on_gpu()
    held = sum(model.bytes for model in status.models if model.device == name)  # let go of where it is needed
    return None if free is None else MemoryNeed(needed, free + held)
