"""Classifications and findings through the worker: what goes in comes out, and nothing else gets through."""

import io
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from bundles import threshold_bundle
from classifier_bundles import DENSENET, classifier_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays_of
from patience import LIMIT_S, quickest

from MedAILib.checks import concerns_before_run
from MedAILib.detections import Box, Detections
from MedAILib.errors import InputError, SpecError
from MedAILib.estimate import demand_of
from MedAILib.models.open import open_model
from MedAILib.progress import Cancelled, Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import EXPLANATIONS, ClassifyOptions, DetectOptions, Explain, RunOptions, RunRequest, Slices
from MedAILib.results import CLASSIFICATION_KINDS, Classification, Code, Place, Saliency
from MedAILib.volume import Geometry, Roi, Volume
from MedAILib.worker import protocol, wire, wire_results
from MedAILib.worker.client import WorkerClient
from MedAILib.worker.foreign import ProtocolError
from MedAILib.worker.protocol import Kind, Message

texts = st.text(st.characters(), max_size=20)
finite = st.floats(allow_nan=False, allow_infinity=False)
rois = st.builds(Roi, st.tuples(finite, finite, finite), st.tuples(*[st.floats(0.1, 1e6)] * 3))
boxes = st.tuples(*[st.integers(0, 9).flatmap(lambda n: st.tuples(st.just(n), st.integers(n + 1, 20)))] * 3)
slices = st.builds(Slices, st.sampled_from("IJK"), st.none() | st.integers(0, 10**6))
questions = st.builds(Explain, st.sampled_from(EXPLANATIONS), st.none() | texts)
shares = st.none() | st.floats(0, 1)
numbers = st.dictionaries(texts, finite, max_size=3)
rows = {"slices": st.none() | slices, "each_frame": st.booleans(), "covariates": numbers}
classify_options = st.one_of(
    st.builds(ClassifyOptions, roi=st.none() | rois, explain=st.none() | questions, **rows),
    st.builds(ClassifyOptions, box_kji=boxes, explain=st.none() | questions, **rows),
)
detect_options = st.builds(DetectOptions, st.none() | rois, st.floats(0, 1e9), shares, shares)


def through(message: Message) -> Message:
    stream = io.BytesIO()
    protocol.write_message(stream, message)
    stream.seek(0)
    arrived = protocol.read_message(stream)
    assert arrived is not None
    return arrived


@st.composite
def classifications(draw: st.DrawFn) -> Classification:
    geometry = Geometry(draw(st.tuples(*[st.integers(1, 4)] * 3)), np.diag([0.5, 1, 3, 1]))
    classes = tuple(draw(st.lists(texts, min_size=2, max_size=4, unique=True)))
    box = tuple((0, n) for n in geometry.shape_kji)
    place = st.builds(
        Place,
        st.sampled_from(["image", "slice", "frame"]),
        st.just(box),
        st.none() | st.integers(0, 99),
        st.sampled_from(["", "I", "J", "K"]),
        st.none() | finite,
    )
    places = tuple(draw(st.lists(place, min_size=1, max_size=3)))
    shape = (len(places), len(classes))
    strange = draw(st.none() | arrays_of.arrays(np.float64, len(places), elements=finite))
    values = arrays_of.arrays(np.float32, geometry.shape_kji, elements=st.floats(-1, 1, width=32))
    saliency = st.builds(
        Saliency, values, st.just(geometry), st.sampled_from(classes), st.sampled_from(EXPLANATIONS), finite, texts
    )
    codes = st.lists(st.none() | st.builds(Code, texts, texts, texts), min_size=len(classes), max_size=len(classes))
    return Classification(
        classes,
        draw(st.sampled_from(CLASSIFICATION_KINDS)),
        draw(arrays_of.arrays(np.float64, shape, elements=st.floats(0, 1))),
        draw(arrays_of.arrays(np.float64, (len(places), draw(st.integers(1, 4))), elements=finite)),
        tuple(draw(st.lists(st.floats(0, 1), min_size=len(classes), max_size=len(classes)))),
        places,
        geometry,
        draw(st.floats(0, 1)),
        strange,
        None if strange is None else draw(finite),
        draw(st.none() | saliency),
        tuple(draw(st.just([]) | codes)),
        draw(st.dictionaries(texts, texts, max_size=3)),
    )


