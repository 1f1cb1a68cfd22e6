"""What `medai train` does alike for tasks of every kind: the task that is trained is written, and told."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from MedAILib.errors import InputError
from MedAILib.output import whole_file
from MedAILib.training.choices import Choice, told_choices
from MedAILib.training.processes import is_first, process_count
from MedAILib.training.task import KINDS, Task

ALL, NONE = "all", "none"  # what `--fold` may be besides a number


def require_fold(asked: str | None) -> None:
    """Raise `InputError` unless `--fold` is a number, `ALL`, `NONE` or not given."""
    if asked not in (None, ALL, NONE) and not str(asked).isdecimal():
        raise InputError(f"--fold {asked} is no fold; give a number from 0, all, or none.")


def write_task(task: Task, path: Path) -> None:
    """Write a task to be edited and given back; of several processes the first does.

    Raises:
        OutputError: the file can't be written.
    """
    if not is_first():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = next(name for name, one in KINDS.items() if isinstance(task, one))
    with whole_file(path) as part:
        text = json.dumps({"kind": kind, **asdict(task)}, indent=2, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")


def tell_choices(title: str, choices: Sequence[Choice], quiet: bool) -> None:
    """Print every choice with its reason on standard output, unless the user asked for silence."""
    if not quiet:
        print(f"{title}:\n{told_choices(choices)}", flush=True)


def program() -> list[str]:
    """The words that start this training: `medai train`, or several processes of it."""
    if process_count() == 1:
        return ["medai", "train"]
    return ["torchrun", "--nproc-per-node", str(process_count()), "-m", "MedAILib", "train"]


def stops_early(options: argparse.Namespace) -> bool:
    """Whether nothing is to be trained: the task or its samples are all that is wanted."""
    return bool(options.plan_only) or options.show_augmentation is not None
