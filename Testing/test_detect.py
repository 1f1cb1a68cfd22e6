"""Boxes around findings: where they lie in the world, which are kept, what is written."""

import csv
import json
from pathlib import Path

import nibabel
import numpy as np
import pytest
from bundles import threshold_bundle
from grids import matrices, parents
from hypothesis import given, settings
from hypothesis import strategies as st
from vtk.util.numpy_support import vtk_to_numpy

from MedAILib.cli import main
from MedAILib.detections import Box, Detections, overlaps, suppressed
from MedAILib.errors import InputError
from MedAILib.inference.components import component_boxes
from MedAILib.results import Label, Segmentation
from MedAILib.scene.detections import write_detections
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.storage import load_scene
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.volume import Geometry, Volume

SHAPE = (14, 16, 18)
GRID = Geometry(SHAPE, np.diag([1.0, 2.0, 3.0, 1.0]))
LABELS = (Label(1, "nodule"), Label(2, "vessel"))


def put_under(node, matrices_to_parent):
    import slicer
    import vtk

    total = np.eye(4)
    for matrix in matrices_to_parent:
        parent = slicer.vtkMRMLLinearTransformNode()
        node.GetScene().AddNode(parent)
        as_vtk = vtk.vtkMatrix4x4()
        as_vtk.DeepCopy(matrix.ravel())
        parent.SetMatrixTransformToParent(as_vtk)
        node.SetAndObserveTransformNodeID(parent.GetID())
        total, node = matrix @ total, parent
    return total


@settings(max_examples=200)
@given(matrices(), parents(), st.tuples(*[st.integers(1, 8)] * 3), st.tuples(*[st.integers(1, 5)] * 3))
def test_a_finding_lies_in_the_world_where_its_voxels_are(matrix, above, start, size):
    labels = np.zeros((1, *SHAPE), np.uint8)
    labels[0][tuple(slice(a, a + n) for a, n in zip(start, size, strict=True))] = 1
    geometry = Geometry(SHAPE, matrix)
    found = component_boxes(Segmentation(labels, LABELS, geometry))
    (box,) = found.boxes
    with headless_scene() as owner:
        source = add_volume_nodes(owner.scene, Volume(labels.astype(np.int16), geometry))[0]
        to_world = put_under(source, above)
        region = write_detections(found, source)[1]
        center, size_mm = region.GetCenterWorld(), region.GetSize()
        middle = np.argwhere(labels[0])[:, ::-1].mean(axis=0)
        expected = to_world @ matrix @ [*middle, 1]
        assert np.allclose(center, expected[:3], atol=1e-3)
        assert np.allclose(size_mm, np.array(size[::-1]) * geometry.spacing_kji_mm[::-1], atol=1e-6)
        corners = np.array([[*corner, 1] for corner in found.corners_ras(box)])
        plane_normals = region.GetObjectToNodeMatrix()
        axes = np.array([[plane_normals.GetElement(r, c) for c in range(3)] for r in range(3)])
        assert np.linalg.det(axes) > 0.99
        inside = np.abs((corners[:, :3] - found.center_ras(box)) @ axes)
        assert np.allclose(inside, np.array(size_mm) / 2, atol=1e-3)


def test_parts_that_touch_by_a_corner_are_one_finding_and_others_are_their_own():
    labels = np.zeros((1, *SHAPE), np.uint8)
    labels[0, 1:3, 1:3, 1:3] = 1
    labels[0, 3, 3, 3] = 1
    labels[0, 8, 8, 8:11] = 1
    labels[0, 10:12, 2, 2] = 2
    found = component_boxes(Segmentation(labels, LABELS, GRID))
    assert sorted((box.label, box.low_ijk, box.high_ijk) for box in found.boxes) == [
        ("nodule", (0.5, 0.5, 0.5), (3.5, 3.5, 3.5)),
        ("nodule", (7.5, 7.5, 7.5), (10.5, 8.5, 8.5)),
        ("vessel", (1.5, 1.5, 9.5), (2.5, 2.5, 11.5)),
    ]
    voxel_ml = GRID.voxel_volume_ml
    assert len(component_boxes(Segmentation(labels, LABELS, GRID), 3 * voxel_ml).boxes) == 2
    assert component_boxes(Segmentation(labels, LABELS, GRID), 10 * voxel_ml).boxes == ()


