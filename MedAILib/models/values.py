"""The post-processing of models whose output is an image: an activation and changes of values, voxel by voxel."""

from collections.abc import Callable
from dataclasses import dataclass

from monai.transforms import ScaleIntensityRange, ShiftIntensity, ThresholdIntensity
from torch import Tensor

from MedAILib.bundle_spec import step_name
from MedAILib.config_values import Component, Lambda
from MedAILib.errors import SpecError
from MedAILib.models.arguments import Arguments, keys_of, sense
from MedAILib.models.postprocess import activation_of
from MedAILib.models.steps import WITHOUT_EFFECT, intensity_step

Change = Callable[[Tensor], Tensor]
# Those that look at one voxel at a time, so that a part of an image is changed as the whole would be.
POINTWISE = (ScaleIntensityRange, ShiftIntensity, ThresholdIntensity)


@dataclass(frozen=True)
class Values:
    """What becomes of a network's output.

    Args:
        before: changes on the network's grid, in order.
        after: changes on the image's own grid.
    """

    before: tuple[Change, ...] = ()
    after: tuple[Change, ...] = ()


def values_plan(components: tuple[Component, ...]) -> Values:
    """Translate the post-processing of a model whose output is an image.

    Raises:
        SpecError: a transform, or an argument of one, that is not supported; the sentence names it.
    """
    names = {transform.__name__ for transform in POINTWISE}
    before: list[Change] = []
    after: list[Change] = []
    inverted = False
    for component in components:
        name = step_name(component)
        if name in WITHOUT_EFFECT or "pred" not in keys_of(component, "pred"):
            continue
        with sense(component):
            if name == "Activations":
                if (activation := activation_of(component)) is not None:
                    (after if inverted else before).append(_activated(activation))
            elif name == "Invert" and not inverted:
                _require_interpolation(Arguments(component, "pred"))
                inverted = True
            elif name in names:
                (after if inverted else before).append(intensity_step(name, component))
            elif name == "Lambda" and isinstance(component.arguments.get("func"), Lambda):
                told = component.arguments["func"].text
                raise SpecError(f"The model's '{component.target}' would execute '{told}', which MedAI does not do.")
            else:
                raise SpecError(f"The model's post-processing uses '{component.target}', which MedAI does not do.")
    return Values(tuple(before), tuple(after))


def changed(image: Tensor, changes: tuple[Change, ...]) -> Tensor:
    """An image (C, ...) after changes."""
    for change in changes:
        image = change(image)
    return image


def _activated(name: str) -> Change:
    return (lambda image: image.softmax(dim=0)) if name == "softmax" else (lambda image: image.sigmoid())


def _require_interpolation(arguments: Arguments) -> None:
    if arguments.take_for_key("nearest_interp", True):
        raise SpecError(
            f"The model's '{arguments.target}' brings its image back by the nearest voxel, which MedAI does not do."
        )
    if arguments.take_for_key("post_func", None) is not None:
        raise SpecError(f"The model's '{arguments.target}' would execute a function, which MedAI does not do.")
