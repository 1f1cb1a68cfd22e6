"""Opened models kept for the next run, as many as fit into a share of each device's memory."""

import sys
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from MedAILib.progress import Progress
from MedAILib.request import Options
from MedAILib.results import Result
from MedAILib.system_memory import available_memory, process_memory, total_memory
from MedAILib.volume import Volume
from MedAILib.worker.hosting import give_back_memory
from MedAILib.worker.status import WarmModel

# The share of a device's memory that warm models may hold.
CPU_SHARE, GPU_SHARE = 0.25, 0.5
# Where the system does not tell how much there is.
ASSUMED_BYTES = 8 * 2**30


class Model(Protocol):
    """What the worker needs of an opened model; one that has `weights_bytes` says what its weights hold.

    It refuses options that are not its task's with a `SpecError`.
    """

    def run(self, volume: Volume, options: Options, progress: Progress) -> Result: ...


Opener = Callable[[Path, str, str], Model]
Limit = Callable[[str], int]


def memory_share(device: str) -> int:
    """Bytes that warm models may hold on a device ("cpu", "cuda:0")."""
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None:
        return int(GPU_SHARE * torch.cuda.get_device_properties(device).total_memory)
    return int(CPU_SHARE * (total_memory() or ASSUMED_BYTES))


def room_on(device: str) -> int | None:
    """Bytes that are free for a run on a device; None where that is not known."""
    torch = sys.modules.get("torch")
    if device.startswith("cuda") and torch is not None:
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0] + kept)
    return available_memory()


@dataclass(frozen=True)
class _Entry:
    stamp: int
    model: Model
    bytes: int


class Warm:
    """The models that were used last; they belong to the computing thread, and so do all of these methods.

    A model whose files changed since it was opened is opened again. The one used longest ago goes first, when a new one
    would take its device over the limit; the newest stays, whatever it holds.

    Args:
        opener: opens a model on a device, with the SHA-256 of a model that may execute code of its own.
        limit: bytes that models may hold on a device.
    """

    def __init__(self, opener: Opener, limit: Limit = memory_share) -> None:
        self._opener = opener
        self._limit = limit
        self._entries: OrderedDict[tuple[Path, str, str], _Entry] = OrderedDict()

    def get(self, source: Path, device: str, trust_code: str = "") -> Model:
        """The model in `source`, warm or opened now, on a device by its full name (not "auto").

        One that was opened under `trust_code` is warm for runs with the same one alone.
        """
        key = (source.resolve(), device, trust_code)
        known = self._entries.pop(key, None)
        if known is None or known.stamp != _stamp(key[0]):
            if known is not None:
                known = None
                give_back_memory()
            before = _held(device)
            model = self._opener(key[0], device, trust_code)
            grown = 0 if before is None else max((_held(device) or 0) - before, 0)
            # The stamp after opening: what is no model may be a folder without end.
            known = _Entry(_stamp(key[0]), model, max(grown, int(getattr(model, "weights_bytes", 0))))
            self._make_room(device, known.bytes)
        self._entries[key] = known
        return known.model

    def _make_room(self, device: str, wanted: int) -> None:
        """Let go of what was used longest ago, until `wanted` bytes more are within the limit."""
        limit = self._limit(device)
        gone = False
        for key in [key for key in self._entries if key[1] == device]:
            held = sum(entry.bytes for (_, place, _), entry in self._entries.items() if place == device)
            if held + wanted <= limit:
                break
            del self._entries[key]
            gone = True
        if gone:
            give_back_memory()

    def keep_only(self, model: Model) -> None:
        """Let go of every other model."""
        others = [key for key, entry in self._entries.items() if entry.model is not model]
        for key in others:
            del self._entries[key]
        if others:
            give_back_memory()

    def drop(self) -> None:
        """Let go of all of them, and hand their memory back."""
        self._entries.clear()
        give_back_memory()

    def listed(self) -> tuple[WarmModel, ...]:
        """What is warm, the one used last at the end."""
        return tuple(WarmModel(path.name, device, entry.bytes) for (path, device, _), entry in self._entries.items())


def _held(device: str) -> int | None:
    """Bytes held on a device now; None before PyTorch is loaded, whose own size is no model's."""
    torch = sys.modules.get("torch")
    if torch is None:
        return None
    if device.startswith("cuda"):
        return int(torch.cuda.memory_allocated(device))
    return process_memory()


def _stamp(source: Path) -> int:
    """A number that changes when a file of the model does."""
    files = sorted(source.rglob("*")) if source.is_dir() else [source]
    return hash(tuple((str(path), *_size_and_time(path)) for path in files))


def _size_and_time(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return 0, 0
    return status.st_size, status.st_mtime_ns
