"""Results as nodes of a real scene: what they hold, where they lie, and that failures leave none behind."""

import numpy as np
import pytest
import slicer
import vtk
from mrml import mask_of
from vtk.util.numpy_support import vtk_to_numpy

import MedAILib.scene.write
from MedAILib.errors import InputError
from MedAILib.results import Code, Label, Segmentation, Terminology
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.scene.write import Outputs, write_result
from MedAILib.statistics import segment_statistics
from MedAILib.volume import Geometry, Volume

SHAPE = (6, 7, 8)
GRID = Geometry(SHAPE, np.array([[-0.8, 0.6, 0, 10], [-0.6, -0.8, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]]))
HIPPOCAMPUS = Terminology(
    Code("SCT", "123037004", "Anatomical Structure"),
    Code("SCT", "5366008", "Hippocampus"),
    Code("SCT", "24028007", "Right"),
)
LABELS = (
    Label(1, "hippocampus", (0.2, 0.4, 0.6), HIPPOCAMPUS),
    Label(2, "not there", (1.0, 0.0, 0.0)),
    Label(300, "plain"),
    Label(1000, "other"),
)
EVERYTHING = Outputs(label_map=True, probabilities=True, surfaces=True)


@pytest.fixture
def source(scene):
    image = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    return add_volume_nodes(scene, Volume(image[None], GRID, "brain"))[0]


def labels_array():
    labels = np.zeros(SHAPE, np.uint16)
    labels[1:3, 1:3, 1:3], labels[3:5, 3:6, 2:6], labels[5, 6, 7] = 1, 300, 1000
    return labels


@pytest.fixture
def result():
    background = (labels_array() == 0).astype(np.float32)
    return Segmentation(
        labels_array()[None],
        LABELS,
        GRID,
        np.stack([background, 1 - background]),
        ("background", "anything"),
        {"model": "finder", "version": "1.2", "sha256": "abc"},
    )


def of_class(nodes, class_name):
    return [node for node in nodes if node.GetClassName() == class_name]


def column(table, title):
    values = table.GetTable().GetColumnByName(title)
    return [values.GetValue(row) for row in range(values.GetNumberOfValues())]


def test_segments_have_exactly_their_voxels(source, result):
    node = write_result(result, source, Outputs())[0]
    for label in (LABELS[0], LABELS[2], LABELS[3]):
        assert (mask_of(node, f"Segment_{label.value}", SHAPE) == (labels_array() == label.value)).all()


def test_labels_not_found_get_no_segment(source, result):
    segmentation = write_result(result, source, Outputs())[0].GetSegmentation()
    assert list(segmentation.GetSegmentIDs()) == ["Segment_1", "Segment_300", "Segment_1000"]


def test_segments_keep_name_value_and_colour(source, result):
    segment = write_result(result, source, Outputs())[0].GetSegmentation().GetSegment("Segment_1")
    assert (segment.GetName(), segment.GetLabelValue()) == ("hippocampus", 1)
    assert np.allclose(segment.GetColor(), (0.2, 0.4, 0.6))


def test_labels_without_colour_get_different_ones(source):
    labels = tuple(Label(value, f"label {value}") for value in range(1, 101))
    voxels = np.zeros(SHAPE, np.uint8)
    voxels.ravel()[:100] = range(1, 101)
    segmentation = write_result(Segmentation(voxels[None], labels, GRID), source, Outputs())[0].GetSegmentation()
    colors = {tuple(np.round(np.multiply(segmentation.GetNthSegment(n).GetColor(), 255))) for n in range(100)}
    assert len(colors) == 100


def test_colours_come_from_the_generic_colours_of_slicer_where_these_are_loaded(scene, source, result):
    table = slicer.vtkMRMLColorTableNode()
    table.SetTypeToUser()
    table.SetNumberOfColors(3)
    table.SetColor(1, "one", 0.2, 0.4, 0.6)
    table.SetColor(2, "two", 0.1, 0.9, 0.3)
    table.SetSingletonTag("FileGenericColors.txt")
    assert scene.AddNode(table).GetID() == "vtkMRMLColorTableNodeFileGenericColors.txt"
    segmentation = write_result(result, source, Outputs())[0].GetSegmentation()
    assert np.allclose(segmentation.GetSegment("Segment_300").GetColor(), (0.1, 0.9, 0.3), atol=0.003)


def test_terminology_reads_back_in_slicer(source, result):
    segmentation = write_result(result, source, Outputs())[0].GetSegmentation()
    text = segmentation.GetSegment("Segment_1").GetTerminology()
    entry = slicer.vtkSlicerTerminologyEntry()
    assert slicer.vtkSlicerTerminologiesModuleLogic().DeserializeTerminologyEntry(text, entry)
    assert entry.GetCategoryObject().GetCodeValue() == "123037004"
    assert entry.GetTypeObject().GetCodeValue() == "5366008"
    assert entry.GetTypeObject().GetCodeMeaning() == "Hippocampus"
    assert entry.GetTypeModifierObject().GetCodeValue() == "24028007"


