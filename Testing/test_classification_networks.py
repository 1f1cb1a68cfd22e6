"""Networks and augmentations of a classifier by name; entries that are made to fit the images, or refused."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import PIL.Image
import pytest
from clips import clip_folders
from labelled import class_folders, medmnist, small_task

from MedAILib.cli import main
from MedAILib.errors import InputError
from MedAILib.training.classification_networks import NETWORKS, class_network
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.lesson import tried_network
from MedAILib.training.task import read_task
from MedAILib.training.task_settings import with_class_words


def task_of(**changes: Any) -> ClassificationTask:
    told = {key: value for key, value in small_task(**changes).items() if key != "kind"}
    return ClassificationTask(**told)  # type: ignore[arg-type]


def train(*words: Any) -> int:
    return main(["train", *map(str, words), "--device", "cpu", "--quiet"])


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(
    ("channels", "size", "outputs", "frames"),
    [(1, [32, 32], 2, 0), (3, [128, 96], 5, 0), (1, [40, 64, 32], 3, 0), (1, [32, 32], 2, 4), (1, [32, 40, 32], 2, 3)],
)
def test_each_network_by_name_takes_pictures_volumes_and_clips(
    name: str, channels: int, size: list[int], outputs: int, frames: int
) -> None:
    entry = class_network(name, channels, size, outputs, frames)
    assert (entry["_target_"] == "SequenceClassifier") == (frames > 0)
    tried_network(entry, (*((frames,) if frames else ()), channels, *size), outputs)


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "EfficientNet"])
@pytest.mark.parametrize("size", [[16, 16], [28, 28], [64, 16], [64, 40, 16]])
def test_smaller_images_are_taken_by_all_but_an_efficient_net(name: str, size: list[int]) -> None:
    tried_network(class_network(name, 1, size, 2, 0), (1, *size), 2)
    with pytest.raises(InputError, match="An EfficientNet needs images of 32 or more along each axis"):
        class_network("EfficientNet", 1, size, 2, 0)


def test_a_network_that_there_is_not_is_refused_with_those_there_are() -> None:
    with pytest.raises(InputError, match="no network 'VGG' for classifiers; known are DenseNet, ResNet, Eff"):
        with_class_words(task_of(), ["network=VGG"])


def test_a_named_network_is_planned_and_trained(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", 12)
    words = ["--set", "network=ResNet", "--set", "folds=2", "--epochs", "1"]
    assert train("squares", "--data", data, "-o", tmp_path / "m", *words) == 0
    network = json.loads((tmp_path / "m" / "configs" / "inference.json").read_text(encoding="utf-8"))["network_def"]
    assert network["_target_"] == "ResNet" and network["num_classes"] == 2


def test_a_named_network_looks_at_each_frame_of_a_clip(tmp_path: Path) -> None:
    data = clip_folders(tmp_path / "data", 8, 1)
    words = ["--plan-only", "--set", "network=TextbookCNN", "--set", "frames=4"]
    assert train("beating", "--data", data, "-o", tmp_path / "m", *words) == 0
    task = read_task(str(tmp_path / "m.training" / "task.json"))
    assert isinstance(task, ClassificationTask)
    assert task.network["_target_"] == "SequenceClassifier" and task.network["backbone"]["_target_"] == "TextbookCNN"


def test_a_network_is_made_to_fit_channels_axes_and_size() -> None:
    network = task_of(channels=["red", "green", "blue"], size=[20, 16]).network
    assert (network["in_channels"], network["in_shape"]) == (3, [20, 16])
    wrong = {"_target_": "ResNet", "n_input_channels": 4, "spatial_dims": 3, "num_classes": 9}
    assert task_of(network=wrong).network == wrong | {"n_input_channels": 1, "spatial_dims": 2, "num_classes": 2}
    clips = class_network("DenseNet", 2, [16, 16, 16], 7, 4)
    backbone = replace(task_of(), frames=4, network=clips).network["backbone"]
    assert (backbone["in_channels"], backbone["spatial_dims"], backbone["out_channels"]) == (1, 2, 32)


def test_colour_pictures_are_learnt_in_grey_where_one_channel_is_asked_for(tmp_path: Path) -> None:
    data = class_folders(tmp_path / "data", 8)
    for path in data.rglob("*.png"):
        PIL.Image.open(path).convert("RGB").save(path)
    words = ["--set", "channels=image", "--set", "folds=2", "--epochs", "1"]
    assert train("squares", "--data", data, "-o", tmp_path / "m", *words) == 0


@pytest.mark.parametrize(
    ("network", "words"),
    [
        ({"_target_": "SENet154", "spatial_dims": 2, "in_channels": 1}, "SENet154 gives an output"),
        (
            {"_target_": "UNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4, 8]},
            "UNet gives an",
        ),
        (
            {"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 2},
            "DenseNet can't take",
        ),
        (
            {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", "pretrained": False},
            "NetBN can't take",
        ),
    ],
)
def test_a_network_that_does_not_suit_is_refused_before_training(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], network: dict[str, Any], words: str
) -> None:
    network = network | ({"strides": [2]} if network["_target_"] == "UNet" else {})
    (tmp_path / "t.json").write_text(json.dumps(small_task(network=network)), encoding="utf-8")
    data = medmnist(tmp_path / "squares.npz", train=8)
    assert train(tmp_path / "t.json", "--data", data, "-o", tmp_path / "m") == 2
    told = capsys.readouterr().err
    assert words in told and len(told.strip().splitlines()) == 1
    assert not (tmp_path / "m.training").exists()


@pytest.mark.parametrize(
    ("words", "found"),
    [
        ("+blur,-flip", {"rotate": 5, "translate": 0.05, "noise": 0.1, "mixup": 0.2, "blur": 1.0}),
        ("rotate, gamma", {"rotate": 10, "gamma": 0.2}),
        ("none", {}),
        ('{"blur": 2}', {"blur": 2}),
    ],
)
def test_augmentations_are_added_and_left_out_by_name(words: str, found: dict[str, Any]) -> None:
    assert with_class_words(task_of(), [f"augmentation={words}"]).augmentation == found


@pytest.mark.parametrize(("words", "said"), [("+shear", "no augmentation 'shear'"), ("+blur,flip", "flip has no sign")])
def test_words_for_augmentations_that_make_no_sense_are_refused(words: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        with_class_words(task_of(), [f"augmentation={words}"])
