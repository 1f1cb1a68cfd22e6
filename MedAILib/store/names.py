"""Which names a file of a model may have: those that mean the same on every system and lead nowhere else.

Also how words that came from outside are shown: as one line that can't steer a terminal.
"""

import re
import unicodedata

from MedAILib.errors import InputError, ModelError
from MedAILib.store.limits import Limits

LONGEST_PART_BYTES = 255
LONGEST_MODEL_NAME = 64
_DEVICES = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])$", re.IGNORECASE)
_MODEL_NAME = re.compile(rf"[A-Za-z0-9][A-Za-z0-9._-]{{0,{LONGEST_MODEL_NAME - 1}}}$")
_UNPRINTED = ("Cc", "Cf", "Cs", "Zl", "Zp")


class Members:
    """The files and folders of one model as they are met; each name is checked alone and against those before it.

    Args:
        whole: the archive or folder they come from, for messages.
    """

    def __init__(self, whole: object, limits: Limits) -> None:
        self._whole = whole
        self._limits = limits
        self._known: dict[str, tuple[str, bool]] = {}
        self._files: set[str] = set()

    def add(self, name: str, is_folder: bool) -> tuple[str, ...]:
        """Take a member's name, with `/` between folders, and return its parts.

        Raises:
            ModelError: it leads out, means different things on different systems, or collides with an earlier one.
        """
        parts = tuple(part for part in name.removesuffix("/").split("/") if part != ".")
        reason = self._reason(name, parts)
        if reason is not None:
            raise self._refused(name, reason)
        for depth in range(1, len(parts) + 1):
            self._note(parts[:depth], is_folder or depth < len(parts), last=depth == len(parts))
        if len(self._known) > self._limits.members:
            raise ModelError(
                f"{self._whole} holds more than {self._limits.members} files and folders, which no model does."
            )
        return parts

    def _reason(self, name: str, parts: tuple[str, ...]) -> str | None:
        if name.startswith("/"):
            return "starts at the top of the disk"
        if len(name) > self._limits.name_length or len(parts) > self._limits.depth:
            return "is too long or lies too deep"
        return next((reason for reason in map(_wrong, parts) if reason is not None), None)

    def _note(self, parts: tuple[str, ...], is_folder: bool, last: bool) -> None:
        name = "/".join(parts)
        folded = unicodedata.normalize("NFKC", name).casefold()
        known, was_folder = self._known.setdefault(folded, (name, is_folder))
        if known != name:
            raise self._refused(name, f"is the same as {known!r} on some systems")
        if was_folder != is_folder:
            raise self._refused(name, "is a file and a folder at once")
        if last and not is_folder:
            if name in self._files:
                raise self._refused(name, "is there twice")
            self._files.add(name)

    def _refused(self, name: str, reason: str) -> ModelError:
        return ModelError(f"{self._whole} was refused: its member {name[:100]!r} {reason}; nothing was kept of it.")


def model_name(wanted: str) -> str:
    """A name for a model made from a file's or folder's: what does not belong into one becomes `_`."""
    plain = unicodedata.normalize("NFKD", wanted).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", plain).strip("._-")[:LONGEST_MODEL_NAME].rstrip("._-")
    return f"model_{plain}".rstrip("_") if not plain or _is_device(plain) else plain


def require_model_name(name: str) -> None:
    """Raise `InputError` unless a name that the user chose can be a model's."""
    if not _MODEL_NAME.match(name) or name.endswith(".") or _is_device(name):
        raise InputError(
            f"'{name}' can't be a model's name; use up to {LONGEST_MODEL_NAME} letters, digits, '.', '_' and '-', "
            "with a letter or digit first."
        )


def shown(words: str, most: int = 300) -> str:
    """Words from outside as one line of visible signs, of at most so many."""
    visible = "".join(sign if sign.isprintable() else " " for sign in words[: most + 1])
    line = " ".join(visible.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _wrong(part: str) -> str | None:
    """Why one part of a name is refused; None where it is not."""
    if part in ("", ".."):
        return "leads out of the folder" if part else "has an empty part in its name"
    if any(sign in part for sign in '\\:<>"|?*') or any(unicodedata.category(sign) in _UNPRINTED for sign in part):
        return "has a sign that not every system allows"
    if part != part.strip() or part.endswith("."):
        return "starts or ends in a way that not every system allows"
    if _is_device(part):
        return "is a device to Windows"
    if len(part.encode("utf-8", "surrogatepass")) > LONGEST_PART_BYTES:
        return "is too long"
    return None


def _is_device(name: str) -> bool:
    return _DEVICES.match(name.partition(".")[0].strip()) is not None
