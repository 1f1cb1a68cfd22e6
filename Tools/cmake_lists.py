"""Keeps the file lists of the CMake files equal to the tree: writes them, or says where they differ.

Slicer's build copies the files that a list names and no others, so a forgotten file is missed only by the user.

    python Tools/cmake_lists.py            rewrite the lists
    python Tools/cmake_lists.py --check    exit with 1 if a list differs from the tree
"""

import argparse
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]

# What lies in Resources for the project's own page and the Extensions Index, not for the user's disk.
NOT_SHIPPED = ("Icons", "Screenshots", "MedAI.json")


def is_script(path: PurePosixPath) -> bool:
    return path.suffix == ".py"


def is_resource(path: PurePosixPath) -> bool:
    return path.suffix != ".py"


def is_shipped(path: PurePosixPath) -> bool:
    return path.parts[0] not in NOT_SHIPPED


@dataclass(frozen=True)
class FileList:
    """One `set(VARIABLE ...)` in the CMakeLists.txt of `folder`, and which of the folder's files belong into it."""

    folder: str
    variable: str
    belongs: Callable[[PurePosixPath], bool]

    @property
    def cmake_file(self) -> Path:
        return ROOT / self.folder / "CMakeLists.txt"

    @property
    def pattern(self) -> re.Pattern[str]:
        return re.compile(rf"set\({self.variable}\n(?P<names>.*?)  \)\n", re.DOTALL)

    def in_tree(self) -> list[str]:
        """The files that exist, relative to the folder, sorted; caches, hidden and CMake files left out."""
        top = ROOT / self.folder
        paths = (PurePosixPath(path.relative_to(top).as_posix()) for path in top.rglob("*") if path.is_file())
        return sorted(
            str(path)
            for path in paths
            if path.name != "CMakeLists.txt"
            and not any(part.startswith(".") or part == "__pycache__" for part in path.parts)
            and self.belongs(path)
        )

    def in_cmake(self) -> list[str]:
        """The files that the list names.

        Raises:
            ValueError: the CMake file has no such list.
        """
        found = self.pattern.search(self.cmake_file.read_text(encoding="utf-8"))
        if found is None:
            raise ValueError(f"{self.cmake_file} has no list set({self.variable} ...).")
        return found["names"].split()

    def write(self) -> None:
        """Put the files that exist into the list; the rest of the CMake file stays."""
        names = "".join(f"  {name}\n" for name in self.in_tree())
        text = self.cmake_file.read_text(encoding="utf-8")
        self.cmake_file.write_text(
            self.pattern.sub(lambda _: f"set({self.variable}\n{names}  )\n", text, count=1), encoding="utf-8"
        )


LISTS = (
    FileList("MedAISegment", "MODULE_PYTHON_SCRIPTS", is_script),
    FileList("MedAISegment", "MODULE_PYTHON_RESOURCES", is_resource),
    FileList("MedAIClassify", "MODULE_PYTHON_SCRIPTS", is_script),
    FileList("MedAIClassify", "MODULE_PYTHON_RESOURCES", is_resource),
    FileList("MedAILib", "MEDAILIB_PYTHON_SCRIPTS", is_script),
    FileList("MedAILib", "MEDAILIB_PYTHON_RESOURCES", is_resource),
    FileList("Resources", "MEDAI_RESOURCES", is_shipped),
)


def differences() -> list[str]:
    """One sentence per file that is in the tree or in a list, but not in both."""
    found = []
    for files in LISTS:
        where = f"{files.folder}/CMakeLists.txt, {files.variable}"
        named, existing = files.in_cmake(), files.in_tree()
        found += [f"{where} forgets {name}." for name in existing if name not in named]
        found += [f"{where} names {name}, which does not exist." for name in named if name not in existing]
        found += [f"{where} names {name} twice." for name in sorted(set(named)) if named.count(name) > 1]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description="Keep the CMake file lists equal to the tree.")
    parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 if a list differs")
    if not parser.parse_args().check:
        for files in LISTS:
            files.write()
    found = differences()
    print("\n".join(found), file=sys.stderr, end="\n" if found else "")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
