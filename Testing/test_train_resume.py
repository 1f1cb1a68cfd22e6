"""A training that was stopped, killed or done in folds goes on to the same result, or is refused with the reason."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from balls import SILENT, small, split_of, train, write_cases

from MedAILib.errors import InputError, MedAIError
from MedAILib.files.images import read_image
from MedAILib.models.open import open_model
from MedAILib.request import RunOptions
from MedAILib.training.overrides import read_settings, with_settings
from MedAILib.training.segmentation import train_segmentation
from MedAILib.training.training_run import TrainingRun


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_cases(tmp_path / "data")


def test_a_refused_resume_leaves_the_task_as_it_was(data: Path, tmp_path: Path) -> None:
    words = ["balls", "--data", data, "-o", tmp_path / "m", "--epochs", 1, "--set", "patch=16,16,16"]
    assert train(*words) == 0
    before = (tmp_path / "m.training" / "task.json").read_bytes()
    assert train(*words, "--resume", "--set", "loss=dice_focal") == 2
    assert (tmp_path / "m.training" / "task.json").read_bytes() == before
    assert train(*words, "--resume") == 0


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
        "from MedAILib.training.segmentation import train_segmentation\n"
        "from MedAILib.training.training_run import TrainingRun\n"
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
    volume = read_image(data / "imagesTr" / "case_0.nii.gz")
    segmentation = open_model(tmp_path / "m", "cpu").run(volume, RunOptions(), SILENT)
    assert segmentation.geometry == volume.geometry and len(segmentation.provenance["members"].split(", ")) == 2


def test_a_fold_that_there_is_not_leaves_nothing_behind(data: Path, tmp_path: Path) -> None:
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--fold", 9) == 2
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--fold", "some") == 2
    assert not (tmp_path / "m.training").exists()
