"""Classification tasks that are planned from labelled images: pictures, volumes, clips."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from clips import FRAMES, SIDE, clip_folders, frame_folders, hearts, write_clip
from labelled import class_folders

from MedAILib.cli import main
from MedAILib.errors import InputError
from MedAILib.progress import Progress
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.plan_classifier import Wanted, has_classes, plan_classifier
from MedAILib.training.task import read_task

SILENT = Progress()


def train(*words: Any) -> int:
    return main(["train", *map(str, words), "--device", "cpu", "--quiet"])


def test_clips_of_four_axes_are_planned_as_sequences(tmp_path: Path) -> None:
    for n, (clip, label) in enumerate(hearts(12, 1)):
        write_clip(clip, tmp_path / label / f"{n}.nii.gz")
    task, choices = plan_classifier("beating", tmp_path, Wanted(), SILENT)
    assert (task.frames, task.size, task.orientation, task.decision) == (FRAMES, [SIDE, SIDE], "", "binary")
    assert task.network["_target_"] == "SequenceClassifier" and task.folds == 5
    assert {"classes", "frames", "network", "folds"} <= {choice.key for choice in choices}


def test_clips_of_three_axes_are_sequences_where_frames_are_asked_for(tmp_path: Path) -> None:
    data = clip_folders(tmp_path / "data", 8, 1)
    assert train("beating", "--data", data, "-o", tmp_path / "m", "--plan-only", "--set", "frames=6") == 0
    task = read_task(str(tmp_path / "m.training" / "task.json"))
    assert isinstance(task, ClassificationTask) and task.frames == 6 and task.folds == 4
    assert not (tmp_path / "m").exists()


def test_a_planned_task_of_clips_is_trained(tmp_path: Path) -> None:
    data = clip_folders(tmp_path / "data", 8, 1)
    words = ["--set", "frames=4", "--set", "folds=2", "--epochs", "1"]
    assert train("beating", "--data", data, "-o", tmp_path / "m", *words) == 0
    metadata = json.loads((tmp_path / "m" / "configs" / "metadata.json").read_text(encoding="utf-8"))
    assert metadata["medai"]["classification"]["frames"] == 4


def test_pictures_with_parts_are_validated_on_theirs(tmp_path: Path) -> None:
    for part, count in (("train", 12), ("val", 6)):
        frame_folders(tmp_path / part, count, 1)
    task = plan_classifier("stills", tmp_path, Wanted(), SILENT)[0]
    assert (task.frames, task.folds, task.size) == (0, 1, [SIDE, SIDE])
    assert task.network["_target_"] == "DenseNet" and task.augmentation["flip"] == [0]


def test_volumes_are_turned_and_keep_their_shape(tmp_path: Path) -> None:
    for n in range(6):
        voxels = np.random.default_rng(n).integers(0, 99, (20, 100, 60)).astype(np.int16)
        path = tmp_path / ("left" if n % 2 else "right") / f"{n}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    task = plan_classifier("sides", tmp_path, Wanted(), SILENT)[0]
    assert (task.size, task.orientation, task.network["spatial_dims"]) == ([40, 64, 16], "RAS", 3)
    assert task.augmentation["flip"] == []  # the classes are sides


def test_volumes_in_hounsfield_units_are_planned_with_a_window(tmp_path: Path) -> None:
    for n in range(4):
        voxels = np.full((20, 24, 24), -1000, np.int16)
        voxels[4:16, 4:20, 4:20] = np.random.default_rng(n).integers(-100, 300, (12, 16, 16))
        path = tmp_path / ("a" if n % 2 else "b") / f"{n}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    task, choices = plan_classifier("bodies", tmp_path, Wanted(), SILENT)
    assert (task.channels, task.modality) == (["CT"], "CT")
    window = task.intensity[0]
    assert window["_target_"] == "ScaleIntensityRanged" and window["clip"]
    assert window["a_min"] == pytest.approx(-98, abs=3) and window["a_max"] == pytest.approx(297, abs=3)
    keys = {choice.key for choice in choices}
    assert keys >= {"channels", "intensity", "loss", "learning_rate", "schedule"}


def test_other_volumes_are_planned_without_a_window(tmp_path: Path) -> None:
    for n in range(4):
        voxels = np.random.default_rng(n).integers(-400, 2000, (20, 24, 24)).astype(np.int16)
        path = tmp_path / ("a" if n % 2 else "b") / f"{n}.nii.gz"
        path.parent.mkdir(exist_ok=True)
        sitk.WriteImage(sitk.GetImageFromArray(voxels), str(path))
    assert plan_classifier("bodies", tmp_path, Wanted(), SILENT)[0].intensity == []


def test_one_class_alone_can_not_be_planned(tmp_path: Path) -> None:
    folder = class_folders(tmp_path / "data", 4)
    for path in (folder / "below").iterdir():
        path.unlink()
    (folder / "below").rmdir()
    with pytest.raises(InputError, match="one class only, above"):
        plan_classifier("squares", folder, Wanted(), SILENT)


def test_folders_of_images_and_labels_are_for_segmentation(tmp_path: Path) -> None:
    for name in ("imagesTr", "labelsTr"):
        (tmp_path / name).mkdir()
    assert not has_classes(tmp_path)
    assert has_classes(class_folders(tmp_path / "squares", 4))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--set", "frames=many"], "frames has to be a whole number"),
        (["--initial", "x"], "There is no model 'x'"),
    ],
)
def test_options_that_make_no_sense_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    data = class_folders(tmp_path / "data", 8)
    assert train("squares", "--data", data, "-o", tmp_path / "m", *words) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "m").exists() and not (tmp_path / "m.training").exists()
