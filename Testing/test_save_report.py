"""What was found is saved from the window and the console: JSON, CSV, and a DICOM report on the image's own files."""

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import highdicom as hd
import numpy as np
import pydicom
import pytest
import slicer
import slicer.util
import vtk
from bundles import threshold_bundle
from classifier_bundles import DENSENET, classifier_bundle
from pydicom.sr.codedict import codes
from test_dicom_series import ct, enhanced, save

from MedAILib.detections import Box, Detections
from MedAILib.errors import InputError, OutputError
from MedAILib.files.dicom import read_dicom
from MedAILib.files.dicom_sources import sources_of
from MedAILib.results import Classification, Code, Place
from MedAILib.stored_results import result_from, text_of
from MedAILib.volume import Geometry, Volume

GEOMETRY = Geometry((4, 5, 6), np.diag([1.0, 2.0, 3.0, 1.0]))
CLASSES = ["square", "disc", "none"]


def classification() -> Classification:
    places = tuple(Place("slice", ((n, n + 1), (0, 5), (0, 6)), n, "K", 3.0 * n) for n in range(2))
    p = np.array([[0.25, 0.75], [0.9, 0.1]])
    code = Code("SCT", "86049000", "Malignant neoplasm, primary")
    strange = np.array([0.5, 0.125])
    return Classification(
        ("no", "yes"), "binary", p, np.log(p), (0.5, 0.6), places, GEOMETRY, 0.2, strange, 0.4, codes=(None, code)
    )


def test_a_result_comes_back_from_its_text() -> None:
    before = classification()
    after = result_from(text_of(before))
    assert isinstance(after, Classification)
    for name in ("classes", "kind", "thresholds", "places", "unsure_below", "strange_above", "codes", "provenance"):
        assert getattr(after, name) == getattr(before, name)
    assert np.array_equal(after.probabilities, before.probabilities)
    assert np.array_equal(after.strangeness, before.strangeness)
    assert after.geometry.same_grid_as(before.geometry)
    found = Detections((Box("mass", 0.75, (0.5, 1.0, 1.5), (2.0, 3.0, 3.5)),), ("mass", "cyst"), GEOMETRY, 0.25)
    again = result_from(text_of(found))
    assert isinstance(again, Detections)
    assert (again.boxes, again.classes, again.threshold) == (found.boxes, found.classes, 0.25)


@pytest.mark.parametrize("change", [{"what": "letter"}, {"probabilities": [[2, 0], [0, 1]]}, {"places": [["x"]]}])
def test_a_text_that_makes_no_sense_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="can't be read"):
        result_from(json.dumps(json.loads(text_of(classification())) | change))


