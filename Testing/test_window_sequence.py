"""All frames of a sequence, run from MedAISegment's panel by events: progress, results, cancel, what goes meanwhile."""

from pathlib import Path
from typing import Any

import pytest
import slicer
import slicer.util
from bundles import configs, network_entry, write_configs

from MedAILib.errors import InputError
from MedAILib.scene.sequences import sequence_shown_in, shown_in

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)

from standin.session import Session, run_to_end

FRAMES = 4


@pytest.fixture
def browser(session) -> Any:
    """A browser at the second frame of a sequence over time."""
    session.add_sequence([(20, 24, 28)] * FRAMES, name="time", unit="s")
    browser = session.scene.GetFirstNodeByClass("vtkMRMLSequenceBrowserNode")
    browser.SetSelectedItemNumber(1)
    return browser


def open_with(session: Session, client: Any, browser: Any, folder: Path, name: str) -> Any:
    """The panel with a model that does what its name says, and all frames of the sequence chosen."""
    widget = session.open_on(client, str(write_configs(folder / name, *configs(network_entry("UNet", classes=2)))))
    widget.ui.inputVolumeSelector.setCurrentNode(browser.GetProxyNode(browser.GetMasterSequenceNode()))
    assert not widget.ui.allFramesCheckBox.isHidden()
    widget.ui.allFramesCheckBox.click()
    return widget


def sequences(session: Session) -> list[str]:
    return [node.GetName() for node in session.nodes("vtkMRMLSequenceNode")]


def test_frames_are_offered_only_where_the_image_is_shown_from_a_sequence(session, browser) -> None:
    widget = session.open()
    alone = session.add_volume("Alone")
    widget.ui.inputVolumeSelector.setCurrentNode(alone)
    assert widget.ui.allFramesCheckBox.isHidden()
    assert sequence_shown_in(alone) is None
    widget.ui.inputVolumeSelector.setCurrentNode(browser.GetProxyNode(browser.GetMasterSequenceNode()))
    assert not widget.ui.allFramesCheckBox.isHidden()
    assert "volumeNode" in widget.arguments()


def test_all_frames_become_a_sequence_in_step_a_table_and_a_plot(session, behaving_client, browser, tmp_path) -> None:
    widget = open_with(session, behaving_client, browser, tmp_path, "slow:5")
    states = []
    tell = widget._current._onProgress
    widget._current._onProgress = lambda state: (tell(state), states.append(widget.ui.statusLabel.text))
    run_to_end(widget)
    assert widget._run.error is None
    assert [n for n in range(FRAMES) if any(text.startswith(f"Frame {n + 1} of 4") for text in states)] == [0, 1, 2, 3]
    assert len(sequences(session)) == 2
    (table,), (chart,) = session.nodes("vtkMRMLTableNode"), session.nodes("vtkMRMLPlotChartNode")
    assert table.GetNumberOfRows() == FRAMES
    assert slicer.modules.plots.logic().shown == [chart]
    assert browser.GetSelectedItemNumber() == 1
    assert "4 frames" in widget.ui.statusLabel.text
    widget.ui.editButton.click()
    editor = slicer.modules.segmenteditor.widgetRepresentation().self().editor
    proxy = browser.GetProxyNode(browser.GetMasterSequenceNode())
    assert editor.source is proxy
    assert editor.segmentation is shown_in(session.nodes("vtkMRMLSequenceNode")[1])


def test_cancel_takes_all_frames_back(session, behaving_client, browser, tmp_path) -> None:
    widget = open_with(session, behaving_client, browser, tmp_path, "slow:40")
    before = session.node_ids()
    widget.ui.applyButton.click()
    session.until(lambda: widget._run.poll().done == 2)
    widget.ui.cancelButton.click()
    session.until(lambda: widget._run.finished)
    assert widget.ui.statusLabel.text == "Cancelled"
    assert session.node_ids() == before
    assert browser.GetSelectedItemNumber() == 1


def test_sequence_that_goes_during_the_run_drops_the_results(session, behaving_client, browser, tmp_path) -> None:
    widget = open_with(session, behaving_client, browser, tmp_path, "slow:5000")
    widget.ui.applyButton.click()
    session.until(lambda: widget._run.poll().state == "running")
    session.scene.RemoveNode(browser.GetMasterSequenceNode())
    session.until(lambda: widget._run.finished)
    assert "Cine was removed" in widget.ui.statusLabel.text
    assert session.nodes("vtkMRMLSegmentationNode") == []


