"""What is warned of while many cases are read, as remarks on the data: each kind once."""

import re
from collections.abc import Sequence
from pathlib import Path

from MedAILib.progress import Progress
from MedAILib.training.cases import Fault

DIGITS = re.compile(r"\d+")


class Noted(Progress):
    """Keeps warnings that come while a case is read; two that differ in files' names and numbers alone are one kind.

    Example::

        noted = Noted()
        for case in cases:
            noted.begin(case.name, case.images)
            read_case(case, noted)
        require_sound(Examined(facts, faults, noted.remarks), progress)
    """

    def __init__(self) -> None:
        self._case = ""
        self._files: tuple[Path, ...] = ()
        self._found: dict[str, dict[str, str]] = {}

    def begin(self, case: str, files: Sequence[Path]) -> None:
        """What is warned of from now on is of this case."""
        self._case, self._files = case, tuple(files)

    def warn(self, text: str) -> None:
        kind = text
        for name in (*map(str, self._files), *(file.name for file in self._files)):
            kind = kind.replace(name, "")
        self._found.setdefault(DIGITS.sub("", kind), {}).setdefault(self._case, text)

    @property
    def remarks(self) -> tuple[Fault, ...]:
        """Each kind by the first case that it was said of, and how many more it holds for."""
        told = []
        for cases in self._found.values():
            case, text = next(iter(cases.items()))
            others = len(cases) - 1
            more = f" The same holds for {others} more case{'s' if others > 1 else ''}." if others else ""
            told.append(Fault(case, text + more))
        return tuple(told)
