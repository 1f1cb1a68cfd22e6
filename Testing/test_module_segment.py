"""MedAISegment.py, the real file, from nodes of a real scene through the real worker to nodes in the scene."""

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from bundles import network_entry, random_bundle

from MedAILib.errors import InputError
from MedAILib.models.store import builtin_models
from MedAILib.progress import Cancelled
from MedAILib.request import RunRequest
from MedAILib.volume import Volume
from MedAILib.worker.client import Job, JobState, WorkerClient

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)

from standin import SampleData
from standin.loading import imported_by_panel


@pytest.fixture(scope="module")
def two_channel_bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small real network with random weights: two channels, two structures."""
    return str(random_bundle(tmp_path_factory.mktemp("bundle"), network_entry("UNet", classes=3, channels=2)))


def classes_of(nodes: list[slicer.vtkMRMLNode]) -> set[str]:
    return {node.GetClassName() for node in nodes}


class Meanwhile:
    """A worker client that lets something happen while its user waits for the result."""

    def __init__(self, client: WorkerClient, event: Callable[[], None]) -> None:
        self._client = client
        self._event = event
        self.job: Job | None = None
        self.status, self.destination, self.statistics = client.status, client.destination, None

    def submit(self, request: RunRequest, volume: Volume) -> "Meanwhile":
        self.job = self._client.submit(request, volume)
        return self

    def poll(self) -> JobState:
        assert self.job is not None
        return self.job.poll()

    def result(self) -> object:
        assert self.job is not None
        self._event()
        return self.job.result()

    def cancel(self) -> None:
        assert self.job is not None
        self.job.cancel()


def test_console_call_gives_a_segmentation_on_its_volume(session, client, segmenter) -> None:
    volume = session.add_volume()
    nodes = session.logic(client).segment(volume, model=segmenter, device="cpu")
    segmentation = nodes[0]
    assert segmentation.IsA("vtkMRMLSegmentationNode")
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 2
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReferenceID(role) == volume.GetID()
    assert classes_of(nodes) == {"vtkMRMLSegmentationNode", "vtkMRMLTableNode"}
    assert all(session.scene.IsNodePresent(node) for node in nodes)


def test_every_output_can_be_asked_for(session, client, segmenter) -> None:
    nodes = session.logic(client).segment(
        session.add_volume(),
        segmenter,
        "cpu",
        labelMap=True,
        probabilities=True,
        surfaces=True,
        table=False,
        uncertainty=True,
    )
    assert sum(node.GetName().endswith("uncertainty") for node in nodes) == 1
    assert classes_of(nodes) == {
        "vtkMRMLSegmentationNode",
        "vtkMRMLColorTableNode",
        "vtkMRMLLabelMapVolumeNode",
        "vtkMRMLScalarVolumeNode",
    }
    assert nodes[0].GetSegmentation().ContainsRepresentation("Closed surface")


def test_several_nodes_are_the_channels_of_one_image(session, client, two_channel_bundle) -> None:
    first, second = session.add_volume("T1"), session.add_volume("T2", seed=1)
    nodes = session.logic(client).segment([first, second], model=two_channel_bundle, device="cpu")
    role = nodes[0].GetReferenceImageGeometryReferenceRole()
    assert nodes[0].GetNodeReferenceID(role) == first.GetID()


def test_nothing_is_found_outside_of_the_region_of_interest(session, client, segmenter) -> None:
    volume = session.add_volume()
    roi = session.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    roi.SetCenter(matrix.MultiplyPoint((14, 12, 10, 1))[:3])
    roi.SetSize(8, 8, 8)
    nodes = session.logic(client).segment(volume, segmenter, "cpu", roiNode=roi, labelMap=True)
    (labels,) = [node for node in nodes if node.IsA("vtkMRMLLabelMapVolumeNode")]
    found = np.argwhere(slicer.util.arrayFromVolume(labels))
    assert len(found) > 0
    assert (np.abs(found - (10, 12, 14)) <= 7).all()


def test_volume_removed_while_the_worker_computes_leaves_nothing_behind(session, client, segmenter) -> None:
    before = session.node_ids()
    volume = session.add_volume()
    waiting = Meanwhile(client, lambda: session.scene.RemoveNode(volume))
    with pytest.raises(InputError, match="Head was removed from the scene"):
        session.logic(waiting).segment(volume, model=segmenter, device="cpu")
    assert session.node_ids() == before


def test_segments_go_into_the_segmentation_that_is_given(session, client, segmenter) -> None:
    mine = session.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    nodes = session.logic(client).segment(session.add_volume(), segmenter, "cpu", segmentationNode=mine)
    assert nodes[0] is mine
    assert mine.GetSegmentation().GetNumberOfSegments() > 0
    assert session.nodes("vtkMRMLSegmentationNode") == [mine]


def test_segmentation_removed_while_the_worker_computes_leaves_nothing_behind(session, client, segmenter) -> None:
    volume, mine = session.add_volume(), session.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    waiting = Meanwhile(client, lambda: session.scene.RemoveNode(mine))
    before = [node_id for node_id in session.node_ids() if node_id != mine.GetID()]
    with pytest.raises(InputError, match="is not in the scene"):
        session.logic(waiting).segment(volume, segmenter, "cpu", segmentationNode=mine)
    assert session.node_ids() == before


def test_sequence_becomes_a_sequence_of_segmentations(session, client, segmenter) -> None:
    sequence = session.add_sequence([(20, 24, 28)] * 2)
    browser = session.scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    roi = session.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetCenter(8, 12, 15)
    roi.SetSize(8, 8, 8)
    nodes = session.logic(client).segmentSequence(sequence, segmenter, "cpu", roiNode=roi)
    assert [nodes[0].GetNthIndexValue(n) for n in range(2)] == ["0", "0.5"]
    assert browser.GetProxyNode(nodes[0]).GetSegmentation().GetNumberOfSegments() > 0
    assert {"vtkMRMLTableNode", "vtkMRMLPlotChartNode"} <= classes_of(nodes)


def test_sequence_with_a_model_that_is_not_there_names_the_frame(session, client) -> None:
    sequence = session.add_sequence([(20, 24, 28)] * 2)
    before = session.node_ids()
    with pytest.raises(InputError, match=r"Cine, Frame 1 of 2 .*no-such-model"):
        session.logic(client).segmentSequence(sequence, "no-such-model")
    assert session.node_ids() == before


def test_interrupted_waiting_ends_the_run(session, client, segmenter) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    waiting = Meanwhile(client, interrupt)
    with pytest.raises(KeyboardInterrupt):
        session.logic(waiting).segment(session.add_volume(), model=segmenter, device="cpu")
    with pytest.raises(Cancelled):
        waiting.job.result(timeout=240)


def test_failed_run_leaves_the_scene_as_it_was(session, client) -> None:
    volume = session.add_volume()
    before = session.node_ids()
    with pytest.raises(InputError, match="no-such-model"):
        session.logic(client).segment(volume, model="no-such-model")
    assert session.node_ids() == before


def test_what_the_model_does_not_allow_is_refused(session, client, segmenter) -> None:
    with pytest.raises(InputError, match="mirrored"):
        session.logic(client).segment(session.add_volume(), model=segmenter, device="cpu", mirror=True)


def test_closed_logic_starts_a_new_worker_with_the_next_run(session) -> None:
    logic = session.logic()
    volume = session.add_volume()
    try:
        for _ in range(2):
            with pytest.raises(InputError, match="no-such-model"):  # the worker's own answer
                logic.segment(volume, model="no-such-model")
            logic.close()
    finally:
        logic.close()


def test_run_in_the_background_returns_at_once_and_brings_its_nodes(session, client, segmenter) -> None:
    done, states = [], []
    run = session.logic(client).segmentAsync(
        session.add_volume(), segmenter, "cpu", onDone=done.extend, onProgress=states.append, surfaces=True
    )
    assert not run.poll().finished
    session.until(lambda: run.finished)
    assert classes_of(done) == {"vtkMRMLSegmentationNode", "vtkMRMLTableNode"}
    assert done[0].GetSegmentation().ContainsRepresentation("Closed surface")
    assert (states[-1].state, run.poll().state) == ("done", "done")


def test_runs_in_the_background_wait_for_each_other(session, client, segmenter) -> None:
    logic, done = session.logic(client), []
    volumes = [session.add_volume("First"), session.add_volume("Second", seed=1)]
    runs = [logic.segmentAsync(volume, segmenter, "cpu", onDone=done.append) for volume in volumes]
    session.until(lambda: all(run.finished for run in runs))
    assert [nodes[0].GetName().split()[0] for nodes in done] == ["First", "Second"]


def test_error_in_the_background_goes_to_who_asked_for_errors(session, client) -> None:
    errors = []
    run = session.logic(client).segmentAsync(session.add_volume(), "no-such-model", onError=errors.append)
    session.until(lambda: run.finished)
    assert "no-such-model" in str(errors[0])
    assert run.error is errors[0]


def test_error_in_the_background_is_logged_for_who_did_not_ask(session, client, caplog) -> None:
    run = session.logic(client).segmentAsync(session.add_volume(), "no-such-model")
    session.until(lambda: run.finished)
    assert "no-such-model" in caplog.text


def test_console_can_do_what_the_panel_can(session, client) -> None:
    logic = session.logic(client)
    assert "hippocampus" in [model.name for model in logic.models()]
    logic.freeMemory()
    assert "MedAI 0." in logic.diagnostics()
    assert "Slicer 5.12" in logic.diagnostics()


def test_module_says_what_it_is_for(session) -> None:
    parent = session.descriptor
    assert (parent.title, parent.categories) == ("MedAI Segment", ["Segmentation"])
    assert "research use only" in parent.helpText
    assert "Not a medical device" in parent.helpText


def test_sample_image_is_registered_with_its_checksum(session) -> None:
    (sample,) = SampleData.registered
    digest = sample["uris"].rpartition("/")[2]
    assert sample["checksums"] == f"SHA256:{digest}"
    assert Path(sample["thumbnailFileName"]).is_file()


def test_reload_takes_the_library_along(session) -> None:
    kept = {name: value for name, value in sys.modules.items() if name.split(".")[0] == "MedAILib"}
    widget = session.open()
    try:
        widget.onReload()
        left = [name for name in sys.modules if name.split(".")[0] == "MedAILib"]
    finally:
        sys.modules.update(kept)
    assert left == []


def test_slicers_process_never_imports_torch(tmp_path: Path) -> None:
    assert not imported_by_panel("MedAISegment", tmp_path) & {"torch", "monai", "SimpleITK", "pydicom"}


def test_modules_own_test_passes(session) -> None:
    if "hippocampus" not in builtin_models():
        pytest.skip("the built-in model is not here")
    session.module.MedAISegmentTest().runTest()