def test_a_findings_score_is_its_highest_probability_and_the_surest_comes_first():
    labels = np.zeros((1, *SHAPE), np.uint8)
    labels[0, 2, 2, 2:4] = labels[0, 9, 9, 9] = 1
    likely = np.zeros((3, *SHAPE), np.float32)
    likely[1, 2, 2, 2:4], likely[1, 9, 9, 9], likely[2] = (0.6, 0.7), 0.9, 1.0
    segmentation = Segmentation(labels, LABELS, GRID, likely, ("background", "nodule", "vessel"))
    assert [round(box.score, 3) for box in component_boxes(segmentation).boxes] == [0.9, 0.7]


def test_of_alike_boxes_of_a_class_the_surest_is_kept():
    boxes = [
        Box("nodule", 0.8, (0, 0, 0), (10, 10, 10)),
        Box("nodule", 0.9, (1, 0, 0), (11, 10, 10)),
        Box("vessel", 0.5, (0, 0, 0), (10, 10, 10)),
        Box("nodule", 0.3, (20, 0, 0), (30, 10, 10)),
    ]
    kept = suppressed(boxes, GRID, 0.5)
    assert [(box.label, box.score) for box in kept] == [("nodule", 0.9), ("vessel", 0.5), ("nodule", 0.3)]
    assert suppressed(boxes, GRID, 0.9) == tuple(sorted(boxes, key=lambda box: -box.score))
    assert suppressed([], GRID, 0.5) == ()


def test_overlap_is_intersection_over_union_of_volumes():
    low, high = [(0, 0, 0), (1, 0, 0), (5, 5, 5)], [(2, 2, 2), (3, 2, 2), (6, 6, 6)]
    assert np.allclose(overlaps(low, high), [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 1]])


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: Box("a", 1.5, (0, 0, 0), (1, 1, 1)), "score is 0 to 1"),
        (lambda: Box("a", 0.5, (0, 0, 0), (1, 0, 1)), "encloses nothing"),
        (lambda: Box("a", 0.5, (0, 0, np.nan), (1, 1, 1)), "encloses nothing"),
        (lambda: Detections((Box("a", 0.5, (0, 0, 0), (1, 1, 1)),), ("b",), GRID), "class a, which is not among"),
        (lambda: suppressed([], GRID, 1.5), "is 0 to 1"),
    ],
)
def test_what_is_no_finding_is_refused(make, sentence):
    with pytest.raises(InputError, match=sentence):
        make()


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with an image of two bright blocks and a model that finds what is bright."""
    threshold_bundle(tmp_path / "model", 50.0, spacing_mm=None)
    data = np.zeros((18, 20, 22), np.int16)
    data[2:7, 3:9, 4:8] = data[12:14, 12:14, 12:14] = 100
    nibabel.save(nibabel.Nifti1Image(data, np.diag([-0.9, 0.9, 1.4, 1.0])), tmp_path / "scan.nii.gz")
    return tmp_path


def test_the_command_writes_findings_as_json_table_and_scene(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = place / "out"
    words = ["detect", place / "scan.nii.gz", "-m", place / "model", "-o", out, "--json", "--quiet"]
    assert main([str(word) for word in words]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == json.loads((out / "findings.json").read_text(encoding="utf-8"))
    assert sorted(round(x["center_ras"][0], 3) for x in said["findings"]) == [-11.25, -3.6]
    with (out / "findings.csv").open(encoding="utf-8", newline="") as file:
        assert [row["label"] for row in csv.DictReader(file)] == ["part 1", "part 1"]
    with headless_scene() as owner:
        load_scene(owner.scene, out / "scene.mrb")
        assert owner.scene.GetNumberOfNodesByClass("vtkMRMLMarkupsROINode") == 2
        table = owner.scene.GetFirstNodeByClass("vtkMRMLTableNode").GetTable()
        assert vtk_to_numpy(table.GetColumnByName("Score")).min() > 0.5


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--smallest", "-1"], "at least 0 mL"),
        (["-o", "{place}/x.nii.gz"], "no kind of findings"),
        (["-m", "{place}/scan.nii.gz"], "no model that MedAI knows"),
        (["--roi", "900", "0", "0", "9", "9", "9"], "outside the image"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_nothing(
    place: Path, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = sorted(path.name for path in place.iterdir())
    usual = ["detect", place / "scan.nii.gz", "-m", place / "model", "-o", place / "f.json", "--quiet"]
    assert main([*map(str, usual), *(word.format(place=place) for word in words)]) == 2
    error = capsys.readouterr().err
    assert sentence in error and len(error.strip().splitlines()) == 1
    assert sorted(path.name for path in place.iterdir()) == before
