"""Pickles that execute something when they are read in full, each by another way; what they would do leaves a mark."""

import functools
import importlib
import os
import runpy
import shutil
import subprocess
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

Payload = Callable[[Path], Any]


class By:
    """Unpickles to a call."""

    def __init__(self, function: Callable[..., Any], *arguments: Any) -> None:
        self.call = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


class ByState:
    """Unpickles to a harmless object whose state is then set by a call."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return torch.nn.Identity, (), {"x": 1}, None, None, Touch(self.mark)


class Touch:
    """Pickled by name, so that whoever unpickles it imports this module; called with anything, leaves the mark."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __call__(self, *arguments: Any) -> None:
        self.mark.touch()


class WholeModule(torch.nn.Module):
    """A whole module, as `torch.save(network)` stores it, that does something when its state is set."""

    def __init__(self, mark: Path) -> None:
        super().__init__()
        self.mark = mark

    def __setstate__(self, state: dict[str, Any]) -> None:
        state["mark"].touch()


def recursive(mark: Path) -> Any:
    """A checkpoint that loads another one, without its protection."""
    inner = mark.with_name("inner.pt")
    torch.save(By(os.system, f"touch {mark}"), inner)
    return By(functools.partial(torch.load, weights_only=False), str(inner))


def array_of_objects(mark: Path) -> Any:
    return np.array([By(os.system, f"touch {mark}")], dtype=object)


def module_beside(mark: Path) -> Any:
    """A module that lies beside the model."""
    script = mark.with_name("evil.py")
    script.write_text(f"open({str(mark)!r}, 'w').close()", encoding="utf-8")
    return By(runpy.run_path, str(script))


def copied(mark: Path) -> Any:
    source = mark.with_name("source")
    source.write_text("x", encoding="utf-8")
    return By(shutil.copy, str(source), str(mark))


def imported(mark: Path) -> Any:
    """Puts a folder on the path and imports from it."""
    mark.with_name("medai_evil.py").write_text(f"open({str(mark)!r}, 'w').close()", encoding="utf-8")
    code = f"import sys; sys.path.insert(0, {str(mark.parent)!r})"
    return [By(exec, code), By(importlib.import_module, "medai_evil")]


PAYLOADS: dict[str, Payload] = {
    "os.system": lambda mark: By(os.system, f"touch {mark}"),
    "subprocess": lambda mark: By(subprocess.check_call, ["touch", str(mark)]),
    "exec": lambda mark: By(exec, f"open({str(mark)!r}, 'w').close()"),
    "eval": lambda mark: By(eval, f"open({str(mark)!r}, 'w').close()"),
    "partial": lambda mark: By(functools.partial(os.system, f"touch {mark}")),
    "importlib": imported,
    "runpy": module_beside,
    "pathlib": lambda mark: By(Path.touch, mark),
    "getattr": lambda mark: By(getattr(os, "system"), f"touch {mark}"),  # noqa: B009
    "shutil": copied,
    "open": lambda mark: By(open, str(mark), "w"),
    "torch.load": recursive,
    "NumPy objects": array_of_objects,
    "map": lambda mark: By(list, By(map, os.system, [f"touch {mark}"])),
    "state": ByState,
    "whole module": WholeModule,
    "remove": lambda mark: By(os.mkdir, str(mark)),
}
# What can't leave a mark by itself: their control is the audit hook.
SILENT: dict[str, Payload] = {
    "webbrowser": lambda mark: By(webbrowser.open, f"file://{mark}"),
    "socket": lambda mark: By(__import__("socket").create_connection, ("127.0.0.1", 9), 0.1),
}
