"""What the user decides instead of a task: `--set key=value`, checked before anything is read."""

import json
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

from MedAILib.errors import InputError
from MedAILib.training.architectures import encoder_stages, head_weights, levels_for, multiple_of, network_entry
from MedAILib.training.augmentations import require_known, require_name
from MedAILib.training.intensities import intensity_entries, require_runnable
from MedAILib.training.losses import LOSSES
from MedAILib.training.plan_grid import Wishes
from MedAILib.training.precision import PRECISIONS
from MedAILib.training.processes import process_count
from MedAILib.training.recipe import PARAMETERS, usual_recipe
from MedAILib.training.task import SegmentationTask

SCHEDULES = ("poly", "cosine", "constant")
SAMPLINGS = ("uniform", "foreground", "classes")
SHORT = {"spacing": "spacing_mm", "preprocessing": "intensity", "mirror": "mirror_axes", "lr": "learning_rate"}
PLANNED = ("network", "patch", "spacing_mm", "batch", "memory_gb")


def read_settings(words: Sequence[str], kind: type = SegmentationTask) -> dict[str, Any]:
    """The values of `--set key=value` by key of a task: JSON where it is some, lists with commas, else text.

    Raises:
        InputError: no "=", or no such key.
    """
    hints = typing.get_type_hints(kind)
    known = {field.name for field in fields(kind)} | ({"memory_gb"} if kind is SegmentationTask else set())
    settings: dict[str, Any] = {}
    for word in words:
        key, sign, text = word.partition("=")
        key = SHORT.get(key.strip(), key.strip())
        if not sign or key not in known:
            raise InputError(f"--set {word}: there is no such key; known are {', '.join(sorted(known))}.")
        value = _value(text.strip())
        one_of_many = typing.get_origin(hints.get(key)) is list and not isinstance(value, list)
        settings[key] = [value] if one_of_many else value
    return settings


def wishes_of(settings: dict[str, Any]) -> Wishes:
    """What of the settings the plan has to know, since other choices follow from it.

    Raises:
        InputError: a value of a wrong kind.
    """
    found = {key: settings[key] for key in PLANNED if key in settings}
    if isinstance(network := found.get("network"), dict):
        found["network"] = network.get("_target_")
    for key, kind in (("network", str), ("batch", int), ("memory_gb", (int, float))):
        if key in found and (not isinstance(found[key], kind) or (key != "network" and not found[key] > 0)):
            raise InputError(f"--set {key}={found[key]} is no {'name' if key == 'network' else 'number above 0'}.")
    spacing = found.get("spacing_mm")
    if spacing is not None and (len(spacing) not in (2, 3) or not all(_number(mm) and mm > 0 for mm in spacing)):
        raise InputError("--set spacing needs three numbers of mm above 0 (two for pictures), such as spacing=1,1,1.")
    return Wishes(**found)


def with_settings(task: SegmentationTask, settings: dict[str, Any]) -> SegmentationTask:
    """A task with values replaced, and checked; a network given by its name is laid out for the task's patch.

    Raises:
        InputError: a value that makes no sense.
    """
    changes = {key: value for key, value in settings.items() if key != "memory_gb"}
    if isinstance(task.intensity, list):  # a file may have words, too
        changes.setdefault("intensity", task.intensity)
    if isinstance(changes.get("network"), str):
        spacing, patch = changes.get("spacing_mm", task.grid_mm), changes.get("patch", task.patch)
        _require_axes(task, patch, spacing)
        levels = levels_for(spacing, patch)
        base = int((task.network.get("filters") or task.network.get("channels") or [16])[0])
        name = changes["network"]
        if name == task.network["_target_"]:
            changes["network"] = task.network
        else:
            changes["network"] = network_entry(name, levels, len(task.channels), len(task.labels) + 1, base)
            changes.setdefault("deep_supervision_weights", head_weights(changes["network"]))
    if "augmentation" in changes:
        changes["augmentation"] = recipe_of(changes["augmentation"], task.augmentation)
    if "intensity" in changes:
        changes["intensity"] = intensity_entries(changes["intensity"])
    if changes.get("sampling") not in (None, task.sampling):
        changes.setdefault("sampling_ratios", [])
    changed = replace(task, **changes)
    require_sense(changed)
    return changed


