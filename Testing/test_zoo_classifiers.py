"""The Model Zoo's classification bundles, as MONAI publishes their configs, run with random weights."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from classifier_bundles import save_random_weights
from monai.transforms import Compose, EnsureChannelFirst, NormalizeIntensity, Resize

from MedAILib.bundle_plan import read_plan
from MedAILib.errors import InputError, ModelError
from MedAILib.models.networks import build_network
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import ClassifyOptions
from MedAILib.volume import Geometry, Volume


def picture(channels: int) -> Volume:
    data = np.random.default_rng(3).integers(0, 255, (channels, 1, 210, 180)).astype(np.uint8)
    return Volume(data, Geometry((1, 210, 180), np.eye(4)), "picture.png")


@pytest.fixture
def endoscopy(shared_data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "endoscopic_inbody_classification"
    shutil.copytree(shared_data / "monai_bundles" / folder.name, folder)
    network = read_plan(folder).network
    save_random_weights(folder, {"_target_": network.target, **network.arguments})
    return folder


@pytest.fixture
def breast(shared_data: Path, tmp_path: Path) -> Path:
    folder = tmp_path / "breast_density_classification"
    shutil.copytree(shared_data / "monai_bundles" / folder.name, folder)
    return folder


def test_endoscopy_classifies_a_frame_as_stock_monai_does(endoscopy: Path) -> None:
    model = open_model(endoscopy, "cpu")
    volume = picture(3)
    found = model.run(volume, ClassifyOptions(), Progress())
    assert found.classes == ("in body", "out body") and found.kind == "binary"
    steps = Compose(
        [
            EnsureChannelFirst(channel_dim=-1),
            Resize([256, 256], mode="bilinear"),
            NormalizeIntensity(nonzero=True, channel_wise=True),
        ]
    )
    batch = torch.as_tensor(steps(volume.data[:, 0].transpose(2, 1, 0).astype(np.float32)))[None]
    plan = read_plan(endoscopy)
    network = build_network(plan.network.target, plan.network.arguments)
    network.load_state_dict(torch.load(plan.weights, weights_only=True))
    with torch.inference_mode():
        expected = network.eval()(batch).softmax(1).numpy()
    assert np.allclose(found.probabilities, expected, atol=1e-4)


def test_endoscopy_takes_a_grey_frame_for_a_colour_one(endoscopy: Path) -> None:
    grey = picture(1)
    three = Volume(np.repeat(grey.data, 3, axis=0), grey.geometry, "three.png")
    model = open_model(endoscopy, "cpu")
    found = [model.run(volume, ClassifyOptions(), Progress()).probabilities for volume in (grey, three)]
    assert np.allclose(*found)
    with pytest.raises(InputError, match="2 channels"):
        model.run(picture(2), ClassifyOptions(), Progress())


def test_breast_density_says_its_classes_without_torchvision(breast: Path) -> None:
    spec = read_spec(breast)
    assert spec.task == "classification" and spec.classes is not None
    assert spec.classes.names == ("A", "B", "C", "D") and spec.classes.dimensions == 2


def test_breast_density_runs_where_torchvision_does_and_is_refused_elsewhere(breast: Path) -> None:
    plan = read_plan(breast)
    try:
        import torchvision.models  # noqa: F401
    except (ImportError, RuntimeError):
        (breast / "models").mkdir()
        torch.save({"fc.weight": torch.zeros(4, 2048)}, breast / "models" / "model.pt")
        with pytest.raises(ModelError, match="comes from torchvision"):
            open_model(breast, "cpu")
        return
    save_random_weights(breast, {"_target_": plan.network.target, **plan.network.arguments})
    found = open_model(breast, "cpu").run(picture(1), ClassifyOptions(), Progress())
    assert found.kind == "multilabel"  # sigmoid alone, as its own post-processing has it
    assert np.allclose(found.probabilities, 1 / (1 + np.exp(-found.scores)))