@pytest.fixture(scope="module")
def series(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(ct(8), tmp_path_factory.mktemp("dicom") / "series")


@pytest.fixture(scope="module")
def volume(series: Path) -> Volume:
    return read_dicom(series)


def turned(geometry: Geometry) -> Geometry:
    """The same slices, the last one first."""
    flip = np.diag([1.0, 1.0, -1.0, 1.0])
    flip[2, 3] = geometry.shape_kji[0] - 1
    return Geometry(geometry.shape_kji, geometry.ijk_to_ras @ flip)


def test_files_follow_the_slices_whichever_way_the_stack_is_turned(series: Path, volume: Volume) -> None:
    files = volume.provenance["files"]
    paths = sorted(series.iterdir(), reverse=True)
    assert sources_of(paths, volume.geometry, "CT") == {"files": files}
    assert sources_of(paths, turned(volume.geometry), "CT")["files"].split("\n") == files.split("\n")[::-1]
    part = volume.geometry.cropped((2, 1, 0), (3, 2, 4))
    assert sources_of(paths, part, "CT")["files"].split("\n") == files.split("\n")[2:5]


def test_frames_follow_the_slices_too(tmp_path: Path) -> None:
    path = tmp_path / "enhanced.dcm"
    enhanced().save_as(path)
    volume = read_dicom(path)
    found = sources_of([path], turned(volume.geometry), "MR")
    assert found["files"] == str(path.resolve())
    assert found["frames"].split("\n") == volume.provenance["frames"].split("\n")[::-1]


def test_a_volume_that_left_its_slices_is_refused(series: Path, volume: Volume) -> None:
    k, j, i = volume.geometry.shape_kji
    finer = Geometry((2 * k, j, i), volume.geometry.ijk_to_ras @ np.diag([1.0, 1.0, 0.5, 1.0]))
    with pytest.raises(InputError, match="resampled"):
        sources_of(sorted(series.iterdir()), finer, "CT")


# In the window


@pytest.fixture
def session(classify_session: Any, monkeypatch: pytest.MonkeyPatch, series: Path) -> Iterator[Any]:
    """With a DICOM database that knows the series."""
    pytest.importorskip("PySide6.QtUiTools", reason="PySide6 or a library of its is not here", exc_type=ImportError)
    files = {str(pydicom.dcmread(path).SOPInstanceUID): str(path) for path in series.iterdir()}
    database = SimpleNamespace(fileForInstance=lambda uid: files.get(uid, ""))
    monkeypatch.setattr(slicer, "dicomDatabase", database, raising=False)
    return classify_session


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> str:
    steps = [{"_target_": "ScaleIntensityd"}, {"_target_": "Resized", "spatial_size": [24, 28]}]
    return str(classifier_bundle(tmp_path_factory.mktemp("model") / "pictures", DENSENET, CLASSES, steps=steps))


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(threshold_bundle(tmp_path_factory.mktemp("model") / "bright", 300.0, None))


def load(session: Any, volume: Volume) -> Any:
    """The series as Slicer's DICOM module would leave it in the scene."""
    node = session.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Abdomen")
    slicer.util.updateVolumeFromArray(node, volume.data[0])
    matrix = vtk.vtkMatrix4x4()
    matrix.DeepCopy(volume.geometry.ijk_to_ras.ravel())
    node.SetIJKToRASMatrix(matrix)
    uids = [str(pydicom.dcmread(path).SOPInstanceUID) for path in volume.provenance["files"].split("\n")]
    node.SetAttribute("DICOM.instanceUIDs", " ".join(uids))
    return node


def test_button_saves_what_the_table_shows(
    session: Any, client: Any, pictures: str, volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from standin import qt
    from standin.session import run_to_end

    load(session, volume)
    widget = session.open(client)
    widget._parameterNode.model, widget._parameterNode.device = pictures, "cpu"
    widget._parameterNode.part = "each slice"
    assert not widget.ui.saveReportButton.enabled
    run_to_end(widget)
    assert widget.ui.saveReportButton.enabled
    for ending in ("json", "csv", "dcm"):
        path = tmp_path / f"report.{ending}"
        monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_, path=path: str(path))
        widget.ui.saveReportButton.click()
        assert widget.ui.statusLabel.text == f"Saved {path}."
    assert len(json.loads((tmp_path / "report.json").read_text())["rows"]) == 8
    assert len((tmp_path / "report.csv").read_text().splitlines()) == 1 + 8 * len(CLASSES)
    report = hd.sr.srread(tmp_path / "report.dcm")
    assert (report.StudyInstanceUID, report.PatientID) == ("1.2.3", "secret")
    groups = report.content.get_image_measurement_groups()
    assert len(groups) == 8 * len(CLASSES)
    files = volume.provenance["files"].split("\n")
    assert groups[-1].source_images[0].referenced_sop_instance_uid == pydicom.dcmread(files[-1]).SOPInstanceUID


def test_button_says_why_a_report_can_not_be_saved(
    session: Any, client: Any, pictures: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from standin import qt
    from standin.session import run_to_end

    session.add_volume(shape_kji=(1, 24, 28))
    widget = session.open(client)
    widget._parameterNode.model, widget._parameterNode.device = pictures, "cpu"
    run_to_end(widget)
    monkeypatch.setattr(qt.QFileDialog, "getSaveFileName", lambda *_: str(tmp_path / "report.dcm"))
    widget.ui.saveReportButton.click()
    session.until(session.messages)
    assert "not loaded by Slicer's DICOM module" in session.messages()[0]
    assert list(tmp_path.glob("*.dcm")) == []


def test_findings_of_a_scene_that_was_saved_are_reported(
    session: Any, client: Any, segmenter: str, volume: Volume, tmp_path: Path
) -> None:
    from MedAILib.scene.storage import load_scene, save_scene

    logic, node = session.logic(client), load(session, volume)
    _, *regions = logic.detect(node, segmenter, "cpu")
    save_scene(session.scene, tmp_path / "scene.mrb")
    session.scene.Clear()
    load_scene(session.scene, tmp_path / "scene.mrb")
    tables = [one for one in session.nodes("vtkMRMLTableNode") if one.GetAttribute("MedAI.result")]
    path = logic.saveReport(tables[0], tmp_path / "findings.dcm")
    groups = hd.sr.srread(path).content.get_volumetric_roi_measurement_groups()
    assert len(groups) == len(regions) > 0
    assert groups[0].get_measurements(codes.DCM.Probability)[0].value == pytest.approx(1, abs=0.01)


def test_what_can_not_be_saved_is_refused_in_a_sentence(
    session: Any, client: Any, segmenter: str, volume: Volume, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    logic, node = session.logic(client), load(session, volume)
    table = logic.detect(node, segmenter, "cpu")[0]
    with pytest.raises(OutputError, match=r"\.json, \.csv, \.dcm"):
        logic.saveReport(table, tmp_path / "findings.txt")
    with pytest.raises(InputError, match="no table of a classification"):
        logic.saveReport(session.scene.AddNewNodeByClass("vtkMRMLTableNode"), tmp_path / "findings.json")
    monkeypatch.setattr(slicer, "dicomDatabase", SimpleNamespace(fileForInstance=lambda uid: ""))
    with pytest.raises(InputError, match="import them again"):
        logic.saveReport(table, tmp_path / "findings.dcm")
    session.scene.RemoveNode(node)
    with pytest.raises(InputError, match="not in the scene any more"):
        logic.saveReport(table, tmp_path / "findings.dcm")
    assert logic.saveReport(table.GetID(), tmp_path / "findings.csv").is_file()
    assert [path.name for path in tmp_path.glob("findings*")] == ["findings.csv"]
