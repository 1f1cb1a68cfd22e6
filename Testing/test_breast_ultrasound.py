"""The built-in classifier: it is small, says plainly what it is, and MedAI and stock MONAI run it alike."""

import json
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
from monai.bundle import ConfigParser
from nilearn.datasets import load_mni152_template

from MedAILib.cli import main
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.request import ClassifyOptions
from MedAILib.store.find import find_model
from MedAILib.training.labelled_images import find_labelled_images, read_labelled
from MedAILib.volume import Geometry, Volume

MODEL = "breast_ultrasound"
CLASSES = ["benign or normal", "malignant"]
LARGEST_BYTES = 12_000_000


def picture(path: Path, size: tuple[int, int] = (28, 28), colour: bool = False) -> Path:
    """Speckle with a dark disc, of any size (width, height)."""
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[: size[1], : size[0]] / np.array(size[::-1])[:, None, None]
    grey = rng.normal(120, 20, size[::-1]) - 90 * (np.hypot(rows - 0.4, columns - 0.5) < 0.2)
    image = PIL.Image.fromarray(grey.clip(0, 255).astype(np.uint8))
    (image.convert("RGB") if colour else image).save(path)
    return path


@pytest.mark.parametrize(("size", "colour"), [((28, 28), False), ((500, 371), False), ((64, 90), True)])
def test_pictures_of_any_size_and_colour_are_classified(
    tmp_path: Path, size: tuple[int, int], colour: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    image = picture(tmp_path / "image.png", size, colour)
    output = tmp_path / "out.json"
    assert main(["classify", str(image), "-m", MODEL, "-o", str(output), "--device", "cpu", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert [entry["name"] for entry in found["classes"]] == CLASSES
    assert sum(entry["probability"] for entry in found["classes"]) == pytest.approx(1)
    assert ("converted to grey" in said.err) == colour
    assert json.loads(output.read_text(encoding="utf-8"))["kind"] == "binary"


def test_it_is_whole_small_and_says_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["models", "verify", MODEL]) == 0
    assert main(["models", "info", MODEL]) == 0
    told = capsys.readouterr().out
    assert "CC-BY-4.0" in told and "MedMNIST" in told
    folder = find_model(MODEL)
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) <= LARGEST_BYTES
    card = (folder / "docs" / "README.md").read_text(encoding="utf-8")
    for text in ("28 x 28", "one hospital", "teaching model", "textbook CNN", "95 % interval", "0.863", "0.919"):
        assert text in card


def test_what_is_no_ultrasound_picture_is_not_decided() -> None:
    rng, model = np.random.default_rng(1), open_model(find_model(MODEL), "cpu")
    brain = np.asarray(load_mni152_template(2).get_fdata())
    others = {"noise": rng.normal(size=(64, 64)), "brain": brain[:, :, 40].T, "ramp": np.mgrid[:50, :50].sum(axis=0)}
    for name, values in others.items():
        volume = Volume(values[None, None].astype(np.float32), Geometry((1, *values.shape), np.eye(4)), name)
        assert "unlike the training data" in model.run(volume, ClassifyOptions(), Progress()).verdict().unsure, name


def test_stock_monai_gives_the_same_scores(tmp_path: Path) -> None:
    folder = find_model(MODEL)
    (tmp_path / "images").mkdir()
    image = picture(tmp_path / "images" / "a.png", (57, 43))
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    parser.update({"bundle_root": str(folder), "dataset_dir": str(image.parent), "output_dir": str(tmp_path / "out")})
    parser.get_parsed_content("initialize")
    parser.get_parsed_content("run")
    evaluator = parser.get_parsed_content("evaluator")
    expected = np.asarray(evaluator.state.output[0]["pred"])
    found = open_model(folder, "cpu")
    volume = read_labelled(find_labelled_images(_as_table(image))[0])
    scores = found.run(volume, ClassifyOptions(), Progress()).scores[0]
    shares = np.exp(scores) / np.exp(scores).sum()
    assert shares == pytest.approx(expected, abs=2e-3)
    assert "a.png" in (tmp_path / "out" / "predictions.csv").read_text(encoding="utf-8")


def test_most_pictures_of_the_training_data_are_told_right(shared_data: Path, tmp_path: Path) -> None:
    data = shared_data / MODEL / "breastmnist_train_val.npz"
    arguments = ["evaluate", "-m", MODEL, "--data", str(data), "-o", str(tmp_path / "report"), "--device", "cpu"]
    assert main([*arguments, "--quiet"]) == 0
    told = json.loads((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))
    assert told["positive"] == "malignant"
    assert told["confusion"][0][0] + told["confusion"][0][1] == 57  # of the validation part, 1 is benign or normal
    assert told["accuracy"] > 0.85 and told["auc"] > 0.9


def _as_table(image: Path) -> Path:
    table = image.parent.parent / "list.csv"
    table.write_text(f"path,label\nimages/{image.name},0\n", encoding="utf-8")
    return table
