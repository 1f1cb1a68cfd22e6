"""The worker's protocol: what goes in comes out, and nothing else gets through."""

import io
import json
import os
import tracemalloc
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of

from MedAILib import errors
from MedAILib.errors import InputError, MedAIError
from MedAILib.request import RunOptions, RunRequest
from MedAILib.results import Code, Label, Segmentation, Terminology
from MedAILib.volume import Geometry, Roi, Volume
from MedAILib.worker import protocol, wire, wire_results
from MedAILib.worker.foreign import ProtocolError
from MedAILib.worker.protocol import Kind, Message

WIRE_TYPES = [np.dtype(name) for name in protocol.DTYPES]
finite = st.floats(allow_nan=False, allow_infinity=False)
texts = st.text(st.characters(), max_size=20)  # lone surrogates too: file names on Linux may have them
papers = st.dictionaries(texts, texts, max_size=3)


class Dribble(io.BytesIO):
    """A stream that moves a few bytes at a time, as pipes may."""

    def readinto(self, buffer: memoryview, /) -> int:
        return super().readinto(buffer[:7])

    def write(self, buffer: memoryview, /) -> int:
        return super().write(buffer[:5])


def through(message: Message, stream: io.BytesIO | None = None) -> Message:
    stream = stream if stream is not None else io.BytesIO()
    protocol.write_message(stream, message)
    stream.seek(0)
    arrived = protocol.read_message(stream)
    assert arrived is not None
    assert protocol.read_message(stream) is None
    return arrived


def framed(header: object, version: int = protocol.VERSION, extra: bytes = b"") -> io.BytesIO:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return io.BytesIO(protocol.PREAMBLE.pack(protocol.MAGIC, version, len(text), zlib.crc32(text)) + text + extra)


@st.composite
def geometries(draw: st.DrawFn) -> Geometry:
    shape = draw(st.tuples(*[st.integers(1, 4)] * 3))
    rotation = np.linalg.qr(draw(arrays_of.arrays(np.float64, (3, 3), elements=st.floats(-1, 1))) + 3 * np.eye(3))[0]
    matrix = np.eye(4)
    matrix[:3, :3] = rotation * draw(arrays_of.arrays(np.float64, 3, elements=st.floats(0.01, 9)))
    matrix[:3, 3] = draw(arrays_of.arrays(np.float64, 3, elements=st.floats(-1e4, 1e4)))
    return Geometry(shape, matrix)


@st.composite
def volumes(draw: st.DrawFn) -> Volume:
    geometry = draw(geometries())
    dtype = draw(st.sampled_from(WIRE_TYPES)).newbyteorder(draw(st.sampled_from("<>")))
    channels = draw(st.integers(1, 3))
    data = draw(arrays_of.arrays(dtype, (channels, *geometry.shape_kji)))
    layout = draw(st.sampled_from(["C", "F", "strided", "reversed"]))
    if layout == "F":
        data = np.asfortranarray(data)
    elif layout == "strided":
        data = np.repeat(data, 2, axis=3)[..., ::2]
    elif layout == "reversed":
        data = data[:, ::-1]
    return Volume(data, geometry, draw(texts), draw(papers))


codes = st.builds(Code, texts, texts, texts)
terminologies = st.builds(Terminology, codes, codes, st.none() | codes)
colors = st.none() | st.tuples(*[st.floats(0, 1)] * 3)


@st.composite
def segmentations(draw: st.DrawFn) -> Segmentation:
    geometry = draw(geometries())
    names = tuple(draw(st.lists(texts, max_size=3)))
    layers = draw(st.integers(1, 2))
    labels = st.builds(Label, st.integers(1, 65535), texts, colors, st.none() | terminologies, st.integers(0, 1))
    probabilities = arrays_of.arrays(np.float32, (len(names), *geometry.shape_kji), elements=st.floats(0, 1, width=32))
    return Segmentation(
        draw(arrays_of.arrays(draw(st.sampled_from([np.uint8, np.uint16])), (layers, *geometry.shape_kji))),
        tuple(draw(st.lists(labels, max_size=4))),
        geometry,
        draw(st.none() | probabilities),
        names,
        draw(papers),
    )


triples = st.tuples(finite, finite, finite)
rois = st.builds(Roi, triples, st.tuples(*[st.floats(0.1, 1e6)] * 3))
options = st.builds(
    RunOptions, st.none() | rois, st.booleans(), st.booleans(), st.booleans(), st.none() | st.floats(0, 0.99)
)


