"""After cross-validation networks go on and learn from all cases: one is a bundle, several are an ensemble."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from balls import SILENT, small, task_file, train, write_cases

from MedAILib.errors import OutputError
from MedAILib.files.images import read_image
from MedAILib.models.open import open_model
from MedAILib.models.weights import load_weights
from MedAILib.request import RunOptions
from MedAILib.training import segmentation
from MedAILib.training.checkpoint import keep

EPOCHS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("final") / "data")


@pytest.fixture(scope="module")
def words(data: Path) -> list[object]:
    return [task_file(data, "folds=2"), "--data", data, "--fold", "all", "--set", "final_epochs=2", "--epochs", EPOCHS]


@pytest.fixture(scope="module")
def one(words: list[object], data: Path) -> Path:
    folder = data.parent / "one"
    assert train(*words, "-o", folder, "--set", "shipped=1") == 0
    return folder


def test_one_network_that_has_learnt_from_all_cases_is_a_bundle(one: Path, data: Path) -> None:
    volume = read_image(data / "imagesTr" / "case_0.nii.gz")
    assert open_model(one, "cpu").run(volume, RunOptions(), SILENT).layers.shape[1:] == volume.geometry.shape_kji
    fold = load_weights(one.with_name("one.training") / "fold_0" / "bundle" / "models" / "model.pt")
    final = load_weights(one / "models" / "model.pt")
    apart = [float((final[key].float() - value.float()).norm() / value.float().norm()) for key, value in fold.items()]
    assert final.keys() == fold.keys() and max(apart) > 0 and sum(apart) / len(apart) < 0.5  # it went on from there


def test_its_card_has_each_fold_s_figures_and_all_together(one: Path) -> None:
    card = (one / "docs" / "README.md").read_text(encoding="utf-8")
    summary = json.loads((one.with_name("one.training") / "cross_validation" / "summary.json").read_text())
    table = card.partition("| fold | cases |")[2]
    rows = [line for line in table.splitlines() if line.startswith(("| 0 |", "| 1 |", "| all |"))]
    assert [row.split(" | ")[1] for row in rows] == ["3", "3", "6"]
    assert f"{summary['mean']['1']['Dice']:.3f}" in rows[2]
    for text in (
        "2-fold cross-validation",
        "6 cases, all to learn from",
        f"{EPOCHS} epochs",
        "then 2 more of all cases",
    ):
        assert text in card


def test_an_end_that_stopped_half_way_goes_on_to_the_same_weights(
    one: Path, words: list[object], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, place = data.parent / "again", data.parent / "again.training"

    def kept_once(content: dict[str, object], where: Path) -> None:
        keep(content, where)
        if where.name == "final_0":
            raise OutputError("The disk is full.")

    monkeypatch.setattr(segmentation, "keep", kept_once)
    assert train(*words, "-o", folder, "--set", "shipped=1") != 0
    assert len(load_weights(place / "final_0" / "checkpoint.pt")["records"]) == 1 and not folder.exists()
    monkeypatch.undo()
    assert train(*words, "-o", folder, "--set", "shipped=1", "--resume") == 0
    whole, resumed = (load_weights(path / "models" / "model.pt") for path in (one, folder))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_an_end_that_went_on_from_other_folds_is_not_taken(
    words: list[object], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder, place = data.parent / "other", data.parent / "other.training"
    assert train(*words, "-o", folder, "--set", "shipped=1", "--epochs", 1) == 0
    final = (place / "final_0" / "checkpoint.pt").read_bytes(), (place / "final_0" / "started.json").read_bytes()
    assert train(*words, "-o", folder) == 0  # trains the folds anew, longer, and forgets what went on from the old ones
    assert not (place / "final_0" / "started.json").exists()
    for name, content in zip(("checkpoint.pt", "started.json"), final, strict=True):
        (place / "final_0" / name).write_bytes(content)
    assert train(*words, "-o", folder, "--set", "shipped=1", "--resume") == 2
    assert "final_0 is of another training: start differ(s)" in capsys.readouterr().err


def test_folds_that_were_trained_are_taken_for_several_networks(one: Path, words: list[object], data: Path) -> None:
    place = one.with_name("one.training") / "fold_1" / "checkpoint.pt"
    before = place.stat().st_mtime_ns
    assert train(*words, "-o", one, "--set", "shipped=2", "--resume") == 0
    assert place.stat().st_mtime_ns == before
    volume = read_image(data / "imagesTr" / "case_0.nii.gz")
    assert open_model(one, "cpu").run(volume, RunOptions(), SILENT).provenance["members"].count(",") == 1
    assert sorted(path.name for path in one.iterdir()) == ["LICENSE", "docs", "final_0", "final_1", "medai.json"]
    told = (one / "docs" / "README.md").read_text(encoding="utf-8")
    for text in ("2 networks, whose probabilities are averaged", "one of the folds 0 to 1", "| all | 6 |"):
        assert text in told
    assert train(*words, "-o", one, "--set", "shipped=1", "--resume") == 0
    assert (one / "configs" / "metadata.json").is_file()


@pytest.mark.parametrize("wrong", ["shipped=3", "shipped=-1", "final_epochs=-1", "shipped=one"])
def test_numbers_without_sense_are_refused(
    wrong: str, words: list[object], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*words, "-o", data.parent / "wrong", "--set", wrong) == 2
    assert "shipped" in capsys.readouterr().err
    assert not (data.parent / "wrong.training").exists()


def test_what_is_for_all_folds_is_refused_for_one(
    words: list[object], data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told = [words[0], "--data", data, "-o", data.parent / "single", "--set", "shipped=1"]
    assert train(*told) == 2
    assert "shipped can be set with --fold all or none only" in capsys.readouterr().err


def test_a_model_that_somebody_described_is_not_written_over(words: list[object], data: Path, tmp_path: Path) -> None:
    (tmp_path / "medai.json").write_text('{"network": "UNet"}', encoding="utf-8")
    assert train(*words, "-o", tmp_path) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["medai.json"]


def test_a_single_fold_that_the_data_prescribes_still_gives_a_model(data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    names = [f"case_{number}" for number in range(6)]
    (folder / "splits_final.json").write_text(json.dumps([{"train": names[:4], "val": names[4:]}]))
    task = small(folder, patch=[16, 16, 16])
    (tmp_path / "task.json").write_text(json.dumps({"kind": "segmentation", **task.__dict__}), encoding="utf-8")
    told = ["--data", folder, "-o", tmp_path / "m", "--epochs", 1, "--fold", "all"]
    assert train(tmp_path / "task.json", *told) == 0
    assert open_model(tmp_path / "m", "cpu").spec.title == task.title
    assert "4 cases for training and 2 for validation" in (tmp_path / "m" / "docs" / "README.md").read_text()
