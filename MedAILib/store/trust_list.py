"""Which models the user allows to execute code of their own: a list by SHA-256, of this user alone, in a file.

An entry stands for one exact content. A model that changes by a byte is another one, and nothing but the user's own
command adds an entry.
"""

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

from MedAILib.config import read_json
from MedAILib.errors import InputError, SpecError
from MedAILib.output import cannot_write, whole_file
from MedAILib.store.folders import config_folder
from MedAILib.store.lock import locked

FILE = "trusted.json"
WAIT_S = 10.0
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Trusted:
    """One model that may execute code of its own.

    Args:
        sha256: of its whole content (see `content.tree_sha256`).
        name: what the user called it then; for people, it decides nothing.
        allows: what it may do, in words.
        since: when the user allowed it, ISO 8601, UTC.
    """

    sha256: str
    name: str
    allows: str
    since: str


def trust_list() -> tuple[Trusted, ...]:
    """Everything that the user has allowed, the oldest first.

    Raises:
        SpecError: the list can't be read; nothing is allowed then.
    """
    path = config_folder() / FILE
    if not path.exists() and not path.is_symlink():
        return ()
    _require_own(path)
    entries = read_json(path).get("trusted")
    try:
        if not isinstance(entries, list):
            raise TypeError("it has no list 'trusted'")
        found = tuple(Trusted(**{key: str(value) for key, value in entry.items()}) for entry in entries)
        if not all(_SHA256.fullmatch(entry.sha256) for entry in found):
            raise ValueError("it has an entry without a SHA-256")
    except (TypeError, ValueError, AttributeError) as error:
        raise SpecError(
            f"The list of trusted models {path} can't be read: {error}; remove it to begin anew."
        ) from error
    return found


def is_trusted(sha256: str) -> bool:
    """Whether the user allows the model of exactly this content to execute its code.

    Raises:
        SpecError: the list can't be read.
    """
    return any(entry.sha256 == sha256 for entry in trust_list())


def trust(sha256: str, name: str, allows: str) -> Trusted:
    """Allow the model of exactly this content; what is on the list already stays as it was.

    Raises:
        InputError: `sha256` is none.
        SpecError, OutputError: the list can't be read or written.
    """
    _require_sha256(sha256)
    entry = Trusted(sha256, name, allows, datetime.now(timezone.utc).isoformat(timespec="seconds"))
    with _changing() as entries:
        known = next((other for other in entries if other.sha256 == sha256), None)
        if known is None:
            entries.append(entry)
    return known or entry


def revoke(sha256: str) -> bool:
    """Take a model's permission back.

    Returns:
        Whether it was on the list.

    Raises:
        InputError: `sha256` is none.
        SpecError, OutputError: the list can't be read or written.
    """
    _require_sha256(sha256)
    with _changing() as entries:
        kept = [entry for entry in entries if entry.sha256 != sha256]
        found = len(kept) < len(entries)
        entries[:] = kept
    return found


@contextmanager
def _changing() -> Iterator[list[Trusted]]:
    """The list to change, written when the block has succeeded; one process at a time, readable by the user alone."""
    folder = config_folder()
    path = folder / FILE
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        raise cannot_write(path, error) from error
    with locked(folder / f"{FILE}.lock", "Another MedAI is changing the list of trusted models; try again.", WAIT_S):
        before = list(trust_list())
        entries = list(before)
        yield entries
        if entries == before:
            return
        with whole_file(path) as part:
            part.touch(mode=0o600)
            part.write_text(json.dumps({"trusted": [asdict(entry) for entry in entries]}, indent=1), encoding="utf-8")


def _require_own(path: Path) -> None:
    """Raise `SpecError` where somebody else could have written the list."""
    if os.name != "posix":
        return
    try:
        status = path.lstat()
    except OSError as error:
        raise SpecError(f"The list of trusted models {path} can't be read: {error}.") from error
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise SpecError(
            f"The list of trusted models {path} can be written by others than you, so that nothing on it counts; "
            "remove it, or take their permission away."
        )


def _require_sha256(words: str) -> None:
    if not _SHA256.fullmatch(words):
        raise InputError(f"'{words}' is no SHA-256; that has 64 digits and letters from a to f.")