def recipe_of(wanted: Any, now: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Augmentations from names ("rotation,flip": these alone; "+elastic,-gamma": beside or without), or as they are.

    Raises:
        InputError: a name that there is not.
    """
    if isinstance(wanted, dict):
        return wanted
    names = [str(name) for name in (wanted if isinstance(wanted, list) else [wanted]) if name not in ("", "none")]
    changes = all(name[0] in "+-" for name in names) and bool(names)
    if not changes:
        return {name: dict(PARAMETERS.get(name, {})) for name in names}
    recipe = dict(now) or usual_recipe()
    for name in names:
        require_name(name[1:])
        if name[0] == "-":
            recipe.pop(name[1:], None)
        else:
            recipe[name[1:]] = dict(PARAMETERS[name[1:]])
    return recipe


def require_sense(task: SegmentationTask) -> None:
    """Raise `InputError` where a value of a task is of a wrong kind, or contradicts another."""
    require_kinds(SegmentationTask, asdict(task))
    for key, known in (("loss", LOSSES), ("schedule", SCHEDULES), ("sampling", SAMPLINGS), ("precision", PRECISIONS)):
        if getattr(task, key) not in known:
            raise InputError(f"The task's {key} is '{getattr(task, key)}'; it can be {', '.join(known)}.")
    for key in ("epochs", "batch", "samples", "accumulate", "learning_rate", "folds"):
        if not getattr(task, key) > 0:
            raise InputError(f"The task's {key} is {getattr(task, key)}; it has to be above 0.")
    if not 0 <= task.ema_decay < 1:
        raise InputError(f"The task's ema_decay is {task.ema_decay}; it has to be from 0 (no averaging) to below 1.")
    if task.patience < 0 or task.frozen_stages < 0 or task.weight_decay < 0:
        raise InputError("The task's patience, frozen_stages and weight_decay can't be below 0.")
    if task.final_epochs < 0 or task.shipped < 0:
        raise InputError(
            f"The task's shipped is {task.shipped} and its final_epochs {task.final_epochs}; they can't be below 0."
        )
    _require_axes(task, task.patch, task.grid_mm)
    if not set(task.mirror_axes) <= set(range(task.axes)):
        there = "0 and 1" if task.axes == 2 else "0, 1 and 2"
        raise InputError(f"The task's mirror_axes are {task.mirror_axes}; they are among {there}.")
    classes = len(task.labels) + 1
    if task.class_weights and len(task.class_weights) != classes:
        raise InputError(f"The task's class_weights has {len(task.class_weights)} numbers and needs {classes}.")
    wanted = {"classes": classes, "foreground": 2}.get(task.sampling, 0)
    if task.sampling_ratios and len(task.sampling_ratios) != wanted:
        raise InputError(f"The task's sampling_ratios have {len(task.sampling_ratios)} numbers and need {wanted}.")
    _require_network(task)
    require_known(task.augmentation)
    least = 2 * process_count()
    if "mixup" in task.augmentation and task.batch < least:
        raise InputError(
            f"mixup blends the samples of a process's batch with each other, and the task's batch is {task.batch}; "
            f"give --set batch={least} or more."
        )
    require_runnable(task.intensity)


def _require_axes(task: SegmentationTask, patch: Sequence[int], spacing: Sequence[float]) -> None:
    """Raise `InputError` unless patch, spacing, orientation and network are all of pictures, or all of volumes."""
    axes = task.network.get("spatial_dims", 3)
    for key, numbers in (("patch", patch), ("spacing_mm", spacing)):
        if len(numbers) != axes or axes not in (2, 3):
            raise InputError(f"The task's {key} has {len(numbers)} numbers and needs {axes}, as its network has axes.")
    if (task.orientation == "") != (axes == 2):
        raise InputError(f"The task's orientation is '{task.orientation}'; volumes need one, and pictures have none.")


def _require_network(task: SegmentationTask) -> None:
    name = str(task.network.get("_target_", ""))
    for key, wanted in (("in_channels", len(task.channels)), ("out_channels", len(task.labels) + 1)):
        if task.network.get(key) != wanted:
            raise InputError(f"The task's network has {key} {task.network.get(key)}, and its lists have {wanted}.")
    strides = task.network.get("strides", [])
    multiple = [1] * task.axes
    for stride in strides:
        multiple = [m * (stride if isinstance(stride, int) else stride[axis]) for axis, m in enumerate(multiple)]
    if not strides:
        multiple = list(multiple_of(name, levels_for(task.grid_mm, task.patch)))
    if any(n % m for n, m in zip(task.patch, multiple, strict=True)):
        text = ", ".join(str(m) for m in multiple)
        raise InputError(f"The task's patch {task.patch} has to be a multiple of {text} for its network {name}.")
    if task.patch == multiple:
        raise InputError(f"The task's patch {task.patch} is too small for its network {name}; double one side of it.")
    heads = int(task.network.get("deep_supr_num", 1)) if task.network.get("deep_supervision") else 0
    if heads + 1 != max(len(task.deep_supervision_weights), 1):
        raise InputError(f"The task's deep_supervision_weights need {heads + 1} numbers, one for each of its outputs.")
    if task.frozen_stages and not encoder_stages(name, [""]) and name not in FREEZABLE:
        raise InputError(f"Stages of {name} can't be frozen; leave frozen_stages at 0.")


FREEZABLE = ("DynUNet", "UNet", "BasicUNet", "SegResNet", "SwinUNETR", "FCN", "AutoEncoder")


def changed_keys(one: SegmentationTask, other: SegmentationTask) -> list[str]:
    """The keys in which two tasks differ."""
    a, b = asdict(one), asdict(other)
    return [key for key in a if a[key] != b[key]]


def require_kinds(task: type, values: Mapping[str, Any]) -> None:
    """Raise `InputError` where a value, by key of a kind of task, is of another kind than the task's."""
    hints = typing.get_type_hints(task)
    for key, value in values.items():
        _require_kind(key, value, hints[key])


def _require_kind(key: str, value: Any, kind: Any) -> None:
    origin, inside = typing.get_origin(kind), typing.get_args(kind)
    plain = origin or kind
    fits = (isinstance(value, (int, float)) if plain is float else isinstance(value, plain)) and not (
        isinstance(value, bool) and plain in (int, float)
    )
    if not fits:
        name = {str: "text", int: "a whole number", float: "a number", list: "a list", dict: "an object"}.get(plain, "")
        raise InputError(f"The task's {key} is {value!r}; it has to be {name or plain.__name__}.")
    if origin is list and isinstance(inside[0], (type, types.GenericAlias)):
        for part in value:
            _require_kind(key, part, inside[0])


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return [_value(part.strip()) for part in text.split(",")] if "," in text else text
