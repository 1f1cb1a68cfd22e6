"""A MONAI bundle's config, read as data: references and plain arithmetic are worked out, nothing is ever executed.

`Config.get("network_def")` gives plain values, and a `Component` where the config says `_target_`: the name of a class
and its arguments, which whoever asks may build from an allow-list of his own. An expression ("$…") is parsed to a
syntax tree and worked out by `_Evaluator`, which knows literals, arithmetic, comparisons, subscripts, a handful of
harmless functions and the names of devices and dtypes; everything else is refused with the expression in the message.
"""

import ast
import json
import operator
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from MedAILib.errors import SpecError

MAX_FILE_BYTES = 8_000_000
MAX_EXPRESSION = 2_000
MAX_ITEMS = 10_000
MAX_NUMBER = 2**53
MAX_DEPTH = 60
MAX_ENTRIES = 100_000

_REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "bool": bool,
    "float": float,
    "int": int,
    "len": len,
    "list": list,
    "max": max,
    "min": min,
    "round": round,
    "sorted": sorted,
    "str": str,
    "sum": sum,
    "tuple": tuple,
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
    ast.Not: operator.not_,
}
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.In: lambda a, b: a in b,
    ast.NotIn: lambda a, b: a not in b,
    ast.Is: operator.is_,
    ast.IsNot: operator.is_not,
}
# Methods that move a network about without changing what it computes.
_PLACEMENT = ("to", "cuda", "cpu", "eval", "float")
_MODULES = ("torch", "numpy", "np", "monai")


@dataclass(frozen=True)
class Component:
    """What a config asks to be built: the class's name as written and its arguments, worked out."""

    target: str
    arguments: dict[str, Any] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of a dotted name."""
        return self.target.rpartition(".")[2]


@dataclass(frozen=True)
class Name:
    """A dotted name of a library, such as `torch.float32`, kept as text."""

    dotted: str


class Config:
    """The content of one config file.

    Args:
        content: the parsed JSON object.
        source: its file, for messages.
        overrides: values that take the place of the file's, such as `bundle_root`.
    """

    def __init__(self, content: dict[str, Any], source: Path, overrides: dict[str, Any] | None = None) -> None:
        self.source = source
        self._content = content | (overrides or {})
        self._known: dict[str, Any] = {}
        self._open: list[str] = []
        self._entries = 0

    def __contains__(self, key: str) -> bool:
        return key in self._content

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
            try:
                value = value[int(part)] if isinstance(value, list) else value[part]
            except (KeyError, IndexError, TypeError, ValueError) as error:
                raise SpecError(f"{self.source}: there is no '{reference}'.") from error
        return value

    def _resolve(self, raw: Any, depth: int) -> Any:
        self._entries += 1
        if self._entries > MAX_ENTRIES:
            raise SpecError(f"{self.source}: there are more than {MAX_ENTRIES} entries to work out.")
        if depth > MAX_DEPTH:
            raise SpecError(f"{self.source}: entries are nested more than {MAX_DEPTH} deep.")
        if isinstance(raw, str):
            return self._text(raw)
        if isinstance(raw, list):
            return [self._resolve(item, depth + 1) for item in raw if not self._disabled(item)]
        if isinstance(raw, dict):
            if "_target_" in raw:
                return self._component(raw, depth)
            return {key: self._resolve(value, depth + 1) for key, value in raw.items()}
        return raw

    def _text(self, raw: str) -> Any:
        if raw.startswith("$"):
            return self._expression(raw[1:])
        if raw.startswith("%"):
            raise SpecError(f"{self.source}: the macro '{raw}' is not supported; write the value in its place.")
        if (match := _REFERENCE.fullmatch(raw)) is not None:
            return self.get(match[1])
        return raw

    def _disabled(self, raw: Any) -> bool:
        return isinstance(raw, dict) and "_target_" in raw and bool(self._resolve(raw.get("_disabled_", False), 0))

    def _component(self, raw: dict[str, Any], depth: int) -> Component:
        target = raw["_target_"]
        if not isinstance(target, str) or not re.fullmatch(r"[\w.]+", target):
            raise SpecError(f"{self.source}: '{target}' is no name of a class.")
        if raw.get("_mode_", "default") != "default":
            raise SpecError(f"{self.source}: '{target}' with _mode_ '{raw['_mode_']}' is not supported.")
        plain = {key: value for key, value in raw.items() if not (key.startswith("_") and key.endswith("_"))}
        return Component(target, {key: self._resolve(value, depth + 1) for key, value in plain.items()})

    def _expression(self, text: str) -> Any:
        if len(text) > MAX_EXPRESSION:
            raise SpecError(f"{self.source}: an expression is longer than {MAX_EXPRESSION} characters.")
        references: list[str] = []

        def placeholder(match: re.Match[str]) -> str:
            references.append(match[1])
            return f" __reference_{len(references) - 1} "

        try:
            tree = ast.parse(_REFERENCE.sub(placeholder, text).strip(), mode="eval")
        except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
            raise SpecError(f"{self.source}: the expression '{_short(text)}' can't be parsed.") from error
        try:
            return _Evaluator(self, references).value(tree.body)
        except SpecError:
            raise  # of an entry that this expression refers to
        except _Refused as error:
            raise SpecError(
                f"{self.source}: the expression '{_short(text)}' is not evaluated, because it uses {error}."
            ) from error
        except (TypeError, ValueError, ZeroDivisionError, IndexError, KeyError, OverflowError, RecursionError) as error:
            raise SpecError(f"{self.source}: the expression '{_short(text)}' has no value: {error}.") from error


def read_config(path: Path, overrides: dict[str, Any] | None = None) -> Config:
    """Read a JSON config.

    Raises:
        SpecError: missing, too large, or no JSON object.
    """
    return Config(read_json(path), path, overrides)


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object from a file of a reasonable size.

    Raises:
        SpecError: missing, unreadable, too large, or no JSON object.
    """
    try:
        content = json.loads(read_text(path, MAX_FILE_BYTES))
    except SpecError:
        raise
    except FileNotFoundError as error:
        raise SpecError(f"{path} does not exist.") from error
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise SpecError(f"{path} can't be read as JSON: {error}.") from error
    if not isinstance(content, dict):
        raise SpecError(f"{path} holds a JSON {type(content).__name__}, not an object.")
    return content


