"""Segmentation trained with any network and option, stopped at any moment and gone on with."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from balls import SILENT, small, train, write_cases
from monai.bundle import ConfigWorkflow

from MedAILib.cli import main
from MedAILib.errors import InputError, MedAIError
from MedAILib.files.images import read_image
from MedAILib.models.open import open_model
from MedAILib.models.weights import load_weights
from MedAILib.request import RunOptions
from MedAILib.training.architectures import NETWORKS
from MedAILib.training.augment import fixed_steps, random_steps
from MedAILib.training.cases import split_cases
from MedAILib.training.data_folder import open_folder
from MedAILib.training.overrides import read_settings, with_settings
from MedAILib.training.recipe import PARAMETERS
from MedAILib.training.segmentation import TrainingRun, train_segmentation
from MedAILib.training.task import SegmentationTask


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_cases(tmp_path / "data")


# --- training


@pytest.mark.parametrize("network", NETWORKS)
def test_each_network_trains_and_runs_alike_here_and_in_stock_monai(network: str, data: Path, tmp_path: Path) -> None:
    patch = [32, 32, 32] if network == "SwinUNETR" else [16, 16, 16]
    task = small(data, network=network, patch=patch)
    if network == "SwinUNETR":
        task = replace(task, network=task.network | {"feature_size": 12, "depths": [1, 1, 1, 1]})
    path = tmp_path / "task.json"
    path.write_text(json.dumps({"kind": "segmentation", **task.__dict__}), encoding="utf-8")
    bundle = tmp_path / "model"
    assert train(path, "--data", data, "-o", bundle, "--epochs", 1) == 0
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.nii.gz").write_bytes((data / "imagesTr" / "case_0.nii.gz").read_bytes())
    assert agreement(bundle, images) >= 0.999


def agreement(bundle: Path, images: Path) -> float:
    """The share of voxels of `a.nii.gz` that stock MONAI and MedAI label alike."""
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(images),
        output_dir=str(images / "out"),
    )
    workflow.initialize()
    workflow.run()
    theirs = np.asarray(nibabel.load(images / "out" / "a_seg.nii.gz").dataobj).squeeze().transpose(2, 1, 0)
    ours = open_model(bundle, "cpu").run(read_image(images / "a.nii.gz"), RunOptions(), SILENT).layers[0]
    return float((ours == theirs).mean())


@pytest.mark.parametrize(
    "steps", ["denoise,zscore", "window:-50:150", "equalise", "percentiles,smooth", "zscore_nonzero"]
)
def test_each_preprocessing_runs_alike_here_and_in_stock_monai(steps: str, data: Path, tmp_path: Path) -> None:
    for path in (data / "imagesTr").iterdir():  # a margin of zeros that is cut off
        image = nibabel.load(path)
        voxels = np.abs(image.get_fdata()).astype(np.float32)
        voxels[:3] = voxels[:, -2:] = 0
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)
    settings = ["--set", f"intensity={steps}", "--set", "crop_foreground=true", "--set", "patch=16,16,16"]
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--epochs", 1, *settings) == 0
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.nii.gz").write_bytes((data / "imagesTr" / "case_0.nii.gz").read_bytes())
    assert agreement(tmp_path / "m", tmp_path / "images") >= 0.999


def test_channels_in_one_file_are_trained_and_evaluated(data: Path, tmp_path: Path) -> None:
    for path in (data / "imagesTr").iterdir():
        image = nibabel.load(path)
        both = np.stack([image.get_fdata(), -image.get_fdata()], axis=-1).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(both, image.affine), path)
    described = json.loads((data / "dataset.json").read_text()) | {"channel_names": {"0": "T1", "1": "T2"}}
    (data / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--epochs", 1, "--set", "patch=16,16,16") == 0
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.nii.gz").write_bytes((data / "imagesTr" / "case_0.nii.gz").read_bytes())
    assert agreement(tmp_path / "m", tmp_path / "images") >= 0.999
    words = ["evaluate", "-m", tmp_path / "m", "--data", data, "-o", tmp_path / "r", "--device", "cpu", "--quiet"]
    assert main([str(word) for word in words]) == 0


def test_a_refused_resume_leaves_the_task_as_it_was(data: Path, tmp_path: Path) -> None:
    words = ["balls", "--data", data, "-o", tmp_path / "m", "--epochs", 1, "--set", "patch=16,16,16"]
    assert train(*words) == 0
    before = (tmp_path / "m.training" / "task.json").read_bytes()
    assert train(*words, "--resume", "--set", "loss=dice_focal") == 2
    assert (tmp_path / "m.training" / "task.json").read_bytes() == before
    assert train(*words, "--resume") == 0


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


def split_of(task: SegmentationTask, data: Path) -> Any:
    return split_cases(open_folder(data).cases, task.folds, 0, task.seed)


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


@pytest.mark.parametrize("name", PARAMETERS)
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


def test_a_resume_of_another_config_names_what_differs(data: Path, tmp_path: Path) -> None:
    task = small(data, patch=[16, 16, 16])
    split = split_of(task, data)
    train_segmentation(task, split, TrainingRun(tmp_path / "t", 1), SILENT)
    with pytest.raises(InputError, match="another training: loss differ"):
        other = replace(task, loss="dice_focal")
        train_segmentation(other, split, TrainingRun(tmp_path / "t", 1, resume=True), SILENT)
    with pytest.raises(InputError, match="data differ"):
        train_segmentation(task, split, TrainingRun(tmp_path / "t", 1, resume=True, data_sha256="x"), SILENT)


def test_a_disk_that_fills_is_told_and_the_last_checkpoint_stays(data: Path, tmp_path: Path) -> None:
    task = small(data, patch=[16, 16, 16])
    split = split_of(task, data)
    run = TrainingRun(tmp_path / "t", 2)
    train_segmentation(task, split, run, SILENT)
    before = (tmp_path / "t" / "checkpoint.pt").read_bytes()
    import resource

    from MedAILib.training.checkpoint import keep

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    old = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(MedAIError, match=r"free some space|raise the limit"):
            keep({"network": {"weight": torch.zeros(100_000)}}, run.folder)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, old)
    assert (tmp_path / "t" / "checkpoint.pt").read_bytes() == before


def test_a_training_killed_at_any_moment_goes_on_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    task = with_settings(small(data, patch=[16, 16, 16]), read_settings(["augmentation=+elastic,+bias_field"]))
    split = split_of(task, data)
    whole = train_segmentation(task, split, TrainingRun(tmp_path / "whole", 4), SILENT)
    (tmp_path / "task.json").write_text(json.dumps({"kind": "segmentation", **task.__dict__}), encoding="utf-8")
    code = (
        "import sys; from pathlib import Path; from MedAILib.progress import Progress\n"
        "from MedAILib.training.task import read_task; from MedAILib.training.data_folder import open_folder\n"
        "from MedAILib.training.cases import split_cases\n"
        "from MedAILib.training.segmentation import TrainingRun, train_segmentation\n"
        "class P(Progress):\n    def step(self, done, total, text=''): print(text, flush=True)\n"
        "task = read_task(sys.argv[1])\n"
        "split = split_cases(open_folder(Path(sys.argv[2])).cases, task.folds, 0, task.seed)\n"
        "train_segmentation(task, split, TrainingRun(Path(sys.argv[3]), 4, resume=sys.argv[4] == 'r'), P())\n"
    )
    parts = tmp_path / "parts"
    for number, moment in enumerate(("Epoch 1", "Epoch 3")):  # killed in the first and in a later epoch
        mode = "r" if number else "n"
        words = [sys.executable, "-c", code, str(tmp_path / "task.json"), str(data), str(parts), mode]
        process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert any(line.startswith(moment) for line in process.stdout)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()
    resumed = train_segmentation(task, split, TrainingRun(parts, 4, resume=True), SILENT)
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_all_folds_give_an_ensemble_and_a_report_over_every_case(data: Path, tmp_path: Path) -> None:
    path = tmp_path / "task.json"
    task = with_settings(small(data, patch=[16, 16, 16]), read_settings(["folds=2"]))
    path.write_text(json.dumps({"kind": "segmentation", **task.__dict__}), encoding="utf-8")
    assert train(path, "--data", data, "-o", tmp_path / "m", "--epochs", 1, "--fold", "all") == 0
    summary = json.loads((tmp_path / "m.training" / "cross_validation" / "summary.json").read_text())
    assert len(summary["metric_per_case"]) == 6
    assert train(path, "--data", data, "-o", tmp_path / "m", "--epochs", 1, "--fold", "all", "--resume") == 0
    model = open_model(tmp_path / "m", "cpu")
    assert model.run(read_image(data / "imagesTr" / "case_0.nii.gz"), RunOptions(), SILENT).layers.any() in (
        True,
        False,
    )


def test_a_fold_that_there_is_not_leaves_nothing_behind(data: Path, tmp_path: Path) -> None:
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--fold", 9) == 2
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--fold", "some") == 2
    assert not (tmp_path / "m.training").exists()
