"""Runs started in MedAISegment's panel by events: what they bring into the scene, and what stops them."""

import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from bundles import configs, network_entry, random_bundle, write_configs

from MedAILib.gui.before import memory_need
from MedAILib.read_spec import read_spec
from MedAILib.request import RunRequest
from MedAILib.volume import Geometry, Volume
from MedAILib.worker.status import Device, WarmModel, WorkerStatus

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)

from standin import ctk
from standin.session import Session, run_to_end, slot_errors


def behaviour(folder: Path, name: str) -> str:
    """A description in a folder of this name, for the worker whose models do what their name says."""
    return str(write_configs(folder / name, *configs(network_entry("UNet", classes=2))))


def start(session: Session, widget: Any) -> None:
    """Click Apply, and wait until the worker computes."""
    widget.ui.applyButton.click()
    session.until(lambda: widget._run.poll().state == "running" and widget._run.poll().total > 1)


def test_apply_brings_the_segmentation_into_the_scene_and_before_the_eyes(session, client, segmenter) -> None:
    volume = session.add_volume()
    widget = session.open_on(client, segmenter)
    run_to_end(widget)
    (segmentation,) = session.nodes("vtkMRMLSegmentationNode")
    (table,) = session.nodes("vtkMRMLTableNode")
    assert segmentation.GetSegmentation().GetNumberOfSegments() == 2
    assert segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    assert session.view.GetBackgroundVolumeID() == volume.GetID()
    assert session.app.layoutManager().layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpTableView
    assert session.app.applicationLogic().GetSelectionNode().GetActiveTableID() == table.GetID()
    assert session.messages() == []


def test_model_is_loaded_when_the_module_is_entered_if_the_user_allows(session, behaving_client, tmp_path) -> None:
    behaving_client.restart()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "threshold"))
    widget.exit()
    widget.enter()
    assert behaving_client.status() == WorkerStatus()
    widget.ui.startAheadCheckBox.checked = True
    widget.exit()
    widget.enter()
    session.until(lambda: [model.name for model in behaving_client.status().models] == ["threshold"])
    assert slicer.app.settings().value("MedAI/StartWorkerAhead") == "true"


@pytest.fixture
def coarse(session) -> Any:
    """An image whose voxels are far larger than those that the built-in model was trained on."""
    volume = session.add_volume("Coarse", shape_kji=(11, 15, 11))
    volume.SetIJKToRASMatrix(vtk.vtkMatrix4x4())
    volume.SetSpacing(4, 4, 4)
    return volume


def test_what_speaks_against_a_run_is_asked_once_and_declined(session, client, coarse) -> None:
    widget = session.open_on(client, "hippocampus")
    before = session.node_ids()
    ctk.answers.append(False)
    widget.ui.applyButton.click()
    (question,) = session.messages()
    assert "4 x 4 x 4 mm" in question
    assert "4 x 4 x 4 mm" in widget.ui.logText.toPlainText()
    assert (widget.ui.statusLabel.text, widget.ui.applyButton.enabled) == ("Not run.", True)
    assert widget._run is None
    assert session.node_ids() == before


def test_run_goes_on_all_the_same_where_the_user_says_so(session, client, coarse) -> None:
    widget = session.open_on(client, "hippocampus")
    ctk.answers.append(True)
    run_to_end(widget)
    assert len(session.messages()) == 1
    assert len(session.nodes("vtkMRMLSegmentationNode")) == 1


def test_image_that_would_be_refused_does_not_leave_for_the_worker(session, client, segmenter) -> None:
    volume = session.add_volume()
    slicer.util.updateVolumeFromArray(volume, np.full((20, 24, 28), 7, np.int16))
    widget = session.open_on(client, segmenter)
    widget.ui.applyButton.click()
    session.until(session.messages)
    assert "has the value 7 in every voxel" in session.messages()[0]
    assert widget._run is None


