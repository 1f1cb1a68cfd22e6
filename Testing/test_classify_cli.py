"""`medai classify`: what it writes, and what it says and leaves behind when something is wrong."""

import csv
import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
from bundles import network_entry, random_bundle
from classifier_bundles import DENSENET, classifier_bundle
from test_classify import covariate_network
from test_dicom_series import ct, save

from MedAILib.cli import main
from MedAILib.files.dicom import read_dicom
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.storage import load_scene

CLASSES = ["benign", "malignant", "normal"]
AFFINE = np.diag([-0.9, 0.9, 1.4, 1.0])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `scan.nii.gz`, `picture.png` and models of pictures, of volumes, of sequences."""
    folder = tmp_path_factory.mktemp("place")
    random = np.random.default_rng(0)
    steps = [{"_target_": "ScaleIntensityd"}, {"_target_": "Resized", "spatial_size": 24}]
    classifier_bundle(folder / "pictures", DENSENET, CLASSES, steps=steps)
    classifier_bundle(folder / "volumes", DENSENET | {"spatial_dims": 3}, CLASSES)
    classifier_bundle(folder / "clips", covariate_network(True), ["still", "moving"], own={"sequence": True})
    own = {"covariates": [{"name": "age", "mean": 50, "sd": 10}, {"name": "crp"}]}
    classifier_bundle(folder / "patients", covariate_network(), ["well", "ill"], own=own)
    random_bundle(folder / "segments", network_entry("UNet"))
    scan = random.integers(0, 90, (18, 20, 12)).astype(np.int16)
    nibabel.save(nibabel.Nifti1Image(scan, AFFINE), folder / "scan.nii.gz")
    for n, shape in enumerate([(24, 24), (24, 24), (24, 24), (20, 24)]):
        PIL.Image.fromarray(random.integers(0, 255, shape).astype(np.uint8)).save(folder / f"picture{n}.png")
    (folder / "patients.csv").write_text("file,age,crp\npicture0.png,61,3.5\npicture1,old,1\n", encoding="utf-8")
    return folder


def classify(*words: object) -> int:
    return main(["classify", *(str(word) for word in words), "--quiet"])


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> None:
    said = capsys.readouterr().err.strip().splitlines()
    assert said[-1].startswith("medai: ") and "Traceback" not in "".join(said)
    assert [word for word in words if word not in said[-1]] == []


def test_json_on_standard_output_has_exactly_the_promised_keys(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "found.json"
    assert classify(place / "picture0.png", "-m", place / "pictures", "-o", out, "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert list(said) == ["model", "version", "sha256", "input", "classes", "predicted", "threshold"]
    assert (said["model"], said["version"], said["input"]) == ("pictures", "0.2.0", "picture0.png")
    assert len(said["sha256"]) == 64
    assert [entry["name"] for entry in said["classes"]] == CLASSES
    assert sum(entry["probability"] for entry in said["classes"]) == pytest.approx(1)
    best = max(said["classes"], key=lambda entry: entry["probability"])
    assert said["predicted"] == best["name"] and said["threshold"] == 0
    written = json.loads(out.read_text(encoding="utf-8"))
    assert written | said == written
    assert written["provenance"]["device"] == "cpu"
    assert names(tmp_path) == ["found.json"]


def test_each_slice_is_a_line_of_the_table(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.csv"
    assert classify(place / "scan.nii.gz", "-m", place / "pictures", "-o", out, "--each-slice", "K") == 0
    rows = list(csv.DictReader(out.open(encoding="utf-8")))
    assert len(rows) == 12 * 3
    assert [row["place"] for row in rows[::3]] == [f"slice K {n}" for n in range(12)]
    assert float(rows[6]["position_mm"]) == pytest.approx(2 * 1.4)
    assert {row["decision"] for row in rows} == {"yes", "no"}


def test_one_slice_is_the_same_as_its_row(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = (place / "scan.nii.gz", "-m", place / "pictures", "-o", out)
    assert classify(*words, "--each-slice", "J") == 0
    all_rows = json.loads(out.read_text())["rows"]
    assert classify(*words, "--slice", "J", "7") == 0
    one = json.loads(out.read_text())
    assert one["rows"][0]["place"] == "slice J 7"
    assert one["classes"][0]["probability"] == pytest.approx(all_rows[7]["classes"][0]["probability"])


def test_a_folder_gets_all_and_a_saliency_on_the_images_grid(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    words = (place / "scan.nii.gz", "-m", place / "volumes", "-o", out, "--method", "integrated-gradients")
    assert classify(*words, "--explain-class", "malignant") == 0
    assert names(out) == ["classification.csv", "classification.json", "saliency.nii.gz", "scene.mrb"]
    saliency = nibabel.load(out / "saliency.nii.gz")
    assert saliency.shape == (18, 20, 12) and saliency.get_data_dtype() == np.float32
    assert np.allclose(saliency.affine, AFFINE, atol=1e-5)
    assert np.abs(np.asarray(saliency.dataobj)).max() == pytest.approx(1)
    told = json.loads((out / "classification.json").read_text())["explanation"]
    assert told["class"] == "malignant" and told["method"] == "integrated-gradients"


def test_the_scene_has_the_image_the_table_the_text_and_the_saliency(place: Path, tmp_path: Path) -> None:
    out, extra = tmp_path / "found.mrb", tmp_path / "why.nrrd"
    words = (place / "scan.nii.gz", "-m", place / "volumes", "-o", out, "--explain", extra)
    assert classify(*words) == 0
    assert names(tmp_path) == ["found.mrb", "why.nrrd"]
    with headless_scene() as owner:
        load_scene(owner.scene, out)
        assert owner.scene.GetNumberOfNodesByClass("vtkMRMLScalarVolumeNode") == 2
        table = owner.scene.GetFirstNodeByClass("vtkMRMLTableNode")
        assert table.GetTable().GetNumberOfRows() == 3
        assert "research use only" in owner.scene.GetFirstNodeByClass("vtkMRMLTextNode").GetText()


def test_dicom_gives_a_structured_report(place: Path, tmp_path: Path) -> None:
    import pydicom

    series = save(ct(), tmp_path / "series")
    out = tmp_path / "out"
    words = (series, "-m", place / "pictures", "-o", out, "--slice", "K", "2")
    assert classify(*words) == 0
    assert names(out) == ["classification.csv", "classification.dcm", "classification.json", "scene.mrb"]
    report = pydicom.dcmread(out / "classification.dcm")
    assert report.Modality == "SR" and report.StudyInstanceUID == read_dicom(series).provenance["StudyInstanceUID"]


def test_covariates_come_from_the_images_own_line(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = ("-m", place / "patients", "-o", out, "--covariates", place / "patients.csv")
    assert classify(place / "picture0.png", *words) == 0
    said = json.loads(out.read_text())["provenance"]
    assert said["option.covariates"] == "{'age': 61.0, 'crp': 3.5}"


def test_frames_of_a_sequence_are_given_as_files(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    frames = [place / f"picture{n}.png" for n in range(3)]
    assert classify(*frames, "-m", place / "clips", "-o", out) == 0
    assert json.loads(out.read_text())["input"] == "picture0.png and 2 more"


WRONG: list[tuple[list[str], list[str]]] = [
    (["scan.nii.gz", "-m", "pictures", "-o", "x.json"], ["takes single pictures", "--each-slice K"]),
    (["scan.nii.gz", "-m", "pictures", "-o", "x.nii.gz"], ["x.nii.gz", "no result of a classification"]),
    (["scan.nii.gz", "-m", "volumes", "-o", "x.dcm"], ["x.dcm", "DICOM series"]),
    (["scan.nii.gz", "-m", "segments", "-o", "x.json"], ["segments", "does not classify"]),
    (["scan.nii.gz", "-m", "volumes", "-o", "x.json", "--slice", "K", "1"], ["whole volumes"]),
    (["scan.nii.gz", "-m", "pictures", "-o", "x.json", "--slice", "K", "12"], ["no slice K 12"]),
    (["scan.nii.gz", "-m", "pictures", "-o", "x.json", "--slice", "X", "1"], ["not 'X'"]),
    (["scan.nii.gz", "-m", "pictures", "-o", "x.json", "--slice", "K", "one"], ["not K one"]),
    (["scan.nii.gz", "-m", "volumes", "-o", "x.json", "--method", "magic"], ["'magic'", "grad-cam"]),
    (["scan.nii.gz", "-m", "volumes", "-o", "x.json", "--method", "lime"], ["--explain FILE"]),
    (["scan.nii.gz", "-m", "volumes", "-o", "x.json", "--explain", "e.png"], ["e.png", ".nii.gz"]),
    (["scan.nii.gz", "-m", "volumes", "-o", "y", "--explain-class", "cancer"], ["no class cancer", "malignant"]),
    (["scan.nii.gz", "-m", "volumes", "-o", "x.json", "--roi", "900", "0", "0", "1", "1", "1"], ["outside"]),
    (["scan.nii.gz", "scan.nii.gz", "-m", "volumes", "-o", "x.json"], ["2 channels", "takes 1"]),
    (["picture0.png", "-m", "patients", "-o", "x.json"], ["age, crp", "--covariates FILE.csv"]),
    (["picture1.png", "-m", "patients", "-o", "x.json", "--covariates", "patients.csv"], ["age", "'old'", "no number"]),
    (["picture2.png", "-m", "patients", "-o", "x.json", "--covariates", "patients.csv"], ["0 lines for picture2.png"]),
    (["picture0.png", "-m", "patients", "-o", "x.json", "--covariates", "scan.nii.gz"], ["can't be read"]),
    (["picture0.png", "-m", "pictures", "-o", "x.json", "--covariates", "patients.csv"], ["takes no covariates"]),
    (["picture0.png", "picture3.png", "-m", "clips", "-o", "x.json"], ["picture3.png", "of one size"]),
    (["absent.png", "-m", "pictures", "-o", "x.json"], ["absent.png", "does not exist"]),
    (["picture0.png", "-m", "nothing", "-o", "x.json"], ["nothing"]),
]


@pytest.mark.parametrize(("words", "said"), WRONG, ids=lambda value: " ".join(value)[:60])
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_left(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: list[str]
) -> None:
    def located(word: str) -> Any:
        outputs = ("x.", "e.png", "y")
        return tmp_path / word if word.startswith(outputs) else place / word if (place / word).exists() else word

    assert classify(*(located(word) for word in words)) == 2
    refused(capsys, *said)
    assert names(tmp_path) == []


def test_segment_sends_a_classifier_to_its_own_command(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["segment", str(place / "scan.nii.gz"), "-m", str(place / "volumes"), "-o", str(tmp_path / "x.nii.gz")]
    assert main([*words, "--quiet"]) == 2
    refused(capsys, "medai classify")
