"""What the user corrected becomes the next model's data: added from the scene, learnt from, found among the models."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from bundles import threshold_bundle

from MedAILib.commands.train_apart import train_and_add
from MedAILib.errors import InputError, OutputError
from MedAILib.files.images import read_image
from MedAILib.gui.fine_tuning import training_request
from MedAILib.progress import Cancelled, Progress
from MedAILib.scene.segments import BINARY_LABELMAP, label_image
from MedAILib.scene.training_set import add_training_case
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.store.record import installed_models
from MedAILib.training.continued import LIKE, like_model
from MedAILib.training.data_folder import open_folder
from MedAILib.training.plan import Choice
from MedAILib.training.task import SegmentationTask, read_task
from MedAILib.volume import Geometry, Roi, Volume

MODELS = Path(__file__).parents[1] / "Resources" / "Models"
SHAPE_KJI = (12, 16, 20)
MATRIX = np.array([[0.0, -1.5, 0.0, 7.0], [1.0, 0.0, 0.0, -3.0], [0.0, 0.0, 2.0, 11.0], [0.0, 0.0, 0.0, 1.0]])
BALL = (slice(4, 8), slice(5, 9), slice(6, 12))
BOX = (slice(9, 11), slice(5, 9), slice(6, 12))


def add_image(scene: Any, seed: int = 0, name: str = "Head", channels: int = 1) -> list[Any]:
    data = np.random.default_rng(seed).normal(size=(channels, *SHAPE_KJI)).astype(np.float32)
    data[(slice(None), *BALL)] += 4
    return add_volume_nodes(scene, Volume(data, Geometry(SHAPE_KJI, MATRIX), name))


def add_segmentation(scene: Any, **places: tuple[slice, ...]) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Corrected")
    segmentation = node.GetSegmentation()
    segmentation.SetSourceRepresentationName(BINARY_LABELMAP)
    for name, place in places.items():
        voxels = np.zeros(SHAPE_KJI, np.uint8)
        voxels[place] = 1
        segment = slicer.vtkSegment()
        segment.SetName(name)
        segment.AddRepresentation(BINARY_LABELMAP, label_image(voxels, MATRIX))
        segmentation.AddSegment(segment)
    return node


def label_of(folder: Path, name: str) -> Volume:
    return read_image(folder / "labelsTr" / f"{name}.nrrd")


def test_labels_lie_on_the_image_with_the_values_that_the_model_has(scene, tmp_path) -> None:
    segmentation = add_segmentation(scene, box=BOX, ball=BALL)
    added = add_training_case(add_image(scene), segmentation, tmp_path / "set", {1: "ball", 2: "box"}, ("T1",))
    label, image = label_of(tmp_path / "set", added.name), read_image(tmp_path / f"set/imagesTr/{added.name}_0000.nrrd")
    np.testing.assert_allclose(label.geometry.ijk_to_ras, image.geometry.ijk_to_ras)
    assert label.data[0][BALL].min() == label.data[0][BALL].max() == 1
    assert label.data[0][BOX].min() == 2
    assert np.count_nonzero(label.data) == label.data[0][BALL].size + label.data[0][BOX].size
    described = json.loads((tmp_path / "set/dataset.json").read_text())
    assert (described["labels"], described["channel_names"]) == ({"background": 0, "ball": 1, "box": 2}, {"0": "T1"})


def test_segmentation_under_a_transform_is_written_where_it_lies_in_the_world(scene, tmp_path) -> None:
    (image,), segmentation = add_image(scene), add_segmentation(scene, ball=BALL)
    shift = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(2, 3, 4.0)  # two slices up
    shift.SetMatrixTransformToParent(matrix)
    segmentation.SetAndObserveTransformNodeID(shift.GetID())
    added = add_training_case([image], segmentation, tmp_path / "set")
    found = np.argwhere(label_of(tmp_path / "set", added.name).data[0])
    assert (found.min(axis=0).tolist(), found.max(axis=0).tolist()) == ([6, 5, 6], [9, 8, 11])


def ball_ijk() -> np.ndarray:
    """Voxels (n, 3) of the ball along I, J, K."""
    k, j, i = (np.arange(place.start, place.stop) for place in BALL)
    return np.stack(np.meshgrid(i, j, k, indexing="ij"), axis=-1).reshape(-1, 3)


def test_region_of_interest_alone_is_added_where_it_lies(scene, tmp_path) -> None:
    whole = Geometry(SHAPE_KJI, MATRIX)
    corners = whole.ras_of([[5, 4, 3], [13, 10, 9]])  # I, J, K
    low, high = corners.min(axis=0), corners.max(axis=0)
    roi = Roi(tuple(((low + high) / 2).tolist()), tuple((high - low + 0.1).tolist()))
    added = add_training_case(add_image(scene), add_segmentation(scene, ball=BALL), tmp_path / "set", roi=roi)
    label = label_of(tmp_path / "set", added.name)
    assert np.prod(label.geometry.shape_kji) < np.prod(SHAPE_KJI) / 4
    found = label.geometry.ras_of(np.argwhere(label.data[0])[:, ::-1])
    wanted = whole.ras_of(ball_ijk())
    np.testing.assert_allclose(np.sort(found, axis=0), np.sort(wanted, axis=0))


def test_image_that_is_there_gets_its_new_label_and_no_second_place(scene, tmp_path) -> None:
    images = add_image(scene)
    first = add_training_case(images, add_segmentation(scene, ball=BALL), tmp_path / "set")
    again = add_training_case(images, add_segmentation(scene, ball=BOX), tmp_path / "set")
    assert (first.replaced, again.replaced, again.name, again.cases) == (False, True, first.name, 1)
    assert label_of(tmp_path / "set", again.name).data[0][BALL].max() == 0


def test_training_reads_what_was_added_with_all_channels(scene, tmp_path) -> None:
    for seed in range(2):
        add_training_case(add_image(scene, seed, channels=2), add_segmentation(scene, ball=BALL), tmp_path / "set")
    data = open_folder(tmp_path / "set")
    assert ([len(case.images) for case in data.cases], data.faults, data.labels) == ([2, 2], (), {1: "ball"})


def test_images_of_one_patient_are_told_to_be(scene, tmp_path) -> None:
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    patient = hierarchy.CreateSubjectItem(hierarchy.GetSceneItemID(), "Jane")
    hierarchy.SetItemUID(patient, "DICOM", "4711")
    for seed in range(2):
        (node,) = images = add_image(scene, seed)
        hierarchy.CreateItem(patient, node)
        add_training_case(images, add_segmentation(scene, ball=BALL), tmp_path / "set")
    assert len(set(open_folder(tmp_path / "set").patients.values())) == 1
    assert "4711" not in (tmp_path / "set/patients.csv").read_text()


@pytest.mark.parametrize(
    ("places", "what"),
    [
        ({"ball": BALL, "other": BALL}, "ball and other of Corrected overlap"),
        ({}, "no segment with voxels on Head"),
        ({"background": BALL}, "named 'background'"),
    ],
)
def test_segments_that_make_no_label_map_are_refused_and_nothing_is_written(scene, tmp_path, places, what) -> None:
    with pytest.raises(InputError, match=what):
        add_training_case(add_image(scene), add_segmentation(scene, **places), tmp_path / "set")
    assert not (tmp_path / "set").exists()


def test_folder_of_something_else_is_left_alone(scene, tmp_path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match="no training set"):
        add_training_case(add_image(scene), add_segmentation(scene, ball=BALL), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


def test_image_with_other_channels_does_not_join(scene, tmp_path) -> None:
    add_training_case(add_image(scene), add_segmentation(scene, ball=BALL), tmp_path / "set")
    with pytest.raises(InputError, match="has 2 channels, and the training set"):
        add_training_case(add_image(scene, channels=2), add_segmentation(scene, ball=BALL), tmp_path / "set")


def test_folder_that_can_not_be_written_is_told(scene, tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((OutputError, InputError), match="file"):
        add_training_case(add_image(scene), add_segmentation(scene, ball=BALL), tmp_path / "file" / "set")


def test_corrections_are_added_and_learnt_from_in_the_window(session, store, tmp_path) -> None:
    threshold_bundle(tmp_path / "first", 0.5)
    widget = session.open()
    widget._parameterNode.model = str(tmp_path / "first")
    assert not widget.ui.addToTrainingSetButton.enabled
    widget._parameterNode.trainingFolder = str(tmp_path / "set")
    for seed in range(3):
        (widget._parameterNode.inputVolume,) = add_image(session.scene, seed, f"Head {seed}")
        widget._parameterNode.trainingSegmentation = add_segmentation(session.scene, **{"part 1": BALL})
        assert not widget.ui.fineTuneButton.enabled or seed
        widget.ui.addToTrainingSetButton.click()
        assert f"has {seed + 1} images" in widget.ui.statusLabel.text
    widget._parameterNode.trainedName, widget._parameterNode.trainingEpochs = "second", 1
    widget.ui.fineTuneButton.click()
    session.until(lambda: widget._run.finished, 120)
    assert session.messages() == []
    assert (widget._parameterNode.model, "second" in installed_models()) == ("second", True)
    assert installed_models()["second"].path.is_dir()


class StopsIn(Progress):
    """Cancels a training when it comes to an epoch's steps; remembers which epochs it heard of, and warnings."""

    def __init__(self, epoch: int = 0) -> None:
        self.stop, self.epochs, self.warnings = epoch, [], []

    def step(self, done: int, total: int, text: str = "") -> None:
        if text.startswith("Epoch"):
            self.epochs.append(int(text.split()[1]))
            if self.epochs[-1] == self.stop:
                raise Cancelled

    def warn(self, text: str) -> None:
        self.warnings.append(text)


