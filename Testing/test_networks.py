"""The networks of the allow-list are built, sketched without memory, and run."""

from typing import Any

import pytest
import torch

from MedAILib.config_values import Component
from MedAILib.errors import ModelError, SpecError
from MedAILib.models import networks
from MedAILib.models.mean_classifier import MeanClassifier
from MedAILib.models.networks import build_network, sketched

SMALL: dict[str, dict[str, Any]] = {
    "AHNet": {"layers": [3, 4, 6, 3], "spatial_dims": 3, "psp_block_num": 0},
    "AttentionUnet": {"spatial_dims": 3, "channels": [4, 8], "strides": [2]},
    "BasicUNetPlusPlus": {"features": [4, 4, 8, 8, 16, 4]},
    "FCN": {"spatial_dims": 3, "channels": [4, 8, 8, 8, 8], "strides": [2, 2, 2, [2, 2, 1]]},
    "HighResNet": {},
    "MedNeXt": {"init_filters": 8, "kernel_size": 3, "blocks_down": [1], "blocks_up": [1]},
    "SegResNetDS": {"init_filters": 8, "blocks_down": [1, 1]},
    "SegResNetVAE": {"input_image_size": [32, 32, 32], "blocks_down": [1, 1, 1], "blocks_up": [1, 1]},
    "SwinUNETR": {"feature_size": 12, "img_size": [32, 32, 32], "depths": [1, 1, 1, 1]},
    "UNETR": {"img_size": [32, 32, 32], "feature_size": 4, "hidden_size": 24, "mlp_dim": 24, "num_heads": 2},
    "VNet": {},
}


@pytest.mark.parametrize("name", SMALL)
def test_each_network_is_sketched_with_its_own_shapes_and_runs(name: str) -> None:
    shape = (64, 64, 64) if name == "SwinUNETR" else (32, 32, 32)
    arguments = {"in_channels": 1, "out_channels": 2, **SMALL[name]}
    with sketched():
        sketch = build_network(name, arguments)
    network = build_network(name, arguments).eval()
    assert {p.device.type for p in sketch.parameters()} == {"meta"}
    shapes = [{key: value.shape for key, value in net.state_dict().items()} for net in (sketch, network)]
    assert shapes[0] == shapes[1]
    with torch.no_grad():
        output = network(torch.zeros(1, 1, *shape))
    output = output[0] if isinstance(output, (list, tuple)) else output
    assert output.shape == (1, 2, *shape)


def test_a_network_of_any_size_is_sketched_without_its_memory() -> None:
    with sketched():
        net = build_network(
            "UNet",
            {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "channels": [90_000, 90_000], "strides": [2]},
        )
    assert sum(p.numel() for p in net.parameters()) > 10**11
    with sketched(), pytest.raises(ModelError, match="SwinUNETR can't be built"):
        build_network("SwinUNETR", {"in_channels": 1, "out_channels": 2, "window_size": 2_000})


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("UNet", {"spatial_dims": 3, "channels": [4, 8], "strides": [2], "num_res_units": 999_999}),
        ("SegResNet", {"blocks_down": [1, 999_999], "blocks_up": [1]}),
    ],
)
def test_a_network_of_more_parts_than_any_has_is_refused_before_it_is_built(name: str, arguments: Any) -> None:
    with sketched(), pytest.raises(ModelError, match=f"{name} can't be built .* more than 5000 parts"):
        build_network(name, {"in_channels": 1, "out_channels": 2, **arguments})


def test_a_network_without_its_package_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(**_: Any) -> None:
        raise ImportError("import torchvision.models (no module named torchvision).")

    monkeypatch.setattr(networks.nets, "DAF3D", absent)
    monkeypatch.setitem(networks.NETWORKS, "DAF3D", absent)
    with pytest.raises(ModelError, match="DAF3D needs a Python package that can't be used here: import torchvision"):
        build_network("DAF3D", {})


