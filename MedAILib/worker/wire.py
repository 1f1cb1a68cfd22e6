"""What messages carry, as plain JSON and arrays and back: requests, images, progress and errors.

Results have a file of their own, and so have the options of each task.
"""

from dataclasses import asdict, dataclass
from typing import Any

from numpy.typing import NDArray

from MedAILib import errors
from MedAILib.errors import MedAIError
from MedAILib.request import GenerateOptions, RunRequest
from MedAILib.volume import Volume
from MedAILib.worker.foreign import decoding, flag_of, member_of, text_of, whole_of
from MedAILib.worker.protocol import Message
from MedAILib.worker.wire_options import pack_options, unpack_options
from MedAILib.worker.wire_volume import pack_volume, unpack_volume

# Error kind of an exception that nobody meant to raise; its text is a traceback.
DEFECT = "defect"

ERROR_KINDS: dict[str, type[MedAIError]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MedAIError)
}


def pack_run(
    request: RunRequest, volume: Volume | None, path: str = ""
) -> tuple[dict[str, Any], tuple[NDArray[Any], ...]]:
    """Body and arrays of a RUN message; `path` is what a relative path in the request means on the client's side.

    Without a volume it asks for images of noise.

    Raises:
        TypeError: provenance that is no text.
    """
    body = {"request": pack_request(request), "path": path}
    if volume is None:
        return body | {"volume": None}, ()
    return body | {"volume": pack_volume(volume)}, (volume.data,)


def unpack_run(message: Message) -> tuple[RunRequest, Volume | None, str]:
    """Inverse of `pack_run`; raises ProtocolError."""
    body = message.body
    with decoding("run"):
        request, path = unpack_request(body["request"]), text_of(body["path"])
        if body["volume"] is not None:
            return request, unpack_volume(body["volume"], message.arrays), path
        if message.arrays or not isinstance(request.options, GenerateOptions):
            raise ValueError("it has no image")
        return request, None, path


@dataclass(frozen=True)
class Wish:
    """A model that is to be ready before its first run: as a run's request calls it, its device and its path."""

    model: str
    device: str
    path: str = ""


def pack_wish(wish: Wish) -> dict[str, Any]:
    """Body of a WARM message."""
    return asdict(wish)


def unpack_wish(message: Message) -> Wish:
    """Inverse of `pack_wish`; raises ProtocolError."""
    body = message.body
    with decoding("wish"):
        return Wish(text_of(body["model"]), text_of(body["device"]), text_of(body["path"]))


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