def test_cancelled_training_goes_on_unless_images_were_added_since(scene, store, tmp_path) -> None:
    for seed in range(3):
        add_training_case(add_image(scene, seed, f"Head {seed}"), add_segmentation(scene, ball=BALL), tmp_path / "set")
    words = {"epochs": 3, "device": "cpu", "resume": "auto", "settings": ("patch=16,16,16", "samples=1")}
    request = asdict(training_request(tmp_path / "set", "mine", **words))
    for stop, first in ((2, 1), (3, 2)):
        heard = StopsIn(stop)
        with pytest.raises(Cancelled):
            train_and_add(request, heard)
        assert heard.epochs[0] == first
        assert not any("begins anew" in text for text in heard.warnings)
    add_training_case(add_image(scene, 3, "Another"), add_segmentation(scene, ball=BALL), tmp_path / "set")
    heard = StopsIn(2)
    with pytest.raises(Cancelled):
        train_and_add(request, heard)
    assert heard.epochs[0] == 1 and any("begins anew" in text for text in heard.warnings)


def test_window_goes_on_with_a_training_where_it_can(session, store, tmp_path, monkeypatch) -> None:
    asked = {}
    widget = session.open()
    monkeypatch.setattr(widget.logic, "fineTuneAsync", lambda *_, **options: asked.update(options))
    add_training_case(add_image(session.scene), add_segmentation(session.scene, ball=BALL), tmp_path / "set")
    widget._parameterNode.trainingFolder, widget._parameterNode.trainedName = str(tmp_path / "set"), "second"
    widget.ui.fineTuneButton.click()
    assert asked["resume"] == "auto"


