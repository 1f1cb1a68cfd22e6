"""A config's expression ("$…") worked out over its parsed syntax tree; nothing is ever executed.

`evaluate` knows literals, arithmetic, comparisons, subscripts, comprehensions, paths as text, a handful of harmless
functions and the names of devices and dtypes. A call of something of MONAI's, or of noise, becomes a `Component`, a
lambda a `Lambda`, a `torch.load` a `Stored`: names of what is wanted, for an allow-list to decide on. All else is
refused.
"""

import ast
import operator
import posixpath
import re
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import PurePosixPath
from typing import Any

from MedAILib.config_values import Component, Lambda, Name, Stored, parts
from MedAILib.errors import SpecError

MAX_EXPRESSION = 2_000
MAX_ITEMS = 10_000
MAX_NUMBER = 2**53
MAX_STEPS = 200_000

_REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")
_PLACEHOLDER = re.compile(r"__reference_(\d+)")
_FUNCTIONS: dict[str, Callable[..., Any]] = {
    "abs": abs,
    "bool": bool,
    "dict": dict,
    "enumerate": lambda *a: list(islice(enumerate(*a), MAX_ITEMS + 1)),
    "float": float,
    "int": int,
    "len": len,
    "list": list,
    "max": max,
    "min": min,
    "range": lambda *a: list(islice(range(*a), MAX_ITEMS + 1)),
    "round": round,
    "set": set,
    "sorted": sorted,
    "str": str,
    "sum": sum,
    "tuple": tuple,
    "zip": lambda *a: list(zip(*a, strict=False)),
}
# Dotted names that are plain values.
_CONSTANTS: dict[str, Any] = {
    **{
        f"monai.utils.{where}CommonKeys.{key.upper()}": key
        for where in ("", "enums.")
        for key in ("image", "label", "pred", "loss")
    },
    **{f"{module}.pi": 3.141592653589793 for module in ("math", "np", "numpy", "torch")},
}
_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.BitOr: operator.or_,
    ast.BitAnd: operator.and_,
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
_TEXT_METHODS = ("as_posix", "lower", "upper", "strip")
_DICT_METHODS = ("keys", "values", "items")
_MODULES = ("torch", "numpy", "np", "monai", "os", "pathlib", "Path", "copy", "math")


class Budget:
    """Counts the steps of all expressions of one config."""

    def __init__(self) -> None:
        self.steps = 0

    def step(self, count: int = 1) -> None:
        self.steps += count
        if self.steps > MAX_STEPS:
            raise _Refused(f"more than {MAX_STEPS} steps")


def evaluate(text: str, lookup: Callable[[str], Any], source: Any, budget: Budget) -> Any:
    """Work out an expression, written without its "$".

    Args:
        text: the expression.
        lookup: gives the value of a reference ("@a#b" asks for "a#b").
        source: the config's file, for messages.
        budget: shared by all expressions of a config.

    Raises:
        SpecError: it can't be parsed, has no value, or uses what is not evaluated here.
    """
    if len(text) > MAX_EXPRESSION:
        raise SpecError(f"{source}: an expression is longer than {MAX_EXPRESSION} characters.")
    references: list[str] = []

    def placeholder(match: re.Match[str]) -> str:
        references.append(match[1])
        return f" __reference_{len(references) - 1} "

    try:
        tree = ast.parse(_REFERENCE.sub(placeholder, text).strip(), mode="eval")
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise SpecError(f"{source}: the expression '{_short(text)}' can't be parsed.") from error
    try:
        return _Evaluator(lookup, references, budget).value(tree.body)
    except SpecError:
        raise  # of an entry that this expression refers to
    except _Refused as error:
        reason = f"the expression '{_short(text)}' is not evaluated, because it uses {error}"
        raise SpecError(f"{source}: {reason}.") from error
    except (
        TypeError,
        ValueError,
        ArithmeticError,
        LookupError,
        AttributeError,
        RecursionError,
    ) as error:
        raise SpecError(f"{source}: the expression '{_short(text)}' has no value: {error}.") from error


class _Refused(Exception):
    """An expression uses something that is not evaluated; the text says what."""


