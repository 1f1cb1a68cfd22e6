"""What a plan decided, each choice with its reason, and how people read it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ASKED = "asked for by --set"


@dataclass(frozen=True)
class Choice:
    """One decision of a plan: which key of the task, what it became, and why."""

    key: str
    value: Any
    reason: str


def told_choices(choices: Sequence[Choice]) -> str:
    """A table of what was chosen and why, for a terminal."""
    wide = max(len(choice.key) for choice in choices)
    return "\n".join(
        f"  {choice.key:<{wide}}  {choice.value}\n  {'':<{wide}}    ({choice.reason})" for choice in choices
    )


def short(numbers: Sequence[float]) -> str:
    """Numbers as in 1x1x2.5."""
    return "x".join(f"{number:g}" for number in numbers)
