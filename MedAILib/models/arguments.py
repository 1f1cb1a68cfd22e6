"""A component's arguments, taken one by one, so that one that nobody reads is noticed."""

import math
import reprlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from MedAILib.config_values import Component, Unknown, known
from MedAILib.errors import MedAIError, SpecError
from MedAILib.inference.memory import is_out_of_memory

# Arguments that concern the dictionary, or have one meaning here whatever they say.
IGNORED = ("keys", "allow_missing_keys", "lazy", "dtype", "meta_keys", "meta_key_postfix", "image_only")
LARGEST_SIDE = 100_000
SHORT = reprlib.Repr()


class Arguments:
    """The arguments of a transform or inferer.

    Args:
        component: what they belong to.
        key: the entry that matters where a transform has a value for each of several.
    """

    def __init__(self, component: Component, key: str = "image") -> None:
        self.target, self.key = component.target, key
        self._keys = keys_of(component, key)
        self.left = {name: value for name, value in component.arguments.items() if name not in IGNORED}
        if component.positional:
            raise SpecError(f"The model's '{self.target}' has arguments without names, which MedAI does not read.")

    def take(self, name: str, default: Any) -> Any:
        """An argument, which then counts as read.

        Raises:
            SpecError: it was not worked out.
        """
        return known(self.left.pop(name, default))

    def take_for_key(self, name: str, default: Any) -> Any:
        """An argument that may be a list with a value for each entry that the transform works on."""
        value = self.take(name, default)
        if isinstance(value, (list, tuple)) and len(value) == len(self._keys) and self.key in self._keys:
            return value[self._keys.index(self.key)]
        return value

    def drop(self, *names: str) -> None:
        """Leave arguments unread that change nothing here."""
        for name in names:
            self.left.pop(name, None)

    def finish(self) -> None:
        """Raise `SpecError` where an argument is left that nobody has read."""
        for name, value in self.left.items():
            if isinstance(value, Unknown):
                raise SpecError(value.reason)
            raise SpecError(f"The model's '{self.target}' has '{name}' = {value!r}, which MedAI does not do.")


@contextmanager
def sense(component: Component) -> Iterator[None]:
    """Turn what goes wrong with a component's arguments into a sentence that names it."""
    try:
        yield
    except MedAIError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0].rstrip(".")
        raise SpecError(f"The model's '{component.target}' has arguments that make no sense: {reason}.") from error


def keys_of(component: Component, default: str) -> list[str]:
    """The entries that a transform works on; the default where it names none."""
    keys = known(component.arguments.get("keys", default))
    return [str(key) for key in keys] if isinstance(keys, (list, tuple)) else [str(keys)]


def three(value: Any, kind: Callable[[Any], Any], axes: int = 3, rest: Any = 0) -> tuple[Any, ...]:
    """A number for each of the three working axes, from one for all or one for each of the model's `axes`.

    A model of two axes works on slices along the third, which gets `rest`.

    Raises:
        SpecError: another count of numbers, or such that are not finite.
    """
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * axes
    if len(values) != axes:
        words, told = {2: "two", 3: "three"}[axes], SHORT.repr(list(values))
        raise SpecError(f"The model has {told} where {words} numbers, one for each axis, are wanted.")
    converted = (*(kind(item) for item in values), *(rest,) * (3 - axes))
    if not all(math.isfinite(item) for item in converted):
        raise SpecError(f"The model has {SHORT.repr(list(values))} where finite numbers are wanted.")
    return converted


def size(value: Any) -> int:
    """A number of voxels; 0 or less stands for the image's own."""
    if int(value) != value or value > LARGEST_SIDE:
        raise SpecError(f"The model has {SHORT.repr(value)} where a number of voxels is wanted.")
    return int(value)


def count(value: Any) -> int:
    """A number of at least 1."""
    if size(value) < 1:
        raise SpecError(f"The model has {SHORT.repr(value)} where a number of at least 1 is wanted.")
    return int(value)
