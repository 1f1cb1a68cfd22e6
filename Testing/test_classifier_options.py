"""Each option of a classifier's training changes what it is said to change, and a training leaves its curves behind."""

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from labelled import medmnist, small_task
from torch import nn

from MedAILib.commands.train_classifier import read_data
from MedAILib.errors import InputError
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.training.classification import train_network
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import ClassData, split_folds
from MedAILib.training.lesson import Bench, Lesson
from MedAILib.training.precision import AutocastInferer
from MedAILib.training.samples import SeededOrder

SILENT = Progress()


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ClassData:
    path = medmnist(tmp_path_factory.mktemp("data") / "squares.npz", train=20, val=6)
    return read_data(task_of(), path, SILENT)


@pytest.fixture(scope="module")
def plain(data: ClassData, tmp_path_factory: pytest.TempPathFactory) -> torch.Tensor:
    """What the plain task learns."""
    return weights_of(task_of(batch=8, epochs=1), data, tmp_path_factory.mktemp("plain"))


class Until(Cancellable):
    """Cancels where a step's text has this."""

    def __init__(self, words: str) -> None:
        super().__init__()
        self.words = words

    def step(self, done: int, total: int, text: str = "") -> None:
        if self.words in text:
            self.cancel()
        super().step(done, total, text)


def task_of(**changes: object) -> ClassificationTask:
    plain = {key: value for key, value in small_task().items() if key != "kind"}
    return replace(ClassificationTask(**plain), **({"epochs": 3} | changes))  # type: ignore[arg-type]


def lesson_of(task: ClassificationTask, data: ClassData, judged: bool = False) -> Lesson:
    targets = nn.functional.one_hot(torch.from_numpy(data.numbers), 2).float()
    aside = (data.images[20:], targets[20:]) if judged else None
    return Lesson("one", task.network, data.images[:20], targets[:20], task.epochs, 1, judged=aside)


def rows_of(folder: Path) -> list[dict[str, str]]:
    with (folder / "losses.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def weights_of(task: ClassificationTask, data: ClassData, folder: Path) -> torch.Tensor:
    network = train_network(task, lesson_of(task, data), Bench(folder, "cpu", False, ""), SILENT)
    return torch.cat([value.flatten() for value in network.state_dict().values()])


@pytest.mark.parametrize(
    "changes",
    [
        {"schedule": "cosine"},
        {"schedule": "poly"},
        {"schedule": "constant"},
        {"accumulate": 2},
        {"sampling": "balanced"},
        {"loss": "focal"},
        {"ema_decay": 0.0},
        {"label_smoothing": 0.2},
        {"class_weights": [1.0, 5.0]},
        {"weight_decay": 0.5},
    ],
)
def test_each_option_changes_what_is_learnt(data, tmp_path, changes) -> None:
    plain = task_of(batch=4)
    assert not torch.equal(
        weights_of(plain, data, tmp_path / "a"), weights_of(replace(plain, **changes), data, tmp_path)
    )


def test_curves_tell_loss_and_learning_rate_of_each_epoch(data, tmp_path) -> None:
    task = task_of(schedule="constant", learning_rate=0.002)
    train_network(task, lesson_of(task, data), Bench(tmp_path, "cpu", False, ""), SILENT)
    rows = rows_of(tmp_path)
    assert [(row["network"], row["epoch"], row["learning_rate"]) for row in rows] == [
        ("one", str(n), "0.002") for n in (1, 2, 3)
    ]
    assert (tmp_path / "losses.png").read_bytes()[1:4] == b"PNG"


def test_curves_go_on_after_a_stop(data, tmp_path) -> None:
    task = task_of(schedule="poly")
    lesson = lesson_of(task, data)
    train_network(task, lesson, Bench(tmp_path / "whole", "cpu", False, ""), SILENT)

    with pytest.raises(Cancelled):
        train_network(task, lesson, Bench(tmp_path / "parts", "cpu", False, ""), Until("epoch 2"))
    train_network(task, lesson, Bench(tmp_path / "parts", "cpu", True, ""), SILENT)
    assert rows_of(tmp_path / "parts") == rows_of(tmp_path / "whole")


def test_training_ends_after_epochs_without_gain_and_does_not_go_on_when_resumed(data, tmp_path) -> None:
    task = task_of(choice="best", patience=2, learning_rate=1e-9, schedule="constant", ema_decay=0.0)
    task = replace(task, epochs=40, weight_decay=0.0, augmentation={})
    lesson = lesson_of(task, data, judged=True)
    worse = replace(lesson, targets=1 - lesson.targets)  # it learns the contrary of what it is judged by
    worse_task = replace(task, learning_rate=0.01)
    train_network(worse_task, worse, Bench(tmp_path, "cpu", False, ""), SILENT)
    first = len(rows_of(tmp_path))
    train_network(worse_task, worse, Bench(tmp_path, "cpu", True, ""), SILENT)
    assert (first < 40, len(rows_of(tmp_path))) == (True, first)


def test_a_network_that_nothing_is_kept_aside_for_learns_to_the_end_when_resumed(data, tmp_path) -> None:
    task = task_of(choice="best", patience=1, epochs=5)  # its last network learns from all images, without patience
    lesson = lesson_of(task, data)
    whole = train_network(task, lesson, Bench(tmp_path / "whole", "cpu", False, ""), SILENT)
    with pytest.raises(Cancelled):
        train_network(task, lesson, Bench(tmp_path / "parts", "cpu", False, ""), Until("epoch 4"))
    parts = train_network(task, lesson, Bench(tmp_path / "parts", "cpu", True, ""), SILENT)
    assert len(rows_of(tmp_path / "parts")) == 5
    assert all(torch.equal(value, parts.state_dict()[key]) for key, value in whole.state_dict().items())


def test_patience_without_the_best_epoch_is_refused() -> None:
    with pytest.raises(InputError, match="choice=best"):
        task_of(patience=3)


def test_rare_classes_are_drawn_as_often_as_others() -> None:
    shares = torch.tensor([1.0 / 90] * 90 + [1.0 / 10] * 10)
    drawn = [number for epoch in range(20) for number in SeededOrder(100, 3, epoch, shares)]
    rare = sum(number >= 90 for number in drawn) / len(drawn)
    assert 0.45 < rare < 0.55
    assert drawn == [number for epoch in range(20) for number in SeededOrder(100, 3, epoch, shares)]


def test_copies_of_an_image_stay_on_one_side_of_each_fold(data) -> None:
    doubled = ClassData(
        torch.cat([data.images[:20], data.images[:6]]),
        torch.cat([torch.from_numpy(data.numbers[:20]), torch.from_numpy(data.numbers[:6])]).numpy(),
        tuple(f"image {n}" for n in range(26)),
        ("",) * 26,
        ("",) * 26,
    )
    for learn, _ in split_folds(task_of(folds=3), doubled):
        assert all((n in learn) == (n + 20 in learn) for n in range(6))


def test_gradients_in_bfloat16_are_numbers_also_over_two_slices() -> None:
    for _ in range(8):
        layer, image = nn.Conv3d(64, 64, 3, padding=1), torch.randn(4, 64, 2, 8, 8)
        spoilt = [
            torch.full((count,), float("nan")) for count in (1000, 20_000, 100_000, 400_000, 1_000_000, 3_000_000)
        ]
        del spoilt  # what the next one finds in memory that nobody has written to
        AutocastInferer(torch.bfloat16)(image, layer).square().sum().backward()
        assert layer.weight.grad is not None
        assert bool(torch.isfinite(layer.weight.grad).all())
