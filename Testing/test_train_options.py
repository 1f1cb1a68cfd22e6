"""Each option of `medai train` with each kind of task: it is done, or refused in one sentence; never passed over."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from balls import planned, train, write_cases
from discs import write_discs
from labelled import SIDE, medmnist, small_task

from MedAILib.cli import main
from MedAILib.models.networks import build_network
from MedAILib.models.weights import load_weights
from MedAILib.training.architectures import encoder_stages
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.task import TASKS, read_task

EPOCHS = ("--epochs", 2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return medmnist(tmp_path_factory.mktemp("squares") / "squares.npz", train=32, val=8)


@pytest.fixture
def task(tmp_path: Path) -> Path:
    path = tmp_path / "squares.json"
    path.write_text(json.dumps(small_task(folds=1)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def first(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A classifier to start from."""
    folder = tmp_path_factory.mktemp("first")
    (folder / "squares.json").write_text(json.dumps(small_task(folds=1)), encoding="utf-8")
    assert train(folder / "squares.json", "--data", data, "-o", folder / "model", *EPOCHS) == 0
    return folder / "model"


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_weights(folder / "models" / "model.pt")
    return found


# --- classification


def test_a_classifiers_plan_is_told_and_written_and_can_be_given_back(
    task: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--plan-only", "--set", "batch=4", "--device", "cpu"]
    assert main([*map(str, ["train", task, "--data", data, "-o", tmp_path / "m", *words])]) == 0
    told = capsys.readouterr().out
    for text in ("20 above, 20 below", "32 and 8", "batch              4\n", "asked for by --set", "the task's"):
        assert text in told, told
    assert not (tmp_path / "m").exists()
    read = read_task(str(tmp_path / "m.training" / "task.json"))
    assert isinstance(read, ClassificationTask) and read.batch == 4
    assert train(tmp_path / "m.training" / "task.json", "--data", data, "-o", tmp_path / "n", "--plan-only") == 0


def test_the_picture_of_a_classifiers_samples_is_drawn(task: Path, data: Path, tmp_path: Path) -> None:
    assert train(task, "--data", data, "-o", tmp_path / "m", "--show-augmentation", tmp_path / "a.png") == 0
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG" and not (tmp_path / "m").exists()


def test_a_classifier_starts_from_weights_and_keeps_frozen_stages(
    task: Path, data: Path, first: Path, tmp_path: Path
) -> None:
    words = ["--initial", first, "--set", "frozen_stages=1"]
    assert train(task, "--data", data, "-o", tmp_path / "m", *EPOCHS, *words) == 0
    one, two = weights(first), weights(tmp_path / "m")
    assert torch.equal(one["features.0.weight"], two["features.0.weight"])
    assert not torch.equal(one["features.3.weight"], two["features.3.weight"])
    card = (tmp_path / "m" / "docs" / "README.md").read_text(encoding="utf-8")
    assert "Started from the weights of model, whose first 1 stages" in card and "--initial model" in card


def test_a_classifier_that_starts_from_weights_resumes_with_these_alone(
    task: Path, data: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(task, "--data", data, "-o", tmp_path / "m", *EPOCHS, "--initial", first) == 0
    assert train(task, "--data", data, "-o", tmp_path / "m", *EPOCHS, "--initial", first, "--resume") == 0
    assert train(task, "--data", data, "-o", tmp_path / "m", *EPOCHS, "--resume") == 2
    assert "is of another training" in capsys.readouterr().err


def test_weights_that_fit_nowhere_are_refused_before_data_is_read(
    data: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = {"_target_": "DenseNet121", "spatial_dims": 2, "in_channels": 1, "out_channels": 2}
    changed = small_task(folds=1, network=network, size=[32, 32])
    (tmp_path / "task.json").write_text(json.dumps(changed), encoding="utf-8")
    words = ["-o", tmp_path / "m", "--initial", first]
    assert train(tmp_path / "task.json", "--data", tmp_path / "absent.npz", *words) == 2
    assert "No weights of" in capsys.readouterr().err


CLASSIFIERS = {
    "TextbookCNN": {"in_channels": 1, "out_channels": 2, "in_shape": [SIDE, SIDE], "features": [4, 8]},
    "resnet10": {"n_input_channels": 1, "num_classes": 2},
    "DenseNet121": {"in_channels": 1, "out_channels": 2},
    "EfficientNetBN": {"model_name": "efficientnet-b0", "in_channels": 1, "num_classes": 2},
}


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_stages_of_each_classifier_can_be_frozen(name: str) -> None:
    network = build_network(name, {"spatial_dims": 2, **CLASSIFIERS[name]})
    keys = [key for key, _ in network.named_parameters()]
    stages = encoder_stages(name, keys)
    assert len(stages) >= 2
    assert all(any(key.startswith(stage) for key in keys) for stage in stages)


# --- segmentation


def test_a_given_tasks_plan_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_discs(tmp_path / "data", count=3)
    (tmp_path / "t.json").write_text(json.dumps({"kind": "segmentation", **planned(data).__dict__}), encoding="utf-8")
    words = ["train", tmp_path / "t.json", "--data", data, "-o", tmp_path / "m", "--plan-only", "--device", "cpu"]
    assert main([*map(str, words), "--set", "batch=3"]) == 0
    told = capsys.readouterr().out
    assert "asked for by --set" in told and "the task's" in told


def test_a_plan_and_its_samples_can_be_asked_for_together(tmp_path: Path) -> None:
    data, picture = write_discs(tmp_path / "data", count=3), tmp_path / "a.png"
    assert train("auto", "--data", data, "-o", tmp_path / "m", "--plan-only", "--show-augmentation", picture) == 0
    assert picture.is_file() and not (tmp_path / "m").exists()


def test_folds_that_the_data_prescribes_are_not_replaced(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = write_discs(tmp_path / "data", count=3)
    split = [{"train": ["disc_0", "disc_1"], "val": ["disc_2"]}]
    (data / "splits_final.json").write_text(json.dumps(split), encoding="utf-8")
    assert train("auto", "--data", data, "-o", tmp_path / "m", "--set", "folds=3") == 2
    assert "splits_final.json prescribes 1 folds" in capsys.readouterr().err


# --- all kinds


def kinds(tmp_path: Path, data: Path) -> dict[str, tuple[Any, Path]]:
    (tmp_path / "squares.json").write_text(json.dumps(small_task(folds=1)), encoding="utf-8")
    made = json.loads((TASKS / "breast_ultrasound_pictures.json").read_text(encoding="utf-8"))
    (tmp_path / "made.json").write_text(json.dumps(made), encoding="utf-8")
    return {
        "segmentation": ("auto", write_cases(tmp_path / "balls", 3, (16, 16, 16))),
        "classification": (tmp_path / "squares.json", data),
        "generation": (tmp_path / "made.json", data),
    }


REFUSED = [
    ("classification", ["--fold", 1], "leave --fold out"),
    ("generation", ["--fold", 1], "knows no --fold"),
    ("generation", ["--initial", "somewhere"], "knows no --initial"),
    ("generation", ["--show-augmentation", "a.png"], "knows no --show-augmentation"),
    *[(kind, ["--epochs", 0], "epochs") for kind in ("segmentation", "classification", "generation")],
    *[(kind, ["--resume"], "nothing to resume") for kind in ("segmentation", "classification", "generation")],
    *[(kind, ["--set", "colour=red"], "no such key") for kind in ("segmentation", "classification", "generation")],
    *[
        (kind, ["--resume", "--plan-only"], "leave one of them out")
        for kind in ("segmentation", "classification", "generation")
    ],
    *[(kind, ["--show-augmentation", "a.gif"], "has to end in .png") for kind in ("segmentation", "classification")],
    *[(kind, ["--initial", "absent"], "absent") for kind in ("segmentation", "classification")],
    *[(kind, ["--set", "frozen_stages=1"], "name it with --initial") for kind in ("segmentation", "classification")],
    *[(kind, ["--device", "tpu"], "tpu") for kind in ("segmentation", "classification", "generation")],
]


@pytest.mark.parametrize(("kind", "words", "told"), REFUSED)
def test_what_makes_no_sense_is_refused_and_leaves_nothing(
    kind: str, words: list[Any], told: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    task, found = kinds(tmp_path, data)[kind]
    before = sorted(tmp_path.iterdir())
    arguments = ["train", task, "--data", found, "-o", tmp_path / "new" / "m", "--device", "cpu", "--quiet", *words]
    assert main([*map(str, arguments)]) == 2
    said = capsys.readouterr().err
    assert told in said and len(said.strip().splitlines()) == 1, said
    assert sorted(tmp_path.iterdir()) == before
