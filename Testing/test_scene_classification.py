"""A classification as nodes of a real scene: what they hold, where they lie, and that failures leave none behind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import slicer
import vtk
from mrml import put_under, rotation
from vtk.util.numpy_support import vtk_to_numpy

import MedAILib.scene.classification
from MedAILib.errors import InputError
from MedAILib.results import Classification, Place, Saliency
from MedAILib.scene.classification import write_classification
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.storage import load_scene, save_scene
from MedAILib.scene.volume_node import add_volume_nodes
from MedAILib.volume import Geometry, Volume

SHAPE = (6, 7, 8)
GRID = Geometry(SHAPE, np.array([[-0.8, 0.6, 0, 10], [-0.6, -0.8, 0, 20], [0, 0, 3, -30], [0, 0, 0, 1.0]]))


@pytest.fixture
def scene():
    with headless_scene() as owner:
        yield owner.scene


@pytest.fixture
def source(scene: Any) -> Any:
    image = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
    return add_volume_nodes(scene, Volume(image[None], GRID, "breast"))[0]


def result(rows: int = 1, saliency: bool = False) -> Classification:
    values = np.linspace(-1, 1, int(np.prod(SHAPE)), dtype=np.float32).reshape(SHAPE)
    whole = ((0, 6), (0, 7), (0, 8))
    slices = tuple(Place("slice", ((n, n + 1), *whole[1:]), n, "K", 3.0 * n) for n in range(rows))
    p = np.linspace(0.1, 0.9, rows) if rows > 1 else np.array([0.9])
    return Classification(
        ("benign", "malignant"),
        "binary",
        np.stack([1 - p, p], axis=1),
        np.stack([-p, p], axis=1),
        (0.5, 0.5),
        (Place("image", whole),) if rows == 1 else slices,
        GRID,
        saliency=Saliency(values, GRID, "malignant", "grad-cam", 2.5, "how it came about") if saliency else None,
        provenance={"model": "finder", "version": "1.2"},
    )


def cells(node: Any) -> list[list[str]]:
    table = node.GetTable()
    rows, columns = range(table.GetNumberOfRows()), range(table.GetNumberOfColumns())
    return [[table.GetValue(row, column).ToString() for column in columns] for row in rows]


def test_table_has_class_probability_threshold_and_decision(source: Any) -> None:
    table, text = write_classification(result(), source)
    assert [row[2:] for row in cells(table)] == [["benign", "0.1", "0.5", "no"], ["malignant", "0.9", "0.5", "yes"]]
    assert table.GetName() == "breast finder classification"
    assert "malignant (benign 10.0%, malignant 90.0%)" in text.GetText()
    assert "research use only" in text.GetText()


@pytest.mark.parametrize(
    ("kind", "p", "decisions", "said"),
    [
        ("multilabel", [0.7, 0.1, 0.8], ["yes", "no", "yes"], "mass, node"),
        ("multilabel", [0.2, 0.1, 0.3], ["no", "no", "no"], "none"),
        ("ordinal", [0.2, 0.5, 0.3], ["no", "yes", "no"], "cyst"),
    ],
)
def test_several_labels_and_grades_have_a_row_each(
    source: Any, kind: str, p: list[float], decisions: list[str], said: str
) -> None:
    likely = np.array([p])
    found = replace(
        result(),
        classes=("mass", "cyst", "node"),
        kind=kind,
        probabilities=likely,
        scores=likely,
        thresholds=(0.5,) * 3,
    )
    table, text = write_classification(found, source)
    assert [row[2] for row in cells(table)] == ["mass", "cyst", "node"]
    assert [row[5] for row in cells(table)] == decisions and f"{said} (mass" in text.GetText()


def test_every_node_says_what_made_it(source: Any) -> None:
    for node in write_classification(result(4, saliency=True), source):
        assert node.GetAttribute("MedAI.model") == "finder"


def test_the_image_gets_the_decision_and_keeps_its_attributes(source: Any) -> None:
    source.SetAttribute("MedAI.classification.finder", "of before")
    write_classification(result(), source)
    assert source.GetAttribute("MedAI.classification.finder") == "of before"
    assert source.GetAttribute("MedAI.classification.finder.2") == "malignant"


def test_slices_have_a_plot_of_probability_along_the_axis(source: Any) -> None:
    nodes = write_classification(result(4), source)
    chart = nodes[-1]
    assert chart.IsA("vtkMRMLPlotChartNode") and chart.GetNumberOfPlotSeriesNodes() == 3
    series = chart.GetNthPlotSeriesNode(1)
    data = series.GetTableNode().GetTable()
    assert vtk_to_numpy(data.GetColumnByName(series.GetXColumnName())) == pytest.approx([0, 3, 6, 9])
    assert vtk_to_numpy(data.GetColumnByName("malignant")) == pytest.approx(np.linspace(0.1, 0.9, 4))


def test_saliency_lies_on_the_image_under_its_transform_in_colours_that_fade(scene: Any, source: Any) -> None:
    put_under(scene, source, [rotation((1, 0, 0), 20)])
    colors, node = write_classification(result(saliency=True), source)[-2:]
    matrices = [vtk.vtkMatrix4x4() for _ in range(2)]
    node.GetIJKToRASMatrix(matrices[0])
    source.GetIJKToRASMatrix(matrices[1])
    assert [matrices[0].GetElement(n, m) for n in range(4) for m in range(4)] == [
        matrices[1].GetElement(n, m) for n in range(4) for m in range(4)
    ]
    assert node.GetTransformNodeID() == source.GetTransformNodeID()
    voxels = vtk_to_numpy(node.GetImageData().GetPointData().GetScalars()).reshape(SHAPE)
    assert np.array_equal(voxels, result(saliency=True).saliency.values)
    assert node.GetDisplayNode().GetColorNodeID() == colors.GetID()
    opacity = [colors.GetLookupTable().GetTableValue(n)[3] for n in (0, 127, 255)]
    assert opacity[0] > 0.7 and opacity[1] < 0.05 and opacity[2] > 0.7
    assert node.GetAttribute("MedAI.saliency.method") == "grad-cam"


def test_everything_survives_saving_and_opening(scene: Any, source: Any, tmp_path: Path) -> None:
    before = write_classification(result(4, saliency=True), source)
    save_scene(scene, tmp_path / "scene.mrb")
    with headless_scene() as owner:
        load_scene(owner.scene, tmp_path / "scene.mrb")
        for node in before:
            again = owner.scene.GetFirstNode(node.GetName(), node.GetClassName())
            assert again is not None, node.GetName()
            assert again.GetAttribute("MedAI.model") == "finder"
        text = owner.scene.GetFirstNodeByClass("vtkMRMLTextNode").GetText()
        assert text == before[1].GetText()
        image = owner.scene.GetFirstNode("breast", "vtkMRMLScalarVolumeNode")
        assert image.GetAttribute("MedAI.classification.finder") == "4 places, see table"
        table = owner.scene.GetFirstNode(before[0].GetName(), "vtkMRMLTableNode")
        assert cells(table) == cells(before[0])


def test_failures_leave_nothing_behind(scene: Any, source: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: Any) -> None:
        raise RuntimeError("made to fail")

    before = scene.GetNumberOfNodes()
    monkeypatch.setattr(MedAILib.scene.classification, "_note_on", fail)
    with pytest.raises(RuntimeError, match="made to fail"):
        write_classification(result(4, saliency=True), source)
    assert scene.GetNumberOfNodes() == before


def test_an_image_that_changed_is_refused(scene: Any, source: Any) -> None:
    other = replace(result(), geometry=Geometry(SHAPE, np.eye(4)))
    with pytest.raises(InputError, match="another grid"):
        write_classification(other, source)
    scene.RemoveNode(source)
    with pytest.raises(InputError):
        write_classification(result(), source)
    assert isinstance(source, slicer.vtkMRMLScalarVolumeNode)