@st.composite
def detections(draw: st.DrawFn) -> Detections:
    classes = tuple(draw(st.lists(texts, min_size=1, max_size=3)))
    low = draw(st.tuples(*[st.floats(-10, 10)] * 3))
    size = draw(st.tuples(*[st.floats(0.1, 9)] * 3))
    high = tuple(a + b for a, b in zip(low, size, strict=True))
    box = st.builds(Box, st.sampled_from(classes), st.floats(0, 1), st.just(low), st.just(high))
    geometry = Geometry((2, 3, 4), np.diag([-0.7, 1, 2, 1]))
    papers = draw(st.dictionaries(texts, texts, max_size=3))
    return Detections(tuple(draw(st.lists(box, max_size=4))), classes, geometry, draw(st.floats(0, 1)), papers)


@given(st.builds(RunRequest, texts, texts, classify_options | detect_options))
def test_request_arrives_with_the_options_of_its_task(request_: RunRequest) -> None:
    volume = Volume(np.zeros((1, 1, 1, 1)), Geometry((1, 1, 1), np.eye(4)))
    body, arrays = wire.pack_run(request_, volume)
    assert wire.unpack_run(through(Message(Kind.RUN, "1", body, arrays)))[0] == request_


@settings(max_examples=50, deadline=None)
@given(classifications())
def test_classification_arrives_as_it_was_sent(result: Classification) -> None:
    body, arrays = wire_results.pack_result(result)
    there = wire_results.unpack_result(through(Message(Kind.RESULT, "7", body, arrays)))
    assert isinstance(there, Classification)
    for field in ("classes", "kind", "thresholds", "places", "unsure_below", "strange_above", "codes", "provenance"):
        assert getattr(there, field) == getattr(result, field)
    assert np.array_equal(there.probabilities, result.probabilities)
    assert np.array_equal(there.scores, result.scores)
    assert (there.strangeness is None) == (result.strangeness is None)
    if there.strangeness is not None and result.strangeness is not None:
        assert np.array_equal(there.strangeness, result.strangeness)
    assert (there.saliency is None) == (result.saliency is None)
    if there.saliency is not None and result.saliency is not None:
        assert np.array_equal(there.saliency.values, result.saliency.values)
        assert replace(there.saliency, values=result.saliency.values, geometry=result.geometry) is not None
        assert (there.saliency.class_name, there.saliency.method, there.saliency.scale, there.saliency.description) == (
            result.saliency.class_name,
            result.saliency.method,
            result.saliency.scale,
            result.saliency.description,
        )


@given(detections())
def test_findings_arrive_as_they_were_sent(result: Detections) -> None:
    body, arrays = wire_results.pack_result(result)
    there = wire_results.unpack_result(through(Message(Kind.RESULT, "7", body, arrays)))
    assert isinstance(there, Detections)
    assert (there.boxes, there.classes, there.threshold, there.provenance) == (
        result.boxes,
        result.classes,
        result.threshold,
        result.provenance,
    )
    assert there.geometry.same_grid_as(result.geometry)


def a_classification() -> Classification:
    geometry = Geometry((1, 2, 2), np.eye(4))
    values = np.zeros(geometry.shape_kji, np.float32)
    return Classification(
        ("no", "yes"),
        "binary",
        np.array([[0.25, 0.75]]),
        np.array([[-1.0, 1.0]]),
        (0.5, 0.5),
        (Place("image", ((0, 1), (0, 2), (0, 2))),),
        geometry,
        strangeness=np.array([0.1]),
        strange_above=0.5,
        saliency=Saliency(values, geometry, "yes", "shap", 1.0),
    )