class _Evaluator:
    """Works out a syntax tree of one expression."""

    def __init__(self, lookup: Callable[[str], Any], references: list[str], budget: Budget) -> None:
        self.lookup, self.references, self.budget = lookup, references, budget
        self.local: dict[str, Any] = {}

    def value(self, node: ast.expr) -> Any:
        self.budget.step()
        method = getattr(self, f"_{type(node).__name__.lower()}", None)
        if method is None:
            raise _Refused(f"a {type(node).__name__}")
        value = _bounded(method(node))
        self.budget.step(sum(1 for _ in parts(value)))
        return value

    def _constant(self, node: ast.Constant) -> Any:
        if node.value is not None and not isinstance(node.value, (bool, int, float, str)):
            raise _Refused(f"a {type(node.value).__name__}")
        if isinstance(node.value, str) and "__reference_" in node.value:
            raise _Refused("a reference inside of a text")
        return node.value

    def _name(self, node: ast.Name) -> Any:
        if (match := _PLACEHOLDER.fullmatch(node.id)) is not None and int(match[1]) < len(self.references):
            return self.lookup(self.references[int(match[1])])
        if node.id in self.local:
            return self.local[node.id]
        if node.id in _MODULES:
            return Name(node.id)
        raise _Refused(f"'{node.id}'")

    def _attribute(self, node: ast.Attribute) -> Any:
        base = self.value(node.value)
        if isinstance(base, Name) and not node.attr.startswith("_"):
            dotted = f"{base.dotted}.{node.attr}"
            return _CONSTANTS.get(dotted, Name(dotted))
        raise _Refused(f"'.{node.attr}'")

    def _list(self, node: ast.List) -> list[Any]:
        return [self.value(item) for item in node.elts]

    def _tuple(self, node: ast.Tuple) -> tuple[Any, ...]:
        return tuple(self.value(item) for item in node.elts)

    def _set(self, node: ast.Set) -> set[Any]:
        return {self.value(item) for item in node.elts}

    def _dict(self, node: ast.Dict) -> dict[Any, Any]:
        if any(key is None for key in node.keys):
            raise _Refused("'**'")
        pairs = zip(node.keys, node.values, strict=True)
        return {self.value(key): self.value(value) for key, value in pairs if key is not None}

    def _listcomp(self, node: ast.ListComp | ast.GeneratorExp) -> list[Any]:
        found: list[Any] = []
        for _ in self._turns(node.generators):
            found.append(self.value(node.elt))
            _bounded(found)
        return found

    _generatorexp = _listcomp

    def _setcomp(self, node: ast.SetComp) -> set[Any]:
        return {self.value(node.elt) for _ in self._turns(node.generators)}

    def _dictcomp(self, node: ast.DictComp) -> dict[Any, Any]:
        return {self.value(node.key): self.value(node.value) for _ in self._turns(node.generators)}

    def _turns(self, generators: list[ast.comprehension]) -> Iterator[None]:
        """Bind a comprehension's names to one combination of items after another."""
        if not generators:
            yield
            return
        first, *others = generators
        items = self.value(first.iter)
        if not isinstance(items, (list, tuple, set, dict, str)) or first.is_async:
            raise _Refused("a loop over what is no list")
        outer = dict(self.local)
        for item in list(items):
            self.budget.step()
            self._bind(first.target, item)
            if all(self.value(test) for test in first.ifs):
                yield from self._turns(others)
            self.local = dict(outer)

    def _bind(self, target: ast.expr, item: Any) -> None:
        if isinstance(target, ast.Name):
            self.local[target.id] = item
        elif isinstance(target, ast.Tuple) and isinstance(item, (list, tuple)) and len(item) == len(target.elts):
            for part, value in zip(target.elts, item, strict=True):
                self._bind(part, value)
        else:
            raise _Refused("a loop variable that is no name")

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

    def _lambda(self, node: ast.Lambda) -> Lambda:
        names = [part for part in ast.walk(node) if isinstance(part, ast.Name)]
        for part in names:
            if (match := _PLACEHOLDER.fullmatch(part.id)) is not None and int(match[1]) < len(self.references):
                part.id = f"@{self.references[int(match[1])]}"
        return Lambda(ast.unparse(node))

    def _subscript(self, node: ast.Subscript) -> Any:
        base = self.value(node.value)
        if isinstance(base, Stored):
            key = self.value(node.slice)
            if not isinstance(key, str):
                raise _Refused("a key that is no text")
            return Stored(base.file, (*base.keys, key))
        if not isinstance(base, (list, tuple, dict, str)):
            raise _Refused("a subscript of what is no list")
        return base[self.value(node.slice)]

    def _slice(self, node: ast.Slice) -> slice:
        return slice(*(None if part is None else self.value(part) for part in (node.lower, node.upper, node.step)))

    def _call(self, node: ast.Call) -> Any:
        if any(keyword.arg is None for keyword in node.keywords) or any(isinstance(x, ast.Starred) for x in node.args):
            raise _Refused("'**' or '*'")
        if isinstance(node.func, ast.Name) and node.func.id in _FUNCTIONS and node.func.id not in self.local:
            return self._function(node.func.id, node)
        if isinstance(node.func, ast.Attribute):
            base = self.value(node.func.value)
            if not isinstance(base, Name):
                return self._method(base, node)
        function = self.value(node.func)
        if not isinstance(function, Name):
            raise _Refused("a call")
        arguments = [self.value(item) for item in node.args]
        keywords = {str(keyword.arg): self.value(keyword.value) for keyword in node.keywords}
        return _named_call(function.dotted, arguments, keywords)

    def _function(self, name: str, node: ast.Call) -> Any:
        arguments = [self.value(item) for item in node.args]
        if node.keywords or any(isinstance(item, (Component, Name)) for item in arguments):
            raise _Refused(f"'{name}' in a way that is not plain")
        if name in ("str", "sum") and not _all_plain(arguments):
            raise _Refused(f"'{name}' of more than plain numbers and texts")
        return _FUNCTIONS[name](*arguments)

    def _method(self, base: Any, node: ast.Call) -> Any:
        assert isinstance(node.func, ast.Attribute), "called for methods alone"
        name = node.func.attr
        if isinstance(base, (Component, Stored)) and name in _PLACEMENT:
            return base
        if isinstance(base, dict) and not node.args and name in _DICT_METHODS:
            return list(getattr(base, name)())
        if isinstance(base, (str, PurePosixPath)) and not node.args and name in _TEXT_METHODS and hasattr(base, name):
            return getattr(base, name)()
        raise _Refused(f"'.{name}()'")


