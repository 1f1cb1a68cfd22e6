"""Preprocessing of a model of pictures, said as steps on volumes of a single slice."""

from dataclasses import replace
from typing import Any

from MedAILib.config import Component
from MedAILib.errors import SpecError
from MedAILib.read_spec import step_name

# For each argument that has a number per axis, the number that leaves the third axis alone.
_THIRD = {
    ("CenterSpatialCrop", "roi_size"): 0,
    ("CropForeground", "k_divisible"): 1,
    ("CropForeground", "margin"): 0,
    ("DivisiblePad", "k"): 1,
    ("Resize", "spatial_size"): 0,
    ("Spacing", "pixdim"): 0,
    ("SpatialPad", "spatial_size"): 1,
}


def flat_steps(components: tuple[Component, ...]) -> tuple[Component, ...]:
    """The same steps with a third number for the axis that a picture does not have.

    Raises:
        SpecError: an argument has neither one number nor two.
    """
    return tuple(_flat(component) for component in components)


def _flat(component: Component) -> Component:
    name = step_name(component)
    changed = {
        key: _three(component, value, _THIRD[name, key])
        for key, value in component.arguments.items()
        if (name, key) in _THIRD
    }
    return replace(component, arguments=component.arguments | changed)


def _three(component: Component, value: Any, third: int) -> list[Any]:
    values = list(value) if isinstance(value, (list, tuple)) else [value] * 2
    if len(values) != 2:
        raise SpecError(
            f"The model's '{component.target}' has {values} where two numbers, one for each axis, are wanted."
        )
    return [*values, third]