@pytest.mark.parametrize(
    "change",
    [
        {"type": "exec"},
        {"kind": "guess"},
        {"classes": ["no"]},
        {"classes": ["no", "no"]},
        {"classes": ["no", 3]},
        {"thresholds": [0.5]},
        {"thresholds": "ab"},
        {"places": []},
        {
            "places": [
                {"what": "image", "box_kji": [[0, 9], [0, 2], [0, 2]], "index": None, "axis": "", "position_mm": 0}
            ]
        },
        {"places": [{"what": "image", "box_kji": [[0, 1]], "index": None, "axis": "", "position_mm": 0}]},
        {"strange_above": None},
        {"saliency": None},
        {"codes": [None]},
        {"codes": ["SCT", "1"]},
        {"provenance": {"model": 3}},
        {"geometry": {"shape_kji": [1, 2, 3], "ijk_to_ras": np.eye(4).tolist()}},
    ],
)
def test_classification_that_does_not_hold_together_is_refused(change: dict[str, object]) -> None:
    body, arrays = wire_results.pack_result(a_classification())
    with pytest.raises(ProtocolError):
        wire_results.unpack_result(Message(Kind.RESULT, "1", {**body, **change}, arrays))


@pytest.mark.parametrize("number", range(4))
@pytest.mark.parametrize(
    "wrong",
    [np.full((1, 2), 1.5), np.zeros((1, 2), np.int16), np.zeros(0), np.full((1, 2), np.nan), np.zeros((9, 9, 9))],
)
def test_arrays_that_are_no_part_of_a_classification_are_refused(number: int, wrong: np.ndarray) -> None:
    body, arrays = wire_results.pack_result(a_classification())
    replaced = [*arrays]
    replaced[number] = wrong
    if number == 1 and np.array_equal(wrong, np.full((1, 2), 1.5)):
        return  # scores may be any finite numbers
    for sent in (replaced, arrays[:number], [*arrays, wrong]):
        with pytest.raises(ProtocolError):
            wire_results.unpack_result(Message(Kind.RESULT, "1", body, tuple(sent)))


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": [{"label": "a", "score": 2, "low_ijk": [0, 0, 0], "high_ijk": [1, 1, 1]}]},
        {"boxes": [{"label": "b", "score": 1, "low_ijk": [0, 0, 0], "high_ijk": [1, 1, 1]}]},
        {"boxes": [{"label": "a", "score": 1, "low_ijk": [0, 0, 0], "high_ijk": [1, 0, 1]}]},
        {"boxes": [{"label": "a", "score": 1, "low_ijk": [0, 0, float("nan")], "high_ijk": [1, 1, 1]}]},
        {"boxes": [{}]},
        {"boxes": None},
        {"classes": None},
        {"threshold": "high"},
    ],
)
def test_findings_that_do_not_hold_together_are_refused(change: dict[str, object]) -> None:
    body, _ = wire_results.pack_result(Detections((), ("a",), Geometry((2, 2, 2), np.eye(4))))
    with pytest.raises(ProtocolError):
        wire_results.unpack_result(Message(Kind.RESULT, "1", {**body, **change}))


bad = st.recursive(
    st.none() | st.booleans() | st.integers() | finite | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
)


@settings(max_examples=100)
@given(st.data(), classify_options | detect_options)
def test_options_with_one_wrong_part_are_refused_or_read(data: st.DataObject, options: ClassifyOptions) -> None:
    volume = Volume(np.zeros((1, 1, 1, 1)), Geometry((1, 1, 1), np.eye(4)))
    body, arrays = wire.pack_run(RunRequest("m", "cpu", options), volume)
    body = json.loads(json.dumps(body))
    part = body["request"]["options"]
    part[data.draw(st.sampled_from(sorted(part)))] = data.draw(bad)
    try:
        wire.unpack_run(Message(Kind.RUN, "1", body, arrays))
    except ProtocolError:
        return
    assert part["task"] in ("segment", "classify", "detect")


# A real worker with real, small networks


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    with WorkerClient() as client:
        yield client


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_bundle(tmp_path_factory.mktemp("models") / "shapes", DENSENET, ["square", "disc", "none"])


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return threshold_bundle(tmp_path_factory.mktemp("models") / "blobs", 1.5, None)


@pytest.fixture
def volume() -> Volume:
    data = np.random.default_rng(5).normal(size=(1, 6, 24, 20)).astype(np.float32)
    matrix = np.array([[-0.9, 0.1, 0, 5], [0.1, 0.9, 0, 6], [0, 0, 2.5, 7], [0, 0, 0, 1]])
    matrix[:3, :2] /= np.linalg.norm(matrix[:3, :2], axis=0)
    matrix[:3, 1] = np.cross(matrix[:3, 2] / 2.5, matrix[:3, 0])
    return Volume(data, Geometry((6, 24, 20), matrix), "Bild ü", {"Modality": "US"})


