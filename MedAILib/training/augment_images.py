"""Random changes of a whole batch of images at once, pictures and volumes alike; each image gets its own.

Changes of place are drawn together and applied by one interpolation. Values are those of a normalised image; they
leave as they came, with mean 0 and standard deviation 1.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from monai.networks.layers import AffineTransform, separable_filtering
from torch import Tensor

from MedAILib.training.artefacts import bent, coarser, shaded, with_ghosts, with_spikes

SHARE_BLURRED = 0.3
SHARE_NOISY = 0.5


class Augmentation:
    """Draws and applies the changes that a task asks for; what is drawn depends on the seed of the epoch alone.

    Args:
        wanted: see `classification_augmentations.AUGMENTATIONS`; what is left out is not done.
        sequences: images are sequences, whose frames are all changed alike; noise alone is each frame's own.
    """

    def __init__(self, wanted: dict[str, Any], sequences: bool = False) -> None:
        self._wanted, self._sequences = wanted, sequences
        self._generator = torch.Generator()
        # "normalized": places from -1 to 1; "reverse_indexing": axes in the order of the tensor's.
        self._affine = AffineTransform(
            normalized=True, padding_mode="reflection", align_corners=False, reverse_indexing=True
        )

    def reseed(self, seed: int) -> None:
        """Draw from here on as this seed has it."""
        self._generator.manual_seed(seed)

    def __call__(self, images: Tensor) -> Tensor:
        """Changed images (B, C, X, Y[, Z]), or sequences (B, T, C, X, Y[, Z]), of the same shape, float32."""
        if self._sequences:  # what is drawn for an image is drawn for all its channels
            return self._changed(images.flatten(1, 2)).reshape(images.shape)
        return self._changed(images)

    def _changed(self, images: Tensor) -> Tensor:
        changed = self._affine(images, self._placements(len(images), images.ndim - 2).to(images.device))
        changed = self._artefact("elastic", bent, changed)
        low, high = (_over_each(changed, way) for way in ("amin", "amax"))
        values = (changed - low) / (high - low).clamp_min(1e-6)
        values = self._artefact("bias_field", shaded, values)
        values = values ** self._draw(len(images), images.ndim, self._amount("gamma")).exp().to(values.device)
        changed = _normalised(values)
        changed = self._artefact("ghosting", with_ghosts, changed)
        changed = self._artefact("spike", with_spikes, changed)
        changed = self._blurred(changed)
        changed = self._artefact("low_resolution", coarser, changed)
        return self._noisy(changed)

    def _artefact(self, key: str, change: Callable[[Tensor, float, torch.Generator], Tensor], images: Tensor) -> Tensor:
        """Images changed so where the task asks for it; nothing is drawn where it does not."""
        amount = self._amount(key)
        return change(images, amount, self._generator) if amount else images

    def mixed(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Each image blended with another of the batch (B, ...), and their targets (B, N) alike."""
        if not (parameter := self._amount("mixup")):
            return images, targets
        # Beta(a, a) from two gamma variates of this generator.
        pair = torch._standard_gamma(torch.full((2,), parameter), generator=self._generator)
        share = float(pair[0] / pair.sum()) if float(pair.sum()) else 0.5
        others = torch.randperm(len(images), generator=self._generator).to(images.device)
        return share * images + (1 - share) * images[others], share * targets + (1 - share) * targets[others]

    def _amount(self, key: str) -> float:
        return float(self._wanted.get(key, 0.0))

    def _draw(self, count: int, axes: int, largest: float) -> Tensor:
        """Numbers from -largest to largest, one for each image, to be broadcast over `axes` axes."""
        drawn = torch.rand(count, generator=self._generator) * 2 - 1
        return (drawn * largest).reshape(count, *[1] * (axes - 1))

    def _placements(self, count: int, axes: int) -> Tensor:
        """Matrices (B, axes + 1, axes + 1) from places in the new image to places in the old one, -1 to 1."""
        matrix = torch.eye(axes).repeat(count, 1, 1)
        for first, second in _planes(axes):
            angle = self._draw(count, 1, torch.pi * self._amount("rotate") / 180)
            turn = torch.eye(axes).repeat(count, 1, 1)
            turn[:, first, first] = turn[:, second, second] = angle.cos()
            turn[:, first, second], turn[:, second, first] = -angle.sin(), angle.sin()
            matrix = matrix @ turn
        scale = self._draw(count, 1, self._amount("scale")).exp()[:, None]
        scale = scale * torch.exp((torch.rand(count, axes, generator=self._generator) - 0.5) * self._amount("scale"))
        for axis in range(axes):
            kept = torch.rand(count, generator=self._generator)
            if axis in self._wanted.get("flip", ()):
                scale[:, axis] *= torch.where(kept < 0.5, -1.0, 1.0)
        matrix = matrix * scale[:, None, :]
        shift = (torch.rand(count, axes, generator=self._generator) * 2 - 1) * 2 * self._amount("translate")
        whole = torch.eye(axes + 1).repeat(count, 1, 1)
        whole[:, :axes, :axes], whole[:, :axes, axes] = matrix, shift
        return whole

    def _blurred(self, images: Tensor) -> Tensor:
        if not (widest := self._amount("blur")):
            return images
        chosen = torch.rand(len(images), generator=self._generator) < SHARE_BLURRED
        width = float(torch.rand(1, generator=self._generator)) * widest + 1e-3
        places = torch.arange(-2, 3, dtype=torch.float32, device=images.device)
        kernel = torch.exp(-0.5 * (places / width) ** 2)
        smooth = separable_filtering(images, [kernel / kernel.sum()] * (images.ndim - 2), mode="reflect")
        return torch.where(chosen.to(images.device).reshape(-1, *[1] * (images.ndim - 1)), smooth, images)

    def _noisy(self, images: Tensor) -> Tensor:
        if not (largest := self._amount("noise")):
            return images
        chosen = torch.rand(len(images), generator=self._generator) < SHARE_NOISY
        sizes = self._draw(len(images), images.ndim, largest) * chosen.reshape(-1, *[1] * (images.ndim - 1))
        noise = torch.randn(images.shape, generator=self._generator)
        return images + (sizes * noise).to(images.device)


def _planes(axes: int) -> Sequence[tuple[int, int]]:
    return [(0, 1)] if axes == 2 else [(0, 1), (0, 2), (1, 2)]


def _over_each(images: Tensor, way: str) -> Tensor:
    found: Tensor = getattr(images, way)(dim=tuple(range(2, images.ndim)), keepdim=True)
    return found


def _normalised(images: Tensor) -> Tensor:
    inner = tuple(range(2, images.ndim))
    return (images - images.mean(dim=inner, keepdim=True)) / images.std(dim=inner, keepdim=True).clamp_min(1e-3)
