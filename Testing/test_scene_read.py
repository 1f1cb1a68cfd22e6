"""Volume and ROI nodes of real scenes as plain data, and what is refused."""

import numpy as np
import pytest
import vtk
from vtk.util.numpy_support import numpy_to_vtk, vtk_to_numpy

from MedAILib.errors import GeometryError, InputError
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.read import roi_from_node, volume_from_nodes
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.volume import Geometry, Volume

SHAPE = (4, 5, 6)
OBLIQUE = np.array([[-0.8, 0.6, 0, 10], [-0.6, -0.8, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]])
RAMP = np.arange(120, dtype=np.int16).reshape(SHAPE)


@pytest.fixture
def node(scene):
    return add(scene, RAMP, "first")


def add(scene, voxels, name, matrix=OBLIQUE):
    return add_volume_nodes(scene, Volume(voxels[None], Geometry(voxels.shape, matrix), name))[0]


def put_under(node, transform):
    parent = node.GetScene().AddNewNodeByClass("vtkMRMLTransformNode")
    parent.SetAndObserveTransformToParent(transform)
    node.SetAndObserveTransformNodeID(parent.GetID())
    return parent


def shift(r, a, s):
    transform = vtk.vtkTransform()
    transform.Translate(r, a, s)
    return transform


def bump(displacement):
    """A thin-plate spline that moves the middle of the images here by `displacement`, and their surroundings not."""
    source, target = vtk.vtkPoints(), vtk.vtkPoints()
    middle = (OBLIQUE @ [2.5, 2, 1.5, 1])[:3]
    for corner in np.stack(np.meshgrid((-30, 30), (-30, 30), (-30, 30)), -1).reshape(-1, 3):
        source.InsertNextPoint(middle + corner)
        target.InsertNextPoint(middle + corner)
    source.InsertNextPoint(middle)
    target.InsertNextPoint(middle + displacement)
    warp = vtk.vtkThinPlateSplineTransform()
    warp.SetBasisToR()
    warp.SetSourceLandmarks(source)
    warp.SetTargetLandmarks(target)
    return warp


def test_one_node_gives_its_voxels_grid_and_name(node):
    volume = volume_from_nodes([node])
    assert (volume.data[0] == RAMP).all()
    assert volume.data.dtype == np.int16
    assert np.allclose(volume.geometry.ijk_to_ras, OBLIQUE)
    assert volume.name == "first"


def test_voxels_are_a_copy(node):
    volume = volume_from_nodes([node])
    vtk_to_numpy(node.GetImageData().GetPointData().GetScalars())[:] = 0
    assert (volume.data[0] == RAMP).all()


def test_parent_transform_of_a_single_node_is_left_out(node):
    put_under(node, bump((1, 2, 3)))
    assert np.allclose(volume_from_nodes([node]).geometry.ijk_to_ras, OBLIQUE)


def test_nodes_on_one_grid_become_channels_unchanged(scene, node):
    volume = volume_from_nodes([node, add(scene, RAMP * 2, "second")])
    assert (volume.data[1] == RAMP * 2).all()
    assert volume.data.dtype == np.int16
    assert volume.name == "first + second"


def test_nodes_under_one_warp_are_not_resampled(scene, node):
    second = add(scene, RAMP * 2, "second")
    second.SetAndObserveTransformNodeID(put_under(node, bump((1, 2, 3))).GetID())
    assert (volume_from_nodes([node, second]).data[1] == RAMP * 2).all()


def test_channel_moved_by_its_parent_is_moved_back_on_the_grid(scene, node):
    second = add(scene, RAMP, "second")
    put_under(second, shift(0, 0, 3))
    channel = volume_from_nodes([node, second]).data[1]
    assert np.allclose(channel[1:], RAMP[:-1])
    assert (channel[0] == RAMP.min()).all()


def test_channel_stays_when_grid_and_transform_cancel_out(scene, node):
    moved = OBLIQUE.copy()
    moved[2, 3] -= 3
    second = add(scene, RAMP, "second", moved)
    put_under(second, shift(0, 0, 3))
    volume = volume_from_nodes([node, second])
    assert (volume.data[1] == RAMP).all()
    assert volume.data.dtype == np.int16


def test_warped_channel_is_sampled_where_the_warp_takes_it(scene, node):
    warp = bump((0.0, 0.0, 2.0))
    shape = (20, 20, 20)
    grid = np.eye(4)
    grid[:3, 3] = (OBLIQUE @ [2.5, 2, 1.5, 1])[:3] - 9.5
    height = (grid[2, 3] + np.arange(20.0))[:, None, None] * np.ones(shape)
    second = add(scene, height, "heights", grid)
    put_under(second, warp)
    channel = volume_from_nodes([node, second]).data[1]
    kji = np.indices(SHAPE).reshape(3, -1).T
    world = (OBLIQUE @ np.c_[kji[:, ::-1], np.ones(len(kji))].T)[:3].T
    truth = np.array([warp.GetInverse().TransformPoint(point)[2] for point in world])
    assert np.abs(truth - world[:, 2]).max() > 1
    assert np.allclose(channel.ravel(), truth, atol=0.02)


def test_components_of_a_vector_volume_are_channels(scene):
    image = vtk.vtkImageData()
    image.SetDimensions(6, 5, 4)
    colors = np.stack([RAMP, RAMP + 1, RAMP + 2], axis=-1).astype(np.uint8)
    image.GetPointData().SetScalars(numpy_to_vtk(colors.reshape(-1, 3), deep=True))
    node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "photo")
    node.SetAndObserveImageData(image)
    volume = volume_from_nodes([node])
    assert volume.channels == 3
    assert (volume.data == np.moveaxis(colors, -1, 0)).all()


