"""Results in segmentations that are there already: placed in the world, beside segments that stay as they are."""

import numpy as np
import pytest
import slicer
from mrml import add_volume, digest, put_under, rotation, segment_points_in_world, to_world

import MedAILib.scene.write
from MedAILib.errors import InputError
from MedAILib.results import Label, Segmentation
from MedAILib.scene.segments import BINARY_LABELMAP
from MedAILib.scene.storage import save_segmentation
from MedAILib.scene.write import Outputs, write_result
from MedAILib.volume import Geometry

SHAPE = (10, 11, 12)
GRID = Geometry(SHAPE, rotation((0, 0, 1), 30) @ np.diag([-0.8, 0.8, 1.5, 1.0]))
LABELS = (Label(1, "liver", (0.2, 0.4, 0.6)), Label(2, "spleen"))
REFERENCE = slicer.vtkSegmentationConverter.GetReferenceImageGeometryParameterName()


def labels():
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[1:5, 2:6, 2:7], voxels[6:9, 6:9, 7:11] = 1, 2
    return voxels


@pytest.fixture
def result():
    return Segmentation(labels()[None], LABELS, GRID, provenance={"model": "finder", "note": "a|b\nc"})


@pytest.fixture
def source(scene):
    return add_volume(scene, np.zeros(SHAPE, np.int16), GRID.ijk_to_ras)


@pytest.fixture
def existing(scene):
    """A segmentation with a liver and surfaces, of another image on another grid."""
    other = add_volume(scene, np.zeros((5, 6, 7), np.int16), np.diag([2.0, 2.0, 2.0, 1.0]), "other")
    voxels = np.zeros((1, 5, 6, 7), np.uint8)
    voxels[0, 1:4, 1:4, 1:4] = 7
    result = Segmentation(voxels, (Label(7, "liver", (1.0, 0.0, 0.0)),), Geometry((5, 6, 7), np.diag([2, 2, 2, 1])))
    return write_result(result, other, Outputs(surfaces=True, table=False))[0]


def put_into(node, result, source, **outputs):
    return write_result(result, source, Outputs(into=node.GetID(), **outputs))


def in_world(source, value):
    """World positions of a label's voxels, from the image alone."""
    ijk = np.argwhere(labels() == value)[:, ::-1]
    return (to_world(source) @ GRID.ijk_to_ras @ np.c_[ijk, np.ones(len(ijk))].T)[:3].T


def names(node):
    segmentation = node.GetSegmentation()
    return [segmentation.GetNthSegment(n).GetName() for n in range(segmentation.GetNumberOfSegments())]


def test_segments_come_beside_those_that_are_there(existing, result, source):
    nodes = put_into(existing, result, source)
    assert nodes[0] is existing
    assert [node.GetClassName() for node in nodes] == ["vtkMRMLSegmentationNode", "vtkMRMLTableNode"]
    assert list(existing.GetSegmentation().GetSegmentIDs()) == ["Segment_7", "Segment_1", "Segment_2"]
    assert existing.GetScene().GetNumberOfNodesByClass("vtkMRMLSegmentationNode") == 1


def test_names_that_are_taken_get_a_number(existing, result, source):
    for _ in range(2):
        put_into(existing, result, source)
    assert names(existing) == ["liver", "liver_1", "spleen", "liver_2", "spleen_1"]
    assert len(set(existing.GetSegmentation().GetSegmentIDs())) == 5


def test_other_segments_stay_as_they_are(existing, result, source):
    before = digest(existing.GetScene())[existing.GetID()]
    put_into(existing, result, source)
    assert digest(existing.GetScene())[existing.GetID()][: len(before)] == before


def test_reference_geometry_and_reference_image_stay(existing, result, source):
    role = existing.GetReferenceImageGeometryReferenceRole()
    before = existing.GetSegmentation().GetConversionParameter(REFERENCE), existing.GetNodeReferenceID(role)
    put_into(existing, result, source)
    assert (existing.GetSegmentation().GetConversionParameter(REFERENCE), existing.GetNodeReferenceID(role)) == before


def test_new_segments_have_surfaces_where_the_others_have(existing, result, source):
    put_into(existing, result, source)
    assert existing.GetSegmentation().GetSegment("Segment_2").GetRepresentation("Closed surface").GetNumberOfPoints()


def test_empty_segmentation_takes_the_grid_of_the_source(scene, result, source):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    put_into(node, result, source)
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is source
    assert node.GetSegmentation().GetConversionParameter(REFERENCE)
    assert (node.GetName(), names(node)) == ("mine", ["liver", "spleen"])
    assert node.GetDisplayNode() is not None


