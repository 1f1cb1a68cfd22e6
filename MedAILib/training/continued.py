"""A planned task that goes on from a model: its network, its grid and its intensities, so that its weights fit."""

from collections.abc import Container
from dataclasses import replace
from pathlib import Path
from typing import Any

from MedAILib.bundle_plan import BundlePlan
from MedAILib.bundle_spec import step_name
from MedAILib.config_values import Component, Name, Unknown
from MedAILib.errors import InputError
from MedAILib.models.steps import INTENSITIES, OWN_INTENSITIES
from MedAILib.plans import read_any_plan
from MedAILib.training.architectures import head_weights
from MedAILib.training.choices import Choice
from MedAILib.training.task import SegmentationTask

LIKE = "as the model has it that the weights are from"
# What belongs to a transform's place in a bundle, not to what it does.
_PLACED = ("keys", "allow_missing_keys")


def like_model(
    task: SegmentationTask, choices: list[Choice], source: Path, asked: Container[str]
) -> tuple[SegmentationTask, list[Choice]]:
    """The task with what the model's weights were learnt for in the place of what was planned.

    Args:
        task: planned from the data.
        choices: told of it.
        source: the model.
        asked: keys that the user gave, which stay; with `network` among them all stays as it was planned.

    Raises:
        MedAIError: the model can't be read.
        InputError: it is no network for such images.
    """
    if "network" in asked:
        return task, choices
    plan = read_any_plan(source)
    network = {"_target_": plan.network.name} | {k: _plain(v) for k, v in plan.network.arguments.items()}
    axes = int(network.get("spatial_dims", task.axes))
    if axes != task.axes:
        kinds = {2: "pictures", 3: "volumes"}
        raise InputError(f"The model {source} is for {kinds.get(axes)}, and the data has {kinds[task.axes]}.")
    network |= {"in_channels": len(task.channels), "out_channels": len(task.labels) + 1}
    if "deep_supr_num" in network:  # its heads are only of use while training; a bundle leaves them out
        network["deep_supervision"] = True
    taken: dict[str, Any] = {"network": network, "deep_supervision_weights": head_weights(network), **_grid(plan, axes)}
    taken["mirror_axes"] = (plan.metadata.get("medai") or {}).get("mirror_axes", task.mirror_axes)
    if (intensity := _intensity(plan)) is not None:
        taken["intensity"] = intensity
    taken = {key: value for key, value in taken.items() if key not in asked}
    shown = {**taken, "network": network["_target_"]}
    told = [replace(c, value=shown[c.key], reason=LIKE) if c.key in taken else c for c in choices]
    return replace(task, **taken), told


def _grid(plan: BundlePlan, axes: int) -> dict[str, Any]:
    """Orientation, spacing and cropping of a bundle's preprocessing, and the windows of its inferer."""
    steps = {step_name(step).removesuffix("d"): step.arguments for step in plan.preprocessing}
    found: dict[str, Any] = {"crop_foreground": "CropForeground" in steps}
    if axes == 3 and isinstance(letters := steps.get("Orientation", {}).get("axcodes"), str):
        found["orientation"] = letters
    spacing = steps.get("Spacing", {}).get("pixdim")
    if isinstance(spacing, list | tuple) and len(spacing) == axes and all(mm > 0 for mm in spacing):
        found["spacing_mm"] = [float(mm) for mm in spacing]
    window = plan.inferer.arguments.get("roi_size")
    if isinstance(window, list | tuple) and len(window) == axes and all(isinstance(n, int) and n > 0 for n in window):
        found["patch"] = [int(n) for n in window]
    return found


def _intensity(plan: BundlePlan) -> list[dict[str, Any]] | None:
    """The bundle's changes of values; None where it has none, or one that a task may not name."""
    found = []
    for step in plan.preprocessing:
        plain = step_name(step).removesuffix("d")
        target = step.target if step.target in OWN_INTENSITIES else f"{plain}d"
        if target not in OWN_INTENSITIES and plain not in INTENSITIES:
            continue
        arguments = {key: _plain(value) for key, value in step.arguments.items() if key not in _PLACED}
        found.append({"_target_": target, **arguments})
    return found or None


def _plain(value: Any) -> Any:
    """An argument as a task may have it.

    Raises:
        InputError: it is none that a file can hold.
    """
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    if isinstance(value, dict):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, Component | Name | Unknown):
        raise InputError(
            "The model's network or intensities are no plain values; give a task with a network of its own."
        )
    return value