def test_classification_by_the_worker_is_the_model_s_own(
    client: WorkerClient, classifier: Path, volume: Volume
) -> None:
    options = ClassifyOptions(slices=Slices("K"), explain=Explain("grad-cam", "disc"))
    job = client.submit(RunRequest(str(classifier), "cpu", options, statistics=True), volume)
    there = job.result(LIMIT_S)
    here = open_model(classifier, "cpu").run(volume, options, Progress())
    assert isinstance(there, Classification)
    assert np.array_equal(there.probabilities, here.probabilities)
    assert there.places == here.places
    assert there.saliency is not None
    assert here.saliency is not None
    assert np.allclose(there.saliency.values, here.saliency.values, atol=1e-6)
    assert there.provenance["sha256"] == here.provenance["sha256"]
    assert there.provenance["input"] == "Bild ü"
    assert job.statistics is None
    assert [model.name for model in client.status().models] in ([], ["shapes"])


def test_boxes_come_from_a_model_that_segments(client: WorkerClient, segmenter: Path, volume: Volume) -> None:
    options = DetectOptions(smallest_ml=0.02, score_threshold=0.5)
    found = client.submit(RunRequest(str(segmenter), "cpu", options), volume).result(LIMIT_S)
    assert isinstance(found, Detections)
    assert found.geometry.same_grid_as(volume.geometry)
    assert found.provenance["option.smallest_ml"] == "0.02"
    assert all(box.score >= 0.5 for box in found.boxes)
    everything = client.submit(RunRequest(str(segmenter), "cpu", DetectOptions()), volume).result(LIMIT_S)
    assert isinstance(everything, Detections)
    assert len(everything.boxes) > len(found.boxes)


@pytest.mark.parametrize("options", [RunOptions(), DetectOptions()])
def test_classifier_refuses_other_tasks(
    client: WorkerClient, classifier: Path, volume: Volume, options: RunOptions
) -> None:
    with pytest.raises(SpecError, match="classifies images"):
        client.submit(RunRequest(str(classifier), "cpu", options), volume).result(LIMIT_S)


def test_model_that_segments_does_not_classify(client: WorkerClient, segmenter: Path, volume: Volume) -> None:
    with pytest.raises(SpecError, match="segments images"):
        client.submit(RunRequest(str(segmenter), "cpu", ClassifyOptions()), volume).result(LIMIT_S)


def test_volume_on_a_model_of_pictures_is_refused_with_the_choices(
    client: WorkerClient, classifier: Path, volume: Volume
) -> None:
    with pytest.raises(InputError, match=r"one slice .* each slice"):
        client.submit(RunRequest(str(classifier), "cpu", ClassifyOptions()), volume).result(LIMIT_S)
    (concern,) = concerns_before_run(volume, read_spec(classifier), ClassifyOptions())
    assert concern.severity == "stop"
    assert concerns_before_run(volume, read_spec(classifier), ClassifyOptions(slices=Slices("J", 3))) == ()


def test_explanation_is_cancelled_within_two_seconds(client: WorkerClient, classifier: Path, volume: Volume) -> None:
    options = ClassifyOptions(slices=Slices("K"), explain=Explain("shap", "disc"))

    def cancel() -> float:
        job = client.submit(RunRequest(str(classifier), "cpu", options), volume)
        asked = time.monotonic()
        job.cancel()
        with pytest.raises(Cancelled):
            job.result(LIMIT_S)
        return time.monotonic() - asked

    assert quickest(cancel, 2) < 2


def test_foretold_memory_grows_with_the_look_and_the_explanation(classifier: Path, volume: Volume) -> None:
    spec = read_spec(classifier)

    def needed(**changes: object) -> int:
        wanted = demand_of(spec, volume, ClassifyOptions(**changes))  # type: ignore[arg-type]
        assert wanted is not None
        return wanted.on_cpu()

    one, each = needed(slices=Slices("K", 2)), needed(slices=Slices("K"))
    assert one <= each < needed(slices=Slices("K"), explain=Explain())
    assert needed(roi=Roi((5.0, 6.0, 12.0), (4.0, 4.0, 4.0))) < needed()
