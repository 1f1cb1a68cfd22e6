"""MedAIClassify's panel, driven by events: what it asks, runs, shows, and remembers."""

from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from classifier_bundles import CLASSES, DENSENET, classifier_bundle

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)

from standin import ctk
from standin.session import run_to_end

from MedAILib.errors import InputError
from MedAILib.gui.covariates import covariates_of
from MedAILib.scene.position import place_of_slice


@pytest.fixture(scope="module")
def colour(tmp_path_factory: pytest.TempPathFactory) -> str:
    network = DENSENET | {"in_channels": 3}
    return str(classifier_bundle(tmp_path_factory.mktemp("colour"), network, CLASSES, channels=3))


@pytest.fixture
def session(classify_session):
    return classify_session


def add_views(session) -> dict[str, Any]:
    """The three slice views' nodes."""
    views = {}
    for name, orientation in (("Red", "Axial"), ("Yellow", "Sagittal"), ("Green", "Coronal")):
        node = session.scene.AddNewNodeByClass("vtkMRMLSliceNode", name)
        node.SetLayoutName(name)
        node.SetOrientation(orientation)
        views[name] = node
    return views


def test_apply_says_the_answer_and_shows_its_table(session, client, volume_classifier) -> None:
    volume = session.add_volume()
    widget = session.open_on(client, volume_classifier)
    run_to_end(widget)
    (table,) = session.nodes("vtkMRMLTableNode")
    decision = volume.GetAttribute("MedAI.classification.volumes")
    assert widget.ui.statusLabel.text.startswith(f"image: {decision} (")
    assert session.app.applicationLogic().GetSelectionNode().GetActiveTableID() == table.GetID()
    assert widget._parameterNode.result.GetID() == table.GetID()
    assert widget.ui.resultList.count == 1
    assert "Not a medical device" in widget.ui.logText.toPlainText()
    assert session.messages() == []


def test_volume_on_a_model_of_pictures_asks_and_takes_the_slice_shown(session, client, picture_classifier) -> None:
    volume = session.add_volume()
    views = add_views(session)
    widget = session.open_on(client, picture_classifier)
    views["Red"].JumpSliceByCentering(*place_of_slice(volume, "K", 6))
    ctk.answers.append("The slice shown")
    run_to_end(widget)
    assert "Which of its slices?" in session.messages()[0]
    assert widget.ui.statusLabel.text.startswith("slice K 6: ")


def test_volume_on_a_model_of_pictures_asks_and_takes_each_slice(session, client, picture_classifier) -> None:
    session.add_volume()
    widget = session.open_on(client, picture_classifier)
    ctk.answers.append("Each slice")
    run_to_end(widget)
    assert widget.ui.resultList.count == 20
    assert session.app.layoutManager().layout == slicer.vtkMRMLLayoutNode.SlicerLayoutFourUpPlotTableView
    assert set(session.app.applicationLogic().propagated) == {"plot", "table"}


def test_volume_on_a_model_of_pictures_asks_and_does_not_run(session, client, picture_classifier) -> None:
    session.add_volume()
    widget = session.open_on(client, picture_classifier)
    before = session.node_ids()
    ctk.answers.append(False)
    widget.ui.applyButton.click()
    assert (widget.ui.statusLabel.text, widget._run) == ("Not run.", None)
    assert session.node_ids() == before


def test_slices_of_a_view_follow_and_are_followed(session, client, picture_classifier) -> None:
    volume = session.add_volume()
    views = add_views(session)
    widget = session.open_on(client, picture_classifier, part="each slice", view="axial")
    run_to_end(widget)
    (chart,) = session.nodes("vtkMRMLPlotChartNode")
    line = chart.GetNthPlotSeriesNode(3).GetTableNode().GetTable()
    views["Red"].JumpSliceByCentering(*place_of_slice(volume, "K", 9))
    assert line.GetColumn(0).GetValue(0) == pytest.approx(13.5)
    widget.ui.resultList.setCurrentRow(3)
    assert [views["Red"].GetSliceToRAS().GetElement(n, 3) for n in range(3)] == pytest.approx(
        place_of_slice(volume, "K", 3)
    )
    points, selections, series = vtk.vtkIdTypeArray(), vtk.vtkCollection(), vtk.vtkStringArray()
    points.InsertNextValue(12)
    selections.AddItem(points)
    series.InsertNextValue(chart.GetNthPlotSeriesNode(0).GetID())
    session.app.layoutManager().plotWidget(0).plotView().dataSelected.emit(series, selections)
    assert line.GetColumn(0).GetValue(0) == pytest.approx(18.0)


