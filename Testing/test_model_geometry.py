"""A real network between real MRML nodes: what it finds lies where it was, on any grid, through its own resampling.

The network is a UNet that thresholds (`bundles.threshold_bundle`), once on the image's own voxels, once at 1 mm; its
window of 16 voxels is larger than many of these images and smaller than others.
"""

import numpy as np
import pytest
from bundles import threshold_bundle
from grids import AXIS_ORDERS, along_axes, matrices, parents
from hypothesis import given, settings
from hypothesis import strategies as st
from mrml import add_volume, put_under, segment_points_in_world, to_world

from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.read import volume_from_nodes
from MedAILib.scene.write import Outputs, write_result

MODEL_MM = 1.0


@pytest.fixture(scope="module")
def scene():
    with headless_scene() as owner:
        yield owner.scene


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """The thresholding model on the image's own voxels, and at 1 mm."""
    folder = tmp_path_factory.mktemp("models")
    return [
        open_model(threshold_bundle(folder / str(number), 0.5, spacing_mm=spacing), "cpu")
        for number, spacing in enumerate((None, MODEL_MM))
    ]


@st.composite
def grids_with_a_box(draw):
    """A grid, and in it a box that is at least two and a half voxels of the coarser grid wide along each axis.

    An axis may be of one slice, which the box then fills; so may all of them be.
    """
    matrix = draw(matrices())
    spacing = np.linalg.norm(matrix[:3, :3], axis=0)
    start, stop, shape = [], [], []
    for mm in spacing[::-1]:
        before, after = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        flat = draw(st.integers(0, 3)) == 0
        size = 1 if flat else int(np.ceil(2.5 * max(mm, MODEL_MM) / mm)) + draw(st.integers(0, 3))
        start.append(0 if flat else before)
        stop.append(start[-1] + size)
        shape.append(stop[-1] + (0 if flat else after))
    return matrix, tuple(shape), tuple(slice(a, b) for a, b in zip(start, stop, strict=True))


@settings(deadline=None, max_examples=500)
@given(grids_with_a_box(), parents(), st.booleans())
def test_what_a_network_finds_lies_where_it_was(scene, models, grid, transforms, resampled):
    ijk_to_ras, shape, box = grid
    voxels = np.zeros(shape, np.float32)
    voxels[box] = 1
    scene.Clear(False)
    source = add_volume(scene, voxels, ijk_to_ras)
    put_under(scene, source, transforms)

    volume = volume_from_nodes([source])
    result = models[resampled].run(volume, RunOptions(), Progress())
    node = write_result(result, source, Outputs(table=False))[0]

    assert result.geometry.shape_kji == shape
    assert np.allclose(result.geometry.ijk_to_ras, ijk_to_ras, atol=1e-9)
    found = segment_points_in_world(node, "Segment_1")
    if not resampled:
        assert len(found) == voxels.sum()
    middle = np.array([(part.start + part.stop - 1) / 2 for part in box][::-1])
    to_voxels = np.linalg.inv(to_world(node) @ ijk_to_ras)
    off = np.abs((to_voxels @ [*found.mean(axis=0), 1])[:3] - middle)
    spacing = np.linalg.norm(ijk_to_ras[:3, :3], axis=0)
    assert (off <= 0.5 * np.maximum(1, MODEL_MM / spacing) * (resampled or 1e-3) + 1e-6).all()


@pytest.mark.parametrize(("order", "signs"), AXIS_ORDERS)
def test_left_stays_left_through_a_network(scene, models, order, signs):
    ijk_to_ras = along_axes(order, signs, (0.7, 1.0, 2.5))
    shape = (9, 14, 20)
    ijk_to_ras[:3, 3] = -ijk_to_ras[:3, :3] @ (np.array(shape)[::-1] / 2 - 0.5)
    kji = np.indices(shape).reshape(3, -1).T
    right = (ijk_to_ras @ np.c_[kji[:, ::-1], np.ones(len(kji))].T)[0]
    scene.Clear(False)
    source = add_volume(scene, (right < 0).astype(np.float32).reshape(shape), ijk_to_ras)
    for model in models:
        result = model.run(volume_from_nodes([source]), RunOptions(), Progress())
        points = segment_points_in_world(write_result(result, source, Outputs(table=False))[0], "Segment_1")
        assert points[:, 0].max() < 1.3 and len(points) > 0.4 * right.size
