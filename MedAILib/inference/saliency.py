"""Which voxels speak for a class: MONAI's and Captum's methods, brought back onto the input's own grid.

Every map is of the log odds of one class's probability (of an ordinal class: of the log of its probability): a class's
own score alone would miss what speaks for it by speaking against the others. It is scaled so that its largest magnitude
is 1.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from monai.visualize import GradCAM, GradCAMpp
from torch import Tensor, nn

from MedAILib.errors import InputError, ModelError
from MedAILib.inference.classify import Classified, ClassifyRecipe
from MedAILib.inference.counted import Counted
from MedAILib.inference.layers import last_spatial_layer
from MedAILib.inference.onto_input import onto_input
from MedAILib.progress import Progress
from MedAILib.request import Explain
from MedAILib.results import Saliency
from MedAILib.volume import Geometry

# What a method makes of an image (1, C, X, Y[, Z]): a map (1, 1, X, Y[, Z]), and what that is of, in words.
Method = Callable[[Counted, Tensor], tuple[Tensor, str]]
_ACTIVATIONS = {"grad-cam": (GradCAM, "Grad-CAM"), "grad-cam++": (GradCAMpp, "Grad-CAM++")}


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
        ModelError: a package that the method needs is not installed.
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
    method, said = _method(asked.method), ""
    with torch.inference_mode(False), torch.enable_grad():
        extra = None if done.covariates is None else done.covariates.clone().to(device)
        for part, one in enumerate(done.prepared):
            counted = Counted(network, recipe, number, extra)
            counted.report_to(progress, part, len(done.prepared))
            image = one.image.clone().to(device)
            found, said = method(counted, image)
            place = tuple(slice(first, end) for first, end in one.look.place.box_kji)
            working = found.detach()[0, 0].reshape(one.frame.shape)
            values[place] = onto_input(working, one.frame, one.look.parts[0].geometry.shape_kji)
    scale = float(np.abs(values).max())
    if scale > 0:
        values /= np.float32(scale)
    else:
        progress.warn(f"{asked.method} found no voxel that speaks for {asked.class_name}.")
    return Saliency(
        np.clip(values, -1, 1),
        geometry,
        asked.class_name,
        asked.method,
        scale,
        f"{said}; divided by its largest magnitude, {scale:.6g}",
    )


def _method(name: str) -> Method:
    """A method by its name; Captum and scikit-learn, which may be absent, are imported for who asks for theirs."""
    if name in _ACTIVATIONS:
        return lambda counted, image: _mean_activation(counted, image, name)
    try:
        from MedAILib.inference.perturbed import BY_CELLS, METHODS  # noqa: PLC0415

        if name in BY_CELLS:
            import sklearn.linear_model  # noqa: F401, PLC0415  Captum's LIME and SHAP fit by it
    except ModuleNotFoundError as error:
        package = {"captum": "captum", "sklearn": "scikit-learn"}.get((error.name or "").partition(".")[0])
        if package is None:
            raise
        raise ModelError(
            f"{name} needs the Python package {package}, which is not installed; install it with pip (in Slicer: "
            "slicer.util.pip_install), or explain by grad-cam."
        ) from error
    return METHODS[name]


def _mean_activation(counted: Counted, image: Tensor, method: str) -> tuple[Tensor, str]:
    """The map of a network, or the weighted mean of those of a mean's members, and the layers they are of."""
    voters = _voters(counted.network)
    counted.expect(2 * len(voters))
    layers: dict[str, str] = {}  # by the kind of network
    total = torch.zeros(1, device=image.device)
    for voter, weight in voters:
        kind = type(voter).__name__
        if kind not in layers:
            layers[kind] = last_spatial_layer(voter, image, counted.covariates)
        total = total + weight * _class_activation(counted.of(voter), layers[kind], image, method)
    return total, f"{_ACTIVATIONS[method][1]} at the layer {' and '.join(dict.fromkeys(layers.values()))}"


def _voters(network: nn.Module, weight: float = 1.0) -> list[tuple[nn.Module, float]]:
    """The networks that a mean is of, each by itself, with its weight; means may be of means."""
    members = getattr(network, "members", None)
    if not isinstance(members, nn.ModuleList):
        return [(network, weight)]
    return [found for member in members for found in _voters(member, weight / len(members))]


def _class_activation(counted: Counted, layer: str, image: Tensor, method: str) -> Tensor:
    kind, _ = _ACTIVATIONS[method]
    module = counted.network.get_submodule(layer)
    with _hooks_restored(module):
        module.register_forward_pre_hook(_remember_from_here)
        activation = kind(counted, f"network.{layer}", postprocessing=lambda found: found)
        return torch.as_tensor(activation(image, class_idx=counted.number))


def _remember_from_here(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Let gradients end at this layer, so that nothing before it takes the memory or the time of a backward pass."""
    return tuple(value.detach().requires_grad_(True) for value in inputs)


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