def _named_call(name: str, arguments: list[Any], keywords: dict[str, Any]) -> Any:
    """The value of calling a library's function: one of the few that are known, or a `Component` of MONAI's."""
    if name.startswith("monai.") or name in _NOISE:
        return Component(name, keywords, tuple(arguments))
    if name in _CALLS:
        kinds, function = _CALLS[name]
        if all(isinstance(part, kinds) for part in arguments):
            return function(*arguments)
    raise _Refused(f"'{name}'")


def _path_join(first: Any, *others: Any) -> str:
    return posixpath.join(str(first), *(str(part) for part in others))


# Noise that images are made from: a name and a shape, drawn by whoever runs the model.
_NOISE = ("torch.rand", "torch.randn")
_TEXT = (str, PurePosixPath)
# What a library's function is called with, and what stands for it here.
_CALLS: dict[str, tuple[Any, Callable[..., Any]]] = {
    "torch.cuda.is_available": ((), lambda: False),  # where a network runs is the user's choice, not the config's
    "torch.device": ((str, int), lambda kind, number=None: kind),
    "torch.load": (_TEXT, lambda file: Stored(str(file))),
    "torch.from_numpy": (Stored, lambda stored: stored),
    "torch.as_tensor": (Stored, lambda stored: stored),
    "torch.tensor": (Stored, lambda stored: stored),
    "copy.copy": (object, lambda value: value),
    "copy.deepcopy": (object, lambda value: value),
    "os.path.join": (_TEXT, _path_join),
    "os.path.basename": (_TEXT, lambda path: posixpath.basename(str(path))),
    "os.path.dirname": (_TEXT, lambda path: posixpath.dirname(str(path))),
    **dict.fromkeys(("Path", "pathlib.Path", "pathlib.PurePath", "pathlib.PurePosixPath"), (_TEXT, PurePosixPath)),
}


def _bounded(value: Any) -> Any:
    if isinstance(value, (str, list, tuple, dict, set)) and len(value) > MAX_ITEMS:
        raise _Refused(f"more than {MAX_ITEMS} items")
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > MAX_NUMBER:
        raise _Refused("a number that is too large")
    return value


def _all_plain(arguments: list[Any]) -> bool:
    """Whether there is one argument, a number, a text or a list of numbers, so that working on it takes no time."""
    if len(arguments) != 1:
        return False
    items = arguments[0] if isinstance(arguments[0], (list, tuple, set)) else arguments
    return all(item is None or isinstance(item, (bool, int, float, str, PurePosixPath)) for item in items)


def _require_small_product(left: Any, right: Any) -> None:
    for sequence, count in ((left, right), (right, left)):
        if isinstance(sequence, (str, list, tuple)) and isinstance(count, int) and len(sequence) * count > MAX_ITEMS:
            raise _Refused(f"more than {MAX_ITEMS} items")


def _short(text: str) -> str:
    return text if len(text) <= 80 else text[:77] + "..."
