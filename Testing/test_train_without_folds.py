"""`--fold none`: networks learn from all cases at once, and their card says that nothing was left to judge by."""

import json
from pathlib import Path

import pytest
import torch
from balls import SILENT, task_file, train, write_cases

from MedAILib.errors import OutputError
from MedAILib.files.images import read_image
from MedAILib.models.open import open_model
from MedAILib.models.weights import load_weights
from MedAILib.request import RunOptions
from MedAILib.training import segmentation
from MedAILib.training.checkpoint import keep

EPOCHS = 2


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("without_folds") / "data")


@pytest.fixture(scope="module")
def words(data: Path) -> list[object]:
    return [task_file(data), "--data", data, "--fold", "none", "--epochs", EPOCHS]


@pytest.fixture(scope="module")
def one(words: list[object], data: Path) -> Path:
    folder = data.parent / "one"
    assert train(*words, "-o", folder) == 0
    return folder


@pytest.fixture(scope="module")
def two(words: list[object], data: Path) -> Path:
    folder = data.parent / "two"
    assert train(*words, "-o", folder, "--set", "shipped=2") == 0
    return folder


def _card(model: Path) -> str:
    return " ".join((model / "docs" / "README.md").read_text(encoding="utf-8").split())


def test_one_network_learns_from_all_cases_and_is_a_bundle(one: Path, data: Path) -> None:
    volume = read_image(data / "imagesTr" / "case_0.nii.gz")
    assert open_model(one, "cpu").run(volume, RunOptions(), SILENT).layers.shape[1:] == volume.geometry.shape_kji
    weights = load_weights(one / "models" / "model.pt")
    assert len({value.data_ptr() for value in weights.values()}) < len(weights)  # a DynUNet has some by two names
    place = one.with_name("one.training")
    started = json.loads((place / "network_0" / "started.json").read_text(encoding="utf-8"))
    assert started["cases"] == [f"case_{number}" for number in range(6)]
    assert sorted(path.name for path in place.iterdir()) == ["network_0", "task.json"]


def test_its_card_says_that_no_case_was_left_to_judge_by(one: Path) -> None:
    card = _card(one)
    for text in (
        "6 cases, none of which was kept aside to judge by.",
        f"{EPOCHS} epochs of all cases",
        "how good this network is can be told by other cases only",
        f"--fold none --epochs {EPOCHS}",
    ):
        assert text in card
    assert "figures below" not in card and "Dice |" not in card


def test_with_patience_the_card_tells_who_decided_when_to_stop(words: list[object], tmp_path: Path) -> None:
    assert train(*words, "-o", tmp_path / "m", "--set", "patience=1", "--epochs", 1) == 0
    card = _card(tmp_path / "m")
    assert "1 epochs of the training cases" in card and "A tenth of the cases was kept aside to stop" in card
    assert "all to learn from" not in card and "All cases" not in card


def test_several_networks_have_a_seed_each_and_are_an_ensemble(one: Path, two: Path, data: Path) -> None:
    first, second = (load_weights(two / f"network_{number}" / "models" / "model.pt") for number in (0, 1))
    alone = load_weights(one / "models" / "model.pt")
    assert all(torch.equal(value, first[key]) for key, value in alone.items())
    assert any(not torch.equal(value, second[key]) for key, value in first.items())
    volume = read_image(data / "imagesTr" / "case_0.nii.gz")
    assert open_model(two, "cpu").run(volume, RunOptions(), SILENT).provenance["members"].count(",") == 1
    seed = json.loads((data.parent / "task.json").read_text(encoding="utf-8"))["seed"]
    card = _card(two)
    for text in (f"Seeds {seed} to {seed + 1}.", "2 networks, whose probabilities are averaged", "these networks are"):
        assert text in card
    assert f"Seed {seed + 1}." in _card(two / "network_1")