def test_a_mean_of_classifiers_says_what_its_members_say_on_average_over_mirrored_copies() -> None:
    member = {"_target_": "resnet10", "spatial_dims": 2, "n_input_channels": 1, "num_classes": 2, "conv1_t_size": 3}
    described = [Component("resnet10", {key: value for key, value in member.items() if key != "_target_"})] * 3
    network = build_network("MeanClassifier", {"members": described, "mirrors": [0]}).eval()
    image = torch.rand(2, 1, 24, 24)
    with torch.inference_mode():
        likely = [member(copy).softmax(dim=1) for member in network.members for copy in (image, image.flip(2))]
        assert torch.allclose(network(image).softmax(dim=1), torch.stack(likely).mean(dim=0), atol=1e-6)
        energies = [member(copy).logsumexp(1) for member in network.members for copy in (image, image.flip(2))]
        assert torch.allclose(network(image).logsumexp(1), torch.stack(energies).mean(0), atol=1e-5)


def test_a_mean_of_classifiers_may_take_the_energy_of_one_of_them() -> None:
    member = {"spatial_dims": 2, "n_input_channels": 1, "num_classes": 2, "conv1_t_size": 3}
    described = [Component("resnet10", member)] * 2
    network = build_network("MeanClassifier", {"members": described, "mirrors": [1], "energy_of": 1}).eval()
    plain = MeanClassifier(list(network.members), [1]).eval()
    image = torch.rand(2, 1, 24, 24)
    with torch.inference_mode():
        assert torch.allclose(network(image).softmax(dim=1), plain(image).softmax(dim=1), atol=1e-6)
        energies = [network.members[1](copy).logsumexp(1) for copy in (image, image.flip(3))]
        assert torch.allclose(network(image).logsumexp(1), torch.stack(energies).mean(0), atol=1e-5)


@pytest.mark.parametrize("wrong", [{"energy_of": 1}, {"energy_of": -1}, {"energy_of": 0, "activation": "sigmoid"}])
def test_the_energy_of_a_member_that_there_is_not_is_refused(wrong: dict[str, Any]) -> None:
    described = [Component("resnet10", {"spatial_dims": 2, "n_input_channels": 1, "num_classes": 2})]
    with pytest.raises(ModelError, match="energy can't be that of member"):
        build_network("MeanClassifier", {"members": described} | wrong)


def test_a_mean_of_what_is_no_network_is_refused() -> None:
    with pytest.raises(SpecError, match="no networks"):
        build_network("MeanClassifier", {"members": ["resnet10"]})


@pytest.mark.parametrize("axes", [2, 3])
def test_an_fcn_scores_every_voxel_of_images_of_any_size(axes: int) -> None:
    arguments = {"spatial_dims": axes, "in_channels": 2, "out_channels": 3, "channels": [4] * 6, "strides": [2] * 5}
    network = build_network("FCN", arguments).eval()
    image = torch.rand(1, 2, *(33, 40, 47)[:axes])
    with torch.no_grad():
        scores = network(image)
    assert scores.shape == (1, 3, *image.shape[2:])


def test_an_fcn_sums_the_scores_of_three_depths() -> None:
    arguments = {"spatial_dims": 2, "in_channels": 1, "out_channels": 2, "channels": [4] * 5, "strides": [2] * 4}
    network = build_network("MedAILib.models.fcn.FCN", arguments).eval()
    image = torch.rand(1, 1, 64, 64)
    with torch.no_grad():
        whole = network(image)
        for scored in network.scores:
            before = scored.weight.clone()
            scored.weight.zero_()
            assert not torch.allclose(network(image), whole)
            scored.weight.copy_(before)
        assert torch.equal(network(image), whole)


def test_a_doubling_layer_of_an_fcn_begins_as_linear_interpolation() -> None:
    network = build_network(
        "FCN", {"spatial_dims": 2, "in_channels": 1, "out_channels": 1, "channels": [2, 2], "strides": [[2, 1]]}
    )
    ramp = torch.arange(5.0)[None, None, :, None].expand(1, 1, 5, 3)
    inner = network.upsampling[0](ramp)[0, 0, 1:-1]
    assert torch.allclose(inner, torch.arange(0.25, 4, 0.5)[:, None].expand(8, 3))


def test_monais_own_fcn_is_not_taken_for_ours() -> None:
    with pytest.raises(SpecError):
        build_network("monai.networks.nets.FCN", {"out_channels": 2})
    with pytest.raises(ModelError):
        build_network("FCN", {"out_channels": 2, "pretrained": False})
