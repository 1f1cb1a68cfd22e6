"""What scanners and patients do to images, for whole batches: bending, bias fields, ghosts, spikes, coarse sampling.

Each image of a batch (B, C, X, Y[, Z]) gets its own, all its channels the same; what is drawn comes from a generator.
"""

import torch
from torch import Generator, Tensor
from torch.nn.functional import affine_grid, grid_sample, interpolate

from MedAILib.training.ghosting import ghosted

SHARE_GHOSTED = 0.3
SHARE_SPIKED = 0.3
SHARE_COARSE = 0.3
CONTROL_POINTS = 5  # along each axis, of bending
FIELD_POINTS = 3  # along each axis, of a bias field
GHOSTS = (2, 5)  # how many lines of the spectrum are from one weakened line to the next
FINEST, COARSEST = 2, 5  # voxels that a spike's stripes are wide


def bent(images: Tensor, largest: float, generator: Generator) -> Tensor:
    """Images bent by a smooth field of shifts, none over `largest`, a share of the image's size."""
    field = _smooth(images, images.ndim - 2, CONTROL_POINTS, generator) * 2 * largest
    whole = torch.eye(images.ndim - 2, images.ndim - 1, device=images.device).repeat(len(images), 1, 1)
    places = affine_grid(whole, [len(images), 1, *images.shape[2:]], align_corners=False)
    moved = places + field.movedim(1, -1)
    return grid_sample(images, moved, mode="bilinear", padding_mode="reflection", align_corners=False)


def shaded(values: Tensor, largest: float, generator: Generator) -> Tensor:
    """Values from 0 on, divided by a slow field whose logarithm is at most `largest`; as coils make it."""
    return values * (_smooth(values, 1, FIELD_POINTS, generator) * largest).exp()


def with_ghosts(images: Tensor, strongest: float, generator: Generator) -> Tensor:
    """Some images with faint copies along one axis, whose lines of the spectrum lose a share of `strongest` at most."""
    changed = []
    for image in images:
        chance, strength, pick = torch.rand(3, generator=generator).tolist()
        every = int(torch.randint(GHOSTS[0], GHOSTS[1] + 1, (1,), generator=generator))
        axis = 1 + int(pick * (image.ndim - 1))
        changed.append(ghosted(image, axis, every, strength * strongest) if chance < SHARE_GHOSTED else image)
    return torch.stack(changed)


def with_spikes(images: Tensor, largest: float, generator: Generator) -> Tensor:
    """Some images with stripes of one direction and width, as a spike in k-space is; of a height up to `largest`."""
    axes = images.ndim - 2
    stripes = torch.zeros(len(images), 1, *images.shape[2:])
    for number in range(len(images)):
        chance, height, phase, width = torch.rand(4, generator=generator).tolist()
        direction = torch.randn(axes, generator=generator)
        if chance < SHARE_SPIKED:
            waves = direction / direction.norm().clamp_min(1e-6) * torch.pi / (FINEST + width * (COARSEST - FINEST))
            places = torch.meshgrid(*(torch.arange(float(n)) for n in images.shape[2:]), indexing="ij")
            along = sum((wave * place for wave, place in zip(waves, places, strict=True)), torch.zeros(()))
            stripes[number, 0] = height * largest * torch.cos(along + 2 * torch.pi * phase)
    return images + stripes.to(images.device)


def coarser(images: Tensor, coarsest: float, generator: Generator) -> Tensor:
    """Some images sampled at as little as `coarsest` of their voxels along each axis, and interpolated back."""
    mode, changed = "bilinear" if images.ndim == 4 else "trilinear", []
    for image in images.split(1):
        chance, zoom = torch.rand(2, generator=generator).tolist()
        few = [max(1, round(n * (coarsest + zoom * (1 - coarsest)))) for n in image.shape[2:]]
        back = interpolate(interpolate(image, size=few, mode="nearest"), size=image.shape[2:], mode=mode)
        changed.append(back if chance < SHARE_COARSE else image)
    return torch.cat(changed)


def _smooth(like: Tensor, count: int, points: int, generator: Generator) -> Tensor:
    """Smooth fields (B, count, X, Y[, Z]) from -1 to 1, a random number at each of a few points and linear between."""
    axes = like.ndim - 2
    drawn = torch.rand(len(like), count, *[points] * axes, generator=generator) * 2 - 1
    mode = "bicubic" if axes == 2 else "trilinear"
    return interpolate(drawn, size=like.shape[2:], mode=mode, align_corners=True).clamp(-1, 1).to(like.device)