def test_networks_that_are_there_are_taken_with_resume(one: Path, two: Path, words: list[object]) -> None:
    place = one.with_name("one.training") / "network_0" / "checkpoint.pt"
    before = place.stat().st_mtime_ns
    assert train(*words, "-o", one, "--set", "shipped=2", "--resume") == 0
    assert place.stat().st_mtime_ns == before
    for member in ("network_0", "network_1"):
        whole, resumed = (load_weights(path / member / "models" / "model.pt") for path in (two, one))
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    assert json.loads((one.with_name("one.training") / "task.json").read_text(encoding="utf-8"))["shipped"] == 2
    assert train(*words, "-o", one, "--resume") == 0
    assert (one / "configs" / "metadata.json").is_file()


def test_a_training_that_stopped_half_way_goes_on_to_the_same_weights(
    two: Path, words: list[object], data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = data.parent / "again"

    def kept_once(content: dict[str, object], where: Path) -> None:
        keep(content, where)
        if where.name == "network_1":
            raise OutputError("The disk is full.")

    monkeypatch.setattr(segmentation, "keep", kept_once)
    assert train(*words, "-o", folder, "--set", "shipped=2") != 0
    assert not folder.exists()
    monkeypatch.undo()
    assert train(*words, "-o", folder, "--set", "shipped=2", "--resume") == 0
    for member in ("network_0", "network_1"):
        whole, resumed = (load_weights(path / member / "models" / "model.pt") for path in (two, folder))
        assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_a_training_anew_forgets_what_was_there(words: list[object], data: Path) -> None:
    folder = data.parent / "anew"
    place = folder.with_name("anew.training")
    assert train(*words, "-o", folder, "--set", "shipped=2") == 0
    assert train(*words, "-o", folder, "--epochs", 1) == 0
    assert not (place / "network_1" / "started.json").exists()
    assert train(*words, "-o", folder, "--epochs", 1, "--set", "shipped=2", "--resume") == 0


def test_cases_of_one_patient_suffice_where_none_is_kept_aside(
    words: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_cases(tmp_path / "data")
    rows = [f"case_{number},P1" for number in range(6)]
    (data / "patients.csv").write_text("\n".join(["case,patient", *rows]) + "\n", encoding="utf-8")
    told = ["--data", data, "--epochs", 1, "-o", tmp_path / "m"]
    assert train(words[0], *told) == 2
    assert "of one patient" in capsys.readouterr().err
    assert train(words[0], *told, "--fold", "none") == 0
    assert train(words[0], *told, "--fold", "none", "--set", "patience=1") == 2
    assert "too few to stop early by" in capsys.readouterr().err


def test_what_can_not_stop_early_leaves_what_was_there(words: list[object], tmp_path: Path) -> None:
    data = write_cases(tmp_path / "data")
    rows = [f"case_{number},P1" for number in range(6)]
    (data / "patients.csv").write_text("\n".join(["case,patient", *rows]) + "\n", encoding="utf-8")
    told = [words[0], "--data", data, "--epochs", 1, "-o", tmp_path / "m", "--fold", "none"]
    assert train(*told, "--set", "patience=1") == 2
    assert not (tmp_path / "m.training").exists()


def test_folds_that_were_trained_there_stay(words: list[object], tmp_path: Path) -> None:
    place = tmp_path / "m.training" / "fold_0"
    place.mkdir(parents=True)
    (place / "started.json").write_text("{}", encoding="utf-8")
    assert train(*words, "-o", tmp_path / "m", "--epochs", 1) == 0
    assert (place / "started.json").is_file()


def test_nothing_is_resumed_where_nothing_began(
    words: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*words, "-o", tmp_path / "m", "--resume") == 2
    assert "There is nothing to resume" in capsys.readouterr().err
    assert not (tmp_path / "m.training").exists()


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (["--set", "final_epochs=1"], "final_epochs can be set with --fold all only"),
        (["--set", "shipped=-1"], "can't be below 0"),
        (["--fold", "some"], "--fold some is no fold"),
    ],
)
def test_what_makes_no_sense_is_refused_before_anything_is_written(
    wrong: list[str], told: str, words: list[object], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(*words, "-o", tmp_path / "m", *wrong) == 2
    assert told in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
