"""The extension around the library: what Slicer's build and the Extensions Index take from the tree."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import cmake_lists
import jsonschema
import pytest
from PIL import Image

from MedAILib.store.find import is_model_folder

ROOT = Path(__file__).parents[1]
MODULES = Path("lib/Slicer-5.12/qt-scripted-modules")

# Of the Index's fixed list, the ones that could be ours.
CATEGORIES = {"Segmentation", "Quantification", "Analysis", "Utilities"}
REPOSITORY = "https://github.com/ORGANISATION-TO-REPLACE/SlicerMedAI"

# The rules of slicer-extension-catalog-entry-schema v1.0.1, in our words.
ENTRY_RULES = {
    "type": "object",
    "required": ["$schema", "category", "scm_url"],
    "additionalProperties": False,
    "properties": {
        "$schema": {"type": "string", "pattern": r"/slicer-extension-catalog-entry-schema-v1\.0\.1\.json#?$"},
        "category": {"type": "string"},
        "scm_url": {"type": "string", "pattern": "^https://"},
        "scm_revision": {"type": "string"},
        "scm_type": {"enum": ["git", "local"]},
        "build_dependencies": {"type": "array", "items": {"type": "string"}},
        "build_subdirectory": {"type": "string"},
        "enabled": {"type": "boolean"},
        "tier": {"enum": [1, 3, 5]},
    },
}


@pytest.fixture(scope="module")
def description() -> dict[str, object]:
    """The entry for the Extensions Index."""
    return json.loads((ROOT / "Resources" / "MedAI.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def cmake() -> dict[str, str]:
    """The project's name and the extension's meta-information, read as the Index reads them."""
    text = (ROOT / "CMakeLists.txt").read_text(encoding="utf-8")
    found = dict(re.findall(r'set\(EXTENSION_([A-Z]+) "([^"]*)"\)', text))
    return found | {"NAME": re.findall(r"project\s*\(\s*([^\s)]+)", text)[0]}


def test_cmake_lists_name_the_files_that_exist_and_no_others() -> None:
    assert cmake_lists.differences() == [], "run: make cmake-lists"


def test_forgotten_and_vanished_files_are_noticed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "room").mkdir()
    (tmp_path / "room" / "CMakeLists.txt").write_text("set(FILES\n  gone.py\n  )\n", encoding="utf-8")
    (tmp_path / "room" / "new.py").touch()
    files = cmake_lists.FileList("room", "FILES", cmake_lists.is_script)
    monkeypatch.setattr(cmake_lists, "ROOT", tmp_path)
    monkeypatch.setattr(cmake_lists, "LISTS", (files,))
    assert cmake_lists.differences() == [
        "room/CMakeLists.txt, FILES forgets new.py.",
        "room/CMakeLists.txt, FILES names gone.py, which does not exist.",
    ]
    files.write()
    assert cmake_lists.differences() == []


def test_every_built_in_model_and_training_task_ships() -> None:
    named = {f"{files.folder}/{name}" for files in cmake_lists.LISTS for name in files.in_cmake()}
    data = [*(ROOT / "Resources" / "Models").rglob("*"), *(ROOT / "MedAILib" / "training" / "tasks").glob("*.json")]
    missing = {path.relative_to(ROOT).as_posix() for path in data if path.is_file()} - named
    assert not missing


def test_nothing_with_a_general_name_lands_in_the_folder_that_all_extensions_share() -> None:
    scripts = cmake_lists.LISTS[0]
    assert scripts.folder == "MedAISegment"
    assert [name for name in scripts.in_cmake() if not name.startswith("MedAI")] == []


def test_description_is_valid_for_the_extensions_index(description: dict[str, object]) -> None:
    jsonschema.validate(description, ENTRY_RULES)
    assert description["category"] in CATEGORIES


def test_description_and_cmake_file_say_the_same(description: dict[str, object], cmake: dict[str, str]) -> None:
    assert cmake["NAME"] == "MedAI"
    assert cmake["CATEGORY"] == description["category"]
    assert cmake["DEPENDS"].split() == description["build_dependencies"]
    assert cmake["HOMEPAGE"] == description["scm_url"] == REPOSITORY


def test_pictures_of_the_extension_are_files_of_this_tree(cmake: dict[str, str]) -> None:
    base = REPOSITORY.replace("github.com", "raw.githubusercontent.com") + "/main/"
    addresses = [cmake["ICONURL"], *cmake["SCREENSHOTURLS"].split()]
    assert [address for address in addresses if not address.startswith(base)] == []
    missing = [address for address in addresses if not (ROOT / address.removeprefix(base)).is_file()]
    assert missing == []


def test_addresses_to_replace_are_all_in_the_release_checklist() -> None:
    skipped = {"Testing", "docs", "demo", "build", "dist", "runs"}
    tops = [path for path in ROOT.iterdir() if path.name not in skipped and not path.name.startswith(".")]
    files = [path for top in tops for path in (top.rglob("*") if top.is_dir() else [top]) if path.is_file()]
    used = {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.stat().st_size < 2**20 and b"ORGANISATION-TO-REPLACE" in path.read_bytes()
    }
    checklist = (ROOT / "docs" / "release-checklist.md").read_text(encoding="utf-8")
    assert used == set(re.findall(r"^- `([^`]+)`", checklist, re.MULTILINE))


@pytest.mark.parametrize(
    "icon",
    [
        "Resources/Icons/MedAI.png",
        "MedAISegment/Resources/Icons/MedAISegment.png",
        "MedAIClassify/Resources/Icons/MedAIClassify.png",
    ],
)
def test_icons_are_128_pixels_square(icon: str) -> None:
    with Image.open(ROOT / icon) as image:
        assert (image.format, image.size) == ("PNG", (128, 128))


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of module scripts after `cmake` and `cmake --install` against the stand-in for Slicer's build."""
    if shutil.which("cmake") is None or shutil.which("cc") is None:
        pytest.skip("cmake and a C compiler are not here")
    build, prefix = tmp_path_factory.mktemp("build"), tmp_path_factory.mktemp("installed")
    slicer = ROOT / "Testing" / "standin" / "cmake"
    for command in (
        ["cmake", "-S", str(ROOT), "-B", str(build), f"-DSlicer_DIR={slicer}"],
        ["cmake", "--install", str(build), "--prefix", str(prefix)],
    ):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
    built = sorted(path.relative_to(build / MODULES) for path in (build / MODULES).rglob("*") if path.is_file())
    there = sorted(path.relative_to(prefix / MODULES) for path in (prefix / MODULES).rglob("*") if path.is_file())
    assert built == there
    return prefix / MODULES


def test_installed_extension_holds_modules_library_and_models(installed: Path) -> None:
    there = {path.relative_to(installed).as_posix() for path in installed.rglob("*") if path.is_file()}
    models = {
        f"MedAILib/{path.relative_to(ROOT).as_posix()}"
        for path in (ROOT / "Resources" / "Models").rglob("*")
        if path.is_file()
    }
    assert {
        "MedAISegment.py",
        "MedAIClassify.py",
        "MedAILib/worker/server.py",
        "MedAILib/training/tasks/hippocampus.json",
    } <= there
    assert models <= there
    assert {path.split("/")[0] for path in there} <= {"MedAISegment.py", "MedAIClassify.py", "MedAILib", "Resources"}


def test_installed_library_finds_its_models(installed: Path) -> None:
    code = "from MedAILib.models import store; print(store.__file__, *store.builtin_models())"
    environment = {"PYTHONPATH": str(installed), "PYTHONSAFEPATH": "1", "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=installed, capture_output=True, text=True, check=True
    )
    file, *names = done.stdout.split()
    assert Path(file).is_relative_to(installed)
    models = ROOT / "Resources" / "Models"
    assert names == sorted(path.name for path in models.iterdir() if is_model_folder(path))
