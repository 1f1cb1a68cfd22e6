"""`--set key=value` for tasks that are not planned: a task with values replaced, each of its field's kind."""

import json
import types
import typing
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any, TypeVar

from MedAILib.errors import InputError
from MedAILib.training.classification_augmentations import augmentation_of
from MedAILib.training.classification_networks import class_network
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.generation_task import GenerationTask

T = TypeVar("T", ClassificationTask, GenerationTask)


def with_words(task: T, words: Sequence[str]) -> T:
    """A task with the values that words such as "batch=16" give: JSON, lists with commas, or text as it stands.

    Raises:
        InputError: no "=", no such key, or a value of a wrong kind or without sense.
    """
    hints = typing.get_type_hints(type(task))
    changes: dict[str, Any] = {}
    for word in words:
        key, sign, text = word.partition("=")
        if not sign or key.strip() not in hints:
            known = ", ".join(sorted(field.name for field in fields(task)))
            raise InputError(f"--set {word}: there is no such key; known are {known}.")
        hint = hints[key.strip()]
        value = _value(text.strip(), hint)
        if not _fits(value, hint):
            raise InputError(f"--set {word}: the task's {key.strip()} has to be {_told(hint)}.")
        changes[key.strip()] = value
    return replace(task, **changes)


def with_class_words(task: ClassificationTask, words: Sequence[str]) -> ClassificationTask:
    """A task with the values that words give; its network and its augmentation may be given by names, too.

    Raises:
        InputError: as `with_words`; no network or augmentation of a name.
    """
    named: dict[str, str] = {}
    others = []
    for word in words:
        key, _, text = word.partition("=")
        if key.strip() in ("network", "augmentation") and "=" in word and not text.strip().startswith("{"):
            named[key.strip()] = text.strip()
        else:
            others.append(word)
    changed = with_words(task, others)
    if "augmentation" in named:
        changed = replace(changed, augmentation=augmentation_of(named["augmentation"], changed.augmentation))
    if "network" in named:
        about = (len(changed.channels), changed.size, changed.decided.outputs, changed.frames)
        changed = replace(changed, network=class_network(named["network"], *about), student={})
    return changed


def _value(text: str, hint: Any) -> Any:
    if hint is str:
        return text
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        value = text
    if typing.get_origin(hint) is not list or isinstance(value, list):
        return value
    inside = typing.get_args(hint)[0]
    return [_value(part.strip(), inside) for part in text.split(",") if part.strip()]


def _fits(value: Any, hint: Any) -> bool:
    origin = typing.get_origin(hint) or hint
    if origin in (types.UnionType, typing.Union):
        return any(_fits(value, one) for one in typing.get_args(hint))
    if origin is Any:
        return True
    if origin in (int, float):
        return isinstance(value, (int, float) if origin is float else int) and not isinstance(value, bool)
    if origin is list:
        return isinstance(value, list) and all(_fits(part, typing.get_args(hint)[0]) for part in value)
    return isinstance(value, origin)


def _told(hint: Any) -> str:
    names = {str: "text", int: "a whole number", float: "a number", bool: "true or false", dict: "an object"}
    if typing.get_origin(hint) is types.UnionType:
        return " or ".join(_told(one) for one in typing.get_args(hint))
    if typing.get_origin(hint) is list:
        return f"a list, each {_told(typing.get_args(hint)[0])}"
    return names.get(typing.get_origin(hint) or hint, "another kind of value")
