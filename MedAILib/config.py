"""A MONAI bundle's config, read as data: references and plain arithmetic are worked out, nothing is ever executed.

`Config.get("network_def")` gives plain values, and a `Component` where the config says `_target_`: the name of a class
and its arguments, which whoever asks may build from an allow-list of his own. Expressions ("$…") are worked out by
`config_expression`; macros ("%…") copy another entry, of this file or of one beside it.
"""

import json
import re
from pathlib import Path, PurePosixPath
from typing import Any

from MedAILib.config_expression import Budget, evaluate
from MedAILib.config_values import Component, Unknown
from MedAILib.errors import SpecError
from MedAILib.yaml_text import parse_yaml

MAX_FILE_BYTES = 8_000_000
MAX_DEPTH = 60
MAX_ENTRIES = 100_000
YAML_ENDINGS = (".yaml", ".yml")

_REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")
_MACRO = re.compile(r"%(?:(?P<file>.+\.(?:json|yaml|yml))(?:#|::|%|$))?(?P<entry>.*)")


class Config:
    """The content of one config file.

    Args:
        content: the parsed JSON or YAML object.
        source: its file, for messages and for files beside it.
        overrides: values that take the place of the file's, such as `bundle_root`.
    """

    def __init__(self, content: dict[str, Any], source: Path, overrides: dict[str, Any] | None = None) -> None:
        self.source = source
        self._content = content | (overrides or {})
        self._known: dict[str, Any] = {}
        self._open: list[str] = []
        self._entries = 0
        self._budget = Budget()
        self._beside: dict[str, dict[str, Any]] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._content

    def raw(self, reference: str) -> Any:
        """An entry as it is written, references in its path followed but nothing worked out.

        Raises:
            SpecError: it doesn't exist.
        """
        return self._raw(reference.replace("::", "#"))

    def get(self, reference: str) -> Any:
        """Work out one entry, such as "preprocessing" or "transforms#0#keys".

        Raises:
            SpecError: it doesn't exist, refers to itself, or holds what is not evaluated here.
        """
        reference = reference.replace("::", "#")
        if reference in self._known:
            return self._known[reference]
        if reference in self._open:
            raise SpecError(f"{self.source}: '{reference}' refers to itself.")
        if len(self._open) > MAX_DEPTH:
            raise SpecError(f"{self.source}: references are nested more than {MAX_DEPTH} deep.")
        self._open.append(reference)
        try:
            value = self._resolve(self._raw(reference), 0)
        except (RecursionError, MemoryError) as error:
            raise SpecError(f"{self.source}: '{reference}' is nested too deep or too large.") from error
        finally:
            self._open.pop()
        self._known[reference] = value
        return value

    def _raw(self, reference: str, depth: int = 0) -> Any:
        if depth > MAX_DEPTH:
            raise SpecError(f"{self.source}: '{reference}' refers to itself, or references are nested too deep.")
        value: Any = self._content
        for part in reference.split("#"):
            if isinstance(value, str) and value.startswith("@"):
                value = self._raw(value[1:].replace("::", "#"), depth + 1)
            value = self._part(value, part, reference)
        return value

    def _part(self, value: Any, part: str, reference: str) -> Any:
        try:
            return value[int(part)] if isinstance(value, list) else value[part]
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise SpecError(f"{self.source}: there is no '{reference}'.") from error

    def _resolve(self, raw: Any, depth: int) -> Any:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise SpecError(f"{self.source}: there are more than {MAX_ENTRIES} entries to work out.")
        if depth > MAX_DEPTH:
            raise SpecError(f"{self.source}: entries are nested more than {MAX_DEPTH} deep.")
        if isinstance(raw, str):
            return self._text(raw, depth)
        if isinstance(raw, list):
            return [self._resolve(item, depth + 1) for item in raw if not self._disabled(item)]
        if isinstance(raw, dict):
            if "_target_" in raw:
                return self._component(raw, depth)
            return {key: self._resolve(value, depth + 1) for key, value in raw.items()}
        return raw

    def _text(self, raw: str, depth: int) -> Any:
        if raw.startswith("$"):
            return evaluate(raw[1:], self.get, self.source, self._budget)
        if raw.startswith("%"):
            return self._resolve(self._macro(raw), depth + 1)
        if (match := _REFERENCE.fullmatch(raw)) is not None:
            return self.get(match[1])
        return raw

    def _macro(self, raw: str) -> Any:
        """The raw entry that a macro copies: "%key#part" of this file, "%file.json#key" of one in this folder."""
        match = _MACRO.fullmatch(raw)
        assert match is not None, "the pattern takes any text that starts with a percent sign"
        entry = match["entry"].lstrip("#").replace("::", "#")
        if match["file"] is None:
            return self._raw(entry)
        value: Any = self._file_beside(match["file"], raw)
        for part in entry.split("#") if entry else ():
            value = self._part(value, part, raw)
        return value

    def _file_beside(self, written: str, macro: str) -> dict[str, Any]:
        path = PurePosixPath(written)
        if path.is_absolute() or ".." in path.parts or "\\" in written or ":" in written:
            raise SpecError(f"{self.source}: the macro '{macro}' leads outside of the bundle.")
        if path.name not in self._beside:
            self._beside[path.name] = read_mapping(self.source.parent / path.name)
        return self._beside[path.name]

    def _disabled(self, raw: Any) -> bool:
        return isinstance(raw, dict) and "_target_" in raw and bool(self._resolve(raw.get("_disabled_", False), 0))

    def _component(self, raw: dict[str, Any], depth: int) -> Component:
        target = raw["_target_"]
        if isinstance(target, str) and target.startswith(("@", "$")):
            target = self._text(target, depth)
        if not isinstance(target, str) or not re.fullmatch(r"[\w.]+", target):
            raise SpecError(f"{self.source}: '{target}' is no name of a class.")
        if raw.get("_mode_", "default") != "default":
            raise SpecError(f"{self.source}: '{target}' with _mode_ '{raw['_mode_']}' is not supported.")
        if raw.get("_requires_"):
            raise SpecError(f"{self.source}: '{target}' would have something executed first (_requires_).")
        plain = {key: value for key, value in raw.items() if not (key.startswith("_") and key.endswith("_"))}
        return Component(target, {key: self._argument(value, depth + 1) for key, value in plain.items()})

    def _argument(self, raw: Any, depth: int) -> Any:
        """A component's argument; what can't be worked out matters only to whoever takes it."""
        try:
            return self._resolve(raw, depth)
        except SpecError as error:
            return Unknown(str(error))