def test_label_without_codes_is_tissue(source, result):
    segment = write_result(result, source, Outputs())[0].GetSegmentation().GetSegment("Segment_300")
    assert "SCT^85756007^Tissue~SCT^85756007^Tissue" in segment.GetTerminology()


def test_overlapping_labels_keep_their_voxels(source):
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, 1:5], layers[1, 2:3, 2:4] = 1, 1
    labels = (Label(1, "organ"), Label(1, "tumour", layer=1))
    node = write_result(Segmentation(layers, labels, GRID), source, Outputs())[0]
    assert node.GetSegmentation().GetNumberOfLayers() == 2
    assert (mask_of(node, "Segment_1", SHAPE) == layers[0]).all()
    assert (mask_of(node, "Segment_1_1", SHAPE) == layers[1]).all()


def test_source_is_the_reference_geometry(source, result):
    node = write_result(result, source, Outputs())[0]
    role = node.GetReferenceImageGeometryReferenceRole()
    assert node.GetNodeReference(role) is source
    assert node.GetSegmentation().GetConversionParameter("Reference image geometry")


def test_editing_a_segment_leaves_the_result_alone(source, result):
    node = write_result(result, source, Outputs())[0]
    image = node.GetBinaryLabelmapInternalRepresentation("Segment_1")
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = 0
    assert (result.layers[0] == labels_array()).all()


def test_slicer_can_change_one_segment_of_a_shared_image(source, result):
    node = write_result(result, source, Outputs())[0]
    image = slicer.vtkOrientedImageData()
    node.GetBinaryLabelmapRepresentation("Segment_1", image)
    vtk_to_numpy(image.GetPointData().GetScalars())[:] = 1
    image.Modified()
    before = mask_of(node, "Segment_300", SHAPE)
    slicer.vtkSlicerSegmentationsModuleLogic.SetBinaryLabelmapToSegment(image, node, "Segment_1")
    assert (mask_of(node, "Segment_300", SHAPE) == before).all()


def test_removing_a_segment_leaves_the_others(source, result):
    node = write_result(result, source, Outputs())[0]
    node.GetSegmentation().RemoveSegment("Segment_1")
    assert (mask_of(node, "Segment_300", SHAPE) == (labels_array() == 300)).all()


def test_label_map_keeps_values_names_and_colours(source, result):
    nodes = write_result(result, source, Outputs(label_map=True))
    node = of_class(nodes, "vtkMRMLLabelMapVolumeNode")[0]
    voxels = vtk_to_numpy(node.GetImageData().GetPointData().GetScalars()).reshape(SHAPE)
    assert (voxels == labels_array()).all()
    table = node.GetDisplayNode().GetColorNode()
    assert table in nodes
    assert [table.GetColorName(value) for value in (1, 2, 300, 1000)] == [label.name for label in LABELS]
    rgba = [0.0] * 4
    table.GetColor(1, rgba)
    assert np.allclose(rgba, (0.2, 0.4, 0.6, 1.0))


def test_overlapping_labels_become_a_label_map_for_each_layer(source):
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, 1:5], layers[1, 2:3] = 1, 1
    labels = (Label(1, "organ"), Label(1, "tumour", layer=1))
    nodes = write_result(Segmentation(layers, labels, GRID), source, Outputs(label_map=True))
    names = [
        node.GetDisplayNode().GetColorNode().GetColorName(1) for node in of_class(nodes, "vtkMRMLLabelMapVolumeNode")
    ]
    assert names == ["organ", "tumour"]


def test_probabilities_become_volumes(source, result):
    nodes = of_class(write_result(result, source, Outputs(probabilities=True)), "vtkMRMLScalarVolumeNode")
    assert [node.GetName() for node in nodes] == [
        "brain finder probability of background",
        "brain finder probability of anything",
    ]
    voxels = vtk_to_numpy(nodes[1].GetImageData().GetPointData().GetScalars()).reshape(SHAPE)
    assert voxels.dtype == np.float32
    assert (voxels == (labels_array() > 0)).all()


def test_surfaces_are_made_when_asked_for(source, result):
    segmentation = write_result(result, source, Outputs(surfaces=True))[0].GetSegmentation()
    assert segmentation.GetSegment("Segment_300").GetRepresentation("Closed surface").GetNumberOfPoints() > 0


def test_no_surfaces_are_made_otherwise(source, result):
    assert not write_result(result, source, Outputs())[0].GetSegmentation().ContainsRepresentation("Closed surface")


def test_statistics_that_were_counted_before_are_taken_over(source, result):
    image = Volume(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(1, *SHAPE), GRID)
    counted = segment_statistics(result, image)
    nodes = [write_result(result, source, Outputs(), statistics=rows) for rows in (None, counted)]
    ids = [list(segmentation.GetSegmentation().GetSegmentIDs()) for segmentation, _ in nodes]
    assert ids[0] == ids[1] == ["Segment_1", "Segment_300", "Segment_1000"]
    for title in ("Segment", "Voxels", "Volume [mL]", "Mean", "Maximum"):
        assert str(column(nodes[0][1], title)) == str(column(nodes[1][1], title))


