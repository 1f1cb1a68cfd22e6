"""MedAISegment.py, the real file, from nodes of a real scene through the real worker to nodes in the scene."""

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from bundles import network_entry, random_bundle
from standin.loading import STANDINS, load_module_file
from standin.qt import QLabel
from standin.ScriptedLoadableModule import Module, Panel

from MedAILib.errors import InputError
from MedAILib.models.store import builtin_models
from MedAILib.progress import Cancelled
from MedAILib.request import RunRequest
from MedAILib.volume import Volume
from MedAILib.worker.client import Job, JobState, WorkerClient

ROOT = Path(__file__).parents[1]
MODULE_FILE = ROOT / "MedAISegment" / "MedAISegment.py"
SHAPE_KJI = (20, 24, 28)


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """The module file, loaded as Slicer loads it."""
    for name, standin in STANDINS.items():
        monkeypatch.setitem(sys.modules, name, standin)
    monkeypatch.setitem(sys.modules, MODULE_FILE.stem, None)
    return load_module_file(MODULE_FILE)


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    """A worker that stays warm for all tests of this file."""
    with WorkerClient() as client:
        yield client


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A small real network with random weights: one channel, two structures."""
    return str(random_bundle(tmp_path_factory.mktemp("bundle"), network_entry("UNet", classes=3)))


@pytest.fixture(scope="module")
def two_channel_bundle(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The same with two channels."""
    return str(random_bundle(tmp_path_factory.mktemp("bundle"), network_entry("UNet", classes=3, channels=2)))


def add_volume(scene: slicer.vtkMRMLScene, name: str = "Head", seed: int = 0) -> slicer.vtkMRMLScalarVolumeNode:
    """A volume of noise on an oblique, anisotropic grid."""
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", name)
    slicer.util.updateVolumeFromArray(node, np.random.default_rng(seed).normal(size=SHAPE_KJI).astype(np.float32))
    transform = vtk.vtkTransform()
    transform.RotateZ(20)
    transform.Scale(1.0, 1.2, 1.5)
    node.SetIJKToRASMatrix(transform.GetMatrix())
    return node


def node_ids(scene: slicer.vtkMRMLScene) -> list[str]:
    return [scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())]


def classes_of(nodes: list[slicer.vtkMRMLNode]) -> set[str]:
    return {node.GetClassName() for node in nodes}


class Meanwhile:
    """A worker client that lets something happen while its user waits for the result."""

    def __init__(self, client: WorkerClient, event: Callable[[], None]) -> None:
        self._client = client
        self._event = event
        self.job: Job | None = None

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


def test_console_call_gives_a_segmentation_on_its_volume(module, client, bundle, scene) -> None:
    volume = add_volume(scene)
    nodes = module.MedAISegmentLogic(client).segment(volume, model=bundle, device="cpu")
    segmentation = nodes[0]
    assert segmentation.IsA("vtkMRMLSegmentationNode")
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 2
    role = segmentation.GetReferenceImageGeometryReferenceRole()
    assert segmentation.GetNodeReferenceID(role) == volume.GetID()
    assert classes_of(nodes) == {"vtkMRMLSegmentationNode", "vtkMRMLTableNode"}
    assert all(scene.IsNodePresent(node) for node in nodes)


def test_every_output_can_be_asked_for(module, client, bundle, scene) -> None:
    nodes = module.MedAISegmentLogic(client).segment(
        add_volume(scene), bundle, "cpu", labelMap=True, probabilities=True, surfaces=True, table=False
    )
    assert classes_of(nodes) == {
        "vtkMRMLSegmentationNode",
        "vtkMRMLColorTableNode",
        "vtkMRMLLabelMapVolumeNode",
        "vtkMRMLScalarVolumeNode",
    }
    assert nodes[0].GetSegmentation().ContainsRepresentation("Closed surface")


def test_several_nodes_are_the_channels_of_one_image(module, client, two_channel_bundle, scene) -> None:
    first, second = add_volume(scene, "T1"), add_volume(scene, "T2", seed=1)
    nodes = module.MedAISegmentLogic(client).segment([first, second], model=two_channel_bundle, device="cpu")
    role = nodes[0].GetReferenceImageGeometryReferenceRole()
    assert nodes[0].GetNodeReferenceID(role) == first.GetID()


def test_nothing_is_found_outside_of_the_region_of_interest(module, client, bundle, scene) -> None:
    volume = add_volume(scene)
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    roi.SetCenter(matrix.MultiplyPoint((14, 12, 10, 1))[:3])
    roi.SetSize(8, 8, 8)
    nodes = module.MedAISegmentLogic(client).segment(volume, bundle, "cpu", roiNode=roi, labelMap=True)
    (labels,) = [node for node in nodes if node.IsA("vtkMRMLLabelMapVolumeNode")]
    found = np.argwhere(slicer.util.arrayFromVolume(labels))
    assert len(found) > 0
    assert (np.abs(found - (10, 12, 14)) <= 7).all()


def test_volume_removed_while_the_worker_computes_leaves_nothing_behind(module, client, bundle, scene) -> None:
    before = node_ids(scene)
    volume = add_volume(scene)
    waiting = Meanwhile(client, lambda: scene.RemoveNode(volume))
    with pytest.raises(InputError, match="Head was removed from the scene"):
        module.MedAISegmentLogic(waiting).segment(volume, model=bundle, device="cpu")
    assert node_ids(scene) == before


