"""What messages carry, as plain JSON and arrays and back: requests, images, progress and errors.

Results have a file of their own, and so have the options of each task.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from MedAILib import errors
from MedAILib.errors import MedAIError
from MedAILib.request import RunRequest
from MedAILib.volume import Volume
from MedAILib.worker.foreign import decoding, flag_of, member_of, text_of, texts_of, whole_of
from MedAILib.worker.protocol import Message
from MedAILib.worker.wire_options import pack_options, unpack_options
from MedAILib.worker.wire_results import pack_geometry, unpack_geometry

# Error kind of an exception that nobody meant to raise; its text is a traceback.
DEFECT = "defect"

ERROR_KINDS: dict[str, type[MedAIError]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MedAIError)
}


def pack_run(request: RunRequest, volume: Volume, path: str = "") -> tuple[dict[str, Any], tuple[NDArray[Any], ...]]:
    """Body and arrays of a RUN message; `path` is what a relative path in the request means on the client's side.

    Raises:
        TypeError: provenance that is no text.
    """
    return {"request": pack_request(request), "path": path, "volume": pack_volume(volume)}, (volume.data,)


def unpack_run(message: Message) -> tuple[RunRequest, Volume, str]:
    """Inverse of `pack_run`; raises ProtocolError."""
    body = message.body
    with decoding("run"):
        volume = unpack_volume(body["volume"], message.arrays)
        return unpack_request(body["request"]), volume, text_of(body["path"])


def pack_volume(volume: Volume) -> dict[str, Any]:
    """Everything of an image but its voxels, which travel as the message's one array."""
    return {
        "geometry": pack_geometry(volume.geometry),
        "name": volume.name,
        "provenance": texts_of(volume.provenance),
    }


def unpack_volume(body: Any, arrays: Sequence[NDArray[Any]]) -> Volume:
    """Inverse of `pack_volume`, with the voxels; raises ProtocolError."""
    with decoding("image"):
        (data,) = arrays
        return Volume(data, unpack_geometry(body["geometry"]), text_of(body["name"]), texts_of(body["provenance"]))


def pack_request(request: RunRequest) -> dict[str, Any]:
    """A request as JSON."""
    return {
        "model": request.model,
        "device": request.device,
        "options": pack_options(request.options),
        "trust_code": request.trust_code,
        "statistics": bool(request.statistics),
    }


def unpack_request(body: Any) -> RunRequest:
    """Inverse of `pack_request`; raises ProtocolError."""
    with decoding("request"):
        return RunRequest(
            text_of(body["model"]),
            text_of(body["device"]),
            unpack_options(body["options"]),
            text_of(body["trust_code"]),
            flag_of(body["statistics"]),
        )


def pack_error(error: MedAIError) -> dict[str, Any]:
    """An error of the user's to mend: the closest kind that both sides know, and its sentence."""
    kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in ERROR_KINDS)
    return {"kind": kind, "text": str(error)}


def unpack_error(body: Any) -> MedAIError | None:
    """Inverse of `pack_error`; None for a defect. Raises ProtocolError."""
    with decoding("error"):
        text, kind = text_of(body["text"]), member_of(body["kind"], (*ERROR_KINDS, DEFECT))
        return None if kind == DEFECT else ERROR_KINDS[kind](text)


@dataclass(frozen=True)
class Step:
    """How far a run is: `done` of `total` units of what `text` says, in the stage "load" or "run"."""

    stage: str
    done: int
    total: int
    text: str


def pack_step(step: Step) -> dict[str, Any]:
    """Progress as JSON."""
    return {**asdict(step), "done": int(step.done), "total": int(step.total)}


def unpack_step(body: Any) -> Step:
    """Inverse of `pack_step`; raises ProtocolError."""
    with decoding("progress"):
        return Step(text_of(body["stage"]), whole_of(body["done"]), whole_of(body["total"]), text_of(body["text"]))


def pack_text(text: str) -> dict[str, Any]:
    """A warning as JSON."""
    return {"text": str(text)}


def unpack_text(body: Any) -> str:
    """Inverse of `pack_text`; raises ProtocolError."""
    with decoding("text"):
        return text_of(body["text"])
