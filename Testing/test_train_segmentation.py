"""Segmentation trained with each option."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch
from balls import SILENT, small, split_of, train, write_cases

from MedAILib.models.weights import load_weights
from MedAILib.read_spec import read_spec
from MedAILib.training.augment import fixed_steps, random_steps
from MedAILib.training.data_folder import open_folder
from MedAILib.training.overrides import read_settings, with_settings
from MedAILib.training.recipe import PARAMETERS
from MedAILib.training.segmentation import train_segmentation
from MedAILib.training.training_run import TrainingRun


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_cases(tmp_path / "data")


@pytest.mark.parametrize(
    "settings",
    [
        ["loss=dice_focal", "schedule=cosine", "accumulate=2"],
        ["loss=weighted_ce", "sampling=classes", "samples=2", "schedule=constant"],
        ["sampling=foreground", "patience=1", "intensity=denoise,window:-50:150,zscore"],
        ["precision=bfloat16", "intensity=equalise", "augmentation=none"],
    ],
)
def test_each_option_trains_to_finite_weights(settings: list[str], data: Path, tmp_path: Path) -> None:
    task = with_settings(small(data, patch=[16, 16, 16]), read_settings(settings))
    weights = train_segmentation(task, split_of(task, data), TrainingRun(tmp_path / "t", 2), SILENT)
    assert all(bool(torch.isfinite(value).all()) for value in weights.values())
    assert (tmp_path / "t" / "losses.png").stat().st_size > 5000


def test_training_stops_when_nothing_is_gained_and_keeps_the_best(data: Path, tmp_path: Path) -> None:
    task = with_settings(small(data, patch=[16, 16, 16]), read_settings(["patience=2", "learning_rate=1e-12"]))
    train_segmentation(task, split_of(task, data), TrainingRun(tmp_path / "t", 20), SILENT)
    assert len((tmp_path / "t" / "losses.csv").read_text().splitlines()) == 4  # the head, the first, two without gain


def test_weights_of_a_model_are_taken_over_and_frozen_stages_stay(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    task = small(data, patch=[16, 16, 16])
    path.write_text(json.dumps({"kind": "segmentation", **task.__dict__}), encoding="utf-8")
    first, second = tmp_path / "first", tmp_path / "second"
    assert train(path, "--data", data, "-o", first, "--epochs", 1) == 0
    extra = ["--initial", first, "--set", "frozen_stages=2", "--set", "learning_rate=0.01"]
    assert train(path, "--data", data, "-o", second, "--epochs", 1, *extra) == 0
    one, two = (load_weights(folder / "models" / "model.pt") for folder in (first, second))
    assert all(torch.equal(one[key], two[key]) for key in one if key.startswith("input_block."))
    assert not all(torch.equal(one[key], two[key]) for key in one if key.startswith("upsamples."))


def test_corrections_of_some_of_a_models_structures_are_learnt_from_where_the_model_knows_the_others(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    described = json.loads((data / "dataset.json").read_text()) | {"labels": {"background": 0, "a": 1, "b": 2, "c": 3}}
    (data / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    first, second, labels = tmp_path / "first", tmp_path / "second", sorted((data / "labelsTr").iterdir())
    for path in labels:
        voxels = np.asarray(nibabel.load(path).dataobj).copy()
        voxels[:2] = 3
        nibabel.save(nibabel.Nifti1Image(voxels, nibabel.load(path).affine), path)
    short = ["--data", data, "--epochs", 1, "--set", "patch=16,16,16", "--set", "samples=1"]
    assert train("segmentation", *short, "-o", first) == 0
    for path in labels:
        voxels = np.asarray(nibabel.load(path).dataobj)
        nibabel.save(nibabel.Nifti1Image(voxels * (voxels == 2), nibabel.load(path).affine), path)
    assert train("segmentation", *short, "-o", second) == 2
    assert "No label has the value 1 ('a'); add cases" in capsys.readouterr().err
    assert train("segmentation", *short, "-o", second, "--initial", first) == 0
    told = capsys.readouterr().err
    assert "No label has 'a', which the model knows" in told and "'c'" in told
    assert [label.name for label in read_spec(second).labels] == ["a", "b", "c"]


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name != "mixup"])  # which batches alone have
def test_each_augmentation_changes_samples_and_nothing_but_structures_is_in_labels(name: str, data: Path) -> None:
    task = with_settings(small(data, patch=[24, 24, 24]), read_settings([f"augmentation={name}"]))
    task.augmentation[name]["prob"] = 1.0
    case = open_folder(data).cases[0]
    fixed = fixed_steps(task)({"image": [str(case.images[0])], "label": str(case.label)})
    steps, plain = random_steps(task), random_steps(replace(task, augmentation={}))
    changed = 0
    for seed in range(4):
        sample, before = (s.set_random_state(seed)(dict(fixed)) for s in (steps, plain))
        assert sample["image"].shape == before["image"].shape == (1, 24, 24, 24)
        assert set(sample["label"].unique().tolist()) <= {0.0, 1.0, 2.0}
        changed += not torch.allclose(sample["image"], before["image"], atol=1e-4)
    assert changed >= 2


def test_the_picture_of_samples_is_drawn(data: Path, tmp_path: Path) -> None:
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--show-augmentation", tmp_path / "a.png") == 0
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG" and not (tmp_path / "m").exists()
