"""The language of the worker and its client: framed messages over two byte streams, and plain JSON for what they carry.

One message is a preamble (magic, version, length and checksum of the header), a JSON header, and the raw bytes of the
arrays that the header describes (little-endian, C order). No pickle; nothing is allocated for a header that does not
check out. Processes and threads live in `client` and `server`.
"""

import json
import math
import struct
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from MedAILib import errors
from MedAILib.errors import InputError, MedAIError
from MedAILib.request import RunOptions, RunRequest
from MedAILib.results import Code, Label, Segmentation, Terminology
from MedAILib.volume import Geometry, Roi, Volume

if sys.platform == "linux":
    import fcntl

VERSION = 1
# A byte that no text has, then a line end that text-mode streams would mangle.
MAGIC = b"\x93MedAI\r\n"
PREAMBLE = struct.Struct("<8sHxxII")
MAX_HEADER_BYTES = 16 * 2**20
MAX_ARRAYS = 16
MAX_ARRAY_BYTES = 64 * 2**30
MAX_DIMENSIONS = 8
DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
PIPE_BYTES = 2**20
# Error kind of an exception that nobody meant to raise; its text is a traceback.
DEFECT = "defect"
# In the worker's environment: it stands in a process group that the client made for it and may end as a whole.
GROUP_VARIABLE = "MEDAI_WORKER_GROUP"

ERROR_KINDS: dict[str, type[MedAIError]] = {
    kind.__name__: kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, MedAIError)
}


class ProtocolError(MedAIError):
    """A byte stream that does not carry messages of this protocol, or one that breaks off inside of one."""


class Kind(str, Enum):
    """What a message says. The first three go to the worker, the others come from it."""

    RUN = "run"
    CANCEL = "cancel"
    FREE = "free"
    HELLO = "hello"
    QUEUED = "queued"
    STARTED = "started"
    PROGRESS = "progress"
    WARNING = "warning"
    RESULT = "result"
    ERROR = "error"
    CANCELLED = "cancelled"


@dataclass(frozen=True, eq=False)
class Message:
    """One message.

    Args:
        kind: what it says.
        run: identifier of the run that it is about; empty for what concerns the worker itself.
        body: plain JSON.
        arrays: any real dtype and memory layout; they arrive in native byte order, C order, writable.
    """

    kind: Kind
    run: str = ""
    body: Mapping[str, Any] = field(default_factory=dict)
    arrays: tuple[NDArray[Any], ...] = ()


class ByteSource(Protocol):
    """An unbuffered stream that fills part of a buffer, and says 0 at its end."""

    def readinto(self, buffer: memoryview, /) -> int | None: ...


class ByteSink(Protocol):
    """An unbuffered stream that takes part of a buffer and says how many bytes it took."""

    def write(self, buffer: memoryview, /) -> int | None: ...


def wire_dtype(dtype: np.dtype[Any]) -> str:
    """Name of the little-endian form in which voxels of this type travel.

    Raises:
        InputError: a type outside the list, such as complex numbers or 80-bit floats.
    """
    name = dtype.newbyteorder("<").str
    if name not in DTYPES:
        raise InputError(f"Voxels of the type {dtype} can't be sent to the worker; convert them to float64 first.")
    return name


def frame(message: Message) -> list[memoryview]:
    """The bytes of one message, ready to be written in order; arrays that already fit are not copied.

    Raises:
        InputError: an array of a type or size that does not travel.
        TypeError, ValueError: a body that is no JSON.
    """
    arrays = [np.ascontiguousarray(array, dtype=wire_dtype(array.dtype)) for array in message.arrays]
    if len(arrays) > MAX_ARRAYS or sum(array.nbytes for array in arrays) > MAX_ARRAY_BYTES:
        raise InputError(f"A message of over {MAX_ARRAYS} arrays or {MAX_ARRAY_BYTES >> 30} GiB can't be sent.")
    fields = {
        "kind": message.kind.value,
        "run": message.run,
        "body": dict(message.body),
        "arrays": [{"dtype": wire_dtype(array.dtype), "shape": array.shape} for array in message.arrays],
    }
    header = json.dumps(fields, allow_nan=False).encode()
    if len(header) > MAX_HEADER_BYTES:
        raise InputError(f"A message with {len(header)} bytes of text can't be sent; the limit is {MAX_HEADER_BYTES}.")
    preamble = PREAMBLE.pack(MAGIC, VERSION, len(header), zlib.crc32(header))
    return [memoryview(preamble + header), *(array.reshape(-1).view(np.uint8).data for array in arrays)]


def write_frame(stream: ByteSink, parts: Sequence[memoryview]) -> None:
    """Write what `frame` gave; raises OSError when the other side is gone."""
    for part in parts:
        have = 0
        while have < len(part):
            have += stream.write(part[have:]) or 0