def test_console_says_what_speaks_against_a_run_in_the_log(session, client, coarse, caplog) -> None:
    session.logic(client).segment(coarse, device="cpu")
    assert "4 x 4 x 4 mm" in caplog.text
    assert session.messages() == []


def test_memory_is_compared_with_what_is_free_where_the_run_will_be(hippocampus) -> None:
    spec, request = read_spec(hippocampus), RunRequest("hippocampus", "cuda:1")
    grid = Geometry((40, 40, 40), np.eye(4))
    volume = Volume(np.zeros((1, 40, 40, 40), np.int16), grid, "Head")
    told = (Device("cpu", "CPU", 5, 9), Device("cuda:0", "A", 6, 9), Device("cuda:1", "B", 7, 9))
    status = WorkerStatus(True, devices=told, models=(WarmModel("m", "cuda:1", 100),))
    assert memory_need(request, spec, volume, status, "gpu-box").free == 107
    assert memory_need(RunRequest("hippocampus", "cpu"), spec, volume, status, "gpu-box").free == 5
    assert memory_need(RunRequest("hippocampus", "cpu"), spec, volume, status, "").free > 1e6
    assert memory_need(request, spec, volume, WorkerStatus(), "gpu-box") is None


def test_segments_are_counted_by_the_worker(session, client, segmenter, monkeypatch) -> None:
    session.add_volume()
    widget = session.open_on(client, segmenter)
    monkeypatch.setattr("MedAILib.scene.write.segment_statistics", lambda *_: 1 / 0)
    run_to_end(widget)
    (table,) = session.nodes("vtkMRMLTableNode")
    assert table.GetNumberOfRows() == 2
    assert sum(int(table.GetCellText(row, 2)) for row in range(2)) > 0


def test_outputs_are_those_that_are_ticked(session, client, segmenter) -> None:
    session.add_volume()
    widget = session.open_on(client, segmenter)
    widget.ui.tableCheckBox.click()
    widget.ui.surfacesCheckBox.click()
    widget.ui.labelMapCheckBox.click()
    widget.ui.probabilitiesCheckBox.click()
    run_to_end(widget)
    (segmentation,) = session.nodes("vtkMRMLSegmentationNode")
    assert not segmentation.GetSegmentation().ContainsRepresentation("Closed surface")
    assert session.nodes("vtkMRMLTableNode") == []
    assert len(session.nodes("vtkMRMLLabelMapVolumeNode")) == 1
    assert len([n for n in session.nodes("vtkMRMLScalarVolumeNode") if "probability" in n.GetName()]) == 3


def test_how_sure_a_model_is_comes_as_a_volume_and_how_agreed_its_members_are_in_the_table(
    session, client, tmp_path
) -> None:
    for seed in (0, 1):
        random_bundle(tmp_path / f"m{seed}", network_entry("UNet", classes=3), seed)
    (tmp_path / "medai.json").write_text('{"name": "Two", "members": ["m0", "m1"]}')
    volume = session.add_volume()
    widget = session.open_on(client, str(tmp_path))
    widget.ui.uncertaintyCheckBox.click()
    run_to_end(widget)
    (unsure,) = [n for n in session.nodes("vtkMRMLScalarVolumeNode") if n.GetName().endswith("uncertainty")]
    entropy = slicer.util.arrayFromVolume(unsure)
    assert entropy.shape == slicer.util.arrayFromVolume(volume).shape and 0 < entropy.max() <= 1
    (table,) = session.nodes("vtkMRMLTableNode")
    column = table.GetColumnIndex("Agreement")
    assert all(0 <= float(table.GetCellText(row, column)) < 1 for row in range(table.GetNumberOfRows()))


def test_one_model_has_no_agreement_and_makes_no_uncertainty_that_nobody_asked_for(session, client, segmenter) -> None:
    session.add_volume()
    run_to_end(session.open_on(client, segmenter))
    (table,) = session.nodes("vtkMRMLTableNode")
    assert table.GetColumnIndex("Maximum") == table.GetNumberOfColumns() - 1
    assert len(session.nodes("vtkMRMLScalarVolumeNode")) == 1