def read_text(path: Path, most: int) -> str:
    """Read an ordinary file of UTF-8 text of at most `most` bytes.

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
    return content.decode("utf-8")


class _Refused(Exception):
    """An expression uses something that is not evaluated; the text says what."""


class _Evaluator:
    """Works out a syntax tree of one expression."""

    def __init__(self, config: Config, references: list[str]) -> None:
        self.config, self.references = config, references

    def value(self, node: ast.expr) -> Any:
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise _Refused(f"a {type(node).__name__}")
        return _bounded(method(node))

    def _constant(self, node: ast.Constant) -> Any:
        if node.value is not None and not isinstance(node.value, (bool, int, float, str)):
            raise _Refused(f"a {type(node.value).__name__}")
        if isinstance(node.value, str) and "__reference_" in node.value:
            raise _Refused("a reference inside of a text")
        return node.value

    def _name(self, node: ast.Name) -> Any:
        if (match := re.fullmatch(r"__reference_(\d+)", node.id)) is not None and int(match[1]) < len(self.references):
            return self.config.get(self.references[int(match[1])])
        if node.id in _MODULES:
            return Name(node.id)
        raise _Refused(f"'{node.id}'")

    def _attribute(self, node: ast.Attribute) -> Any:
        base = self.value(node.value)
        if isinstance(base, Name) and not node.attr.startswith("_"):
            return Name(f"{base.dotted}.{node.attr}")
        raise _Refused(f"'.{node.attr}'")

    def _list(self, node: ast.List) -> list[Any]:
        return [self.value(item) for item in node.elts]

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self.value(item) for item in node.elts)

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        if any(key is None for key in node.keys):
            raise _Refused("'**'")
        pairs = zip(node.keys, node.values, strict=True)
        return {self.value(key): self.value(value) for key, value in pairs if key is not None}

    def _binop(self, node: ast.BinOp) -> Any:
        left, right = self.value(node.left), self.value(node.right)
        if isinstance(node.op, ast.Pow):
            if not all(isinstance(x, (int, float)) for x in (left, right)) or abs(right) > 64 or abs(left) > MAX_NUMBER:
                raise _Refused("a power that is too large")
            return left**right
        if type(node.op) not in _BINARY:
            raise _Refused(f"the operator {type(node.op).__name__}")
        if isinstance(node.op, ast.Mult):
            _require_small_product(left, right)
        if isinstance(node.op, ast.Mod) and isinstance(left, str):
            raise _Refused("text formatting")
        return _BINARY[type(node.op)](left, right)

    def _unaryop(self, node: ast.UnaryOp) -> Any:
        if type(node.op) not in _UNARY:
            raise _Refused(f"the operator {type(node.op).__name__}")
        return _UNARY[type(node.op)](self.value(node.operand))

    def _boolop(self, node: ast.BoolOp) -> Any:
        value: Any = None
        for item in node.values:
            value = self.value(item)
            if bool(value) != isinstance(node.op, ast.And):
                break
        return value

    def _compare(self, node: ast.Compare) -> bool:
        left = self.value(node.left)
        for op, comparator in zip(node.ops, node.comparators, strict=True):
            right = self.value(comparator)
            if not _COMPARE[type(op)](left, right):
                return False
            left = right
        return True

    def _ifexp(self, node: ast.IfExp) -> Any:
        return self.value(node.body if self.value(node.test) else node.orelse)

    def _subscript(self, node: ast.Subscript) -> Any:
        base = self.value(node.value)
        if not isinstance(base, (list, tuple, dict, str)):
            raise _Refused("a subscript of what is no list")
        return base[self.value(node.slice)]

    def _slice(self, node: ast.Slice) -> slice:
        return slice(*(None if part is None else self.value(part) for part in (node.lower, node.upper, node.step)))

    def _call(self, node: ast.Call) -> Any:
        if any(keyword.arg is None for keyword in node.keywords):
            raise _Refused("'**'")
        if isinstance(node.func, ast.Attribute) and node.func.attr in _PLACEMENT:
            base = self.value(node.func.value)
            if isinstance(base, Component):
                return base
            raise _Refused(f"'.{node.func.attr}()'")
        if isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS:
            arguments = [self.value(item) for item in node.args]
            if node.keywords or any(isinstance(item, (Component, Name)) for item in arguments):
                raise _Refused(f"'{node.func.id}' in a way that is not plain")
            if node.func.id in ("str", "sum") and not _all_plain(arguments):
                raise _Refused(f"'{node.func.id}' of more than plain numbers and texts")
            return _FUNCTIONS[node.func.id](*arguments)
        function = self.value(node.func)
        if function == Name("torch.cuda.is_available"):
            return False  # where a network runs is the user's choice, not the config's
        if function == Name("torch.device") and node.args:
            return self.value(node.args[0])
        raise _Refused(f"'{function.dotted}'" if isinstance(function, Name) else "a call")


def _bounded(value: Any) -> Any:
    if isinstance(value, (str, list, tuple, dict)) and len(value) > MAX_ITEMS:
        raise _Refused(f"more than {MAX_ITEMS} items")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_NUMBER:
        raise _Refused("a number that is too large")
    return value


def _all_plain(arguments: list[Any]) -> bool:
    """Whether there is one argument, a number, a text or a list of numbers, so that working on it takes no time."""
    if len(arguments) != 1:
        return False
    items = arguments[0] if isinstance(arguments[0], (list, tuple)) else arguments
    return all(item is None or isinstance(item, (bool, int, float, str)) for item in items)


def _require_small_product(left: Any, right: Any) -> None:
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, (str, list, tuple)) and isinstance(count, int) and len(sequence) * count > MAX_ITEMS:
            raise _Refused(f"more than {MAX_ITEMS} items")


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