def test_table_lists_every_label(source, result):
    table = of_class(write_result(result, source, Outputs()), "vtkMRMLTableNode")[0]
    assert column(table, "Segment") == [label.name for label in LABELS]
    assert table.GetColumnTitle("Volume [mL]") == "Volume [mL]"
    assert column(table, "Voxels") == [8, 0, 24, 1]
    assert column(table, "Volume [mL]") == pytest.approx([0.024, 0, 0.072, 0.003])
    inside = np.arange(np.prod(SHAPE)).reshape(SHAPE)[labels_array() == 300]
    numbers = [column(table, title)[2] for title in ("Mean", "SD", "Minimum", "Maximum")]
    assert numbers == pytest.approx([inside.mean(), inside.std(), inside.min(), inside.max()])
    assert np.isnan(column(table, "Mean")[1])


def test_every_node_lies_under_the_parent_transform_of_the_source(scene, source, result):
    parent = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    source.SetAndObserveTransformNodeID(parent.GetID())
    nodes = [n for n in write_result(result, source, EVERYTHING) if n.IsA("vtkMRMLTransformableNode")]
    assert len(nodes) == 4
    assert all(node.GetParentTransformNode() is parent for node in nodes)


def test_every_node_carries_the_provenance(source, result):
    for node in write_result(result, source, EVERYTHING):
        assert node.GetAttribute("MedAI.model") == "finder"
        assert node.GetAttribute("MedAI.sha256") == "abc"


def test_names_tell_source_and_model_and_are_unique(source, result):
    names = [node.GetName() for _ in range(2) for node in write_result(result, source, Outputs())]
    assert names[0] == "brain finder segmentation"
    assert len(set(names)) == 4


def test_name_can_be_given(source, result):
    assert write_result(result, source, Outputs(), name="Mine")[0].GetName() == "Mine segmentation"


def test_nodes_join_the_study_of_the_source(scene, source, result):
    hierarchy = scene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.CreateItem(study, source)
    for node in write_result(result, source, Outputs()):
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == study


def test_source_without_hierarchy_item_is_fine(scene, source, result):
    node = write_result(result, source, Outputs())[0]
    assert scene.GetSubjectHierarchyNode().GetItemByDataNode(node) == 0


def test_nothing_found_gives_an_empty_segmentation(source):
    nodes = write_result(Segmentation(np.zeros((1, *SHAPE), np.uint8), LABELS[:2], GRID), source, Outputs())
    assert nodes[0].GetSegmentation().GetNumberOfSegments() == 0
    assert column(nodes[1], "Voxels") == [0, 0]


def test_only_what_is_asked_for_is_made(source, result):
    nodes = write_result(result, source, Outputs(segmentation=False, table=False, label_map=True))
    assert [node.GetClassName() for node in nodes] == ["vtkMRMLColorTableNode", "vtkMRMLLabelMapVolumeNode"]


def refuse(scene, source, result, outputs, match):
    before = scene.GetNumberOfNodes()
    with pytest.raises(InputError, match=match):
        write_result(result, source, outputs)
    assert scene.GetNumberOfNodes() == before


def test_source_that_left_the_scene_is_refused(scene, source, result):
    scene.RemoveNode(source)
    refuse(scene, source, result, Outputs(), "brain is not in a scene")


def test_source_whose_grid_changed_is_refused(scene, source, result):
    matrix = vtk.vtkMatrix4x4()
    source.SetIJKToRASMatrix(matrix)
    refuse(scene, source, result, Outputs(), "brain has another grid")


def test_probabilities_that_the_result_lacks_are_refused(scene, source):
    result = Segmentation(labels_array()[None], LABELS, GRID)
    refuse(scene, source, result, Outputs(probabilities=True), "no probabilities")


def test_surfaces_without_segmentation_are_refused():
    with pytest.raises(InputError, match="Surfaces"):
        Outputs(segmentation=False, surfaces=True)


def test_failure_half_way_leaves_no_node_and_no_hierarchy_item(scene, source, result, monkeypatch):
    hierarchy = scene.GetSubjectHierarchyNode()
    hierarchy.CreateItem(hierarchy.GetSceneItemID(), source)
    made: list[str] = []

    def fail(_node, _rows):
        made.extend(scene.GetNthNode(n).GetName() for n in range(scene.GetNumberOfNodes()))
        raise MemoryError

    monkeypatch.setattr(MedAILib.scene.write, "fill_statistics", fail)
    before = scene.GetNumberOfNodes()
    with pytest.raises(MemoryError):
        write_result(result, source, EVERYTHING)
    assert "brain finder segmentation" in made
    assert scene.GetNumberOfNodes() == before
    assert hierarchy.GetNumberOfItems() == 1