def test_name_that_is_taken_is_refused_before_training(session, tmp_path) -> None:
    add_training_case(add_image(session.scene), add_segmentation(session.scene, ball=BALL), tmp_path / "set")
    with pytest.raises(InputError, match="There is a model 'hippocampus' already"):
        session.logic().fineTune(tmp_path / "set", "hippocampus", device="cpu")
    assert not (tmp_path / "set" / "models").exists()


def planned() -> tuple[SegmentationTask, list[Choice]]:
    """What a plan may be that has nothing of the built-in model's."""
    task = read_task("hippocampus")
    assert isinstance(task, SegmentationTask)
    network = {"_target_": "UNet", "spatial_dims": 3, "in_channels": 1, "out_channels": 3}
    other = replace(
        task, network=network, patch=[32, 32, 32], spacing_mm=[2.0, 2.0, 2.0], mirror_axes=[1], intensity=[]
    )
    return other, [Choice("patch", other.patch, "planned"), Choice("network", "UNet", "planned")]


def test_planned_task_takes_what_the_weights_to_start_from_were_learnt_for() -> None:
    task, choices = like_model(*planned(), MODELS / "hippocampus", ())
    shipped = read_task("hippocampus")
    assert isinstance(shipped, SegmentationTask)
    for key in ("network", "patch", "spacing_mm", "orientation", "intensity", "mirror_axes"):
        assert getattr(task, key) == getattr(shipped, key), key
    assert len(task.deep_supervision_weights) == len(shipped.deep_supervision_weights)
    assert [(choice.value, choice.reason) for choice in choices] == [(shipped.patch, LIKE), ("DynUNet", LIKE)]


def test_what_the_user_asks_for_stays_when_a_model_is_gone_on_from() -> None:
    task, _ = like_model(*planned(), MODELS / "hippocampus", {"patch": [32, 32, 32]})
    assert (task.patch, task.network["_target_"]) == ([32, 32, 32], "DynUNet")
    assert like_model(*planned(), MODELS / "hippocampus", {"network": "UNet"}) == planned()
