"""Patches of a batch are blended and the loss alike; a training with them goes on after a stop as it would have."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from balls import SILENT, small, split_of, train, write_cases
from monai.losses import DiceCELoss
from torch import Tensor, nn

from MedAILib.errors import InputError
from MedAILib.training.mixup import Mixup
from MedAILib.training.overrides import read_settings, with_settings
from MedAILib.training.segmentation import train_segmentation
from MedAILib.training.training_run import TrainingRun

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_cases(tmp_path_factory.mktemp("mixup") / "data")


def batch() -> dict[str, Tensor]:
    return {"image": torch.rand(3, 1, 4, 4, 4), "label": torch.randint(0, 3, (3, 1, 4, 4, 4))}


def test_images_and_losses_are_blended_in_the_same_shares() -> None:
    torch.manual_seed(0)
    loss = DiceCELoss(to_onehot_y=True, softmax=True)
    mixup, given = Mixup(loss, prob=1.0, alpha=1.0), batch()
    image, label = mixup.prepare(given, CPU)
    assert 0 < mixup.share < 1 and torch.equal(label, given["label"])
    expected = mixup.share * given["image"] + (1 - mixup.share) * given["image"][[2, 0, 1]]
    assert torch.allclose(image, expected, atol=1e-6)
    output = torch.randn(3, 3, 4, 4, 4)
    blended = mixup.share * loss(output, label) + (1 - mixup.share) * loss(output, label[[2, 0, 1]])
    assert torch.allclose(mixup(output, label), blended)


def test_shares_are_drawn_as_often_and_as_far_as_was_asked_for() -> None:
    torch.manual_seed(0)
    mixup, shares = Mixup(nn.Identity(), prob=0.3, alpha=0.2), []
    for _ in range(400):
        mixup.prepare(batch(), CPU)
        shares.append(mixup.share)
    drawn = torch.tensor([share for share in shares if share != 1])
    assert 90 <= len(drawn) <= 150 and abs(float(drawn.mean()) - 0.5) < 0.1
    assert float(((drawn < 0.05) | (drawn > 0.95)).float().mean()) > 0.5  # beta(0.2, 0.2) lies at the ends


def test_a_stopped_training_with_it_goes_on_to_the_same_weights(data: Path, tmp_path: Path) -> None:
    words = ["augmentation=+mixup", "batch=2", "samples=1"]
    task = with_settings(small(data, patch=[16, 16, 16]), read_settings(words))
    split = split_of(task, data)
    whole = train_segmentation(task, split, TrainingRun(tmp_path / "whole", 2), SILENT)
    plain = replace(task, augmentation={key: value for key, value in task.augmentation.items() if key != "mixup"})
    other = train_segmentation(plain, split, TrainingRun(tmp_path / "plain", 2), SILENT)
    assert not all(torch.equal(value, other[key]) for key, value in whole.items())

    class Stop(type(SILENT)):  # type: ignore[misc]
        def step(self, done: int, total: int, text: str = "") -> None:
            if text.startswith("Epoch 2"):
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_segmentation(task, split, TrainingRun(tmp_path / "parts", 2), Stop())
    resumed = train_segmentation(task, split, TrainingRun(tmp_path / "parts", 2, resume=True), SILENT)
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("augmentation=+mixup", "the task's batch is 1"),
        ('augmentation={"mixup": {"alpha": 0}}', "alpha = 0; give a number above 0"),
        ('augmentation={"mixup": {"prob": 2}}', "probability 2"),
    ],
)
def test_what_makes_no_sense_is_refused(
    setting: str, sentence: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["mixed", "--data", data, "-o", tmp_path / "m", "--set", "patch=16,16,16", "--set", "batch=1"]
    assert train(*words, "--set", setting) == 2
    assert sentence in capsys.readouterr().err and not (tmp_path / "m.training").exists()


def test_a_task_names_it_with_its_usual_parameters(data: Path) -> None:
    task = with_settings(small(data), read_settings(["augmentation=+mixup", "batch=2"]))
    assert task.augmentation["mixup"] == {"prob": 0.5, "alpha": 0.2}
    with pytest.raises(InputError, match="batch is 1"):
        with_settings(task, {"batch": 1})
