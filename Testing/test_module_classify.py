"""MedAIClassify.py, the real file, from nodes of a real scene through the real worker to nodes in the scene."""

from pathlib import Path

import numpy as np
import pytest
import slicer
import slicer.util
import vtk
from classifier_bundles import CLASSES
from mrml import to_vtk
from vtk.util.numpy_support import vtk_to_numpy

from MedAILib.errors import InputError
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.position import follow_views, place_of_slice, shown_slice, spots_of
from MedAILib.scene.storage import load_scene, save_scene

pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)

from standin.loading import imported_by_panel


@pytest.fixture
def session(classify_session):
    return classify_session


def classes_of(nodes: list[slicer.vtkMRMLNode]) -> set[str]:
    return {node.GetClassName() for node in nodes}


def add_picture(session, name: str = "Scan", components: int = 1, seed: int = 0) -> slicer.vtkMRMLScalarVolumeNode:
    """One slice of noise, grey or in colour."""
    if components == 1:
        return session.add_volume(name, seed=seed, shape_kji=(1, 24, 28))
    node = session.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", name)
    colour = np.random.default_rng(seed).integers(0, 255, (1, 24, 28, components)).astype(np.uint8)
    slicer.util.updateVolumeFromArray(node, colour)
    return node


def column(table: slicer.vtkMRMLTableNode, name: str) -> list[str]:
    values = table.GetTable().GetColumnByName(name)
    return [values.GetVariantValue(row).ToString() for row in range(values.GetNumberOfValues())]


def test_volume_is_classified_into_a_table_a_text_and_a_note(session, client, volume_classifier) -> None:
    volume = session.add_volume()
    table, text = session.logic(client).classify(volume, model=volume_classifier, device="cpu")
    assert column(table, "Class") == CLASSES
    assert sum(float(x) for x in column(table, "Probability")) == pytest.approx(1)
    assert "Not a medical device" in text.GetText()
    assert volume.GetAttribute("MedAI.classification.volumes") in CLASSES
    assert table.GetAttribute("MedAI.sha256")


def test_slices_give_a_plot_whose_line_follows_the_views(session, client, picture_classifier) -> None:
    volume = session.add_volume()
    nodes = session.logic(client).classify(volume, picture_classifier, "cpu", slices="K")
    (chart,) = [node for node in nodes if node.IsA("vtkMRMLPlotChartNode")]
    line = chart.GetNthPlotSeriesNode(3).GetTableNode().GetTable()
    view = session.scene.AddNewNodeByClass("vtkMRMLSliceNode", "Red")
    place = place_of_slice(volume, "K", 7)
    view.JumpSliceByCentering(*place)
    assert shown_slice(volume, "K") == 7
    follow_views(session.scene)
    assert [line.GetColumn(0).GetValue(row) for row in range(2)] == pytest.approx([10.5, 10.5])
    spots = spots_of(nodes[0])
    assert len(spots) == 20
    assert spots[7].place_ras == pytest.approx(place)
    assert spots[7].text.startswith("slice K 7: ")


def test_one_slice_is_the_row_of_each_slice(session, client, picture_classifier) -> None:
    volume, logic = session.add_volume(), session.logic(client)
    one = logic.classify(volume, picture_classifier, "cpu", slices=("J", 5))[0]
    each = logic.classify(volume, picture_classifier, "cpu", slices="J")[0]
    assert column(one, "Probability") == column(each, "Probability")[15:18]


def test_volume_on_a_model_of_pictures_is_refused_with_what_to_do(session, client, picture_classifier) -> None:
    before_nodes = session.node_ids()
    volume = session.add_volume()
    with pytest.raises(InputError, match="choose one slice, or each slice"):
        session.logic(client).classify(volume, picture_classifier, "cpu")
    session.scene.RemoveNode(volume)
    assert session.node_ids() == before_nodes


def test_picture_in_colour_is_converted_for_a_grey_model_and_that_is_said(
    session, client, picture_classifier, caplog
) -> None:
    nodes = session.logic(client).classify(add_picture(session, components=3), picture_classifier, "cpu")
    assert "converted to grey" in caplog.text
    assert classes_of(nodes) == {"vtkMRMLTableNode", "vtkMRMLTextNode"}


