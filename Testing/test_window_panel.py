"""MedAISegment's panel: the models to pick from, what is saved with the scene, what every control says of itself."""

import ast
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from bundles import configs, network_entry, write_configs

from MedAILib.gui.devices import device_choices
from MedAILib.worker.status import Device

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)

from standin import qt

ROOT = Path(__file__).parents[1]


def model(folder: Path, name: str, channels: int = 1, **metadata: Any) -> str:
    first, second = configs(network_entry("UNet", classes=3, channels=channels))
    return str(write_configs(folder / name, first | metadata, second))


def rows(widget: Any) -> list[str]:
    """The lines of the list of models at hand that can be seen."""
    items = [widget.ui.modelList.item(row) for row in range(widget.ui.modelList.count)]
    here = [row for row, model in enumerate(widget._picker._entries) if model.offer is None]
    return [item.text() for row, item in enumerate(items) if row in here and not item.isHidden()]


def test_built_in_model_is_chosen_and_described(session) -> None:
    widget = session.open()
    text = widget.ui.modelDetails.toPlainText()
    for part in ("Hippocampus", "Wants a crop", "anterior, posterior", "CC-BY-SA-4.0", "MB", "built in"):
        assert part in text
    assert "built in" in rows(widget)[0]


def test_search_finds_models_by_what_they_find(session, tmp_path) -> None:
    widget = session.open()
    widget._picker.choose(model(tmp_path, "other"))
    assert len(rows(widget)) == 3
    widget.ui.modelSearchBox.text = "posterior hippo"
    assert ["Hippocampus" in row for row in rows(widget)] == [True, True]
    widget.ui.modelSearchBox.text = "part 2"
    assert ["test's model" in row for row in rows(widget)] == [True]
    widget.ui.modelSearchBox.text = ""
    assert len(rows(widget)) == 3


def test_model_in_a_folder_is_opened_and_remembered(session, tmp_path, monkeypatch) -> None:
    folder = model(tmp_path, "mine")
    monkeypatch.setattr(qt.QFileDialog, "getExistingDirectory", lambda parent, title: folder)
    widget = session.open()
    widget.ui.modelFolderButton.click()
    assert widget._parameterNode.model == folder
    assert "A test's model" in widget.ui.modelDetails.toPlainText()


def test_markup_in_a_description_stays_text(session, tmp_path) -> None:
    widget = session.open()
    widget._picker.choose(model(tmp_path, "sly", description="<img src='http://x/y.png'><b>bold</b>"))
    assert "<b>bold</b>" in widget.ui.modelDetails.toPlainText()


def test_model_that_can_not_be_read_says_why_and_can_not_be_applied(session, tmp_path) -> None:
    session.add_volume()
    widget = session.open()
    folder = Path(model(tmp_path, "broken"))
    (folder / "configs" / "metadata.json").write_text("{", encoding="utf-8")
    widget._parameterNode.model = str(folder)
    assert "metadata.json" in widget.ui.modelDetails.toPlainText()
    assert not widget.ui.applyButton.enabled
    assert "can't be read" in widget.ui.applyButton.toolTip


def test_each_channel_of_a_model_has_its_selector(session, tmp_path) -> None:
    first, second = session.add_volume("T1"), session.add_volume("T2", seed=1)
    widget = session.open()
    widget._parameterNode.model = model(tmp_path, "two", channels=2)
    ui = widget.ui
    assert (ui.inputVolumeLabel.text, ui.inputVolume2Label.text) == ("sequence 0:", "sequence 1:")
    assert [ui.inputVolume2Selector.isHidden(), ui.inputVolume3Selector.isHidden()] == [False, True]
    assert not ui.applyButton.enabled
    assert "sequence 1" in ui.applyButton.toolTip
    ui.inputVolume2Selector.setCurrentNode(second)
    assert ui.applyButton.enabled
    assert widget.arguments()["volumeNode"] == [first.GetID(), second.GetID()]


def test_apply_waits_for_an_image(session) -> None:
    widget = session.open()
    assert not widget.ui.applyButton.enabled
    assert "T1w MRI" in widget.ui.applyButton.toolTip
    volume = session.add_volume()
    widget.ui.inputVolumeSelector.setCurrentNode(volume)
    assert widget.ui.applyButton.enabled
    session.scene.RemoveNode(volume)
    session.until(lambda: not widget.ui.applyButton.enabled)


def settings(widget: Any) -> dict[str, Any]:
    arguments = widget.arguments()
    del arguments["volumeNode"], arguments["roiNode"]
    return arguments


def test_saved_scene_restores_what_the_panel_showed(session, tmp_path) -> None:
    volume, other = session.add_volume("T1"), session.add_volume("T2", seed=1)
    roi = session.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "Box")
    widget = session.open()
    ui = widget.ui
    widget._parameterNode.model = model(tmp_path, "two", channels=2)
    ui.inputVolumeSelector.setCurrentNode(other)
    ui.inputVolume2Selector.setCurrentNode(volume)
    ui.roiSelector.setCurrentNode(roi)
    ui.deviceComboBox.currentIndex = 1
    ui.overlapSpinBox.value = 70
    ui.precisionComboBox.currentIndex = 1
    for box in (ui.labelMapCheckBox, ui.tableCheckBox, ui.postprocessCheckBox):
        box.click()
    before = settings(widget)
    assert (before["device"], before["overlap"], before["labelMap"]) == ("cpu", 0.7, True)
    assert before["precision"] == ui.precisionComboBox.currentText == "float32"

    parameters = widget.logic.getParameterNode().parameterNode.GetID()
    text = session.save_and_load()
    assert parameters in text
    assert "overlapPercent" in text
    assert settings(widget) == before
    assert [ui.inputVolumeSelector.currentNode().GetName(), ui.inputVolume2Selector.currentNode().GetName()] == [
        "T2",
        "T1",
    ]
    assert ui.roiSelector.currentNode().GetName() == "Box"
    assert (ui.overlapSpinBox.value, ui.labelMapCheckBox.checked, ui.tableCheckBox.checked) == (70, True, False)