def test_explain_shows_the_map_over_the_image_for_the_class_that_is_picked(session, client, volume_classifier) -> None:
    volume = session.add_volume()
    widget = session.open_on(client, volume_classifier)
    assert [widget.ui.classComboBox.itemText(n) for n in range(4)] == ["The one decided for", *CLASSES]
    widget.ui.classComboBox.currentIndex = 2
    widget.ui.opacitySlider.value = 30
    widget.ui.explainButton.click()
    session.until(lambda: widget._run.finished)
    (saliency,) = [node for node in session.nodes("vtkMRMLScalarVolumeNode") if node is not volume]
    assert saliency.GetAttribute("MedAI.saliency.class_name") == "disc"
    view = session.view
    assert (view.GetBackgroundVolumeID(), view.GetForegroundVolumeID()) == (volume.GetID(), saliency.GetID())
    assert view.GetForegroundOpacity() == pytest.approx(0.3)
    widget.ui.opacitySlider.value = 80
    assert view.GetForegroundOpacity() == pytest.approx(0.8)
    assert session.nodes("vtkMRMLTableNode") == []


def test_answer_is_shown_over_its_own_image_though_another_is_chosen_meanwhile(
    session, client, volume_classifier
) -> None:
    volume, other = session.add_volume("First"), session.add_volume("Other", seed=1)
    widget = session.open_on(client, volume_classifier, inputVolume=volume, method="grad-cam")
    widget.ui.applyButton.click()
    widget.ui.inputVolumeSelector.setCurrentNode(other)
    session.until(lambda: widget._run.finished)
    assert session.view.GetBackgroundVolumeID() == volume.GetID()
    foreground = session.scene.GetNodeByID(session.view.GetForegroundVolumeID())
    assert foreground.GetAttribute("MedAI.saliency.class_name")


def test_answer_comes_though_the_user_has_gone_to_another_module(session, client, volume_classifier) -> None:
    session.add_volume()
    widget = session.open_on(client, volume_classifier, corner=True)
    widget.ui.applyButton.click()
    widget.exit()
    session.until(lambda: widget._run.finished)
    widget.enter()
    assert widget.ui.resultList.count == 1
    assert session.messages() == []


def test_findings_of_a_model_that_segments_are_listed_and_jumped_to(session, client, bright_segmenter) -> None:
    session.add_volume()
    views = add_views(session)
    widget = session.open_on(client, bright_segmenter, smallestML=0.003)
    assert not widget.ui.explainButton.enabled
    assert widget.ui.explanationCollapsibleButton.isHidden()
    run_to_end(widget)
    regions = session.nodes("vtkMRMLMarkupsROINode")
    assert widget.ui.resultList.count == len(regions) > 1
    widget.ui.resultList.setCurrentRow(1)
    center = [0.0] * 3
    regions[1].GetCenterWorld(center)
    assert views["Red"].GetSliceToRAS().GetElement(2, 3) == pytest.approx(center[2])


def test_picture_in_colour_is_one_image(session, client, colour) -> None:
    node = session.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Skin")
    values = np.random.default_rng(0).integers(0, 255, (1, 24, 28, 3)).astype(np.uint8)
    slicer.util.updateVolumeFromArray(node, values)
    widget = session.open_on(client, colour)
    widget.ui.inputVolumeSelector.setCurrentNode(node)
    assert widget.ui.inputVolumeLabel.text == "Picture:"
    assert widget.ui.inputVolume2Selector.isHidden()
    run_to_end(widget)
    assert widget.ui.resultList.count == 1


def test_numbers_are_asked_for_where_the_model_wants_them(session, client, with_numbers, picture_classifier) -> None:
    session.add_volume(shape_kji=(1, 24, 28))
    widget = session.open_on(client, picture_classifier)
    assert widget.ui.covariatesLineEdit.isHidden()
    widget._parameterNode.model = with_numbers
    assert not widget.ui.covariatesLineEdit.isHidden()
    assert widget.ui.covariatesLineEdit.placeholderText == "age=…, sex=…"
    widget.ui.covariatesLineEdit.text = "age=sixty"
    widget.ui.applyButton.click()
    session.until(session.messages)
    assert "The covariate age is 'sixty', which is no number" in session.messages()[0]
    widget.ui.covariatesLineEdit.text = "age = 60, sex=1"
    run_to_end(widget)
    assert len(session.nodes("vtkMRMLTableNode")) == 1