def test_frame_that_fails_is_named_and_nothing_is_left(session, behaving_client, browser, tmp_path) -> None:
    frame = browser.GetMasterSequenceNode().GetNthDataNode(2)
    widget = open_with(session, behaving_client, browser, tmp_path, "slow:20")
    before = session.node_ids()
    widget.ui.applyButton.click()
    session.until(lambda: widget._run.poll().done == 1)
    frame.SetAndObserveImageData(None)
    session.until(lambda: widget._run.finished)
    assert "Frame 3 of 4 (time 1 s)" in widget.ui.statusLabel.text
    assert session.node_ids() == before


def test_surfaces_and_probabilities_of_each_frame_come_in_step(session, behaving_client, browser, tmp_path) -> None:
    widget = open_with(session, behaving_client, browser, tmp_path, "threshold")
    widget.ui.probabilitiesCheckBox.click()
    widget.ui.uncertaintyCheckBox.click()
    assert widget.ui.surfacesCheckBox.checked
    run_to_end(widget)
    assert widget._run.error is None
    made = session.nodes("vtkMRMLSequenceNode")[1:]
    names = ["Cine segmentation", "Cine probability of channel 0", "Cine uncertainty"]
    assert [node.GetName() for node in made] == names
    assert all(node.GetNumberOfDataNodes() == FRAMES for node in made)
    segmentation = shown_in(made[0]).GetSegmentation()
    assert segmentation.ContainsRepresentation("Closed surface")
    likely = slicer.util.arrayFromVolume(shown_in(made[1]))
    assert likely.min() < likely.max()
    browser.SetSelectedItemNumber(3)
    assert (slicer.util.arrayFromVolume(shown_in(made[1])) != likely).any()
    assert (slicer.util.arrayFromVolume(shown_in(made[2])) == 0.25).all()
    assert shown_in(made[0]).GetSegmentation().ContainsRepresentation("Closed surface")


def test_sequence_that_no_browser_shows_is_chosen_by_itself(session, behaving_client, browser, tmp_path) -> None:
    sequence = browser.GetMasterSequenceNode()
    proxy = browser.GetProxyNode(sequence)
    session.scene.RemoveNode(browser)
    session.scene.RemoveNode(proxy)
    model = str(write_configs(tmp_path / "threshold", *configs(network_entry("UNet", classes=2))))
    widget = session.open_on(behaving_client, model)
    assert not widget.ui.applyButton.enabled
    widget.ui.inputSequenceSelector.setCurrentNode(sequence)
    assert (widget.ui.applyButton.enabled, widget.ui.inputVolumeSelector.enabled) == (True, False)
    run_to_end(widget)
    assert sequences(session) == ["Cine", "Cine segmentation"]
    assert shown_in(session.nodes("vtkMRMLSequenceNode")[1]).GetSegmentation().GetNumberOfSegments() == 1


def test_sequence_of_other_things_than_images_can_not_be_applied(session) -> None:
    sequence = session.scene.AddNewNodeByClass("vtkMRMLSequenceNode", "Motion")
    transform = session.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    sequence.SetDataNodeAtValue(transform, "0")
    session.add_volume()
    widget = session.open()
    assert widget.ui.applyButton.enabled
    widget.ui.inputSequenceSelector.setCurrentNode(sequence)
    assert not widget.ui.applyButton.enabled
    assert "Motion is no sequence of images" in widget.ui.applyButton.toolTip


def test_console_segments_frames_and_says_which_is_at_fault(session, behaving_client, browser, tmp_path) -> None:
    model = str(write_configs(tmp_path / "threshold", *configs(network_entry("UNet", classes=2))))
    logic = session.logic(behaving_client)
    sequence = browser.GetMasterSequenceNode()
    made: list[Any] = []
    run = logic.segmentSequenceAsync(sequence.GetID(), model, "cpu", table=False, onDone=made.extend)
    session.until(lambda: run.finished)
    assert [node.GetClassName() for node in made] == ["vtkMRMLSequenceNode"]
    sequence.GetNthDataNode(0).SetAndObserveImageData(None)
    with pytest.raises(InputError, match=r"Cine, Frame 1 of 4"):
        logic.segmentSequenceAsync(sequence, model, "cpu")