def test_closed_scene_leaves_the_panel_ready_for_the_next(session) -> None:
    session.add_volume()
    widget = session.open()
    session.scene.Clear()
    assert not widget.ui.applyButton.enabled
    widget.ui.inputVolumeSelector.setCurrentNode(session.add_volume("Next"))
    assert widget.ui.applyButton.enabled


def test_panel_that_is_left_and_entered_again_shows_its_parameters(session) -> None:
    session.add_volume()
    widget = session.open()
    widget.exit()
    widget.logic.getParameterNode().labelMap = True
    widget.enter()
    assert widget.ui.labelMapCheckBox.checked


def test_panel_that_is_left_no_longer_changes_its_parameters(session) -> None:
    session.add_volume()
    widget = session.open()
    parameters = widget.logic.getParameterNode()
    for _ in range(3):
        widget.exit()
        widget.enter()
    assert widget.logic.getParameterNode() is parameters
    assert len(parameters._connectors) == 1
    widget.exit()
    widget.ui.labelMapCheckBox.click()
    assert parameters.labelMap is False


def test_diagnostics_are_copied(session) -> None:
    widget = session.open()
    widget.ui.freeMemoryButton.click()
    widget.ui.restartWorkerButton.click()
    widget.ui.copyDiagnosticsButton.click()
    text = qt.QApplication.clipboard().text()
    for part in ("MedAI 0.", "Slicer 5.12", "Python 3.", "Model: hippocampus", "not started yet", "worker was ended"):
        assert part in text


def test_command_of_another_computer_is_kept_and_said(session) -> None:
    widget = session.open()
    line = widget.ui.workerCommandLineEdit
    line.text = "ssh gpu-box /opt/python -m MedAILib.worker.server"
    line.editingFinished.emit()
    assert "Images are sent to gpu-box" in widget.ui.researchUseLabel.text
    assert session.open().ui.workerCommandLineEdit.text == line.text
    line.text = ""
    line.editingFinished.emit()
    assert "sent" not in widget.ui.researchUseLabel.text


def test_command_that_can_not_be_read_is_refused(session) -> None:
    widget = session.open()
    widget.ui.workerCommandLineEdit.text = "ssh 'gpu-box"
    widget.ui.workerCommandLineEdit.editingFinished.emit()
    session.until(session.messages)
    assert "check its quotes" in session.messages()[0]
    assert widget.logic.workerCommand() == ""


def test_device_of_another_computer_is_kept(session) -> None:
    session.add_volume()
    widget = session.open()
    widget._parameterNode.device = "cuda:7"
    assert widget.ui.deviceComboBox.currentText == "cuda:7"
    assert widget.arguments()["device"] == "cuda:7"


def test_devices_are_named_with_their_free_memory_once_the_worker_says_so() -> None:
    assert [name for name, _ in device_choices(2)] == ["auto", "cpu", "cuda:0", "cuda:1"]
    told = [Device("cpu", "CPU", 1, 2), Device("cuda:0", "H200", 139_000_000_000, 141_000_000_000)]
    assert device_choices(2, told)[-1] == ("cuda:0", "cuda:0: H200, 139.0 GB free")


# Labels that say something by themselves.
FREE = ("researchUseLabel", "statusLabel", "workerStateLabel")


@pytest.mark.parametrize("module", ["MedAISegment", "MedAIClassify"])
def test_every_control_has_a_tooltip_and_a_place_in_the_tab_order(module: str) -> None:
    tree = ElementTree.parse(ROOT / module / "Resources" / "UI" / f"{module}.ui")
    apart = ("QLabel", "qMRMLWidget", "ctkCollapsibleButton", "QProgressBar")
    controls = [widget for widget in tree.iter("widget") if widget.get("class") not in apart]
    names = [widget.get("name") for widget in controls]
    without = [w.get("name") for w in controls if not any(p.get("name") == "toolTip" for p in w.findall("property"))]
    assert without == []
    assert [stop.text for stop in tree.iter("tabstop")] == names
    labels = [w for w in tree.iter("widget") if w.get("class") == "QLabel" and w.get("name") not in FREE]
    buddies = {p.findtext("cstring") for w in labels for p in w.findall("property") if p.get("name") == "buddy"}
    assert len(buddies) == len(labels)
    assert buddies <= set(names)


def test_every_text_of_the_window_can_be_found_by_the_translators_tool() -> None:
    """Qt's lupdate reads the argument of `_` and `translate` where it stands, so it has to be a text itself."""
    rooms = (ROOT / "MedAILib" / room for room in ("gui", "runs"))
    files = [*(file for room in rooms for file in room.glob("*.py")), *ROOT.glob("MedAI*/MedAI*.py")]
    calls = [
        (file.name, call)
        for file in files
        for call in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id in ("_", "translate")
    ]
    assert len(calls) > 80
    computed = [(name, call.lineno) for name, call in calls if not isinstance(call.args[-1], ast.Constant)]
    assert computed == []


def test_research_use_is_said_where_it_is_seen(session) -> None:
    widget = session.open()
    assert widget.ui.researchUseLabel.text == "For research use only. Not a medical device."
    assert widget.ui.researchUseLabel.isVisibleTo(widget._uiWidget)