def write_message(stream: ByteSink, message: Message) -> None:
    """Write one message whole; raises what `frame` and `write_frame` raise, the former before a byte is written."""
    write_frame(stream, frame(message))


def read_message(stream: ByteSource) -> Message | None:
    """Read one message; None when the stream ended between two messages.

    Raises:
        ProtocolError: garbage, another version, over a limit, or an end inside the message.
    """
    preamble = bytearray(PREAMBLE.size)
    if not _read_preamble(stream, memoryview(preamble)):
        return None
    _, version, length, checksum = PREAMBLE.unpack(preamble)
    if version != VERSION:
        raise ProtocolError(f"The worker protocol is of version {version}, not {VERSION}; install one MedAI on both.")
    if length > MAX_HEADER_BYTES:
        raise ProtocolError(f"A message header claims {length} bytes; the limit is {MAX_HEADER_BYTES}.")
    header = bytearray(length)
    _fill(stream, memoryview(header))
    if zlib.crc32(header) != checksum:
        raise ProtocolError("A message header arrived damaged.")
    with decoding("message header"):
        fields = json.loads(header.decode())
        kind, run, body = Kind(fields["kind"]), _text(fields["run"]), _object(fields["body"])
        layouts = [(np.dtype(_member(x["dtype"], DTYPES)), _shape(x["shape"])) for x in fields["arrays"]]
    size = sum(math.prod(shape) * dtype.itemsize for dtype, shape in layouts)
    if len(layouts) > MAX_ARRAYS or size > MAX_ARRAY_BYTES:
        raise ProtocolError(f"A message claims {len(layouts)} arrays of {size} bytes, more than the limits allow.")
    return Message(kind, run, body, tuple(_read_array(stream, dtype, shape) for dtype, shape in layouts))


