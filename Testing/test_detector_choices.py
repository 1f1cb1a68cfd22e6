"""What a detector learns from and what it keeps: rare classes, frozen stages, all images at once, lists of others."""

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blobs import blob_folder
from test_boxed_changes import task_of
from test_train_detector import SILENT, command, of_list, small_detector, written

from MedAILib.errors import InputError
from MedAILib.models.open import open_model
from MedAILib.models.weights import load_weights
from MedAILib.training.boxed_images import find_boxed_cases
from MedAILib.training.detection_data import Sample, changed_patches
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.task import read_task
from MedAILib.training.taught_detector import first_network


def command_tells(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    """What a command that is refused says."""
    assert command(*words) == 2
    return capsys.readouterr().err


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_folder(tmp_path_factory.mktemp("choices") / "data", 4, 3)


@pytest.fixture(scope="module")
def task(data: Path) -> DetectionTask:
    return small_detector(data, 1)


@pytest.fixture(scope="module")
def first(task: DetectionTask, data: Path) -> Path:
    """A detector to start from."""
    folder = data.parent / "first"
    assert command("train", written(task, data.parent / "first.json"), "--data", data, "-o", folder) == 0
    return folder


def _crowd() -> Sample:
    """Twelve balls at one side of an image, and one cyst at the other."""
    places = [(x, y, 8) for x in (6, 14, 22, 30) for y in (6, 14, 22)] + [(72, 40, 8)]
    middles = np.array(places, float)
    return {
        "image": torch.zeros(1, 80, 48, 16),
        "box": torch.from_numpy(np.concatenate([middles - 2, middles + 2], axis=1).astype(np.float32)),
        "label": torch.tensor([0] * 12 + [1]),
        "points": torch.from_numpy(middles),
        "reach": torch.full((13, 3), 2.0, dtype=torch.float64),
        "owner": torch.arange(13),
    }


def _seen(sampling: str) -> Counter[int]:
    """In how many of 400 patches each class is."""
    classes = [{"name": "ball"}, {"name": "cyst"}]
    changes: dict[str, Any] = {"augmentation": {}, "mirror_axes": [], "patch": [16, 16, 16], "samples": 8}
    task = task_of(classes=classes, sampling=sampling, **changes)
    patches = [patch for seed in range(50) for patch in changed_patches(_crowd(), task, seed)]
    assert len(patches) == 400
    return Counter(int(label) for patch in patches for label in set(patch["label"].tolist()))


def test_patches_show_a_rare_class_as_often_where_that_is_asked_for() -> None:
    plain, even = _seen("findings"), _seen("classes")
    assert plain[0] > 3 * plain[1]
    assert even[1] > 2 * plain[1] and 0.6 < even[0] / even[1] < 2.5


def test_patches_of_one_class_are_chosen_as_ever() -> None:
    sample = {**_crowd(), "label": torch.zeros(13, dtype=torch.int64)}
    task = task_of(augmentation={}, mirror_axes=[], patch=[16, 16, 16], samples=400, sampling="classes")
    around = sum(len(patch["label"]) > 0 for patch in changed_patches(sample, task, 0))
    assert 180 < around < 400


def test_a_rare_class_is_noticed_by_the_plan(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = blob_folder(tmp_path / "data", 4, 3, "boxes.json")
    (data / "boxes.json").unlink()
    balls = [f"case{number:03d},ball,0,0,{20 + 2 * part},5,5,5" for number in range(4) for part in range(3)]
    for cysts, sampling in ((1, "findings"), (4, "classes"), (12, "findings")):
        alone = cysts == 1  # in an image without another class there is nothing to be evened out
        places = ["case003"] if alone else [f"case{n % 4:03d}" for n in range(cysts)]
        kept = balls[:9] if alone else balls
        of_list(*kept, *[f"{case},cyst,0,0,30,5,5,5" for case in places])(data)
        words = ["train", "detection", "--data", data, "-o", tmp_path / "m", "--plan-only"]
        assert command(*words) == 0
        planned = read_task(str(tmp_path / "m.training" / "task.json"))
        assert isinstance(planned, DetectionTask) and planned.sampling == sampling
        assert command(*words, "--set", "sampling=findings") == 0
        asked = read_task(str(tmp_path / "m.training" / "task.json"))
        assert isinstance(asked, DetectionTask) and asked.sampling == "findings"
    assert "'sampling' = often" in command_tells(capsys, *words, "--set", "sampling=often")


def test_frozen_stages_keep_the_weights_that_training_began_with(
    task: DetectionTask, data: Path, first: Path, tmp_path: Path
) -> None:
    path = written(task, tmp_path / "t.json", frozen_stages=1)
    assert command("train", path, "--data", data, "-o", tmp_path / "m", "--initial", first, "--fold", 1) == 0
    before, after = (load_weights(model / "models" / "model.pt") for model in (first, tmp_path / "m"))
    body = "feature_extractor.body."
    kept = {key for key in before if key.startswith((f"{body}conv1.", f"{body}bn1."))}
    kept = {key for key in kept if "num_batches" not in key}  # which only counts
    assert kept and all(torch.equal(before[key], after[key]) for key in kept)
    assert not torch.equal(before[f"{body}layer1.0.conv1.weight"], after[f"{body}layer1.0.conv1.weight"])
    card = (tmp_path / "m" / "docs" / "README.md").read_text(encoding="utf-8")
    assert "the backbone's first stages kept as they were (1)" in card


def test_stages_that_can_not_be_frozen_are_told_before_anything_is_written(
    task: DetectionTask, data: Path, first: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", written(task, tmp_path / "t.json"), "--data", data, "-o", tmp_path / "m"]
    assert "name it with --initial" in command_tells(capsys, *words, "--set", "frozen_stages=1")
    told = command_tells(capsys, *words, "--set", "frozen_stages=9", "--initial", first)
    assert "stages to freeze, not 9" in told
    assert not (tmp_path / "m.training").exists()


def test_stages_that_would_be_random_are_not_frozen(first: Path, task: DetectionTask) -> None:
    wider = replace(task, channels=["MRI", "CT"], frozen_stages=1)
    with pytest.raises(InputError, match=r"would keep random weights, since feature_extractor\.body\.conv1\.weight"):
        first_network(wider, first, SILENT)
    assert first_network(replace(wider, frozen_stages=0), first, SILENT) is not None


def test_a_model_whose_weights_do_not_fit_is_told_before_anything_is_written(
    task: DetectionTask, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", written(task, tmp_path / "t.json"), "--data", data, "-o", tmp_path / "m"]
    assert "hippocampus" in command_tells(capsys, *words, "--initial", "hippocampus")
    assert not (tmp_path / "m.training").exists()


def test_without_folds_a_detector_learns_from_all_images_and_says_so(
    task: DetectionTask, data: Path, tmp_path: Path
) -> None:
    words = ["train", written(task, tmp_path / "t.json"), "--data", data, "-o", tmp_path / "m", "--fold", "none"]
    assert command(*words) == 0
    assert open_model(tmp_path / "m", "cpu").spec.finding_labels == (("ball", "1"),)
    card = " ".join((tmp_path / "m" / "docs" / "README.md").read_text(encoding="utf-8").split())
    assert "learnt from all 4 images" in card and "can be told by other images only" in card
    assert "figures below" not in card
    weights = (tmp_path / "m" / "models" / "model.pt").read_bytes()
    assert command(*words, "--resume") == 0
    assert (tmp_path / "m" / "models" / "model.pt").read_bytes() == weights
    (data / "patients.csv").write_text("case,patient\n" + "".join(f"case00{n},p\n" for n in range(4)), encoding="utf-8")
    try:
        assert command(*words) == 0
        assert command(*words[:-2]) == 2
    finally:
        (data / "patients.csv").unlink()


def test_a_list_of_boxes_may_have_semicolons(tmp_path: Path) -> None:
    data = blob_folder(tmp_path / "data", 4, 3, "boxes.csv")
    text = (data / "boxes.csv").read_text(encoding="utf-8")
    before = [case.boxes for case in find_boxed_cases(data)]
    (data / "boxes.csv").write_text(text.replace(",", ";"), encoding="utf-8")
    assert [case.boxes for case in find_boxed_cases(data)] == before and any(before)
