"""What a worker says of itself for people to see: its memory, its devices and the models that it keeps warm."""

from dataclasses import asdict, dataclass
from typing import Any

from MedAILib.worker.foreign import decoding, text_of, whole_of


@dataclass(frozen=True)
class WarmModel:
    """A model that is ready for the next run: its name, its device ("cpu", "cuda:0") and the bytes that it holds."""

    name: str
    device: str
    bytes: int


@dataclass(frozen=True)
class Device:
    """A place where networks run: "cpu" or "cuda:0", its name for people, and its memory in bytes (0: not known)."""

    device: str
    title: str
    free_bytes: int
    total_bytes: int


@dataclass(frozen=True)
class WorkerStatus:
    """How the worker was when it last said so.

    Args:
        alive: whether a process is there; all else is empty when not.
        host: the name of the computer that it runs on.
        pid: its number there.
        rss_bytes: the memory that it occupies; 0 where that is not known.
        devices: where its networks can run; GPUs once PyTorch is loaded, with the first run.
        models: warm models, the one used last at the end.
    """

    alive: bool = False
    host: str = ""
    pid: int = 0
    rss_bytes: int = 0
    devices: tuple[Device, ...] = ()
    models: tuple[WarmModel, ...] = ()


def pack_status(status: WorkerStatus) -> dict[str, Any]:
    """A status as JSON."""
    return asdict(status)


def unpack_status(body: Any) -> WorkerStatus:
    """Inverse of `pack_status`, of a worker that is alive; raises ProtocolError."""
    with decoding("status"):
        devices = tuple(
            Device(text_of(x["device"]), text_of(x["title"]), whole_of(x["free_bytes"]), whole_of(x["total_bytes"]))
            for x in body["devices"]
        )
        models = tuple(
            WarmModel(text_of(x["name"]), text_of(x["device"]), whole_of(x["bytes"])) for x in body["models"]
        )
        return WorkerStatus(
            True, text_of(body["host"]), whole_of(body["pid"]), whole_of(body["rss_bytes"]), devices, models
        )
