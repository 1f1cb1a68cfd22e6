"""Which voxels speak for a class: MONAI's and Captum's methods, brought back onto the input's own grid.

Every map is of the log odds of one class's probability (of an ordinal class: of the log of its probability): a class's
own score alone would miss what speaks for it by speaking against the others. It is scaled so that its largest magnitude
is 1.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients, KernelShap, Lime, Occlusion
from monai.visualize import GradCAM, GradCAMpp
from torch import Tensor, nn

from MedAILib.errors import InputError
from MedAILib.estimate import copies_at_once
from MedAILib.inference.classify import Classified, ClassifyRecipe, probabilities_of
from MedAILib.inference.layers import last_spatial_layer
from MedAILib.inference.onto_input import onto_input
from MedAILib.progress import Progress
from MedAILib.request import Explain
from MedAILib.results import Saliency
from MedAILib.volume import Geometry

IG_STEPS = 32
# Occluding boxes are this share of each side, by dimensions, moved by half of their size: 225 and 343 places.
OCCLUDED_SHARE = {2: 1 / 8, 3: 1 / 4}
# LIME and SHAP switch cells of a regular grid on and off: this many along each axis, by dimensions.
CELLS = {2: 8, 3: 4}
# Trials per cell.
TRIALS = 4
_SAID = {
    "grad-cam": "Grad-CAM at the layer {layer}",
    "grad-cam++": "Grad-CAM++ at the layer {layer}",
    "occlusion": "loss of log odds where a box of {share} of each side is replaced by the image's mean",
    "integrated-gradients": "gradients integrated from the image's mean in {steps} steps, summed over channels",
    "lime": "LIME over a regular grid of {cells} cells along each axis, replaced by the image's mean",
    "shap": "Kernel SHAP over a regular grid of {cells} cells along each axis, replaced by the image's mean",
}


def explain(
    network: nn.Module,
    recipe: ClassifyRecipe,
    done: Classified,
    geometry: Geometry,
    asked: Explain,
    progress: Progress,
) -> Saliency:
    """Say which voxels of what was classified speak for a class.

    Args:
        network: in evaluation mode; it is left as it was.
        recipe: the model's.
        done: what was classified, with what the network saw.
        geometry: the input's grid, on which the answer stands.
        asked: method and class (by name).
        progress: steps of the method; cancelling ends it within one.

    Raises:
        InputError: the network has no layer for the method, or frames can't be explained one by one.
        Cancelled: by `progress`.
    """
    assert asked.class_name is not None, "the caller has chosen the class"
    if recipe.classes.sequence:
        raise InputError("A decision on a whole sequence can't be explained voxel by voxel; leave the explanation out.")
    if any(one.look.place.what == "frame" for one in done.prepared):
        raise InputError("Frames share one grid; explain a single frame as an image of its own.")
    device = next(network.parameters()).device
    number = recipe.classes.names.index(asked.class_name)
    values = np.zeros(geometry.shape_kji, np.float32)
    layer = ""
    with torch.inference_mode(False), torch.enable_grad():
        extra = None if done.covariates is None else done.covariates.clone().to(device)
        for part, one in enumerate(done.prepared):
            counted = _Counted(network, recipe, number, extra)
            counted.report_to(progress, part, len(done.prepared))
            image = one.image.clone().to(device)
            if asked.method.startswith("grad-cam"):
                found, layer = _mean_activation(counted, image, asked.method, extra)
            else:
                found = _METHODS[asked.method](counted, image)
            place = tuple(slice(first, end) for first, end in one.look.place.box_kji)
            working = found.detach()[0, 0].reshape(one.frame.shape)
            values[place] = onto_input(working, one.frame, one.look.parts[0].geometry.shape_kji)
    scale = float(np.abs(values).max())
    if scale > 0:
        values /= np.float32(scale)
    else:
        progress.warn(f"{asked.method} found no voxel that speaks for {asked.class_name}.")
    dims = recipe.classes.dimensions
    said = _SAID[asked.method].format(layer=layer, steps=IG_STEPS, cells=CELLS[dims], share=OCCLUDED_SHARE[dims])
    return Saliency(
        np.clip(values, -1, 1),
        geometry,
        asked.class_name,
        asked.method,
        scale,
        f"{said}; divided by its largest magnitude, {scale:.6g}",
    )


class _Counted(nn.Module):
    """The network as a function from a batch to each class's log odds; each pass is told, and can be cancelled."""

    def __init__(self, network: nn.Module, recipe: ClassifyRecipe, number: int, covariates: Tensor | None) -> None:
        super().__init__()
        self.network = network
        self.number = number
        self._recipe, self._covariates = recipe, covariates
        self._progress, self._part = Progress(), (0, 1)
        self._images, self._expected = 0, 1

    def of(self, network: nn.Module) -> "_Counted":
        """The same for another network, whose passes count with these."""
        self.network = network
        return self

    def report_to(self, progress: Progress, part: int, parts: int) -> None:
        """Say who hears of passes, and which of several parts of an image this is."""
        self._progress, self._part = progress, (part, parts)

    def expect(self, images: int) -> None:
        """Say how many images are to pass, for the progress."""
        self._expected = max(images, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Log odds (B, C) of a batch."""
        done, parts = self._part
        passed = min(self._images, self._expected)
        self._progress.step(done * self._expected + passed, parts * self._expected, "Explaining")
        self._images += len(x)
        extra = () if self._covariates is None else (self._covariates.expand(len(x), -1),)
        output = self.network(x, *extra)
        output = output[0] if isinstance(output, (list, tuple)) else output
        if self._recipe.classes.kind == "ordinal":
            return probabilities_of(output, self._recipe).clamp_min(1e-12).log()
        if self._recipe.outputs < len(self._recipe.classes.names):
            return torch.cat((-output, output), dim=1)
        return _against_others(output) if self._recipe.activation == "softmax" else output


def _against_others(scores: Tensor) -> Tensor:
    """Log odds (B, C) of the softmax of scores: each score less the log of the sum of exponentials of the others."""
    count = scores.shape[1]
    others = [torch.cat((scores[:, :n], scores[:, n + 1 :]), dim=1).logsumexp(dim=1) for n in range(count)]
    return scores - torch.stack(others, dim=1)


def _mean_activation(counted: _Counted, image: Tensor, method: str, covariates: Tensor | None) -> tuple[Tensor, str]:
    """The map of a network, or the weighted mean of those of a mean's members, and the layers they are of."""
    voters = _voters(counted.network)
    counted.expect(2 * len(voters))
    layers: dict[str, str] = {}  # by the kind of network
    total = torch.zeros(1, device=image.device)
    for voter, weight in voters:
        kind = type(voter).__name__
        if kind not in layers:
            layers[kind] = last_spatial_layer(voter, image, covariates)
        total = total + weight * _class_activation(counted.of(voter), layers[kind], image, method)
    return total, " and ".join(dict.fromkeys(layers.values()))


def _voters(network: nn.Module, weight: float = 1.0) -> list[tuple[nn.Module, float]]:
    """The networks that a mean is of, each by itself, with its weight; means may be of means."""
    members = getattr(network, "members", None)
    if not isinstance(members, nn.ModuleList):
        return [(network, weight)]
    return [found for member in members for found in _voters(member, weight / len(members))]


def _class_activation(counted: _Counted, layer: str, image: Tensor, method: str) -> Tensor:
    kind = GradCAM if method == "grad-cam" else GradCAMpp
    module = counted.network.get_submodule(layer)
    with _hooks_restored(module):
        module.register_forward_pre_hook(_remember_from_here)
        activation = kind(counted, f"network.{layer}", postprocessing=lambda found: found)
        return torch.as_tensor(activation(image, class_idx=counted.number))


def _remember_from_here(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Let gradients end at this layer, so that nothing before it takes the memory or the time of a backward pass."""
    return tuple(value.detach().requires_grad_(True) for value in inputs)


def _occlusion(counted: _Counted, image: Tensor) -> Tensor:
    sizes = [max(round(side * OCCLUDED_SHARE[image.ndim - 2]), 1) for side in image.shape[2:]]
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
    return torch.as_tensor(found).mean(dim=1, keepdim=True)


def _integrated_gradients(counted: _Counted, image: Tensor) -> Tensor:
    counted.expect(IG_STEPS)
    found = IntegratedGradients(counted).attribute(
        image,
        baselines=_mean(image),
        target=counted.number,
        n_steps=IG_STEPS,
        internal_batch_size=copies_at_once(image.numel()),
    )
    return torch.as_tensor(found).sum(dim=1, keepdim=True)


def _by_cells(kind: Callable[..., Any]) -> Callable[[_Counted, Tensor], Tensor]:
    def run(counted: _Counted, image: Tensor) -> Tensor:
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
        return torch.as_tensor(found)[:, :1].float()

    return run


_METHODS: dict[str, Callable[[_Counted, Tensor], Tensor]] = {
    "occlusion": _occlusion,
    "integrated-gradients": _integrated_gradients,
    "lime": _by_cells(Lime),
    "shap": _by_cells(KernelShap),
}


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


@contextmanager
def _hooks_restored(layer: nn.Module) -> Iterator[None]:
    """Take off what a method hangs onto a layer, and put back what it changes of it."""
    hooks = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_forward_hooks_with_kwargs")
    kept = (*hooks, "_is_full_backward_hook", "inplace")
    before = {name: layer.__dict__[name] for name in kept if name in layer.__dict__}
    copies = {name: value.copy() if hasattr(value, "copy") else value for name, value in before.items()}
    try:
        yield
    finally:
        for name, value in copies.items():
            layer.__dict__[name] = value