def test_result_can_be_edited_and_the_run_repeated(session, client, segmenter) -> None:
    volume = session.add_volume()
    widget = session.open_on(client, segmenter)
    run_to_end(widget)
    widget.ui.editButton.click()
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    assert (editor.segmentation, editor.source) == (session.nodes("vtkMRMLSegmentationNode")[0], volume)
    assert session.app.topLevelWidgets()[0].moduleSelector().selected == "SegmentEditor"
    widget.ui.runAgainButton.click()
    session.until(lambda: widget._run.finished)
    assert len(session.nodes("vtkMRMLSegmentationNode")) == 2


def test_progress_is_shown_while_the_worker_computes(session, behaving_client, tmp_path) -> None:
    session.add_volume()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "gated"))
    seen = []
    widget.ui.progressBar.connect("valueChanged(int)", seen.append)
    start(session, widget)
    assert widget.ui.progressBar.maximum == 100_000
    assert "Segmenting" in widget.ui.statusLabel.text
    assert (widget.ui.applyButton.enabled, widget.ui.cancelButton.enabled) == (False, True)
    session.until(lambda: len(set(seen)) > 3)
    (tmp_path / "go").touch()
    session.until(lambda: widget._run.finished)
    assert (widget.ui.applyButton.enabled, widget.ui.cancelButton.enabled) == (True, False)


def test_cancel_ends_the_run_and_leaves_the_scene_as_it_was(session, behaving_client, tmp_path) -> None:
    session.add_volume()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "slow:5000"))
    before = session.node_ids()
    start(session, widget)
    widget.ui.cancelButton.click()
    session.until(lambda: widget._run.finished)
    assert widget.ui.statusLabel.text == "Cancelled"
    assert session.node_ids() == before
    assert session.messages() == []


def test_worker_that_dies_is_reported_with_its_last_words_and_the_next_run_works(
    session, behaving_client, tmp_path
) -> None:
    session.add_volume()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "leave:7"))
    before = session.node_ids()
    run_to_end(widget)
    session.until(session.messages)
    assert "exit code 7" in session.messages()[0]
    assert "about to leave" in widget.ui.logText.toPlainText()
    assert session.node_ids() == before
    widget._parameterNode.model = behaviour(tmp_path, "threshold")
    run_to_end(widget)
    assert len(session.nodes("vtkMRMLSegmentationNode")) == 1


def test_worker_killed_in_the_middle_is_noticed(session, behaving_client, tmp_path) -> None:
    session.add_volume()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "slow:5000"))
    start(session, widget)
    os.kill(behaving_client.versions["pid"], signal.SIGKILL)
    session.until(lambda: widget._run.finished)
    session.until(session.messages)
    assert "SIGKILL" in session.messages()[0]


def test_defect_in_the_worker_is_told_apart_from_what_the_user_can_mend(session, behaving_client, tmp_path) -> None:
    session.add_volume()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "defect"))
    run_to_end(widget)
    session.until(session.messages)
    assert "defect" in session.messages()[0]
    assert "RuntimeError: unexpected" in widget.ui.logText.toPlainText()


def test_scene_closed_during_a_run_drops_the_result(session, behaving_client, tmp_path) -> None:
    session.add_volume()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "slow:5000"))
    start(session, widget)
    session.scene.Clear()
    session.until(lambda: widget._run.finished)
    assert "Head was removed from the scene" in widget.ui.statusLabel.text
    assert session.nodes("vtkMRMLSegmentationNode") == []


def test_image_of_another_scene_with_the_same_id_does_not_get_the_result(session, behaving_client, tmp_path) -> None:
    old = session.add_volume().GetID()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "gated"))
    start(session, widget)
    session.scene.Clear()
    assert session.add_volume("Other").GetID() == old
    (tmp_path / "go").touch()
    session.until(lambda: widget._run.finished)
    assert session.nodes("vtkMRMLSegmentationNode") == []
    assert "its scene was closed" in widget.ui.statusLabel.text


