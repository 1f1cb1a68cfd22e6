"""Preprocessing of the Model Zoo's interactive and several-phase bundles that is known by name: what it does.

DeepEdit's network sees the image, and a channel for each label with a spot where the user clicked; without clicks these
are zeros, and the network segments by itself, as it was also trained to. `ConcatImages` puts images of one patient
together as channels.
"""

from dataclasses import dataclass
from typing import Any

from MedAILib.config_values import Component, known
from MedAILib.errors import SpecError

CONCAT = "scripts.my_transforms.ConcatImages"
CLICKS_TURNED = "scripts.transforms.OrientationGuidanceMultipleLabelDeepEditd"
REVIEWED_STEPS = (CONCAT, CLICKS_TURNED)
_APPS = ("", "monai.apps.deepedit.transforms", "monai.apps.deepedit")
_CLICKS_PLACED, _CLICKS_RESIZED, _CLICKS_DRAWN = (
    "AddGuidanceFromPointsDeepEditd",
    "ResizeGuidanceMultipleLabelDeepEditd",
    "AddGuidanceSignalDeepEditd",
)
NO_CLICKS = "This model can also be told by clicks where to look; MedAI gives none, and it segments by itself."


@dataclass(frozen=True)
class Merged:
    """Images that become channels of one.

    Args:
        keys: the entries, in the order of the channels.
        into: the entry of all.
    """

    keys: tuple[str, ...]
    into: str


def merged_by(step: Component) -> Merged | None:
    """What a step puts together; None for other steps.

    Raises:
        SpecError: it is such a step, and garbled.
    """
    if step.target != CONCAT:
        return None
    keys, into = known(step.arguments.get("keys_merge")), known(step.arguments.get("keys_out"))
    listed = isinstance(keys, (list, tuple)) and bool(keys) and all(isinstance(key, str) for key in keys)
    if not listed or len(set(keys)) < len(keys) or not isinstance(into, str):
        raise SpecError(f"The model's '{CONCAT}' puts together {keys!r} as {into!r}, which makes no sense.")
    return Merged(tuple(keys), into)


def merged_images(steps: tuple[Component, ...]) -> Merged | None:
    """What preprocessing puts together; None where it takes one image.

    Raises:
        SpecError: as `merged_by`.
    """
    return next((found for found in map(merged_by, steps) if found is not None), None)


def is_about_clicks(step: Component) -> bool:
    """Whether a step only concerns clicks, and changes nothing where there are none."""
    return step.target == CLICKS_TURNED or _is_deepedit(step, _CLICKS_PLACED) or _is_deepedit(step, _CLICKS_RESIZED)


def draws_clicks(step: Component) -> bool:
    """Whether a step adds the channels of clicks to the image."""
    return _is_deepedit(step, _CLICKS_DRAWN)


def click_channels(steps: tuple[Component, ...]) -> int:
    """How many channels of clicks preprocessing adds to the image: one for each of DeepEdit's labels.

    Raises:
        SpecError: it adds some, and does not say for which labels.
    """
    if not any(draws_clicks(step) for step in steps):
        return 0
    names: Any = None
    for step in steps:
        if _is_deepedit(step, _CLICKS_PLACED):
            names = known(step.arguments.get("label_names"))
    if not isinstance(names, dict) or not 1 <= len(names) <= 256:
        raise SpecError("The model's preprocessing adds channels of clicks, and does not say for which labels.")
    drawn = next(step for step in steps if draws_clicks(step))
    if known(drawn.arguments.get("number_intensity_ch", 1)) != 1:
        raise SpecError("The model's preprocessing adds clicks to several images, which MedAI does not do.")
    return len(names)


def _is_deepedit(step: Component, name: str) -> bool:
    return step.name == name and step.target.rpartition(".")[0] in _APPS
