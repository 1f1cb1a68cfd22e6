"""Training: the data is checked first, a run goes on where it was stopped, and its result runs as a model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from MedAILib.cli import main
from MedAILib.errors import InputError, MedAIError, OutputError
from MedAILib.models.open import open_model
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.training.augment import fixed_steps, random_steps
from MedAILib.training.cases import read_labels, split_cases
from MedAILib.training.data_folder import find_cases
from MedAILib.training.segmentation import train_segmentation
from MedAILib.training.segmentation_export import Bundle, write_bundle
from MedAILib.training.task import SegmentationTask, read_task
from MedAILib.training.training_run import TrainingRun

SILENT = Progress()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten small images in each of which a bright ball lies in noise; its label has a front and a back."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(20)] * 3, indexing="ij"))
    for number in range(10):
        center = rng.uniform(7, 13, 3)
        ball = np.linalg.norm(grid - center[:, None, None, None], axis=0) < 5
        image = (rng.normal(size=ball.shape) * 20 + ball * 100).astype(np.float32)
        label = np.where(ball, np.where(grid[1] > center[1], 1, 2), 0).astype(np.uint8)
        for name, voxels in (("imagesTr", image), ("labelsTr", label)):
            (folder / name).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / name / f"case_{number:02d}.nii.gz")
    (folder / "dataset.json").write_text(
        json.dumps({"labels": {"0": "background", "1": "anterior", "2": "posterior"}}), encoding="utf-8"
    )
    return folder


@pytest.fixture(scope="module")
def task() -> SegmentationTask:
    """The hippocampus task with a network and a patch that train in a second."""
    full = read_task("hippocampus")
    network = full.network | {
        "kernel_size": [3, 3, 3],
        "strides": [1, 2, 2],
        "upsample_kernel_size": [2, 2],
        "filters": [4, 8, 8],
        "deep_supr_num": 1,
    }
    return replace(full, network=network, patch=[16, 16, 16], deep_supervision_weights=[1.0, 0.5], ema_decay=0.5)


def trained(
    task: SegmentationTask, data: Path, run: TrainingRun, progress: Progress = SILENT
) -> dict[str, torch.Tensor]:
    split = split_cases(find_cases(data), task.folds, 0, task.seed)
    return train_segmentation(task, split, run, progress)


def test_a_stopped_training_goes_on_to_the_same_weights(task: SegmentationTask, data: Path, tmp_path: Path) -> None:
    whole = trained(task, data, TrainingRun(tmp_path / "whole", epochs=3))

    class InThirdEpoch(Cancellable):
        def step(self, done: int, total: int, text: str = "") -> None:
            if text.startswith("Epoch 3"):
                self.cancel()
            super().step(done, total, text)

    run = TrainingRun(tmp_path / "parts", epochs=3)
    with pytest.raises(Cancelled):
        trained(task, data, run, InThirdEpoch())
    resumed = trained(task, data, replace(run, resume=True))
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_another_seed_gives_other_weights(task: SegmentationTask, data: Path, tmp_path: Path) -> None:
    split = split_cases(find_cases(data), task.folds, 0, task.seed)
    one = train_segmentation(task, split, TrainingRun(tmp_path / "a", epochs=1), SILENT)
    other = train_segmentation(replace(task, seed=1), split, TrainingRun(tmp_path / "b", epochs=1), SILENT)
    assert not all(torch.equal(value, other[key]) for key, value in one.items())


def test_a_resume_without_a_start_or_of_another_network_is_refused(
    task: SegmentationTask, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="nothing to resume"):
        trained(task, data, TrainingRun(tmp_path, epochs=1, resume=True))
    trained(task, data, TrainingRun(tmp_path, epochs=1))
    wider = replace(task, network=task.network | {"filters": [4, 8, 16]})
    with pytest.raises(InputError, match="another training"):
        trained(wider, data, TrainingRun(tmp_path, epochs=2, resume=True))


def test_a_loss_that_is_no_number_ends_the_training_with_the_reason(
    task: SegmentationTask, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(MedAIError, match="loss is no finite number in epoch 1"):
        trained(replace(task, learning_rate=1e30), data, TrainingRun(tmp_path, epochs=1))


def test_augmented_labels_stay_with_their_image(task: SegmentationTask, data: Path) -> None:
    case = find_cases(data)[0]
    fixed = fixed_steps(task)({"image": [str(case.images[0])], "label": str(case.label)})
    steps = random_steps(task)
    steps.set_random_state(0)
    for _ in range(20):
        sample = steps(fixed)
        image, label = sample["image"][0], sample["label"][0]
        assert image.shape == label.shape == (16, 16, 16)
        assert set(label.unique().tolist()) <= {0.0, 1.0, 2.0}
        if (label > 0).sum() > 100:
            assert image[label > 0].mean() > image[label == 0].mean()


def test_the_command_trains_a_model_that_finds_the_ball(task: SegmentationTask, data: Path, tmp_path: Path) -> None:
    path = tmp_path / "ball.json"
    content = {"kind": "segmentation", **task.__dict__, "name": "ball", "learning_rate": 0.01, "epochs": 12}
    path.write_text(json.dumps(content), encoding="utf-8")
    bundle = tmp_path / "ball"
    assert main(["train", str(path), "--data", str(data), "-o", str(bundle), "--device", "cpu", "--quiet"]) == 0
    card = (bundle / "docs" / "README.md").read_text(encoding="utf-8")
    assert "| anterior | Dice |" in card and "case_0" in card and "--epochs 12" in card
    dice = float(card.split("| anterior | Dice | ")[1].split(" ")[0])
    assert dice > 0.6
    assert open_model(bundle, "cpu").spec.mirror_axes == (0,)
    assert (bundle / "models" / "model.pt").stat().st_size < 100_000


def test_splits_share_no_case_and_every_case_is_validated_once(data: Path) -> None:
    cases = find_cases(data)
    splits = [split_cases(cases, 5, fold, 12345) for fold in range(5)]
    assert sorted(case.name for split in splits for case in split.validation) == [case.name for case in cases]
    for split in splits:
        assert not set(split.training) & set(split.validation)
        assert len(split.training) + len(split.validation) == len(cases)


def spoil_image_missing(data: Path) -> None:
    (data / "imagesTr" / "case_03.nii.gz").unlink()


def spoil_label_missing(data: Path) -> None:
    (data / "labelsTr" / "case_03.nii.gz").unlink()


def spoil_no_labels(data: Path) -> None:
    for path in (data / "labelsTr").iterdir():
        path.unlink()
    for path in (data / "imagesTr").iterdir():
        path.unlink()


def spoil_folder(data: Path) -> None:
    (data / "labelsTr").rename(data / "other")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (spoil_image_missing, r"case_03.*has no image"),
        (spoil_label_missing, r"case_03.*has no label"),
        (spoil_no_labels, "no labelled image"),
        (spoil_folder, "no data folder"),
    ],
)
def test_data_that_is_not_whole_is_refused_by_file(
    data: Path, tmp_path: Path, spoil: Callable[[Path], None], words: str
) -> None:
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
        for path in (data / name).iterdir():
            (tmp_path / name / path.name).symlink_to(path)
    spoil(tmp_path)
    with pytest.raises(InputError, match=words):
        find_cases(tmp_path)


def test_wrong_folds_tasks_and_descriptions_are_refused(data: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="folds 0 to 4"):
        split_cases(find_cases(data), 5, 5, 0)
    with pytest.raises(InputError, match="too few"):
        split_cases(find_cases(data), 11, 0, 0)
    with pytest.raises(InputError, match=r"known are .*hippocampus"):
        read_task("liver")
    path = tmp_path / "task.json"
    path.write_text('{"kind": "segmentation", "nmae": "x"}', encoding="utf-8")
    with pytest.raises(InputError, match="nmae"):
        read_task(str(path))
    with pytest.raises(InputError, match=r"dataset\.json"):
        read_labels(tmp_path)


def test_a_folder_that_is_no_model_is_not_replaced(task: SegmentationTask, tmp_path: Path) -> None:
    (tmp_path / "precious.txt").write_text("x", encoding="utf-8")
    with pytest.raises(OutputError, match="is no bundle or ensemble"):
        write_bundle(Bundle(task, {}, ""), tmp_path)
    assert (tmp_path / "precious.txt").read_text(encoding="utf-8") == "x"