def widen_pipe(descriptor: int) -> None:
    """Give a pipe a larger buffer where the system can; a stream that is no pipe, or may not, stays as it is."""
    if sys.platform == "linux":
        try:
            fcntl.fcntl(descriptor, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        except OSError:
            return


def _read_preamble(stream: ByteSource, buffer: memoryview) -> bool:
    """Fill the preamble, refusing a foreign stream at its first wrong byte; False at a clean end."""
    have = 0
    while have < len(buffer):
        count = stream.readinto(buffer[have:])
        if not count:
            if have:
                raise ProtocolError(f"The stream ended after {have} bytes of a message.")
            return False
        have += count
        start = bytes(buffer[: min(have, len(MAGIC))])
        if not MAGIC.startswith(start):
            raise ProtocolError(
                f"The stream carries {bytes(buffer[:have])!r} where a message should begin; the command that starts "
                "the worker must print nothing of its own to standard output."
            )
    return True


def _read_array(stream: ByteSource, dtype: np.dtype[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    try:
        array = np.empty(shape, dtype)
    except (MemoryError, ValueError) as error:
        raise ProtocolError(f"No memory for an incoming array of {list(shape)} {dtype}.") from error
    _fill(stream, array.reshape(-1).view(np.uint8).data)
    return array.astype(dtype.newbyteorder("="), copy=False)


def _fill(stream: ByteSource, buffer: memoryview) -> None:
    have = 0
    while have < len(buffer):
        count = stream.readinto(buffer[have:])
        if not count:
            raise ProtocolError(f"The stream ended {len(buffer) - have} bytes before the end of a message.")
        have += count


def pack_geometry(geometry: Geometry) -> dict[str, Any]:
    """A grid as JSON; floats come back bit for bit."""
    return {"shape_kji": list(geometry.shape_kji), "ijk_to_ras": geometry.ijk_to_ras.tolist()}


def unpack_geometry(body: Any) -> Geometry:
    """Inverse of `pack_geometry`; raises ProtocolError."""
    with decoding("grid"):
        k, j, i = _shape(body["shape_kji"])
        return Geometry((k, j, i), np.array(body["ijk_to_ras"], dtype=np.float64))


def pack_run(request: RunRequest, volume: Volume) -> tuple[dict[str, Any], tuple[NDArray[Any], ...]]:
    """Body and arrays of a RUN message; raises TypeError for provenance that is no text."""
    return {"request": pack_request(request), "volume": pack_volume(volume)}, (volume.data,)


def unpack_run(message: Message) -> tuple[RunRequest, Volume]:
    """Inverse of `pack_run`; raises ProtocolError."""
    with decoding("run"):
        return unpack_request(message.body["request"]), unpack_volume(message.body["volume"], message.arrays)


def pack_volume(volume: Volume) -> dict[str, Any]:
    """Everything of an image but its voxels, which travel as the message's one array."""
    return {
        "geometry": pack_geometry(volume.geometry),
        "name": volume.name,
        "provenance": _texts(volume.provenance),
    }


def unpack_volume(body: Any, arrays: Sequence[NDArray[Any]]) -> Volume:
    """Inverse of `pack_volume`, with the voxels; raises ProtocolError."""
    with decoding("image"):
        (data,) = arrays
        return Volume(data, unpack_geometry(body["geometry"]), _text(body["name"]), _texts(body["provenance"]))


def pack_request(request: RunRequest) -> dict[str, Any]:
    """A request as JSON."""
    options = request.options
    return {
        "model": request.model,
        "device": request.device,
        "roi": options.roi and {"center_ras": _floats(options.roi.center_ras), "size_mm": _floats(options.roi.size_mm)},
        "probabilities": bool(options.probabilities),
        "mirror": bool(options.mirror),
        "postprocess": bool(options.postprocess),
        "overlap": None if options.overlap is None else float(options.overlap),
    }


def unpack_request(body: Any) -> RunRequest:
    """Inverse of `pack_request`; raises ProtocolError."""
    with decoding("request"):
        roi = body["roi"]
        options = RunOptions(
            roi=roi and Roi(_triple(roi["center_ras"]), _triple(roi["size_mm"])),
            probabilities=_flag(body["probabilities"]),
            mirror=_flag(body["mirror"]),
            postprocess=_flag(body["postprocess"]),
            overlap=None if body["overlap"] is None else float(body["overlap"]),
        )
        return RunRequest(_text(body["model"]), _text(body["device"]), options)


def pack_result(result: Segmentation) -> tuple[dict[str, Any], tuple[NDArray[Any], ...]]:
    """Body and arrays of a RESULT message: the layers, then the probabilities where there are some.

    Raises:
        TypeError: provenance that is no text.
    """
    body = {
        "type": "segmentation",
        "geometry": pack_geometry(result.geometry),
        "labels": [_pack_label(label) for label in result.labels],
        "probability_names": list(result.probability_names),
        "provenance": _texts(result.provenance),
    }
    arrays = (result.layers,) if result.probabilities is None else (result.layers, result.probabilities)
    return body, arrays


def unpack_result(message: Message) -> Segmentation:
    """Inverse of `pack_result`; raises ProtocolError."""
    with decoding("result"):
        body = message.body
        _member(body["type"], ("segmentation",))
        layers, *rest = message.arrays
        return Segmentation(
            layers,
            tuple(_unpack_label(label) for label in body["labels"]),
            unpack_geometry(body["geometry"]),
            rest[0] if rest else None,
            tuple(_text(name) for name in body["probability_names"]),
            _texts(body["provenance"]),
        )


def pack_error(error: MedAIError) -> dict[str, Any]:
    """An error of the user's to mend: the closest kind that both sides know, and its sentence."""
    kind = next(base.__name__ for base in type(error).__mro__ if base.__name__ in ERROR_KINDS)
    return {"kind": kind, "text": str(error)}


def unpack_error(body: Any) -> MedAIError | None:
    """Inverse of `pack_error`; None for a defect. Raises ProtocolError."""
    with decoding("error"):
        text, kind = _text(body["text"]), _member(body["kind"], (*ERROR_KINDS, DEFECT))
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
        return Step(_text(body["stage"]), _whole(body["done"]), _whole(body["total"]), _text(body["text"]))


def pack_text(text: str) -> dict[str, Any]:
    """A warning as JSON."""
    return {"text": str(text)}


def unpack_text(body: Any) -> str:
    """Inverse of `pack_text`; raises ProtocolError."""
    with decoding("text"):
        return _text(body["text"])


def _pack_label(label: Label) -> dict[str, Any]:
    return {
        "value": int(label.value),
        "name": label.name,
        "color": None if label.color is None else _floats(label.color),
        "terminology": label.terminology and asdict(label.terminology),
        "layer": int(label.layer),
    }


def _unpack_label(body: Any) -> Label:
    color, terminology = body["color"], body["terminology"]
    return Label(
        _whole(body["value"]),
        _text(body["name"]),
        None if color is None else _triple(color),
        terminology
        and Terminology(
            _unpack_code(terminology["category"]),
            _unpack_code(terminology["type"]),
            terminology["modifier"] and _unpack_code(terminology["modifier"]),
        ),
        _whole(body["layer"]),
    )


def _unpack_code(body: Any) -> Code:
    return Code(_text(body["scheme"]), _text(body["value"]), _text(body["meaning"]))


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Any way in which foreign JSON can be wrong becomes a ProtocolError."""
    try:
        yield
    except ProtocolError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"The worker protocol carried an unreadable {what}: {error!r}.") from error


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def _whole(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    return value


def _texts(value: Any) -> dict[str, str]:
    return {key: _text(text) for key, text in _object(value).items()}


def _member(value: Any, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {list(allowed)}")
    return _text(value)


def _shape(value: Any) -> tuple[int, ...]:
    shape = tuple(_whole(n) for n in value)
    if len(shape) > MAX_DIMENSIONS or any(n < 0 for n in shape):
        raise ValueError(f"{value!r} is no shape of an array")
    return shape


def _floats(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]


def _triple(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
