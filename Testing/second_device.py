"""A second device for machines without one: its tensors have real values, and it refuses what a GPU would refuse.

Values lie in the CPU's memory, but PyTorch takes them for another device's: they have no NumPy array, a tensor made
without a device is not among them, and one step can't take from both devices, but for single numbers and for numbers
of places as PyTorch lets them be elsewhere. Networks can't be moved there; they are made there.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

# In a GPU's name, so that what looks at the kind of a device goes a GPU's way; there need be none.
DEVICE = torch.device("cuda", 0)
# Steps that move values from one device to another.
MOVES = (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
# Steps whose numbers of places may be elsewhere.
INDEXING = (torch.ops.aten.index.Tensor, torch.ops.aten.index_put_.default, torch.ops.aten._index_put_impl_.default)
# What asks for the device's own code before it comes here, or hands numbers to Python.
WHOLE = (torch.nonzero, Tensor.nonzero, Tensor.contiguous)
FETCHED = (Tensor.__float__, Tensor.__int__, Tensor.__index__, Tensor.item, Tensor.tolist)


class There(Tensor):
    """A tensor of the second device around one of the CPU's."""

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor) -> "There":
        made = Tensor._make_wrapper_subclass(  # type: ignore[attr-defined]
            cls, values.shape, strides=values.stride(), storage_offset=values.storage_offset(), dtype=values.dtype,
            device=DEVICE,
        )  # fmt: skip
        made.values = values
        return made

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with torch._C.DisableTorchFunctionSubclass():
            if function is Tensor.__getitem__ and isinstance(args[0], There):
                return There(args[0].values[tree_map(_values, args[1])])
            if function is Tensor.__setitem__ and isinstance(args[0], There):
                _require_one(function, [args[0], args[2]])
                args[0].values[tree_map(_values, args[1])] = _values(args[2])
                return None
            if function in FETCHED:
                return function(args[0].values)
            if function in WHOLE:
                return There(function(args[0].values))
            return function(*args, **(kwargs or {}))

    @classmethod
    def __torch_dispatch__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return run(function, args, kwargs or {})


class Held(TorchDispatchMode):
    """Takes every step to its device.

    Keeps the most bytes that were in use on the second at one time, and the tensors that were brought from there.
    """

    def __init__(self) -> None:
        super().__init__()
        self.held: WeakKeyDictionary[Any, int] = WeakKeyDictionary()
        self.peak = 0
        self.fetched: list[Tensor] = []
        self._mode_key = torch._C._TorchDispatchModeKey.FAKE
        torch._C._ensureCUDADeviceGuardSet()

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self:  # in inference mode steps come whole that are made of others
            made = function.decompose(*args, **(kwargs or {}))
        if made is not NotImplemented:
            return made
        made = run(function, args, kwargs or {})
        if function in MOVES and not isinstance(made, There) and isinstance(args[function is MOVES[1]], There):
            self.fetched.append(made)
        for one in tree_flatten(made)[0]:
            if isinstance(one, There):
                storage = one.values.untyped_storage()
                self.held[storage] = storage.nbytes()
        self.peak = max(self.peak, sum(self.held.values()))
        return made


@contextmanager
def second_device() -> Iterator[Held]:
    """Within this the second device is there."""
    with Held() as held, _Numbers():
        yield held


class _Numbers(TorchFunctionMode):
    """Tensors of Python's numbers, which PyTorch puts together on the device itself."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        makes = function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], Tensor)
        if makes and kwargs.get("device") == DEVICE:
            return function(*args, **kwargs | {"device": "cpu"}).to(DEVICE)
        return function(*args, **kwargs)


def _values(one: Any) -> Any:
    return one.values if isinstance(one, There) else one


def _require_one(function: Any, given: list[Any]) -> None:
    tensors = [one for one in given if isinstance(one, Tensor) and (isinstance(one, There) or one.ndim)]
    if len({type(one) is There for one in tensors}) > 1:
        raise RuntimeError(
            f"{function}: Expected all tensors to be on the same device, but found two, {DEVICE} and cpu"
        )


def _in_place(function: Any) -> bool:
    schema = function._schema
    return (
        bool(schema.arguments)
        and schema.arguments[0].alias_info is not None
        and schema.arguments[0].alias_info.is_write
    )


def run(function: Any, args: Any, kwargs: Any) -> Any:
    """A step on whichever device its tensors are, or `kwargs` say.

    Raises:
        RuntimeError: they are on both, as PyTorch does.
    """
    there = [one for one in tree_flatten((args, kwargs))[0] if isinstance(one, There)]
    wanted = kwargs.get("device")
    if function not in MOVES and not (function in INDEXING and isinstance(args[0], There)):
        _require_one(function, tree_flatten((args, kwargs))[0])
    if wanted == DEVICE:
        kwargs = kwargs | {"device": torch.device("cpu")}
    goes = wanted == DEVICE if wanted is not None else bool(there)
    if function is torch.ops.aten.copy_.default:
        goes = isinstance(args[0], There)
    done = function(*tree_map(_values, args), **tree_map(_values, kwargs))
    if _in_place(function) and isinstance(args[0], There):
        return args[0]
    return tree_map(lambda one: There(one) if isinstance(one, Tensor) and goes else one, done)
