"""Loads a module file as Slicer does, with the stand-ins in place of what the pip package slicer-core lacks."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from standin import ScriptedLoadableModule, i18n, qt

STANDINS = {"qt": qt, "slicer.i18n": i18n, "slicer.ScriptedLoadableModule": ScriptedLoadableModule}


def load_module_file(path: Path) -> ModuleType:
    """Run a module file; `STANDINS` must be in `sys.modules`, under their names, for as long as it is used."""
    specification = importlib.util.spec_from_file_location(path.stem, path)
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module
