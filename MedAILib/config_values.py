"""What a config's entries may be besides plain values: things named by it, which nothing here builds, reads or runs."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from MedAILib.errors import SpecError

MAX_PARTS = 20_000


@dataclass(frozen=True)
class Component:
    """What a config asks to be built: the class's or function's name as written and its arguments, worked out.

    An argument that can't be worked out is an `Unknown`: it matters only to whoever takes it.
    """

    target: str
    arguments: dict[str, Any] = field(default_factory=dict)
    positional: tuple[Any, ...] = ()

    @property
    def name(self) -> str:
        """The last part of a dotted name."""
        return self.target.rpartition(".")[2]


@dataclass(frozen=True)
class Name:
    """A dotted name of a library, such as `torch.float32`, kept as text."""

    dotted: str


@dataclass(frozen=True)
class Lambda:
    """A function that a config spells out, as Python writes it; never called."""

    text: str


@dataclass(frozen=True)
class Stored:
    """What stands in a file of the bundle under one key after another: `torch.load(file)["a"]`, not yet read."""

    file: str
    keys: tuple[str, ...] = ()


@dataclass(frozen=True)
class Unknown:
    """An argument that was not worked out, and why."""

    reason: str


def known(value: Any) -> Any:
    """The value itself.

    Raises:
        SpecError: it was not worked out, or something in it, with the reason; or it has too many parts.
    """
    for part in parts(value):
        if isinstance(part, Unknown):
            raise SpecError(part.reason)
    return value


def parts(value: Any) -> Iterator[Any]:
    """A value and all that lies in it, in lists, tuples, sets and objects, however often.

    Raises:
        SpecError: there are more than `MAX_PARTS`; one list that stands in itself twice, twice over, has no end.
    """
    waiting, count = [value], 0
    while waiting:
        part = waiting.pop()
        count += 1
        if count > MAX_PARTS:
            raise SpecError(f"The model's config holds a value of more than {MAX_PARTS} parts.")
        yield part
        if isinstance(part, (list, tuple, set)):
            waiting.extend(part)
        elif isinstance(part, dict):
            waiting.extend(part.values())
