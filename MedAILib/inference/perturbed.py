"""Captum's explanations, by what becomes of an answer when an image is changed: occlusion, gradients, LIME and SHAP.

Captum may be absent; Grad-CAM does without it.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from captum.attr import IntegratedGradients, KernelShap, Lime, Occlusion
from torch import Tensor

from MedAILib.estimate import copies_at_once
from MedAILib.inference.counted import Counted

IG_STEPS = 32
# Occluding boxes are this share of each side, by dimensions, moved by half of their size: 225 and 343 places.
OCCLUDED_SHARE = {2: 1 / 8, 3: 1 / 4}
# LIME and SHAP switch cells of a regular grid on and off: this many along each axis, by dimensions.
CELLS = {2: 8, 3: 4}
# Trials per cell.
TRIALS = 4


def _occlusion(counted: Counted, image: Tensor) -> tuple[Tensor, str]:
    share = OCCLUDED_SHARE[image.ndim - 2]
    sizes = [max(round(side * share), 1) for side in image.shape[2:]]
    strides = [max(size // 2, 1) for size in sizes]
    places = [math.ceil((n - size) / step) + 1 for n, size, step in zip(image.shape[2:], sizes, strides, strict=True)]
    counted.expect(math.prod(places) + 1)
    channels = image.shape[1]
    with torch.no_grad():
        found = Occlusion(counted).attribute(
            image,
            sliding_window_shapes=(channels, *sizes),
            strides=(channels, *strides),
            baselines=_mean(image),
            target=counted.number,
            perturbations_per_eval=copies_at_once(image.numel()),
        )
    said = f"loss of log odds where a box of {share} of each side is replaced by the image's mean"
    return torch.as_tensor(found).mean(dim=1, keepdim=True), said


def _integrated_gradients(counted: Counted, image: Tensor) -> tuple[Tensor, str]:
    counted.expect(IG_STEPS)
    found = IntegratedGradients(counted).attribute(
        image,
        baselines=_mean(image),
        target=counted.number,
        n_steps=IG_STEPS,
        internal_batch_size=copies_at_once(image.numel()),
    )
    said = f"gradients integrated from the image's mean in {IG_STEPS} steps, summed over channels"
    return torch.as_tensor(found).sum(dim=1, keepdim=True), said


def _by_cells(kind: Callable[..., Any], name: str) -> Callable[[Counted, Tensor], tuple[Tensor, str]]:
    def run(counted: Counted, image: Tensor) -> tuple[Tensor, str]:
        cells = _cells(image)
        trials = TRIALS * (int(cells.max()) + 1)
        counted.expect(trials)
        with torch.random.fork_rng(devices=[]), torch.no_grad():
            torch.manual_seed(0)  # the same question has the same answer
            found = kind(counted).attribute(
                image,
                baselines=_mean(image),
                target=counted.number,
                feature_mask=cells,
                n_samples=trials,
                perturbations_per_eval=copies_at_once(image.numel()),
            )
        count = CELLS[image.ndim - 2]
        said = f"{name} over a regular grid of {count} cells along each axis, replaced by the image's mean"
        return torch.as_tensor(found)[:, :1].float(), said

    return run


BY_CELLS = {"lime": _by_cells(Lime, "LIME"), "shap": _by_cells(KernelShap, "Kernel SHAP")}
# A map (1, 1, X, Y[, Z]) of an image (1, C, X, Y[, Z]), and what it is of, in words.
METHODS = {"occlusion": _occlusion, "integrated-gradients": _integrated_gradients, **BY_CELLS}


def _mean(image: Tensor) -> Tensor:
    """An image (1, C, …) without any structure: each channel's mean everywhere."""
    axes = tuple(range(2, image.ndim))
    return image.detach().mean(dim=axes, keepdim=True).expand_as(image).clone()


def _cells(image: Tensor) -> Tensor:
    """Numbers from 0 on (1, 1, X, Y[, Z]): the cell of a regular grid that each voxel is in."""
    count = CELLS[image.ndim - 2]
    numbers = torch.zeros(image.shape[2:], dtype=torch.long, device=image.device)
    for axis, size in enumerate(image.shape[2:]):
        cells = min(count, size)
        along = torch.arange(size, device=image.device) * cells // size
        numbers = numbers * cells + along.reshape([-1 if a == axis else 1 for a in range(numbers.ndim)])
    return numbers[None, None]