def test_image_deleted_during_a_run_drops_the_result(session, behaving_client, tmp_path) -> None:
    volume = session.add_volume()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "slow:5000"))
    start(session, widget)
    session.scene.RemoveNode(volume)
    session.until(lambda: widget._run.finished)
    assert "Head was removed" in widget.ui.statusLabel.text
    assert session.nodes("vtkMRMLSegmentationNode") == []


def test_image_renamed_and_moved_during_a_run_takes_its_segmentation_along(session, behaving_client, tmp_path) -> None:
    volume = session.add_volume()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "gated"))
    start(session, widget)
    volume.SetName("Renamed")
    transform = session.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 30.0)
    transform.SetMatrixTransformToParent(matrix)
    volume.SetAndObserveTransformNodeID(transform.GetID())
    (tmp_path / "go").touch()
    session.until(lambda: widget._run.finished)
    (segmentation,) = session.nodes("vtkMRMLSegmentationNode")
    assert segmentation.GetName().startswith("Renamed")
    assert segmentation.GetTransformNodeID() == transform.GetID()


def test_image_with_another_grid_than_at_the_start_is_refused(session, behaving_client, tmp_path) -> None:
    volume = session.add_volume()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "gated"))
    start(session, widget)
    volume.SetSpacing(9, 9, 9)
    (tmp_path / "go").touch()
    session.until(lambda: widget._run.finished)
    session.until(session.messages)
    assert "another grid" in session.messages()[0]
    assert session.nodes("vtkMRMLSegmentationNode") == []


def test_segments_go_into_the_segmentation_that_is_chosen(session, behaving_client, tmp_path) -> None:
    session.add_volume()
    mine = session.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    widget = session.open_on(behaving_client, behaviour(tmp_path, "threshold"))
    widget.ui.outputSegmentationSelector.setCurrentNode(mine)
    run_to_end(widget)
    assert session.nodes("vtkMRMLSegmentationNode") == [mine]
    assert mine.GetSegmentation().GetNumberOfSegments() == 1
    widget.ui.editButton.click()
    assert slicer.modules.segmenteditor.widgetRepresentation().self().editor.source.GetName() == "Head"


def test_chosen_segmentation_that_goes_during_a_run_drops_the_result(session, behaving_client, tmp_path) -> None:
    session.add_volume()
    mine = session.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Mine")
    widget = session.open_on(behaving_client, behaviour(tmp_path, "slow:5000"))
    widget.ui.outputSegmentationSelector.setCurrentNode(mine)
    start(session, widget)
    session.scene.RemoveNode(mine)
    session.until(lambda: widget._run.finished)
    assert "is not in the scene" in widget.ui.statusLabel.text
    assert session.nodes("vtkMRMLSegmentationNode") == []


def test_node_that_can_not_be_segmented_is_said_in_one_sentence(session, behaving_client, tmp_path) -> None:
    session.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Empty")
    widget = session.open_on(behaving_client, behaviour(tmp_path, "threshold"))
    widget.ui.applyButton.click()
    session.until(session.messages)
    assert session.messages() == ["Empty has no voxels; load its image again."]


def test_defect_of_the_panel_is_shown_and_not_swallowed(session, behaving_client, tmp_path, monkeypatch) -> None:
    session.add_volume()
    widget = session.open_on(behaving_client, behaviour(tmp_path, "threshold"))
    monkeypatch.setattr("MedAILib.runs.image.volume_from_nodes", lambda nodes: 1 / 0)
    widget.ui.applyButton.click()
    assert [type(error) for error in slot_errors()] == [ZeroDivisionError]
    assert "could not be started" in session.messages()[0]
    assert widget.ui.applyButton.enabled
