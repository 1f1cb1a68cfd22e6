"""Trained models as one ensemble: a folder of bundles."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

from MedAILib.training.evaluate import Evaluation
from MedAILib.training.export import whole_folder
from MedAILib.training.folds import validation_told
from MedAILib.training.task import SegmentationTask


def write_ensemble(
    task: SegmentationTask, members: Sequence[Path], evaluations: Sequence[Evaluation], folder: Path
) -> None:
    """Write a folder that is an ensemble of bundles, with the cross-validation's table; it replaces an older one.

    Args:
        task: what it was trained for.
        members: the bundles: a network for each fold, or what went on from some of these.
        evaluations: of each fold.
        folder: where it is to stand.

    Raises:
        OutputError: the folder can't be written, or holds something else.
    """
    kind = "final" if task.shipped else "fold"
    names = [f"{kind}_{number}" for number in range(len(members))]
    which = "which went on from as many folds' and learnt from all cases" if task.shipped else "one for each fold"
    text = f"# {task.title}\n\n{task.description}. {len(names)} networks, {which}.\n\n## Validation\n\n"
    content = {"name": task.title, "version": task.version, "members": names}
    with whole_folder(folder) as part:
        for name, member in zip(names, members, strict=True):
            shutil.copytree(member, part / name)
        (part / "medai.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        (part / "README.md").write_text(text + validation_told(evaluations) + "\n", encoding="utf-8")