def test_region_and_segment_are_looked_at_alone(session, client, volume_classifier) -> None:
    volume, logic = session.add_volume(), session.logic(client)
    matrix = vtk.vtkMatrix4x4()
    volume.GetIJKToRASMatrix(matrix)
    segmentation = session.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Regions")
    segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    mask = np.zeros((20, 24, 28), np.uint8)
    mask[4:16, 5:20, 6:24] = 1
    image = slicer.vtkOrientedImageData()
    image.SetDimensions(28, 24, 20)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = mask.ravel()
    image.SetGeometryFromImageToWorldMatrix(matrix)
    segmentation.AddSegmentFromBinaryLabelmapRepresentation(image, "liver")
    (segment,) = segmentation.GetSegmentation().GetSegmentIDs()
    inside = logic.classify(volume, volume_classifier, "cpu", segmentationNode=segmentation, segmentID=segment)[0]
    slicer.util.arrayFromVolume(volume)[mask == 0] = 99
    volume.GetImageData().Modified()
    again = logic.classify(volume, volume_classifier, "cpu", segmentationNode=segmentation, segmentID=segment)[0]
    assert column(again, "Probability") == column(inside, "Probability")
    roi = session.scene.AddNewNodeByClass("vtkMRMLMarkupsROINode")
    roi.SetCenter(matrix.MultiplyPoint((14, 12, 10, 1))[:3])
    roi.SetSize(14, 14, 14)
    assert column(logic.classify(volume, volume_classifier, "cpu", roiNode=roi)[0], "Class") == CLASSES
    with pytest.raises(InputError, match="which of its segments"):
        logic.classify(volume, volume_classifier, "cpu", segmentationNode=segmentation)


def test_each_frame_of_a_sequence_has_its_row(session, client, picture_classifier) -> None:
    sequence = session.add_sequence([(1, 24, 20)] * 3)
    nodes = session.logic(client).classify(sequence, picture_classifier, "cpu", eachFrame=True)
    assert column(nodes[0], "Place")[::3] == ["frame 0", "frame 1", "frame 2"]
    assert "vtkMRMLPlotChartNode" in classes_of(nodes)


def test_sequence_of_mixed_sizes_is_refused(session, client, picture_classifier) -> None:
    sequence = session.add_sequence([(1, 24, 20), (1, 24, 20), (1, 20, 20)])
    with pytest.raises(InputError, match=r"Frame 2 of Cine has .* a sequence has frames of one size"):
        session.logic(client).classify(sequence, picture_classifier, "cpu", eachFrame=True)


def add_numbers(session, age: str) -> slicer.vtkMRMLTableNode:
    node = session.scene.AddNewNodeByClass("vtkMRMLTableNode", "Patients")
    for name, values in (("age", ("30", age)), ("sex", ("0", "1"))):
        array = vtk.vtkStringArray()
        array.SetName(name)
        for value in values:
            array.InsertNextValue(value)
        node.AddColumn(array)
    return node


def test_covariates_come_from_a_row_of_a_table_or_by_hand(session, client, with_numbers) -> None:
    picture, logic = add_picture(session), session.logic(client)
    table = add_numbers(session, "64")
    rows = [
        logic.classify(picture, with_numbers, "cpu", covariatesTable=table, covariatesRow=1)[0],
        logic.classify(picture, with_numbers, "cpu", covariates={"age": 64.0, "sex": 1.0})[0],
        logic.classify(picture, with_numbers, "cpu", covariates={"age": 30.0}, covariatesTable=table, covariatesRow=1)[
            0
        ],
    ]
    first, second, third = (column(row, "Probability") for row in rows)
    assert first == second != third


def test_missing_and_wordy_covariates_are_refused_in_a_sentence(session, client, with_numbers) -> None:
    picture, logic = add_picture(session), session.logic(client)
    with pytest.raises(InputError, match="also wants numbers beside the image; sex is missing"):
        logic.classify(picture, with_numbers, "cpu", covariates={"age": 64})
    with pytest.raises(InputError, match="The covariate age in Patients is 'old', which is no number"):
        logic.classify(picture, with_numbers, "cpu", covariatesTable=add_numbers(session, "old"), covariatesRow=1)


def test_explanation_is_a_volume_on_the_image_and_nothing_else(session, client, volume_classifier) -> None:
    volume = session.add_volume()
    before = set(session.node_ids())
    saliency, colors = session.logic(client).explain(volume, volume_classifier, "disc", device="cpu")
    assert {saliency.GetID(), colors.GetID()} == {
        node_id for node_id in session.node_ids() if node_id not in before and "Display" not in node_id
    }
    assert saliency.GetImageData().GetDimensions() == volume.GetImageData().GetDimensions()
    assert saliency.GetAttribute("MedAI.saliency.class_name") == "disc"
    assert volume.GetAttribute("MedAI.classification.volumes") is None