def test_segments_go_into_the_segmentation_that_is_given(module, client, bundle, scene) -> None:
    mine = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    nodes = module.MedAISegmentLogic(client).segment(add_volume(scene), bundle, "cpu", segmentationNode=mine)
    assert nodes[0] is mine
    assert mine.GetSegmentation().GetNumberOfSegments() > 0
    assert scene.GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_segmentation_removed_while_the_worker_computes_leaves_nothing_behind(module, client, bundle, scene) -> None:
    volume, mine = add_volume(scene), scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    waiting = Meanwhile(client, lambda: scene.RemoveNode(mine))
    before = [node_id for node_id in node_ids(scene) if node_id != mine.GetID()]
    with pytest.raises(InputError, match="is not in the scene"):
        module.MedAISegmentLogic(waiting).segment(volume, bundle, "cpu", segmentationNode=mine)
    assert node_ids(scene) == before


def add_sequence(scene: slicer.vtkMRMLScene) -> slicer.vtkMRMLSequenceNode:
    """Two frames over time, shown by a browser."""
    sequence = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Cine")
    for time in ("0.5", "1"):
        volume = add_volume(scene, seed=int(float(time) * 2))
        sequence.SetDataNodeAtValue(volume, time)
        scene.RemoveNode(volume)
    browser = scene.AddNewNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    return sequence


def test_sequence_becomes_a_sequence_of_segmentations(module, client, bundle, scene) -> None:
    sequence = add_sequence(scene)
    browser = scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetCenter(8, 12, 15)
    roi.SetSize(8, 8, 8)
    nodes = module.MedAISegmentLogic(client).segmentSequence(sequence, bundle, "cpu", roiNode=roi)
    assert [nodes[0].GetNthIndexValue(n) for n in range(2)] == ["0.5", "1"]
    assert browser.GetProxyNode(nodes[0]).GetSegmentation().GetNumberOfSegments() > 0
    assert {"vtkMRMLTableNode", "vtkMRMLPlotChartNode"} <= classes_of(nodes)


def test_sequence_with_a_model_that_is_not_there_names_the_frame(module, client, scene) -> None:
    sequence = add_sequence(scene)
    before = node_ids(scene)
    with pytest.raises(InputError, match=r"Cine, Frame 1 of 2 .*no-such-model"):
        module.MedAISegmentLogic(client).segmentSequence(sequence, "no-such-model")
    assert node_ids(scene) == before


def test_interrupted_waiting_ends_the_run(module, client, bundle, scene) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    waiting = Meanwhile(client, interrupt)
    with pytest.raises(KeyboardInterrupt):
        module.MedAISegmentLogic(waiting).segment(add_volume(scene), model=bundle, device="cpu")
    with pytest.raises(Cancelled):
        waiting.job.result(timeout=30)


def test_failed_run_leaves_the_scene_as_it_was(module, client, scene) -> None:
    volume = add_volume(scene)
    before = node_ids(scene)
    with pytest.raises(InputError, match="no-such-model"):
        module.MedAISegmentLogic(client).segment(volume, model="no-such-model")
    assert node_ids(scene) == before


def test_what_the_model_does_not_allow_is_refused(module, client, bundle, scene) -> None:
    with pytest.raises(InputError, match="mirrored"):
        module.MedAISegmentLogic(client).segment(add_volume(scene), model=bundle, device="cpu", mirror=True)


def test_closed_logic_starts_a_new_worker_with_the_next_run(module, scene) -> None:
    logic = module.MedAISegmentLogic()
    volume = add_volume(scene)
    try:
        for _ in range(2):
            with pytest.raises(InputError, match="no-such-model"):  # the worker's own answer
                logic.segment(volume, model="no-such-model")
            logic.close()
    finally:
        logic.close()


def test_module_says_what_it_is_for(module) -> None:
    parent = Module(str(MODULE_FILE))
    module.MedAISegment(parent)
    assert (parent.title, parent.categories) == ("MedAI Segment", ["Segmentation"])
    assert "research use only" in parent.helpText
    assert "Not a medical device" in parent.helpText


def test_panel_holds_the_logic_and_says_how_to_call_it(module) -> None:
    panel = Panel()
    widget = module.MedAISegmentWidget(panel)
    widget.setup()
    (label,) = panel.layout().widgets
    assert isinstance(label, QLabel)
    assert 'slicer.util.getModuleLogic("MedAISegment")' in label.text
    assert isinstance(widget.logic, module.MedAISegmentLogic)


def test_reload_takes_the_library_along(module, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = {name: value for name, value in sys.modules.items() if name.split(".")[0] == "MedAILib"}
    widget = module.MedAISegmentWidget()
    try:
        widget.onReload()
        left = [name for name in sys.modules if name.split(".")[0] == "MedAILib"]
    finally:
        sys.modules.update(kept)
    assert left == []


def test_slicers_process_never_imports_torch() -> None:
    code = (
        "import sys; from pathlib import Path; from standin.loading import STANDINS, load_module_file\n"
        "sys.modules.update(STANDINS)\n"
        f"module = load_module_file(Path({str(MODULE_FILE)!r}))\n"
        "module.MedAISegmentWidget()\n"
        "print(*sorted({'torch', 'monai', 'SimpleITK', 'pydicom'} & set(sys.modules)))"
    )
    # From the module file alone: the source tree is not on the path, as in Slicer.
    environment = {"PYTHONPATH": str(ROOT / "Testing"), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_standin_refuses_what_slicer_does_not_have() -> None:
    with pytest.raises(AttributeError):
        Module("x.py").titel = "MedAI"
    with pytest.raises(AttributeError):
        QLabel("text").wordwrap = True


def test_modules_own_test_passes(module, scene, monkeypatch: pytest.MonkeyPatch) -> None:
    if "hippocampus" not in builtin_models():
        pytest.skip("the built-in model is not here")
    monkeypatch.setattr(slicer, "mrmlScene", scene, raising=False)
    module.MedAISegmentTest().runTest()
