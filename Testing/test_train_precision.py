"""The number type that a task asks for is the one its networks compute in while they are taught."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from clips import clip_folders, heart_task
from labelled import medmnist, small_task
from test_train_generator import small_generator
from torch import nn

from MedAILib.cli import main
from MedAILib.errors import InputError, ModelError
from MedAILib.training.export import Contents, write_model
from MedAILib.training.precision import AutocastInferer
from MedAILib.training.task import read_task


@pytest.fixture
def seen() -> Iterator[set[torch.dtype]]:
    """The number types that convolutions gave while a network was taught."""
    types: set[torch.dtype] = set()

    def look(part: nn.Module, _: Any, output: Any) -> None:
        if part.training and isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
            types.add(output.dtype)

    hook = nn.modules.module.register_module_forward_hook(look)
    yield types
    hook.remove()


def train(folder: Path, task: Path, data: Path, precision: str) -> str:
    """The model card of what one epoch makes."""
    words = ["train", task, "--data", data, "-o", folder / "m", "--epochs", 1, "--set", f"precision={precision}"]
    assert main([str(word) for word in (*words, "--device", "cpu", "--quiet")]) == 0
    return (folder / "m" / "docs" / "README.md").read_text(encoding="utf-8")


def written(folder: Path, content: dict[str, object]) -> Path:
    (folder / "task.json").write_text(json.dumps(content), encoding="utf-8")
    return folder / "task.json"


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("kind", ["classifier", "sequences", "generator"])
def test_networks_are_taught_in_the_numbers_asked_for(
    kind: str, precision: str, tmp_path: Path, seen: set[torch.dtype]
) -> None:
    if kind == "sequences":
        clip_folders(tmp_path / "clips" / "train", 4, 1)
        clip_folders(tmp_path / "clips" / "val", 4, 2)
        task, data = written(tmp_path, heart_task(batch=4)), tmp_path / "clips"
    else:
        data = medmnist(tmp_path / "squares.npz", train=8, val=4)
        task = small_generator(tmp_path) if kind == "generator" else written(tmp_path, small_task(networks=2, folds=1))
    card = train(tmp_path, task, data, precision)
    assert seen == {getattr(torch, precision)}
    assert precision in card


@pytest.mark.parametrize("layer", [nn.Conv3d(8, 8, 3, padding=1), nn.ConvTranspose3d(8, 8, 3, padding=1)])
@pytest.mark.parametrize("shape", [(2, 2, 1), (2, 4, 4), (4, 4, 4), (1, 2, 2)])
def test_gradients_of_small_volumes_are_those_of_full_precision(shape: tuple[int, ...], layer: nn.Module) -> None:
    image = torch.randn(4, 8, *shape, generator=torch.Generator().manual_seed(0))
    found = []
    for kind in (torch.bfloat16, torch.float32):
        loss = AutocastInferer(kind)(image, layer).square().mean()
        found.append(torch.autograd.grad(loss, layer.get_parameter("weight"))[0])
    assert (found[0] - found[1]).abs().max() <= 0.05 * found[1].abs().max()


def test_weights_that_are_no_numbers_are_not_written(tmp_path: Path) -> None:
    contents = Contents({}, "", "", {"layer.weight": torch.tensor([1.0, float("nan")])})
    with pytest.raises(ModelError, match=r"layer\.weight have values that are no numbers"):
        write_model(contents, tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_numbers_that_there_are_not_are_refused(tmp_path: Path) -> None:
    for path in (written(tmp_path, small_task(precision="half")), small_generator(tmp_path, precision="half")):
        with pytest.raises(InputError, match="'precision' = half"):
            read_task(str(path))
