"""The language of the worker and its client: framed messages over two byte streams, and plain JSON for what they carry.

One message is a preamble (magic, version, length and checksum of the header), a JSON header, and the raw bytes of the
arrays that the header describes (little-endian, C order). No pickle; nothing is allocated for a header that does not
check out. What the JSON and the arrays stand for is said in `wire`; processes and threads live elsewhere.
"""

import json
import math
import struct
import sys
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.worker.foreign import ProtocolError, decoding, member_of, object_of, shape_of, text_of

if sys.platform == "linux":
    import fcntl

VERSION = 4
# A byte that no text has, then a line end that text-mode streams would mangle.
MAGIC = b"\x93MedAI\r\n"
PREAMBLE = struct.Struct("<8sHxxII")
MAX_HEADER_BYTES = 16 * 2**20
MAX_ARRAYS = 16
MAX_ARRAY_BYTES = 64 * 2**30
DTYPES = ("|b1", "|i1", "|u1", "<i2", "<u2", "<i4", "<u4", "<i8", "<u8", "<f2", "<f4", "<f8")
PIPE_BYTES = 2**20
# In the worker's environment: it stands in a process group that the client made for it and may end as a whole.
GROUP_VARIABLE = "MEDAI_WORKER_GROUP"
# In the worker's environment: a folder that the client made for its temporary files, and removes after it.
FOLDER_VARIABLE = "MEDAI_WORKER_FOLDER"
FOLDER_PREFIX = "MedAI-worker-"


class Kind(str, Enum):
    """What a message says. The first five go to the worker, the others come from it."""

    RUN = "run"
    CANCEL = "cancel"
    WARM = "warm"
    FREE = "free"
    ASK = "ask"
    HELLO = "hello"
    STATUS = "status"
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
        kind, run, body = Kind(fields["kind"]), text_of(fields["run"]), object_of(fields["body"])
        layouts = [(np.dtype(member_of(x["dtype"], DTYPES)), shape_of(x["shape"])) for x in fields["arrays"]]
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
