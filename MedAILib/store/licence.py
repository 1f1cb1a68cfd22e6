"""What a model's licence is called and whether it forbids commercial use; no legal advice."""

import re
from dataclasses import dataclass
from pathlib import Path

from MedAILib.config import read_text
from MedAILib.errors import SpecError
from MedAILib.store.names import shown

LARGEST = 1_000_000
_FILE = re.compile(r"(licen[cs]e|copying)([._-].*)?$", re.IGNORECASE)
_NAMES = (
    (re.compile(r"apache licen[cs]e\W+version 2\.0", re.IGNORECASE), "Apache-2.0"),
    (re.compile(r"\bMIT licen[cs]e\b", re.IGNORECASE), "MIT"),
)
_FORBIDS = re.compile(
    r"\bnon-?\s?commercial(ly)?\b|\bCC[- ]BY[- ]NC\b|\b(research|academic)( and \w+)? (use|purposes) only\b"
    r"|\b(no|not for) commercial (use|purposes)\b",
    re.IGNORECASE,
)
# Of the GNU licences, which forbid no such use: how source may be offered.
_GNU = re.compile(r"occasionally and\s+noncommercially|only for noncommercial\s+distribution", re.IGNORECASE)


@dataclass(frozen=True)
class Licence:
    """A licence by name, "" when unknown; `commercial` is False where its text forbids such use, None when unknown."""

    name: str = ""
    commercial: bool | None = None

    def in_words(self) -> str:
        """A sentence for the user."""
        if self.commercial is False:
            return f"{self.name or 'unnamed'}; it FORBIDS COMMERCIAL USE, at least of a part such as the weights."
        return f"{self.name}." if self.name else "unknown; ask the model's author what you may do with it."


def licence_from(text: str, name: str = "") -> Licence:
    """The licence that a text is; `name` is what the author calls it."""
    names = [known for pattern, known in _NAMES if pattern.search(text)]
    first = next((line.strip() for line in text.splitlines() if line.strip()), "")
    if not text and not name:
        return Licence()
    forbids = _FORBIDS.search(_GNU.sub("", f"{name}\n{text}")) is not None
    own = [*names, "a licence of its own"] if names and forbids else names
    return Licence(" and ".join(own) or shown(name or first, 80), not forbids)


def licence_of(model: Path, name: str = "") -> Licence:
    """The licence of a model's folder, from its files LICENSE and the like; `name` as its metadata says.

    A text that can't be read counts as none.
    """
    if not model.is_dir():
        return licence_from("", name)
    texts = []
    for folder in (model, model / "docs"):
        for path in sorted(folder.iterdir()) if folder.is_dir() else ():
            if _FILE.match(path.name):
                try:
                    texts.append(read_text(path, LARGEST))
                except (SpecError, OSError, UnicodeDecodeError):
                    continue
    return licence_from("\n".join(texts), name)