def test_what_is_missing_is_said_before_a_run(session, client, picture_classifier, bright_segmenter) -> None:
    session.add_volume()
    widget = session.open_on(client, picture_classifier, part="a region of interest")
    assert "region of interest" in widget.ui.applyButton.toolTip
    widget._parameterNode.part = "a segment's region"
    assert "segmentation" in widget.ui.applyButton.toolTip
    assert not widget.ui.segmentComboBox.isHidden()
    widget._parameterNode.part = "each frame of a sequence"
    assert "not shown from a sequence" in widget.ui.applyButton.toolTip
    widget._parameterNode.model = bright_segmenter
    assert not widget.ui.applyButton.enabled
    widget._parameterNode.part = "the whole image"
    assert widget.ui.applyButton.enabled


def test_answer_is_written_into_the_slice_views_where_that_is_asked_for_and_stays(
    session, client, volume_classifier
) -> None:
    session.add_volume()
    widget = session.open_on(client, volume_classifier, corner=True)
    run_to_end(widget)
    view = session.app.layoutManager().sliceWidget("Red").sliceView()
    view.move()
    (text,) = session.nodes("vtkMRMLTextNode")
    assert view.cornerAnnotation().GetText(vtk.vtkCornerAnnotation.LowerEdge) == text.GetText().split("\n")[1]
    session.scene.Clear()
    assert not view.cornerAnnotation().GetText(vtk.vtkCornerAnnotation.LowerEdge)


def test_a_panel_that_outlives_the_plot_views_still_leaves_the_worker(
    session, client, volume_classifier, monkeypatch
) -> None:
    session.add_volume()
    widget = session.open_on(client, volume_classifier)
    view = session.app.layoutManager().plotWidget(0).plotView()

    def destroyed(*arguments: object) -> None:
        raise ValueError("Trying to call 'disconnect' on a destroyed qMRMLPlotView object")

    monkeypatch.setattr(type(view), "disconnect", destroyed)
    left = []
    monkeypatch.setattr(widget.logic, "close", lambda: left.append(True))
    widget.cleanup()
    assert left == [True]


def test_saved_scene_restores_what_the_panel_showed(session, client, volume_classifier) -> None:
    session.add_volume("T1")
    widget = session.open_on(
        client, volume_classifier, method="shap", className="disc", part="each slice", opacityPercent=70
    )
    session.save_and_load()
    assert widget._parameterNode.model == volume_classifier
    assert widget.ui.partComboBox.currentText == "each slice"
    assert widget.ui.inputVolumeSelector.currentNode().GetName() == "T1"
    assert widget.ui.methodComboBox.currentText == "shap"
    assert widget.ui.classComboBox.currentText == "disc"
    assert widget.ui.opacitySlider.value == 70


def test_cancelled_run_leaves_the_scene_as_it_was(session, client, volume_classifier) -> None:
    session.add_volume()
    widget = session.open_on(client, volume_classifier, method="shap")
    before = session.node_ids()
    widget.ui.applyButton.click()
    session.until(lambda: widget._run.poll().state == "running")
    widget.ui.cancelButton.click()
    session.until(lambda: widget._run.finished)
    assert session.node_ids() == before
    assert widget.ui.applyButton.enabled


@pytest.mark.parametrize(
    ("line", "says"), [("54", "'54' is no covariate"), ("=3", "'=3' is no covariate"), ("age=", "age is ''")]
)
def test_line_that_names_no_numbers_is_refused(line: str, says: str) -> None:
    with pytest.raises(InputError, match=says):
        covariates_of(line)


def test_line_of_numbers_is_read() -> None:
    assert covariates_of(" age = 54; body mass=21.5,") == {"age": 54.0, "body mass": 21.5}


def test_both_modules_use_one_worker(session, volume_classifier) -> None:
    logic = session.logic()
    other = type(logic)()
    assert logic._shared is other._shared