def read_config(path: Path, overrides: dict[str, Any] | None = None) -> Config:
    """Read a JSON or YAML config.

    Raises:
        SpecError: missing, too large, or no object.
    """
    return Config(read_mapping(path), path, overrides)


def read_mapping(path: Path) -> dict[str, Any]:
    """Read a JSON object, or from a file that ends in .yaml or .yml a mapping of YAML.

    Raises:
        SpecError: missing, unreadable, too large, or no such object.
    """
    if path.suffix not in YAML_ENDINGS:
        return read_json(path)
    try:
        content = parse_yaml(read_text(path, MAX_FILE_BYTES), path)
    except FileNotFoundError as error:
        raise SpecError(f"{path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} can't be read as YAML: {error}.") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path} holds a YAML {type(content).__name__}, not a mapping.")
    return {str(key): value for key, value in content.items()}


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a reasonable size.

    Raises:
        SpecError: missing, unreadable, too large, or no JSON object.
    """
    try:
        text = read_text(path, MAX_FILE_BYTES)
    except FileNotFoundError as error:
        raise SpecError(f"{path} does not exist.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise SpecError(f"{path} can't be read as JSON: {error}.") from error
    return parse_json(text, str(path))


def parse_json(text: str, source: str) -> dict[str, Any]:
    """Parse text that is a JSON object.

    Args:
        text: all of it.
        source: where it comes from, for messages.

    Raises:
        SpecError: it is none.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise SpecError(f"{source} can't be read as JSON: {error}.") from error
    except RecursionError as error:
        raise SpecError(f"{source} can't be read as JSON: it is nested too deep.") from error
    except ValueError as error:  # Python's own limit
        raise SpecError(f"{source} can't be read as JSON: a number in it has thousands of digits.") from error
    if not isinstance(content, dict):
        raise SpecError(f"{source} holds a JSON {type(content).__name__}, not an object.")
    return content


def read_text(path: Path, most: int) -> str:
    """Read an ordinary file of UTF-8 text of at most `most` bytes; Windows's mark of the byte order is dropped.

    Raises:
        SpecError: a link, no ordinary file, or a larger one.
        OSError, UnicodeDecodeError: it can't be read, or is no such text.
    """
    if path.is_symlink() or (path.exists() and not path.is_file()):
        raise SpecError(f"{path} is a link or no ordinary file; put the file itself in its place.")
    with path.open("rb") as stream:
        content = stream.read(most + 1)
    if len(content) > most:
        raise SpecError(f"{path} is larger than {most / 1e6:g} MB and was not read.")
    return content.decode("utf-8-sig")
