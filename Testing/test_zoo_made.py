"""Bundles like those of the Model Zoo that are not at hand, with random weights, against stock MONAI."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import configs, network_entry, write_configs
from zoo import made_volume, random_weights
from zoo_made import MADE, compared_made, renal_cect, renal_unest, spleen_deepedit_annotation, unest

from MedAILib.errors import InputError, SpecError, UntrustedCodeError
from MedAILib.inference.interpolate import covering_taps
from MedAILib.models.obstacles import why_not
from MedAILib.models.open import open_model
from MedAILib.models.unest import UNesT
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import RunOptions

HEAVY = {"wholeBrainSeg_Large_UNEST_segmentation"}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in MADE]


class Listening(Progress):
    def __init__(self) -> None:
        self.heard: list[str] = []

    def warn(self, text: str) -> None:
        self.heard.append(text)


@pytest.mark.parametrize("name", NAMES)
def test_a_bundle_in_the_way_of_the_zoos_gives_the_labels_that_stock_monai_gives(name: str, tmp_path: Path) -> None:
    row = compared_made(name, tmp_path)
    assert row.agreement is not None and row.agreement >= 0.999
    assert int(row.classes.split(" of ")[0]) > 1


def test_phases_of_one_patient_are_channels_in_the_scripts_order(tmp_path: Path) -> None:
    spec = read_spec(renal_cect(tmp_path))
    assert spec.channels == ("artery", "vein", "excret") and len(spec.labels) == 5


def test_phases_that_are_not_treated_alike_are_refused(tmp_path: Path) -> None:
    folder = renal_cect(tmp_path)
    path = folder / "configs" / "inference.json"
    text = path.read_text("utf-8")
    assert text.count('"Orientationd", "keys": ["artery", "vein", "excret"]') == 1
    path.write_text(
        text.replace('"Orientationd", "keys": ["artery", "vein", "excret"]', '"Orientationd", "keys": ["artery"]')
    )
    assert "does not treat all of its images alike" in why_not(folder)


def test_a_network_of_clicks_is_given_none_and_the_user_is_told(tmp_path: Path) -> None:
    folder, progress = spleen_deepedit_annotation(tmp_path / "m"), Listening()
    assert len(read_spec(folder).channels) == 1
    volume = made_volume(tmp_path / "images", 1)
    random_weights(folder, volume)
    open_model(folder, "cpu").run(volume, RunOptions(), progress)
    assert any("clicks" in text for text in progress.heard)
    with pytest.raises(InputError, match="3 channels"):
        open_model(folder, "cpu").run(made_volume(tmp_path / "three", 3), RunOptions(), Progress())


def test_the_names_of_unests_tensors_are_those_of_the_published_weights(tmp_path: Path) -> None:
    with torch.device("meta"):
        own = UNesT(1, 133).state_dict()
    assert len(own) == 193 and sum(value.numel() for value in own.values()) == 87_205_158
    for name, shape in {
        "nestViT.patch_embed.proj.weight": (128, 1, 4, 4, 4),
        "nestViT.levels.0.pos_embed": (1, 64, 216, 128),
        "nestViT.levels.1.pool.conv.weight": (256, 128, 3, 3, 3),
        "nestViT.levels.2.transformer_encoder.7.attn.qkv.weight": (1536, 512),
        "nestViT.levels.2.transformer_encoder.7.mlp.fc2.bias": (512,),
        "encoder2.blocks.0.conv.weight": (64, 64, 1, 1, 1),
        "decoder5.transp_conv.conv.weight": (1024, 512, 2, 2, 2),
        "encoder10.adn.A.weight": (1,),
        "out.conv.conv.weight": (133, 32, 1, 1, 1),
    }.items():
        assert tuple(own[name].shape) == shape


def test_unests_attention_stays_within_blocks_and_mixes_heads_as_published() -> None:
    torch.manual_seed(0)
    net = UNesT(1, 2, feature_size=1, embed_dim=(8, 16, 32), num_heads=(2, 4, 8), depths=(1, 1, 1)).eval()
    level = net.nestViT.levels[0]
    image = torch.randn(1, 8, 24, 24, 24)
    with torch.no_grad():
        before = level(image)
        changed = image.clone()
        changed[:, :, 7, 8, 9] += torch.randn(8)
        moved = (level(changed) - before).abs().sum(dim=1)[0]
        assert moved[6:12, 6:12, 6:12].all()
        moved[6:12, 6:12, 6:12] = 0
        assert not moved.any()
        layer, tokens = level.transformer_encoder[0].attn, torch.randn(1, 3, 5, 8)
        parts = layer.qkv(tokens).reshape(1, 3, 5, 3, 2, 4)
        heads = []
        for head in range(2):
            asked, offered, given = (parts[:, :, :, which, head] for which in range(3))
            weights = torch.einsum("btnc,btmc->btnm", asked, offered) / 2
            heads.append(torch.einsum("btnm,btmc->btnc", weights.softmax(dim=-1), given))
        assert torch.allclose(layer(tokens), layer.proj(torch.stack(heads, dim=-1).flatten(3)), atol=1e-6)


@pytest.mark.parametrize(
    "change",
    [{"norm_name": "batch"}, {"img_size": [64, 64, 64]}, {"in_channels": 2}, {"patch_size": 5}, {"depths": [1, 1]}],
)
def test_another_unest_than_the_published_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    assert "can't be built" in why_not(unest(tmp_path, **change)) or "contradicts" in why_not(unest(tmp_path, **change))


def test_scripts_of_other_names_stay_refused(tmp_path: Path) -> None:
    folder = unest(tmp_path, target="scripts.networks.other.UNesT")
    with pytest.raises(UntrustedCodeError, match=r"scripts/networks/other\.py"):
        open_model(folder, "cpu")
    assert why_not(renal_unest(tmp_path / "n")) == ""


@pytest.mark.parametrize(("count", "size"), [(40, 32), (64, 32), (32, 32), (24, 32), (5, 32), (7, 3)])
def test_means_of_covered_voxels_are_pytorchs(count: int, size: int) -> None:
    values = torch.randn(2, 5, size)
    expected = torch.nn.functional.interpolate(values, count, mode="area")
    taps = covering_taps(count, size)
    assert torch.allclose(taps.apply(values, 2), expected, atol=1e-6)
    assert torch.allclose(taps.apply(values.movedim(2, 1), 1), expected.movedim(2, 1), atol=1e-6)
    against = covering_taps(count, size, against=True)
    assert torch.allclose(against.apply(values, 2), expected.flip(2), atol=1e-6)
    if count >= size:
        planes = values.movedim(2, 0)
        upper = planes[(taps.low + 1).clamp(max=size - 1)]
        blended = torch.lerp(planes[taps.low], upper, taps.share.float()[:, None, None])
        assert torch.allclose(blended.movedim(0, 2), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("activation", "decision"),
    [
        ({"softmax": True}, {"argmax": True}),
        ({"sigmoid": True}, {"threshold": 0.3}),
    ],
)
def test_an_activation_after_the_way_back_decides_as_stock_monai_does(
    activation: dict[str, Any], decision: dict[str, Any], tmp_path: Path
) -> None:
    from bundles import random_bundle
    from zoo import stock_output
    from zoo_made import BACK, compose

    steps = (
        {"_target_": name, "keys": "pred", **told}
        for name, told in (("Activationsd", activation), ("AsDiscreted", decision))
    )
    folder = random_bundle(tmp_path / "m", network_entry(), postprocessing=compose(BACK, *steps))
    volume = made_volume(tmp_path / "images", 1)
    found = open_model(folder, "cpu").run(volume, RunOptions(probabilities=True), Progress())
    theirs = stock_output(folder, tmp_path / "images")
    assert (found.layers == theirs).mean() > 0.999 and len(np.unique(theirs)) > 1
    assert found.probabilities is not None and 0 <= found.probabilities.min() <= found.probabilities.max() <= 1


def test_a_threshold_on_shares_after_the_way_back_is_refused(tmp_path: Path) -> None:
    from zoo_made import BACK, compose

    steps = (
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
    )
    folder = write_configs(tmp_path, *configs(network_entry(), postprocessing=compose(BACK, *steps)))
    with pytest.raises(SpecError, match="after Invert and Activations"):
        raise SpecError(why_not(folder))
