"""The number format of a network: what is asked for, what a device can, what the result says."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import network_entry, random_bundle
from torch import Tensor, nn

from MedAILib.errors import InputError, ModelError
from MedAILib.inference.precision import number_format
from MedAILib.inference.segment import checked
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.request import PRECISIONS, RunOptions, RunRequest
from MedAILib.volume import Geometry, Volume
from MedAILib.worker.wire import pack_request, unpack_request

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")


class Warnings(Progress):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def warn(self, text: str) -> None:
        self.texts.append(text)


class Convolution(nn.Module):
    """A layer that autocast converts; remembers what its output came in."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__()
        self.layer = nn.Conv3d(1, 2, 1)
        self.seen: torch.dtype | None = None
        self.scale = scale

    def forward(self, image: Tensor) -> Tensor:
        output: Tensor = self.layer(image) * self.scale
        self.seen = output.dtype
        return output


@pytest.mark.parametrize(
    ("asked", "usual", "on_gpu"),
    [
        ("auto", "float32", "float32"),
        ("auto", "float16", "float16"),
        ("float32", "float16", "float32"),
        ("half", "float32", "float16"),
    ],
)
def test_half_precision_is_the_gpus_and_where_it_is_asked_for(asked: str, usual: str, on_gpu: str) -> None:
    options = RunOptions(precision=asked)
    assert number_format(GPU, options, usual) == on_gpu
    assert number_format(CPU, options, usual) == "float32"


def test_half_precision_reaches_the_network_and_ends_behind_it() -> None:
    network = Convolution()
    with torch.inference_mode():
        output = checked(network, 2, CPU, number="float16")(torch.ones(1, 1, 2, 2, 2))
        assert network.seen is not None and network.seen.itemsize == 2
        assert output.dtype == torch.float32
        checked(network, 2, CPU)(torch.ones(1, 1, 2, 2, 2))
    assert network.seen == torch.float32


def test_overflow_in_half_precision_says_how_to_go_on() -> None:
    with torch.inference_mode(), pytest.raises(ModelError, match="run it in float32"):
        checked(Convolution(float("inf")), 2, CPU, number="float16")(torch.ones(1, 1, 2, 2, 2))


def test_cpu_that_is_asked_for_half_precision_says_what_it_did(tmp_path: Path) -> None:
    model = open_model(random_bundle(tmp_path, network_entry("UNet", classes=2)), "cpu")
    image = np.random.default_rng(0).normal(size=(1, 16, 16, 16)).astype(np.float32)
    volume, progress = Volume(image, Geometry((16, 16, 16), np.eye(4)), "noise"), Warnings()
    found = model.run(volume, RunOptions(precision="half"), progress)
    assert found.provenance["option.precision"] == "half"
    told = [text for text in progress.texts if "in float32" in text]
    assert (found.provenance["precision"], len(told)) in (("float32", 1), ("bfloat16", 0))
    full = model.run(volume, RunOptions(precision="float32"), Warnings())
    assert full.provenance["precision"] == "float32"
    assert (found.layers == full.layers).mean() > 0.95


@pytest.mark.parametrize("precision", PRECISIONS)
def test_precision_travels_to_the_worker(precision: str) -> None:
    request = RunRequest("m", options=RunOptions(precision=precision))
    assert unpack_request(json.loads(json.dumps(pack_request(request)))) == request


def test_precision_that_does_not_exist_is_refused() -> None:
    with pytest.raises(InputError, match="no precision 'double'; choose one of auto, float32, half"):
        replace(RunOptions(), precision="double")


def test_command_line_refuses_it_with_a_sentence(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "MedAILib",
        "segment",
        "no.nii",
        "-m",
        "hippocampus",
        "-o",
        str(tmp_path / "x.nrrd"),
    ]
    done = subprocess.run([*command, "--precision", "double"], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "no precision 'double'" in done.stderr