def equal_geometry(one: Geometry, other: Geometry) -> bool:
    return one.shape_kji == other.shape_kji and one.ijk_to_ras.tobytes() == other.ijk_to_ras.tobytes()


@given(volumes(), st.builds(RunRequest, texts, texts, options), texts)
def test_run_arrives_as_it_was_sent(volume: Volume, request_: RunRequest, run: str) -> None:
    body, arrays = wire.pack_run(request_, volume, "/hier/da")
    message = through(Message(Kind.RUN, run, body, arrays), Dribble())
    request_there, volume_there, path_there = wire.unpack_run(message)
    assert (message.kind, message.run, request_there, path_there) == (Kind.RUN, run, request_, "/hier/da")
    assert (volume_there.name, volume_there.provenance) == (volume.name, volume.provenance)
    assert equal_geometry(volume_there.geometry, volume.geometry)
    assert volume_there.data.dtype == volume.data.dtype.newbyteorder("=")
    assert volume_there.data.flags.c_contiguous
    assert volume_there.data.flags.writeable
    native = np.ascontiguousarray(volume.data, volume.data.dtype.newbyteorder("="))
    assert volume_there.data.tobytes() == native.tobytes()  # bytes: NaN equals NaN, and -0 is not 0


@given(segmentations())
def test_segmentation_arrives_as_it_was_sent(result: Segmentation) -> None:
    body, arrays = wire_results.pack_result(result)
    there = wire_results.unpack_result(through(Message(Kind.RESULT, "7", body, arrays)))
    assert there.layers.dtype == result.layers.dtype
    assert np.array_equal(there.layers, result.layers)
    assert equal_geometry(there.geometry, result.geometry)
    assert (there.labels, there.provenance, there.probability_names) == (
        result.labels,
        result.provenance,
        result.probability_names,
    )
    assert (there.probabilities is None) == (result.probabilities is None)
    if result.probabilities is not None and there.probabilities is not None:
        assert np.array_equal(there.probabilities, result.probabilities)


@pytest.mark.parametrize("kind", wire.ERROR_KINDS.values())
def test_error_keeps_its_kind_and_sentence(kind: type[MedAIError]) -> None:
    error = wire.unpack_error(wire.pack_error(kind("Tür zu.")))
    assert type(error) is kind
    assert str(error) == "Tür zu."


def test_error_of_a_kind_that_only_one_side_knows_arrives_as_its_closest_base() -> None:
    own = type("OwnError", (errors.SpecError,), {})
    assert type(wire.unpack_error(wire.pack_error(own("x")))) is errors.SpecError


@given(texts, st.integers(0, 10**9), st.integers(0, 10**9))
def test_progress_and_warnings_arrive_as_they_were_sent(text: str, done: int, total: int) -> None:
    step = wire.Step("run", done, total, text)
    assert wire.unpack_step(through(Message(Kind.PROGRESS, "1", wire.pack_step(step))).body) == step
    assert wire.unpack_text(through(Message(Kind.WARNING, "1", wire.pack_text(text))).body) == text


def test_messages_follow_each_other_on_one_stream() -> None:
    stream = io.BytesIO()
    for number in range(3):
        protocol.write_message(stream, Message(Kind.PROGRESS, str(number), arrays=(np.full((2, 0, number), number),)))
    stream.seek(0)
    arrived = [protocol.read_message(stream) for _ in range(4)]
    assert [message and message.run for message in arrived] == ["0", "1", "2", None]


@pytest.mark.parametrize("dtype", [np.complex64, np.longdouble, "datetime64[s]", "U3", object])
def test_other_types_of_voxels_are_refused_before_a_byte_is_written(dtype: object) -> None:
    stream = io.BytesIO()
    with pytest.raises(InputError, match="can't be sent"):
        protocol.write_message(stream, Message(Kind.RUN, arrays=(np.zeros(3, dtype),)))  # type: ignore[call-overload]
    assert stream.getvalue() == b""