TILT = rotation((1, 2, 3), 40)
SHIFT = np.array([[1, 0, 0, 30], [0, 1, 0, -20], [0, 0, 1, 5], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("source_parents", "node_parents"),
    [([], []), ([TILT], []), ([], [TILT, SHIFT]), ([SHIFT @ TILT], [TILT]), ([np.diag([2, 2, 2, 1.0])], [SHIFT])],
)
def test_every_voxel_lies_in_the_world_where_it_was(existing, result, source, source_parents, node_parents):
    put_under(source.GetScene(), source, source_parents)
    put_under(source.GetScene(), existing, node_parents)
    put_into(existing, result, source)
    for value in (1, 2):
        found = segment_points_in_world(existing, f"Segment_{value}")
        assert np.allclose(found, in_world(source, value), atol=1e-4)


def test_sheared_against_each_other_is_resampled_to_the_right_place(existing, result, source):
    put_under(source.GetScene(), source, [np.diag([1.0, 1.6, 0.8, 1.0]) @ TILT])
    put_into(existing, result, source)
    whole = to_world(source) @ GRID.ijk_to_ras
    for value in (1, 2):
        found, truth = segment_points_in_world(existing, f"Segment_{value}"), in_world(source, value)
        ijk = np.rint((np.linalg.inv(whole) @ np.c_[found, np.ones(len(found))].T)[:3].T).astype(int)
        assert (labels()[tuple(ijk[:, ::-1].T)] == value).all()
        image = existing.GetBinaryLabelmapInternalRepresentation(f"Segment_{value}")
        volume = len(found) * np.prod(image.GetSpacing())
        assert volume == pytest.approx(len(truth) * abs(np.linalg.det(whole)), rel=0.15)


def warp(scene):
    transform = slicer.vtkOrientedGridTransform()
    node = scene.AddNewNodeByClass("vtkMRMLGridTransformNode", "warp")
    node.SetAndObserveTransformToParent(transform)
    return node


def test_warped_against_each_other_is_refused(scene, existing, result, source):
    source.SetAndObserveTransformNodeID(warp(scene).GetID())
    before = digest(scene)
    with pytest.raises(InputError, match="one of them a warp"):
        put_into(existing, result, source)
    assert digest(scene) == before


def test_both_under_one_warp_is_fine(scene, existing, result, source):
    for node in (source, existing):
        node.SetAndObserveTransformNodeID(warp(scene).GetID() if node is source else source.GetTransformNodeID())
    put_into(existing, result, source)
    assert names(existing) == ["liver", "liver_1", "spleen"]


def test_surfaces_alone_take_no_voxels(scene, existing, result, source):
    existing.GetSegmentation().SetSourceRepresentationName("Closed surface")
    before = digest(scene)
    with pytest.raises(InputError, match="keeps its segments as Closed surface"):
        put_into(existing, result, source)
    assert digest(scene) == before


@pytest.mark.parametrize("gone", ["removed", "another kind"])
def test_segmentation_that_is_not_there_is_refused(scene, existing, result, source, gone):
    node = source if gone == "another kind" else existing
    if gone == "removed":
        scene.RemoveNode(existing)
    before = digest(scene)
    with pytest.raises(InputError, match="is not in the scene"):
        put_into(node, result, source)
    assert digest(scene) == before


def test_segmentation_to_add_to_needs_the_segmentation():
    with pytest.raises(InputError, match="ask for it too"):
        Outputs(segmentation=False, into="vtkMRMLSegmentationNode1")


@pytest.mark.parametrize("kind", ["with surfaces", "without surfaces", "empty"])
def test_failure_leaves_the_segmentation_as_it_was(existing, result, source, monkeypatch, kind):
    scene = source.GetScene()
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine") if kind == "empty" else existing
    if kind == "without surfaces":
        node.GetSegmentation().RemoveRepresentation("Closed surface")
    seen = []

    def fail(_node, _rows):
        seen.extend(names(node))
        raise MemoryError

    monkeypatch.setattr(MedAILib.scene.write, "fill_statistics", fail)
    before = digest(scene)
    with pytest.raises(MemoryError):
        put_into(node, result, source, surfaces=True, label_map=True)
    assert len(seen) == (2 if node is not existing else 3)
    assert digest(scene) == before


def test_segments_carry_the_provenance_through_a_file(scene, existing, result, source, tmp_path):
    put_into(existing, result, source)
    save_segmentation(existing, tmp_path / "out.seg.nrrd")
    storage, read = slicer.vtkMRMLSegmentationStorageNode(), slicer.vtkMRMLSegmentationNode()
    storage.SetFileName(str(tmp_path / "out.seg.nrrd"))
    assert storage.ReadData(read)
    text = str(read.GetSegmentation().GetSegment("Segment_2"))
    assert "MedAI.model: finder\n" in text and "MedAI.note: a/b c\n" in text
    assert "MedAI.model" not in str(read.GetSegmentation().GetSegment("Segment_7"))


def test_saving_segments_of_two_grids_keeps_their_places(scene, existing, result, source, tmp_path):
    put_into(existing, result, source)
    old, new = (segment_points_in_world(existing, name) for name in ("Segment_7", "Segment_1"))
    save_segmentation(existing, tmp_path / "out.seg.nrrd")
    storage, read = slicer.vtkMRMLSegmentationStorageNode(), scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    storage.SetFileName(str(tmp_path / "out.seg.nrrd"))
    assert storage.ReadData(read)
    assert np.allclose(segment_points_in_world(read, "Segment_7"), old, atol=1e-4)
    back = segment_points_in_world(read, "Segment_1")
    assert np.allclose(back.mean(axis=0), new.mean(axis=0), atol=1.0)


def test_removing_a_new_segment_leaves_all_others(existing, result, source):
    put_into(existing, result, source)
    before = {name: len(segment_points_in_world(existing, name)) for name in ("Segment_7", "Segment_2")}
    existing.GetSegmentation().RemoveSegment("Segment_1")
    assert {name: len(segment_points_in_world(existing, name)) for name in before} == before


def test_new_segments_share_no_image_with_older_ones(existing, result, source):
    put_into(existing, result, source)
    old, new = (
        existing.GetSegmentation().GetSegment(name).GetRepresentation(BINARY_LABELMAP)
        for name in ("Segment_7", "Segment_1")
    )
    assert old is not new


def test_label_without_colour_gets_one_that_no_segment_has(existing, result, source):
    put_into(existing, result, source)
    segmentation = existing.GetSegmentation()
    colors = {tuple(np.round(segmentation.GetNthSegment(n).GetColor(), 2)) for n in range(3)}
    assert len(colors) == 3
