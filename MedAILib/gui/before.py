"""What speaks against a run before its image leaves for the worker; no window, no scene."""

from MedAILib.checks import MemoryNeed, concerns_before_run
from MedAILib.errors import InputError, MedAIError
from MedAILib.estimate import demand_of
from MedAILib.gui.devices import nvidia_cards
from MedAILib.models.store import find_model
from MedAILib.read_spec import read_spec
from MedAILib.request import RunRequest
from MedAILib.spec import ModelSpec
from MedAILib.system_memory import available_memory
from MedAILib.volume import Volume
from MedAILib.worker.client import WorkerStatus


def warnings_before_run(request: RunRequest, volume: Volume, status: WorkerStatus, destination: str) -> tuple[str, ...]:
    """What the user should know before this run; empty where the image is what the model was made for.

    A model that can't be found or read here is for the worker to judge.

    Args:
        request: the run.
        volume: its image.
        status: what the worker last said of itself.
        destination: the other computer that the worker runs on; empty for this one.

    Raises:
        InputError: the run would be refused; the text says why.
    """
    try:
        spec = read_spec(find_model(request.model))
    except MedAIError:
        return ()
    found = concerns_before_run(volume, spec, request.options, memory_need(request, spec, volume, status, destination))
    stops = [concern.text for concern in found if concern.severity == "stop"]
    if stops:
        raise InputError(" ".join(stops))
    return tuple(concern.text for concern in found)


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
    gpus = [device for device in status.devices if device.device != "cpu"]
    here = not destination
    if request.device.startswith("cuda") or (request.device == "auto" and (gpus or (here and nvidia_cards()))):
        name = "cuda:0" if request.device in ("auto", "cuda") else request.device
        free = next((gpu.free_bytes for gpu in gpus if gpu.device == name and gpu.total_bytes), None)
        needed = wanted.on_gpu(sums_on_gpu=True)
    else:
        name = "cpu"
        told = next((device.free_bytes for device in status.devices if device.device == "cpu"), None)
        free, needed = available_memory() if here else told, wanted.on_cpu()
    held = sum(model.bytes for model in status.models if model.device == name)  # let go of where it is needed
    return None if free is None else MemoryNeed(needed, free + held)
