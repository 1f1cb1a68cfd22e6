"""What could execute a model's content stands in one place each, and nowhere else in the project's code."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("MedAILib", "MedAISegment", "MedAIClassify")
# Dotted names by which something could be executed, read in full, or imported; each with the files that may use it.
FORBIDDEN: dict[str, tuple[str, ...]] = {
    "torch.load": ("MedAILib/models/weights.py",),
    "torch.jit.load": ("MedAILib/models/torchscript.py",),
    "torch.hub": (),
    "torch.package": (),
    "torch.utils.cpp_extension": (),
    "torch.ops.load_library": (),
    "torch.classes.load_library": (),
    "pickle": (),
    "cPickle": (),
    "dill": (),
    "cloudpickle": (),
    "shelve": (),
    "marshal": (),
    "joblib": (),
    "pandas.read_pickle": (),
    "numpy.load": ("MedAILib/training/labelled_images.py",),  # a user's labelled images, without pickles
    "numpy.fromfile": (),
    "eval": (),
    "exec": (),
    "compile": (),
    "__import__": (),
    "importlib": (),
    "imp": (),
    "runpy": (),
    "pydoc": (),
    "pkgutil.resolve_name": (),
    "zipimport": (),
    "os.system": (),
    "os.popen": (),
    "monai.bundle": (),
    "monai.config.print_config": (),
    "monai.utils.optional_import": (),
    "monai.utils.module": (),
    # Its detector is a network, its boxes and their measures; other applications download and execute.
    "monai.apps": (
        "MedAILib/inference/detect.py",
        "MedAILib/models/detector.py",
        "MedAILib/models/retinanet.py",
        "MedAILib/training/boxed_changes.py",
        "MedAILib/training/detection_measures.py",
        "MedAILib/training/taught_detector.py",
    ),
    "logging.config": (),
    "yaml.load": (),
    "yaml.full_load": (),
    "yaml.unsafe_load": (),
    "tarfile": ("MedAILib/store/tar_archive.py",),
    "shutil.unpack_archive": (),
    "xmlrpc": (),
    "multiprocessing.connection": (),
}
# What executes nothing: an exception's class, a package's version, whether a package is there.
HARMLESS = {
    "MedAILib/models/weights.py": ("pickle", "pickle.UnpicklingError"),
    "MedAILib/models/nnunet.py": ("importlib.metadata.version",),
    "MedAILib/models/engines.py": ("importlib.util.find_spec",),
    "MedAILib/gui/dicom_files.py": ("importlib", "importlib.util", "importlib.util.find_spec"),
    "MedAILib/gui/packages.py": (
        "importlib",
        "importlib.invalidate_caches",
        "importlib.metadata",
        "importlib.metadata.PackageNotFoundError",
        "importlib.metadata.version",
        "importlib.util",
        "importlib.util.find_spec",
    ),
}
METHODS = ("extractall", "get_parsed_content", "read_pickle", "unsafe_load", "locate", "load_module", "exec_module")
NAMES = ("ConfigParser", "BundleWorkflow", "ConfigWorkflow", "find_class", "Unpickler")
KEYWORDS = {"allow_pickle": False, "weights_only": True, "shell": False, "trust_remote_code": False}


def files() -> list[Path]:
    return sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def found(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Every dotted name that a file imports or uses, with aliases written out, and its line."""
    aliases: dict[str, str] = {"np": "numpy"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                aliases[alias.asname or alias.name.split(".")[0]] = (
                    alias.name if alias.asname else alias.name.split(".")[0]
                )
                yield alias.name, node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                aliases[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                yield f"{node.module}.{alias.name}", node.lineno
    for node in ast.walk(tree):
        if isinstance(node, (ast.Attribute, ast.Name)) and (name := dotted(node)):
            first, _, rest = name.partition(".")
            whole = aliases.get(first, first)
            yield f"{whole}.{rest}" if rest else whole, node.lineno


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute) and (base := dotted(node.value)):
        return f"{base}.{node.attr}"
    return ""


def faults(tree: ast.AST, file: str) -> Iterator[str]:
    """What a file uses that it may not."""
    for name, line in found(tree):
        hits = [word for word in FORBIDDEN if name == word or name.startswith(f"{word}.")]
        if name not in HARMLESS.get(file, ()) and any(file not in FORBIDDEN[word] for word in hits):
            yield f"{file}:{line} uses {name}"
        if name.rpartition(".")[2] in NAMES:
            yield f"{file}:{line} uses {name}"
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and node.attr in METHODS:
            yield f"{file}:{node.lineno} uses .{node.attr}"
        if isinstance(node, ast.Call):
            yield from (f"{file}:{node.lineno} {words}" for words in faults_of_call(node))


def faults_of_call(node: ast.Call) -> Iterator[str]:
    """What is wrong with how something is called."""
    told = {keyword.arg: getattr(keyword.value, "value", ...) for keyword in node.keywords}
    for name, wanted in KEYWORDS.items():
        if name in told and told[name] is not wanted:
            yield f"passes {name}"
    if dotted(node.func) == "torch.load" and "weights_only" not in told:
        yield "loads without weights_only"
    if dotted(node.func) in ("np.load", "numpy.load") and "allow_pickle" not in told:
        yield "loads without allow_pickle"
    if dotted(node.func) == "getattr" and getattr(node.args[1], "value", "") in (*METHODS, *NAMES, "load", "system"):
        yield "gets a forbidden name as text"


def test_nothing_of_the_project_can_execute_what_is_in_a_model() -> None:
    told = [
        fault
        for path in files()
        for fault in faults(ast.parse(path.read_text(encoding="utf-8")), path.relative_to(ROOT).as_posix())
    ]
    assert told == []


def test_the_two_places_are_there() -> None:
    for forbidden in ("torch.load", "torch.jit.load"):
        for file in FORBIDDEN[forbidden]:
            names = {name for name, _ in found(ast.parse((ROOT / file).read_text(encoding="utf-8")))}
            assert forbidden in names


@pytest.mark.parametrize(
    "code",
    [
        "import torch\ntorch.load('x', weights_only=True)",
        "from torch import load\nload('x')",
        "import torch as t\nt.jit.load('x')",
        "from torch import jit\njit.load('x')",
        "import pickle",
        "from pickle import loads",
        "import numpy as np\nnp.load('x')",
        "np.savez('x', allow_pickle=True)",
        "eval('1')",
        "x = exec",
        "__import__('os')",
        "import importlib.util",
        "from importlib import import_module",
        "from pydoc import locate",
        "from monai.bundle import ConfigParser",
        "import monai\nmonai.bundle.run()",
        "archive.extractall()",
        "parser.get_parsed_content('a')",
        "import subprocess\nsubprocess.run('x', shell=True)",
        "import logging.config",
        "import yaml\nyaml.load('x')",
        "import builtins\ngetattr(torch, 'load')('x')",
    ],
)
def test_each_of_them_would_be_found(code: str) -> None:
    assert list(faults(ast.parse(code), "MedAILib/new.py")) != []
