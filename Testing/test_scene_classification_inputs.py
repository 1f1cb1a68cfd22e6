"""What a classifier takes from a scene beside a volume: regions of segments, frames of sequences, covariates."""

from typing import Any

import numpy as np
import pytest
import vtk
from mrml import add_volume, put_under, rotation

from MedAILib.errors import InputError
from MedAILib.results import Label, Segmentation
from MedAILib.scene.classification_inputs import box_of_segment, covariates_from_table, frames_from_sequence
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.scene.write import Outputs, write_result
from MedAILib.volume import Geometry, Volume

SHAPE = (6, 14, 12)
GRID = Geometry(SHAPE, np.array([[-0.8, 0.6, 0, 10], [-0.6, -0.8, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]]))


@pytest.fixture
def scene():
    with headless_scene() as owner:
        yield owner.scene


@pytest.fixture
def source(scene: Any) -> Any:
    image = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    return add_volume_nodes(scene, Volume(image[None], GRID, "breast"))[0]


@pytest.fixture
def segment(source: Any) -> tuple[Any, str]:
    labels = np.zeros((2, *SHAPE), np.uint8)
    labels[0, 2:4, 3:8, 1:5] = 1
    names = (Label(1, "lump"), Label(1, "nothing", layer=1))
    (node,) = write_result(Segmentation(labels, names, GRID), source, Outputs(table=False))
    return node, node.GetSegmentation().GetNthSegmentID(0)


def test_the_region_of_a_segment_is_its_box_in_the_image(source: Any, segment: tuple[Any, str]) -> None:
    assert box_of_segment(*segment, source) == ((2, 4), (3, 8), (1, 5))


def test_parent_transforms_count(scene: Any, source: Any, segment: tuple[Any, str]) -> None:
    put_under(scene, source, [rotation((0, 0, 1), 90)])
    segment[0].SetAndObserveTransformNodeID(source.GetTransformNodeID())
    assert box_of_segment(*segment, source) == ((2, 4), (3, 8), (1, 5))
    shift = np.eye(4)
    shift[:3, 3] = GRID.ijk_to_ras[:3, 0] * 2  # two voxels along I
    segment[0].SetAndObserveTransformNodeID(None)
    source.SetAndObserveTransformNodeID(None)
    put_under(scene, segment[0], [shift])
    assert box_of_segment(*segment, source) == ((2, 4), (3, 8), (3, 7))


def test_segments_without_a_place_in_the_image_are_refused(scene: Any, source: Any, segment: tuple[Any, str]) -> None:
    with pytest.raises(InputError, match="no segment absent"):
        box_of_segment(segment[0], "absent", source)
    far = np.eye(4)
    far[0, 3] = 500
    put_under(scene, segment[0], [far])
    with pytest.raises(InputError, match="outside of breast"):
        box_of_segment(*segment, source)


def sequence(scene: Any, shapes: list[tuple[int, ...]]) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLSequenceNode", "cine")
    for number, shape in enumerate(shapes):
        frame = add_volume(scene, np.full(shape, number, np.int16), np.eye(4))
        node.SetDataNodeAtValue(frame, str(number))
        scene.RemoveNode(frame)
    return node


def test_frames_of_a_sequence_become_channels_in_order(scene: Any) -> None:
    volume = frames_from_sequence(sequence(scene, [(1, 5, 4)] * 3))
    assert volume.data.shape == (3, 1, 5, 4) and volume.name == "cine"
    assert volume.data[:, 0, 0, 0].tolist() == [0, 1, 2]


def test_a_sequence_of_mixed_sizes_or_none_is_refused(scene: Any) -> None:
    with pytest.raises(InputError, match="Frame 1 of cine"):
        frames_from_sequence(sequence(scene, [(1, 5, 4), (1, 5, 6)]))
    with pytest.raises(InputError, match="no frames"):
        frames_from_sequence(scene.AddNewNodeByClass("vtkMRMLSequenceNode", "empty"))


@pytest.fixture
def table(scene: Any) -> Any:
    columns = vtk.vtkTable()
    age, sex = vtk.vtkDoubleArray(), vtk.vtkStringArray()
    for column, name, values in ((age, "age", (61.5, float("nan"))), (sex, "sex", ("1", "female"))):
        column.SetName(name)
        for value in values:
            column.InsertNextValue(value)
        columns.AddColumn(column)
    node = scene.AddNewNodeByClass("vtkMRMLTableNode", "patients")
    node.SetAndObserveTable(columns)
    return node


def test_covariates_are_read_from_a_tables_row(table: Any) -> None:
    assert covariates_from_table(table, ["sex", "age"]) == {"sex": 1.0, "age": 61.5}


@pytest.mark.parametrize(
    ("wanted", "row", "said"),
    [
        (["sex"], 1, "'female', which is no number"),
        (["age"], 1, "finite"),
        (["crp"], 0, "crp"),
        (["age"], 2, "no row 2"),
    ],
)
def test_covariates_that_are_missing_or_no_numbers_are_refused(
    table: Any, wanted: list[str], row: int, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        covariates_from_table(table, wanted, row)
