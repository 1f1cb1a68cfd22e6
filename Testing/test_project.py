"""How the project is put together: packages, contracts, pinned versions, and the two commands that a newcomer types."""

import ast
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

ROOT = Path(__file__).parents[1]
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


@pytest.fixture(scope="module")
def project() -> dict[str, dict]:
    """pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def pins() -> list[Requirement]:
    """constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def modules() -> list[str]:
    """Every module of the library, by its dotted name."""
    files = (path.relative_to(ROOT).with_suffix("") for path in (ROOT / "MedAILib").rglob("*.py"))
    return sorted(".".join(path.parts).removesuffix(".__init__") for path in files)


def test_every_package_of_the_library_is_installed(project: dict) -> None:
    packages = {".".join(path.parent.relative_to(ROOT).parts) for path in (ROOT / "MedAILib").rglob("__init__.py")} | {
        "MedAILib.Resources"
    }
    assert set(project["tool"]["setuptools"]["packages"]) == packages


def test_every_module_of_the_library_has_its_contract(project: dict) -> None:
    contracts = project["tool"]["importlinter"]["contracts"]
    rooms = {room for contract in contracts for room in contract["source_modules"]}
    homeless = [name for name in modules() if not any(name == room or name.startswith(f"{room}.") for room in rooms)]
    assert [name for name in homeless if name not in ("MedAILib", "MedAILib.worker")] == []


def test_base_inference_models_and_worker_are_checked_strictly(project: dict) -> None:
    (base,) = (c for c in project["tool"]["importlinter"]["contracts"] if c["name"].startswith("base:"))
    strict = {name for part in project["tool"]["mypy"]["overrides"] for name in part["module"]}
    rooms = {"MedAILib.inference.*", "MedAILib.models.*", "MedAILib.store.*", "MedAILib.worker.*"}
    assert strict == {*base["source_modules"], *rooms}


@pytest.mark.parametrize(("module", "too"), [("MedAISegment", set()), ("MedAIClassify", {"MedAILib.files"})])
def test_module_files_import_only_their_rooms(module: str, too: set[str]) -> None:
    tree = ast.parse((ROOT / module / f"{module}.py").read_text(encoding="utf-8"))
    names = {
        name
        for node in ast.walk(tree)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([node.module] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names])
    }
    base = {f"MedAILib.{name}" for name in ("errors", "progress", "read_spec", "request", "results", "spec", "volume")}
    allowed = {
        "MedAILib.gui",
        "MedAILib.runs",
        "MedAILib.scene",
        "MedAILib.store",
        "MedAILib.worker.client",
        *base,
    } | too
    ours = {name for name in names if name.startswith("MedAILib")}
    assert {name for name in ours if not any(name == room or name.startswith(f"{room}.") for room in allowed)} == set()
    others = {name.split(".")[0] for name in names - ours}
    assert others <= {"slicer", "vtk", "qt", "ctk", "numpy"} | sys.stdlib_module_names


def test_wheel_holds_library_tasks_and_built_in_models(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    ignored = shutil.ignore_patterns("__pycache__", "Screenshots")
    for folder in ("MedAILib", "Resources"):
        shutil.copytree(ROOT / folder, tree / folder, ignore=ignored)
    for file in ("pyproject.toml", "README.md", "LICENSE.txt"):
        shutil.copy(ROOT / file, tree)
    code = f"from setuptools import build_meta; build_meta.build_wheel({str(tmp_path)!r})"
    done = subprocess.run([sys.executable, "-c", code], cwd=tree, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("medai-*.whl")
    with zipfile.ZipFile(wheel) as archive:
        there = {name for name in archive.namelist() if name.startswith("MedAILib/")}
    shipped = [path for path in (tree / "MedAILib").rglob("*") if path.suffix in (".py", ".json")]
    expected = {path.relative_to(tree).as_posix() for path in shipped}
    models = [path for path in (ROOT / "Resources" / "Models").rglob("*") if path.is_file()]
    expected |= {f"MedAILib/{path.relative_to(ROOT).as_posix()}" for path in models}
    assert there == expected


@pytest.mark.parametrize("python", PYTHONS)
def test_every_dependency_has_one_pin_that_it_allows(project: dict, pins: list[Requirement], python: str) -> None:
    valid = [pin for pin in pins if pin.marker is None or pin.marker.evaluate({"python_version": python})]
    versions = {canonicalize_name(pin.name): str(pin.specifier).removeprefix("==") for pin in valid}
    assert len(versions) == len(valid), "a package has two pins"
    wanted = [*project["project"]["dependencies"], *project["project"]["optional-dependencies"]["dev"]]
    refused = [
        line
        for line in wanted
        if not (need := Requirement(line)).specifier.contains(versions.get(canonicalize_name(need.name), "0.dev0"))
    ]
    assert refused == []


def test_pins_are_exact_and_of_no_special_build(pins: list[Requirement]) -> None:
    assert [str(pin) for pin in pins if not re.fullmatch(r"==[0-9][0-9a-z.]*", str(pin.specifier)) or pin.url] == []


def test_version_is_the_same_everywhere(project: dict) -> None:
    version = project["project"]["version"]
    code = (ROOT / "MedAILib" / "version.py").read_text(encoding="utf-8")
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f'"{version}"' in code
    assert re.search(rf"^## \[?({re.escape(version)}|Unreleased)\b", changes, re.MULTILINE)


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
@pytest.mark.parametrize("target", ["demo", "test"])
def test_both_commands_begin_with_nothing_but_python(tmp_path: Path, target: str) -> None:
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path)
    command = ["make", "-n", "--no-print-directory", target, f"PYTHON={sys.executable}"]
    plan = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    steps = [
        "-m venv .venv",
        "-m pip install -c constraints.txt -e",
        {"demo": "medai demo -o demo", "test": "check pytest"}[target],
    ]
    places = [plan.find(step) for step in steps]
    assert min(places) >= 0
    assert places == sorted(places)
    assert ("[dev]" in plan) == (target == "test")


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_a_python_that_does_not_suit_is_refused_with_one_sentence(tmp_path: Path) -> None:
    for file in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / file, tmp_path)
    for python, sentence in (("", "MedAI needs Python 3.10 to 3.13"), ("false", "false is not Python 3.10 to 3.13")):
        command = ["make", "demo", f"PYTHON={python}"]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode != 0
        assert sentence in done.stderr
        assert not (tmp_path / ".venv").exists()