def test_class_that_the_model_does_not_know_is_refused(session, client, volume_classifier) -> None:
    with pytest.raises(InputError, match=r"knows no class cat; .* square, disc, none"):
        session.logic(client).explain(session.add_volume(), volume_classifier, "cat", device="cpu")


def test_findings_are_regions_in_a_table_that_knows_their_places(session, client, bright_segmenter) -> None:
    volume = session.add_volume()
    parent = session.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    parent.SetMatrixTransformToParent(to_vtk(np.diag([1, 1, 1, 1]) + np.eye(4, k=3) * 30))
    volume.SetAndObserveTransformNodeID(parent.GetID())
    table, *regions = session.logic(client).detect(volume, bright_segmenter, "cpu", smallestML=0.003)
    assert len(regions) == table.GetTable().GetNumberOfRows() > 0
    spots = spots_of(table)
    center = [0.0] * 3
    for spot, region in zip(spots, regions, strict=True):
        region.GetCenterWorld(center)
        assert spot.place_ras == pytest.approx(center)
    session.scene.RemoveNode(regions[0])
    assert spots_of(table)[0].place_ras is None
    fewer = session.logic(client).detect(volume, bright_segmenter, "cpu", smallestML=0.01)
    assert len(fewer) < len(regions) + 1


def test_wrong_task_is_said(session, client, bright_segmenter, volume_classifier) -> None:
    with pytest.raises(InputError, match="does not classify"):
        session.logic(client).classify(session.add_volume(), bright_segmenter, "cpu")
    with pytest.raises(ValueError, match="classifies images"):
        session.logic(client).detect(session.add_volume(), volume_classifier, "cpu")


def test_volume_removed_during_a_run_drops_the_answer(session, client, volume_classifier) -> None:
    before = session.node_ids()
    volume, done, errors = session.add_volume(), [], []
    run = session.logic(client).classifyAsync(
        volume, volume_classifier, "cpu", onDone=done.append, onError=errors.append
    )
    session.scene.RemoveNode(volume)
    session.until(lambda: run.finished)
    assert "Head was removed from the scene" in str(errors[0])
    assert (done, session.node_ids()) == ([], before)


def test_scene_closed_during_an_explanation_drops_the_map(session, client, volume_classifier) -> None:
    done, errors = [], []
    run = session.logic(client).explainAsync(
        session.add_volume(), volume_classifier, "disc", "shap", "cpu", onDone=done.append, onError=errors.append
    )
    session.scene.Clear()
    session.until(lambda: run.finished)
    assert (len(errors), done) == (1, [])
    assert session.nodes("vtkMRMLScalarVolumeNode") == []


def test_answers_survive_saving_and_opening(session, client, picture_classifier, bright_segmenter, tmp_path) -> None:
    volume, logic = session.add_volume(), session.logic(client)
    logic.classify(volume, picture_classifier, "cpu", slices="K", method="grad-cam", className="disc")
    logic.detect(volume, bright_segmenter, "cpu")
    places = [[spot for spot in spots_of(node) if spot.place_ras] for node in session.nodes("vtkMRMLTableNode")]
    save_scene(session.scene, tmp_path / "scene.mrb")
    with headless_scene() as owner:
        load_scene(owner.scene, tmp_path / "scene.mrb")
        tables = [owner.scene.GetNthNodeByClass(n, "vtkMRMLTableNode") for n in range(len(places))]
        for table, before in zip(tables, places, strict=True):
            after = [spot for spot in spots_of(table) if spot.place_ras]
            assert [spot.text for spot in after] == [spot.text for spot in before]
            for one, other in zip(after, before, strict=True):
                assert one.place_ras == pytest.approx(other.place_ras, abs=1e-3)
        chart = owner.scene.GetFirstNodeByClass("vtkMRMLPlotChartNode")
        assert chart.GetNthPlotSeriesNode(3).GetTableNode().GetAttribute("MedAI.position_axis") == "K"


def test_module_says_what_it_is_for(session) -> None:
    parent = session.descriptor
    assert (parent.title, parent.categories) == ("MedAI Classify", ["Quantification"])
    assert "Not a medical device" in parent.helpText


def test_slicers_process_never_imports_torch(tmp_path: Path) -> None:
    assert not imported_by_panel("MedAIClassify", tmp_path) & {"torch", "monai", "captum", "SimpleITK", "pydicom"}


def test_modules_own_test_passes(session) -> None:
    session.module.MedAIClassifyTest().runTest()
