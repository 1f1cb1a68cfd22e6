"""What classifiers and detectors take is foretold from their build, and refused where it is not there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from classifier_bundles import DENSENET, classifier_bundle
from detector_bundles import detector_bundle
from test_memory import Listener

from MedAILib.config_values import Component
from MedAILib.errors import InputError
from MedAILib.estimate import Demand, demand_of
from MedAILib.feature_memory import feature_values
from MedAILib.inference import ladder
from MedAILib.inference.ladder import CPU, ON_CPU, Memory, or_on_cpu
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import ClassifyOptions, DetectOptions, Explain
from MedAILib.volume import Geometry, Volume

CUDA = torch.device("cuda:0")
DEMAND = Demand(0, 0, 0, 0, network=100 * 2**20, sums=0, planes=0, result=0)


def image(shape: tuple[int, int, int]) -> Volume:
    data = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    return Volume(data, Geometry(shape, np.diag([1.0, 1.0, 1.5, 1.0])), "Chest")


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_bundle(tmp_path_factory.mktemp("m") / "dense", DENSENET, ["a", "b", "c"])


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector_bundle(tmp_path_factory.mktemp("m") / "finder")


def values(name: str, dimensions: int = 3, **arguments: object) -> float:
    found = feature_values(Component(name, arguments), dimensions)
    assert found is not None
    return found[0]


def test_a_network_at_a_wider_stride_holds_less() -> None:
    assert values("resnet18") == pytest.approx(8 * values("resnet18", conv1_t_stride=2))
    assert values("resnet50", 2) > 2 * values("resnet18", 2)
    assert values("DenseNet121", init_features=32) == pytest.approx(values("DenseNet121") / 2)
    assert values("EfficientNetBN", model_name="efficientnet-b4") > values(
        "EfficientNetBN", model_name="efficientnet-b0"
    )


def test_a_network_holds_what_its_backbone_does() -> None:
    backbone = Component("DenseNet121", {"spatial_dims": 2})
    assert values("CovariateClassifier", 2, backbone=backbone) == values("DenseNet121", 2)
    assert values("MeanClassifier", 2, members=[backbone, backbone]) == values("DenseNet121", 2)
    assert feature_values(Component("UNesT", {}), 3) is None


def test_gradients_of_a_whole_network_are_counted(classifier: Path) -> None:
    spec, volume = read_spec(classifier), image((1, 256, 256))
    needs = {}
    for method in ("grad-cam", "occlusion", "integrated-gradients"):
        found = demand_of(spec, volume, ClassifyOptions(explain=Explain(method, "a")))
        assert found is not None
        needs[method] = found.network
    assert needs["grad-cam"] < needs["occlusion"] < needs["integrated-gradients"]


def test_a_detector_needs_memory_for_a_window_and_no_more(detector: Path) -> None:
    spec = read_spec(detector)
    small, large = (demand_of(spec, image(shape), DetectOptions()) for shape in ((32, 64, 64), (64, 128, 128)))
    assert small is not None
    assert large is not None
    assert small.network == large.network
    assert large.on_cpu() > small.on_cpu()


def test_a_classifier_that_does_not_fit_is_refused_in_a_sentence(
    classifier: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ladder, "available_memory", lambda: 1 << 20)
    with pytest.raises(InputError, match=r"not enough memory.*GiB of main memory are needed.*region of interest"):
        open_model(classifier, "cpu").run(image((1, 64, 64)), ClassifyOptions(), Progress())


def test_a_detector_that_does_not_fit_is_refused_in_a_sentence(detector: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ladder, "available_memory", lambda: 1 << 20)
    with pytest.raises(InputError, match=r"not enough memory.*GiB of main memory are needed.*region of interest"):
        open_model(detector, "cpu").run(image((16, 32, 32)), DetectOptions(), Progress())


def test_a_run_too_large_for_the_gpu_goes_to_the_cpu_without_a_try() -> None:
    tried, listener = [], Listener()

    def have(device: torch.device) -> Memory:
        return Memory(1 << 30, 1 << 20 if device.type == "cuda" else None)

    def attempt(device: torch.device) -> str:
        tried.append(device)
        return "done"

    assert or_on_cpu(CUDA, attempt, listener, DEMAND, have) == ("done", (ON_CPU,))
    assert tried == [CPU]
    assert "GPU's memory are needed" in listener.warnings[0]
    assert or_on_cpu(CUDA, attempt, listener, DEMAND, lambda _: Memory(1 << 30, 1 << 30)) == ("done", ())
