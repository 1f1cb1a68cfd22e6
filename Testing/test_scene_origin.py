"""What becomes of a result whose image was removed, replaced, moved or renamed while the model computed."""

import numpy as np
import pytest
import slicer
import slicer.util
from mrml import add_volume, digest, put_under, segment_points_in_world, to_world

from MedAILib.errors import InputError
from MedAILib.results import Label, Segmentation
from MedAILib.scene.origin import find_origin, origin_of
from MedAILib.scene.read import volume_from_nodes
from MedAILib.scene.write import Outputs, write_result

SHAPE = (5, 6, 7)
MATRIX = np.diag([0.5, 1.0, 2.0, 1.0])
MOVED = np.array([[0, -1, 0, 40], [1, 0, 0, -7], [0, 0, 1, 3], [0, 0, 0, 1.0]])


@pytest.fixture
def source(scene):
    node = add_volume(scene, np.zeros(SHAPE, np.int16), MATRIX, "brain")
    node.CreateDefaultDisplayNodes()
    return node


@pytest.fixture
def result(source):
    """Of the source as it was when the run was started: its last voxel alone."""
    labels = np.zeros((1, *SHAPE), np.uint8)
    labels[0, -1, -1, -1] = 1
    return Segmentation(labels, (Label(1, "corner"),), volume_from_nodes([source]).geometry)


def write(scene, origin, result):
    return write_result(result, find_origin(scene, origin), Outputs())


def test_renamed_image_gets_its_result_under_its_new_name(scene, source, result):
    origin = origin_of(source)
    source.SetName("Anna")
    assert write(scene, origin, result)[0].GetName() == "Anna segmentation"


def test_moved_image_gets_its_result_where_it_lies_now(scene, source, result):
    origin = origin_of(source)
    put_under(scene, source, [MOVED])
    node = write(scene, origin, result)[0]
    truth = (to_world(source) @ MATRIX @ [6, 5, 4, 1])[:3]
    assert np.allclose(segment_points_in_world(node, "Segment_1"), [truth], atol=1e-4)


def test_display_name_and_hierarchy_may_change(scene, source, result):
    origin = origin_of(source)
    display = source.GetScalarVolumeDisplayNode()
    display.AutoWindowLevelOff()
    display.SetWindowLevelMinMax(-100, 300)
    hierarchy = scene.GetSubjectHierarchyNode()
    hierarchy.CreateItem(hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study"), source)
    source.SetAttribute("note", "looked at")
    assert write(scene, origin, result)


def test_looking_at_the_image_leaves_it_known(scene, source):
    """Through Slicer's own slice pipeline; the views of a running Slicer do this all the time."""
    origin = origin_of(source)
    slices = slicer.vtkMRMLSliceLogic()
    slices.SetMRMLScene(scene)
    slices.AddSliceNode("Red")
    slices.GetSliceCompositeNode().SetBackgroundVolumeID(source.GetID())
    slices.FitSliceToAll()
    slices.UpdatePipeline()
    producer = slices.GetImageDataConnection().GetProducer()
    producer.Update()
    assert producer.GetOutputDataObject(0).GetNumberOfPoints() > 1
    assert find_origin(scene, origin) is source


def drop(scene, origin, result, match):
    before = digest(scene)
    with pytest.raises(InputError, match=match):
        write(scene, origin, result)
    assert digest(scene) == before


def test_result_of_a_removed_image_is_dropped(scene, source, result):
    origin = origin_of(source)
    scene.RemoveNode(source)
    drop(scene, origin, result, "brain was removed from the scene")


def test_result_of_a_closed_scene_is_dropped(scene, source, result):
    origin = origin_of(source)
    scene.Clear(False)
    drop(scene, origin, result, "brain was removed from the scene")


def test_result_never_goes_to_another_image_that_has_the_same_id_now(scene, source, result):
    origin = origin_of(source)
    scene.Clear(False)
    other = add_volume(scene, np.zeros(SHAPE, np.int16), MATRIX, "somebody else")
    assert other.GetID() == origin.node_id
    drop(scene, origin, result, "brain was given other voxels, or its scene was closed")


def test_result_never_goes_to_another_kind_of_node(scene, source, result):
    origin = origin_of(source)
    scene.Clear(False)
    scene.AddNode(slicer.vtkMRMLLabelMapVolumeNode())
    drop(scene, origin, result, "brain was removed")


def test_result_of_voxels_that_were_replaced_is_dropped(scene, source, result):
    origin = origin_of(source)
    source.SetAndObserveImageData(add_volume(scene, np.ones(SHAPE, np.int16), MATRIX).GetImageData())
    drop(scene, origin, result, "brain was given other voxels")


def test_result_of_voxels_that_were_edited_is_dropped(scene, source, result):
    origin = origin_of(source)
    slicer.util.arrayFromVolume(source)[:] = 3
    slicer.util.arrayFromVolumeModified(source)
    drop(scene, origin, result, "brain was given other voxels")


def test_result_of_an_image_whose_voxels_were_taken_away_is_dropped(scene, source, result):
    origin = origin_of(source)
    source.SetAndObserveImageData(None)
    drop(scene, origin, result, "brain was given other voxels")


def test_result_of_a_grid_that_was_hardened_is_dropped(scene, source, result):
    origin = origin_of(source)
    put_under(scene, source, [MOVED])
    source.HardenTransform()
    drop(scene, origin, result, "brain has another grid")