@given(st.binary(min_size=1, max_size=200))
def test_garbage_is_refused(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.read_message(io.BytesIO(garbage))


def a_message() -> bytes:
    stream = io.BytesIO()
    protocol.write_message(stream, Message(Kind.PROGRESS, "1", {"text": "x"}, (np.arange(6, dtype=np.int16),)))
    return stream.getvalue()


@given(st.integers(1, len(a_message()) - 1))
def test_torn_message_is_refused_wherever_it_ends(length: int) -> None:
    with pytest.raises(ProtocolError):
        protocol.read_message(io.BytesIO(a_message()[:length]))


@given(st.integers(0, len(a_message()) - 13), st.integers(1, 255))
def test_damaged_header_is_refused(position: int, change: int) -> None:
    damaged = bytearray(a_message())
    if position in (10, 11):  # padding
        return
    damaged[position] ^= change
    with pytest.raises(ProtocolError):
        protocol.read_message(io.BytesIO(bytes(damaged)))


GOOD = {"kind": "progress", "run": "1", "body": {}, "arrays": []}


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "exec"},
        {"kind": 3},
        {"kind": []},
        {"run": None},
        {"body": []},
        {"arrays": None},
        {"arrays": [{"dtype": "|O8", "shape": [1]}]},
        {"arrays": [{"dtype": ["<i2"], "shape": [1]}]},
        {"arrays": [{"dtype": "<f8", "shape": [-1]}]},
        {"arrays": [{"dtype": "<f8", "shape": [1.5]}]},
        {"arrays": [{"dtype": "<f8", "shape": "12"}]},
        {"arrays": [{"dtype": "<f8", "shape": [2**40, 2**40]}]},
        {"arrays": [{"dtype": "<f8", "shape": [0, 2**70]}]},
        {"arrays": [{"dtype": "<f8", "shape": [1] * 40}]},
        {"arrays": [{"dtype": "|u1", "shape": [0]}] * 1000},
    ],
)
def test_header_that_makes_no_sense_is_refused_without_memory_being_taken(change: dict[str, object]) -> None:
    stream = framed({**GOOD, **change})
    tracemalloc.start()
    with pytest.raises(ProtocolError):
        protocol.read_message(stream)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**20


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"\xff\xfe", b"[" * 100_000, b"1" * 5000, b'{"kind": "progress"}'])
def test_header_that_is_no_message_is_refused(text: bytes) -> None:
    with pytest.raises(ProtocolError):
        protocol.read_message(framed(text))


def test_other_version_is_named() -> None:
    with pytest.raises(ProtocolError, match="version 99"):
        protocol.read_message(framed(GOOD, version=99))


def test_header_over_the_limit_is_refused_without_memory_being_taken() -> None:
    preamble = protocol.PREAMBLE.pack(protocol.MAGIC, protocol.VERSION, 2**32 - 1, 0)
    tracemalloc.start()
    with pytest.raises(ProtocolError, match="limit"):
        protocol.read_message(io.BytesIO(preamble))
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()


def test_greeting_of_a_login_script_is_refused_while_the_stream_stays_open() -> None:
    read, write = os.pipe()
    with io.FileIO(read, "rb") as source, io.FileIO(write, "wb") as sink:
        sink.write(b"Hi\n")
        with pytest.raises(ProtocolError, match=r"b'Hi\\n'.*standard output"):
            protocol.read_message(source)


bad_bodies = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


@settings(max_examples=200)
@given(st.data())
def test_body_with_one_wrong_part_is_refused_or_read(data: st.DataObject) -> None:
    volume = Volume(np.zeros((1, 2, 2, 2)), Geometry((2, 2, 2), np.eye(4)))
    request = RunRequest("m", "cpu", RunOptions(roi=Roi((0, 0, 0), (1, 1, 1))))
    body, arrays = wire.pack_run(request, volume)
    body = json.loads(json.dumps(body))
    part = data.draw(st.sampled_from([body, body["request"], body["volume"], body["volume"]["geometry"]]))
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(bad_bodies)
    try:
        wire.unpack_run(Message(Kind.RUN, "1", body, arrays))
    except ProtocolError:
        return
    with pytest.raises(ProtocolError):
        wire.unpack_run(Message(Kind.RUN, "1", {**body, "volume": None}, arrays))


def test_result_whose_labels_do_not_fit_its_grid_is_refused() -> None:
    geometry = Geometry((2, 2, 2), np.eye(4))
    body, _ = wire_results.pack_result(Segmentation(np.zeros((1, 2, 2, 2), np.uint8), (), geometry))
    wrong = np.zeros((1, 2, 2, 3), np.uint8)
    with pytest.raises(ProtocolError, match="result"):
        wire_results.unpack_result(Message(Kind.RESULT, "1", body, (wrong,)))


def test_provenance_that_is_no_text_is_a_defect_of_the_sender() -> None:
    geometry = Geometry((1, 1, 1), np.eye(4))
    volume = replace(Volume(np.zeros((1, 1, 1, 1)), geometry), provenance={"n": 3})  # type: ignore[dict-item]
    with pytest.raises(TypeError):
        wire.pack_run(RunRequest("m"), volume)
