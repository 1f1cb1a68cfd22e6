"""Puts the stand-ins where Slicer has the real ones, and loads a module file as Slicer does."""

import importlib.util
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import slicer
import slicer.util

from standin import SampleData, ScriptedLoadableModule, ctk, i18n, packaging, parameter_nodes, qt, widgets
from standin.application import Application, modules

_MODULES = {
    "qt": qt,
    "ctk": ctk,
    "SampleData": SampleData,
    "slicer.i18n": i18n,
    "slicer.packaging": packaging,
    "slicer.parameterNodeWrapper": parameter_nodes,
    "slicer.ScriptedLoadableModule": ScriptedLoadableModule,
}
_ROOT = Path(__file__).parents[2]
_application: list[Any] = []


def put_in_place(scene: Any, module_file: Path, folder: Path, put: Callable[[Any, str, Any], None]) -> Application:
    """Make this process look like Slicer with one scene and one module.

    Args:
        scene: what `slicer.mrmlScene` is to be.
        module_file: the module that `slicer.modules` knows.
        folder: where the application keeps its settings.
        put: sets an attribute, or an item of a dictionary, and is to take it back later (as a monkeypatch does).
    """
    if not _application:
        _application.append(qt.QApplication.instance() or qt.QApplication(["Slicer"]))
    for name, module in _MODULES.items():
        put(sys.modules, name, module)
        parent, _, child = name.rpartition(".")
        if parent:
            put(slicer, child, module)
    put(sys.modules, module_file.stem, None)
    application = Application(scene, folder / "Slicer.ini")
    put(slicer, "app", application)
    put(slicer, "mrmlScene", scene)
    put(slicer, "modules", modules(scene, module_file))
    for widget in (widgets.qMRMLWidget, widgets.qMRMLNodeComboBox):
        put(slicer, widget.__name__, widget)
    put(slicer.util, "modulePath", lambda name: getattr(slicer.modules, name.lower()).path)
    put(slicer.util, "moduleSelector", application.topLevelWidgets()[0].moduleSelector)
    qt.slot_errors.clear()
    ctk.shown.clear()
    ctk.answers.clear()
    packaging.ensured.clear()
    SampleData.registered.clear()
    return application


def put_for_good(target: Any, name: str, value: Any) -> None:
    """For a process that does nothing but look like Slicer."""
    if isinstance(target, dict):
        target[name] = value
    else:
        setattr(target, name, value)


def load_module_file(path: Path) -> ModuleType:
    """Run a module file."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    assert isinstance(module, types.ModuleType)
    return module


def imported_by_panel(module: str, folder: Path) -> set[str]:
    """The packages that a fresh process has imported once it has opened a module's panel and closed it."""
    file = _ROOT / module / f"{module}.py"
    code = (
        "import sys, slicer; from pathlib import Path; import standin.loading as loading\n"
        f"file = Path({str(file)!r})\n"
        f"loading.put_in_place(slicer.vtkMRMLScene(), file, Path({str(folder)!r}), loading.put_for_good)\n"
        f"widget = loading.load_module_file(file).{module}Widget()\n"
        "widget.cleanup()\n"
        "print(*sorted({name.partition('.')[0] for name in sys.modules}))"
    )
    # From the module file alone: the source tree is not on the path, as in Slicer.
    environment = {"PYTHONPATH": str(_ROOT / "Testing"), "PYTHONSAFEPATH": "1"}
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return set(done.stdout.split())
