"""What scanners do to a classifier's images is done as far as its number says, to pictures and volumes alike."""

from collections.abc import Callable

import pytest
import torch
from torch import Generator, Tensor

from MedAILib.training.artefacts import bent, coarser, shaded, with_ghosts, with_spikes
from MedAILib.training.augment_images import Augmentation
from MedAILib.training.classification_augmentations import AUGMENTATIONS

SHAPES = [(20, 1, 24, 30), (20, 2, 12, 14, 16)]


def seeded(number: int = 0) -> Generator:
    return Generator().manual_seed(number)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("change", [bent, shaded, with_ghosts, with_spikes, coarser])
def test_a_seed_decides_what_is_done_to_each_image(
    change: Callable[[Tensor, float, Generator], Tensor], shape: tuple[int, ...]
) -> None:
    images = torch.rand(shape, generator=seeded(1))
    first, again, other = (change(images, 0.4, seeded(number)) for number in (2, 2, 3))
    assert first.shape == images.shape and torch.isfinite(first).all()
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.allclose(first, images)


@pytest.mark.parametrize("shape", SHAPES)
def test_bending_moves_no_place_further_than_asked_for(shape: tuple[int, ...]) -> None:
    size = shape[2]
    ramp = torch.arange(float(size)).reshape(1, 1, -1, *[1] * (len(shape) - 3)).expand(shape)
    away = (bent(ramp, 0.1, seeded()) - ramp).abs()
    assert 0.03 * size < away.max() <= 0.1 * size + 0.5


def test_a_bias_field_is_slow_and_within_its_limit() -> None:
    field = shaded(torch.ones(20, 1, 40, 40), 0.5, seeded()).log()
    assert field.abs().max() <= 0.5 + 1e-5 and field.std() > 0.05
    assert field.diff(dim=2).abs().max() < 0.1


def test_some_images_have_ghosts_and_the_others_stay_as_they_are() -> None:
    square = torch.zeros(60, 1, 40, 40)
    square[:, :, 15:25, 16:24] = 1
    found = with_ghosts(square, 0.8, seeded())
    changed = (found != square).flatten(1).any(dim=1)
    assert 8 <= int(changed.sum()) <= 30
    outside = found.clone()
    outside[:, :, 12:28, 12:28] = 0
    assert (outside[changed].abs().flatten(1).amax(dim=1) > 0.01).float().mean() > 0.6  # copies may lie on each other


def test_a_spike_is_a_wave_of_one_direction() -> None:
    added = with_spikes(torch.zeros(60, 1, 32, 32), 2.0, seeded())
    spiked = added[added.flatten(1).any(dim=1)]
    assert 8 <= len(spiked) <= 30 and spiked.abs().max() <= 2
    spectrum = torch.fft.fft2(spiked[:, 0]).abs().square().flatten(1)
    assert (spectrum.topk(24).values.sum(dim=1) / spectrum.sum(dim=1)).min() > 0.6


def test_coarse_images_keep_their_size_and_lose_their_finest_detail() -> None:
    board = (torch.arange(32)[:, None] + torch.arange(32)) % 2 * 1.0
    found = coarser(board.expand(60, 1, 32, 32), 0.4, seeded())
    same = (found == board).flatten(1).all(dim=1)
    assert 30 <= int(same.sum()) <= 52 and found[~same].std() < board.std() * 0.95


@pytest.mark.parametrize("key", [key for key in AUGMENTATIONS if key not in ("flip", "mixup")])
def test_every_augmentation_that_a_classifier_may_name_changes_images(key: str) -> None:
    images = torch.rand(12, 1, 20, 20, generator=seeded())
    plain, change = Augmentation({}), Augmentation({key: {"blur": 1.5, "rotate": 20}.get(key, 0.3)})
    plain.reseed(2)
    change.reseed(2)
    assert not torch.allclose(plain(images), change(images), atol=1e-2)
