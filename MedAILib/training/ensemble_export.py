"""Trained models as one ensemble: a folder of bundles."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from MedAILib.training.export import licence_text, whole_folder
from MedAILib.training.task import SegmentationTask


def write_ensemble(task: SegmentationTask, members: Sequence[Path], card: str, folder: Path) -> None:
    """Write a folder that is an ensemble of bundles; it replaces an older model there.

    Args:
        task: what it was trained for.
        members: two bundles or more, each in a folder of its own, whose name the member gets.
        card: of the model.
        folder: where it is to stand.

    Raises:
        OutputError: the folder can't be written, or holds something else.
    """
    names = [member.parent.name for member in members]
    content = {
        "name": f"{task.title}, {len(names)} networks",
        "version": task.version,
        "description": f"{task.description}: {len(names)} networks, their probabilities averaged",
        "members": names,
    }
    with whole_folder(folder) as part:
        for name, member in zip(names, members, strict=True):
            for path in (path for path in member.rglob("*") if path.is_file()):
                place = part / name / path.relative_to(member)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, place)
        (part / "medai.json").write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
        (part / "docs").mkdir()
        (part / "docs" / "README.md").write_text(card, encoding="utf-8")
        (part / "LICENSE").write_text(licence_text(task), encoding="utf-8")
