"""Plain JSON from the other side, checked value by value: what does not fit becomes a `ProtocolError`."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from MedAILib.errors import MedAIError

MAX_DIMENSIONS = 8


class ProtocolError(MedAIError):
    """A byte stream that does not carry messages of this protocol, or one that breaks off inside of one."""


@contextmanager
def decoding(what: str) -> Iterator[None]:
    """Any way in which foreign JSON can be wrong becomes a ProtocolError."""
    try:
        yield
    except ProtocolError:
        raise
    except (AttributeError, LookupError, TypeError, ValueError, OverflowError, RecursionError) as error:
        raise ProtocolError(f"The worker protocol carried an unreadable {what}: {error!r}.") from error


def text_of(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def flag_of(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError(f"{value!r} is neither true nor false")
    return value


def whole_of(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{value!r} is no whole number")
    return value


def object_of(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError(f"{value!r} is no object")
    return value


def texts_of(value: Any) -> dict[str, str]:
    return {key: text_of(text) for key, text in object_of(value).items()}


def member_of(value: Any, allowed: Sequence[str]) -> str:
    if value not in allowed:
        raise ValueError(f"{value!r} is none of {list(allowed)}")
    return text_of(value)


def shape_of(value: Any) -> tuple[int, ...]:
    shape = tuple(whole_of(n) for n in value)
    if len(shape) > MAX_DIMENSIONS or any(n < 0 for n in shape):
        raise ValueError(f"{value!r} is no shape of an array")
    return shape


def floats(values: Sequence[float]) -> list[float]:
    return [float(value) for value in values]


def triple(values: Any) -> tuple[float, float, float]:
    x, y, z = (float(value) for value in values)
    return x, y, z
