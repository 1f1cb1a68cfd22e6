"""What `torchrun` starts twice for the tests: several trainings, one after the other, their exit codes in a file.

Arguments: a JSON file with a list of command lines, and a folder for `codes_<rank>.json`. A line whose first word is
"fail" ends the second process in its second step, with a full disk.
"""

import json
import os
import sys
from pathlib import Path

from MedAILib.cli import main
from MedAILib.errors import OutputError
from MedAILib.training.segmentation import Course


def fail_later() -> None:
    step = Course.before_step

    def failing(self: Course, iteration: int, steps: int) -> None:
        if iteration == 2 and os.environ["RANK"] == "1":
            raise OutputError("The disk is full; free some space.")
        step(self, iteration, steps)

    Course.before_step = failing  # type: ignore[method-assign]


def run(lines: list[list[str]], folder: Path) -> None:
    codes = []
    for line in lines:
        if line[0] == "fail":
            fail_later()
        codes.append(main(line[1:] if line[0] == "fail" else line))
        (folder / f"codes_{os.environ['RANK']}.json").write_text(json.dumps(codes), encoding="utf-8")


if __name__ == "__main__":
    run(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8")), Path(sys.argv[2]))
