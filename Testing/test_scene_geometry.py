"""Through real MRML nodes and back: what is found lies where it was, on any grid, under any linear transforms.

The middle, `threshold_model`, stands for a model: a volume in, a segmentation on the volume's own grid out.
"""

import numpy as np
import pytest
import vtk
from grids import AXIS_ORDERS, along_axes, matrices, parents
from hypothesis import given, settings
from hypothesis import strategies as st
from mrml import add_volume, put_under, segment_points_in_world, to_vtk, to_world
from vtk.util.numpy_support import numpy_to_vtk

from MedAILib.results import Label, Segmentation
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.read import volume_from_nodes
from MedAILib.scene.write import Outputs, write_result

LABELS = (Label(1, "blob"),)


def threshold_model(volume):
    """Every voxel of the first channel above one half."""
    return Segmentation((volume.data[:1] > 0.5).astype(np.uint8), LABELS, volume.geometry)


@pytest.fixture(scope="module")
def scene():
    with headless_scene() as owner:
        yield owner.scene


@st.composite
def grids(draw):
    return draw(st.one_of(st.just((1, 1, 1)), st.tuples(*[st.integers(1, 9)] * 3))), draw(matrices())


@settings(deadline=None, max_examples=600)
@given(grids(), parents(), st.data())
def test_segment_lies_where_its_voxels_were(scene, grid, transforms, data):
    shape, ijk_to_ras = grid
    start = [data.draw(st.integers(0, n - 1)) for n in shape]
    stop = [data.draw(st.integers(a + 1, n)) for a, n in zip(start, shape, strict=True)]
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    voxels = np.zeros(shape, np.float32)
    voxels[box] = 1
    scene.Clear(False)
    source = add_volume(scene, voxels, ijk_to_ras)
    put_under(scene, source, transforms)

    volume = volume_from_nodes([source])
    segmentation, label_map = (
        node
        for node in write_result(threshold_model(volume), source, Outputs(label_map=True, table=False))
        if not node.IsA("vtkMRMLColorTableNode")
    )

    whole = np.eye(4)
    for matrix in transforms:
        whole = matrix @ whole
    middle = [(a + b - 1) / 2 for a, b in zip(start, stop, strict=True)][::-1]
    truth = (whole @ ijk_to_ras @ [*middle, 1])[:3]
    found = segment_points_in_world(segmentation, "Segment_1")
    assert len(found) == voxels.sum()
    spacing = np.linalg.norm((whole @ ijk_to_ras)[:3, :3], axis=0)
    assert np.linalg.norm(found.mean(axis=0) - truth) <= 0.01 * spacing.min()
    assert volume.geometry.shape_kji == shape
    assert np.allclose(volume.geometry.ijk_to_ras, ijk_to_ras, atol=1e-9)
    image = segmentation.GetBinaryLabelmapInternalRepresentation("Segment_1")
    assert image.GetDimensions() == shape[::-1]
    matrix = vtk.vtkMatrix4x4()
    for get in (image.GetImageToWorldMatrix, label_map.GetIJKToRASMatrix):
        get(matrix)
        assert np.allclose([[matrix.GetElement(r, c) for c in range(4)] for r in range(4)], ijk_to_ras, atol=1e-6)
    assert label_map.GetImageData().GetDimensions() == shape[::-1]


@pytest.mark.parametrize(("order", "signs"), AXIS_ORDERS)
def test_left_stays_left_in_every_axis_order(scene, order, signs):
    ijk_to_ras = along_axes(order, signs, (0.5, 1.0, 3.0))
    shape = (6, 7, 8)
    kji = np.indices(shape).reshape(3, -1).T
    middle = np.array(shape)[::-1] / 2 - 0.5
    ijk_to_ras[:3, 3] = -ijk_to_ras[:3, :3] @ middle
    right = (ijk_to_ras @ np.c_[kji[:, ::-1], np.ones(len(kji))].T)[0]
    voxels = (right < -0.1).astype(np.float32).reshape(shape)
    source = add_volume(scene, voxels, ijk_to_ras)
    segmentation = write_result(threshold_model(volume_from_nodes([source])), source, Outputs(table=False))[0]
    points = segment_points_in_world(segmentation, "Segment_1")
    assert len(points) == voxels.sum()
    assert (points[:, 0] < 0).all()


@settings(deadline=None, max_examples=120)
@given(grids(), grids(), parents(), parents())
def test_second_channel_lies_in_the_world_where_it_was(scene, first, second, first_parents, second_parents):
    """A channel whose voxels hold a linear function of the world's place still holds it on the first one's grid."""
    scene.Clear(False)
    shape, ijk_to_ras = tuple(n | 1 for n in first[0]), first[1]
    source = add_volume(scene, np.zeros(shape, np.float32), ijk_to_ras)
    put_under(scene, source, first_parents)
    other_shape, other_matrix = tuple(n + 8 for n in second[0]), second[1].copy()
    other = add_volume(scene, np.zeros(other_shape, np.float32), other_matrix, "other")
    put_under(scene, other, second_parents)
    # Moved so that both middles meet in the world.
    centers = [
        (to_world(node) @ matrix @ [*(np.array(n[::-1]) - 1) / 2, 1])[:3]
        for node, matrix, n in ((source, ijk_to_ras, shape), (other, other_matrix, other_shape))
    ]
    other_matrix[:3, 3] += np.linalg.inv(to_world(other)[:3, :3]) @ (centers[0] - centers[1])
    other.SetIJKToRASMatrix(to_vtk(other_matrix))
    kji = np.indices(other_shape).reshape(3, -1).T
    world = (to_world(other) @ other_matrix @ np.c_[kji[:, ::-1], np.ones(len(kji))].T)[:3]
    direction = np.array([0.3, -0.5, 0.8])
    values = (direction @ (world - centers[0][:, None])).reshape(other_shape) + 5000
    other.GetImageData().GetPointData().SetScalars(numpy_to_vtk(values.ravel(), deep=True))

    channel = volume_from_nodes([source, other]).data[1]

    kji = np.indices(shape).reshape(3, -1).T
    points = to_world(source) @ ijk_to_ras @ np.c_[kji[:, ::-1], np.ones(len(kji))].T
    ijk = (np.linalg.inv(to_world(other) @ other_matrix) @ points)[:3].T
    inside = ((ijk > 0) & (ijk < np.array(other_shape)[::-1] - 1)).all(axis=1)
    truth = direction @ (points[:3] - centers[0][:, None]) + 5000
    assert inside.any()
    assert np.allclose(channel.ravel()[inside], truth[inside], atol=1e-2)
    outside = ((ijk < -0.6) | (ijk > np.array(other_shape)[::-1] - 0.4)).any(axis=1)
    assert np.allclose(channel.ravel()[outside], values.min())
