"""The stand-in for Slicer's window refuses what PythonQt and Slicer don't have, and keeps their manners otherwise."""

import threading
import time
from pathlib import Path
from typing import Annotated

import pytest
import slicer
from patience import until

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)

from standin import parameter_nodes, qt, widgets
from standin.ScriptedLoadableModule import Module
from standin.session import slot_errors

PROPERTY = '<property name="{name}"><bool>true</bool></property>'
UI = f'<ui version="4.0"><widget class="{{cls}}" name="top">{PROPERTY}</widget></ui>'


@pytest.fixture(autouse=True)
def application(session) -> None:
    """Every test runs in a session, which has Qt's application."""


def test_property_is_an_attribute_and_hides_the_method_of_its_name() -> None:
    button = qt.QPushButton("Apply")
    button.enabled = False
    button.name = "applyButton"
    assert (button.text, button.enabled, button.isEnabled(), button.objectName) == (
        "Apply",
        False,
        False,
        "applyButton",
    )


@pytest.mark.parametrize(
    "misuse",
    [
        lambda button: setattr(button, "enabeld", True),
        lambda button: setattr(button, "enabled", None),
        lambda button: setattr(button, "onClick", print),
        lambda button: button.set_text("snake"),
        lambda button: button.nothing,
        lambda button: button.connect("clickd(bool)", print),
        lambda button: button.connect("clicked(QString)", print),
        lambda button: qt.Signal,
        lambda button: qt.qVersion,
        lambda button: setattr(Module("x.py"), "titel", "MedAI"),
    ],
)
def test_what_pythonqt_does_not_have_is_refused(misuse) -> None:
    with pytest.raises(AttributeError):
        misuse(qt.QPushButton("Apply"))


def test_slot_gets_as_many_arguments_as_it_takes() -> None:
    button, got = qt.QPushButton(), []
    button.checkable = True
    button.connect("toggled(bool)", got.append)
    button.toggled.connect(lambda: got.append("none"))
    button.checked = True
    assert got == [True, "none"]
    button.disconnect("toggled(bool)", got.append)
    button.checked = False
    assert got == [True, "none", "none"]


def test_exception_in_a_slot_is_noted_and_does_not_end_the_application() -> None:
    button = qt.QPushButton()
    button.connect("clicked(bool)", lambda: 1 / 0)
    button.click()
    assert [type(error) for error in slot_errors()] == [ZeroDivisionError]


@pytest.mark.parametrize(("cls", "name"), [("QPushButton", "enabeld"), ("ctkUnknownButton", "enabled")])
def test_ui_file_with_unknown_names_is_refused(tmp_path: Path, cls: str, name: str) -> None:
    path = tmp_path / "x.ui"
    path.write_text(UI.format(cls=cls, name=name), encoding="utf-8")
    with pytest.raises((ValueError, AttributeError)):
        slicer.util.loadUI(str(path))


def test_threads_run_only_where_the_main_thread_lets_them() -> None:
    if not qt.keeps_the_lock:
        pytest.skip("Qt's own function can't be called directly here")
    steps, over = [], threading.Event()

    def work() -> None:
        while not over.is_set():
            steps.append(time.monotonic())
            time.sleep(0.001)

    def steps_while_it_waits() -> int:
        before = len(steps)
        qt.QTimer.singleShot(150, lambda: None)
        qt.wait_for_events()
        return len(steps) - before

    let = qt.QTimer()
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    until(lambda: steps)
    assert min(steps_while_it_waits() for _ in range(3)) <= 2
    before = len(steps)
    let.setInterval(5)
    let.connect("timeout()", lambda: time.sleep(0.01))
    let.start()
    qt.process_until(lambda: len(steps) > before + 20)
    let.stop()
    over.set()


def test_node_selector_follows_the_scene(session) -> None:
    selector, got = widgets.qMRMLNodeComboBox(), []
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.connect("currentNodeChanged(vtkMRMLNode*)", got.append)
    selector.setMRMLScene(session.scene)
    assert selector.currentNode() is None
    volume = session.add_volume()
    assert selector.currentNode() is volume
    session.scene.RemoveNode(volume)
    assert selector.currentNode() is None
    assert got == [volume, None]
    selector.setMRMLScene(None)


def test_parameters_live_in_the_scene_and_follow_their_widgets(session) -> None:
    @parameter_nodes.parameterNodeWrapper
    class Parameters:
        count: Annotated[int, parameter_nodes.WithinRange(0, 9)] = 3
        volume: slicer.vtkMRMLScalarVolumeNode

    node = session.scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode")
    parameters = Parameters(node)
    spin = qt.QSpinBox()
    spin.setProperty("SlicerParameterName", "count")
    tag = parameters.connectParametersToGui({})
    assert parameters.connectGui(type("Ui", (), {})()) is None
    assert (parameters.count, node.GetParameter("count"), parameters.volume) == (3, "3", None)
    parameters.disconnectGui(tag)
    ui = type("Ui", (), {})()
    ui.spin = spin
    parameters.connectGui(ui)
    spin.value = 7
    assert parameters.count == 7
    parameters.count = 5
    assert spin.value == 5
    with pytest.raises(ValueError, match="not within"):
        parameters.count = 10
    with pytest.raises(TypeError):
        parameters.count = "5"


def test_parameter_of_a_type_that_slicer_can_not_connect_is_refused(session) -> None:
    @parameter_nodes.parameterNodeWrapper
    class Parameters:
        name: str = ""

    box = qt.QCheckBox()
    box.setProperty("SlicerParameterName", "name")
    ui = type("Ui", (), {})()
    ui.box = box
    parameters = Parameters(session.scene.AddNewNodeByClass("vtkMRMLScriptedModuleNode"))
    with pytest.raises(RuntimeError, match="connects no"):
        parameters.connectGui(ui)