def test_dicom_origin_goes_into_the_provenance(scene, node):
    node.SetAttribute("DICOM.instanceUIDs", "1.2.3 1.2.4")
    hierarchy = scene.GetSubjectHierarchyNode()
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "study")
    hierarchy.SetItemUID(study, "DICOM", "1.2")
    item = hierarchy.CreateItem(study, node)
    hierarchy.SetItemUID(item, "DICOM", "1.2.9")
    hierarchy.SetItemAttribute(item, "DICOM.Modality", "MR")
    assert volume_from_nodes([node]).provenance == {
        "node": "first",
        "SOPInstanceUIDs": "1.2.3 1.2.4",
        "SeriesInstanceUID": "1.2.9",
        "StudyInstanceUID": "1.2",
        "Modality": "MR",
    }


def test_no_node_is_refused():
    with pytest.raises(InputError, match="No volume"):
        volume_from_nodes([])


def test_none_is_refused():
    with pytest.raises(InputError, match="no node"):
        volume_from_nodes([None])


def test_node_without_image_is_refused_by_name(scene):
    node = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "hollow")
    with pytest.raises(InputError, match="hollow has no voxels"):
        volume_from_nodes([node])


@pytest.mark.parametrize("kind", ["vtkMRMLModelNode", "vtkMRMLLabelMapVolumeNode", "vtkMRMLSegmentationNode"])
def test_node_of_another_kind_is_refused_by_name(scene, kind):
    with pytest.raises(InputError, match="wrong one is"):
        volume_from_nodes([scene.AddNewNodeByClass(kind, "wrong one")])


def test_node_that_left_its_scene_is_refused(scene, node):
    scene.RemoveNode(node)
    with pytest.raises(InputError, match="first is not in a scene"):
        volume_from_nodes([node])


def test_nodes_of_two_scenes_are_refused(node):
    with headless_scene() as other, pytest.raises(InputError, match="different scenes"):
        volume_from_nodes([node, add(other.scene, RAMP, "foreign")])


def test_nodes_that_do_not_overlap_are_refused(scene, node):
    far = add(scene, RAMP, "far away")
    put_under(far, shift(500, 0, 0))
    with pytest.raises(InputError, match="far away and first don't overlap"):
        volume_from_nodes([node, far])


def test_sheared_grid_is_refused_by_name(node):
    sheared = vtk.vtkMatrix4x4()
    sheared.DeepCopy((1, 0.2, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1))
    node.SetIJKToRASMatrix(sheared)
    with pytest.raises(GeometryError, match=r"^first: .*sheared"):
        volume_from_nodes([node])


def add_roi(scene, center, size):
    roi = scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box")
    roi.SetCenter(center)
    roi.SetSize(size)
    return roi


def test_roi_gives_its_centre_and_size(scene, node):
    roi = roi_from_node(add_roi(scene, (10, 20, -25), (4, 6, 8)), node)
    assert np.allclose(roi.center_ras, (10, 20, -25))
    assert np.allclose(roi.size_mm, (4, 6, 8))


def test_turned_roi_gives_the_box_around_it(scene, node):
    roi_node = add_roi(scene, (10, 20, -25), (4, 6, 8))
    turn = vtk.vtkTransform()
    turn.RotateZ(90)
    put_under(roi_node, turn)
    roi = roi_from_node(roi_node, node)
    assert np.allclose(roi.center_ras, (-20, 10, -25))
    assert np.allclose(roi.size_mm, (6, 4, 8))


def test_roi_is_taken_into_the_own_space_of_the_volume(scene, node):
    put_under(node, shift(100, 0, 0))
    roi = roi_from_node(add_roi(scene, (110, 20, -25), (4, 6, 8)), node)
    assert np.allclose(roi.center_ras, (10, 20, -25))


def test_roi_under_the_same_warp_as_the_volume_keeps_its_size(scene, node):
    roi_node = add_roi(scene, (10, 20, -25), (4, 6, 8))
    roi_node.SetAndObserveTransformNodeID(put_under(node, bump((3, 2, 1))).GetID())
    assert np.allclose(roi_from_node(roi_node, node).size_mm, (4, 6, 8), atol=1e-3)


def test_roi_without_size_is_refused(scene, node):
    with pytest.raises(InputError, match="box has no size"):
        roi_from_node(scene.AddNewNodeByClass("vtkMRMLMarkupsROINode", "box"), node)


def test_roi_of_another_scene_is_refused(node):
    with headless_scene() as other, pytest.raises(InputError, match="box is not in the scene"):
        roi_from_node(add_roi(other.scene, (0, 0, 0), (1, 1, 1)), node)


def test_roi_of_another_kind_is_refused(scene, node):
    with pytest.raises(InputError, match="no markups ROI"):
        roi_from_node(scene.AddNewNodeByClass("vtkMRMLModelNode"), node)


def test_reading_leaves_the_scene_as_it_was(scene, node):
    put_under(node, shift(1, 0, 0))
    second = add(scene, RAMP, "second")
    before = scene.GetNumberOfNodes()
    volume_from_nodes([node, second])
    assert scene.GetNumberOfNodes() == before


@pytest.mark.parametrize(
    ("file", "node_name"), [("brain.nii.gz", "brain"), ("a.b.NRRD", "a.b"), ("t1", "t1"), (".nii", ".nii")]
)
def test_a_node_is_named_after_its_file_without_the_ending(scene, file, node_name):
    assert add(scene, RAMP, file).GetName() == node_name
