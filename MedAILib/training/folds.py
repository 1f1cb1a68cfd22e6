"""Cross-validation's result: one evaluation over all folds, and the folds' models as one ensemble."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from MedAILib.errors import OutputError
from MedAILib.training.card import results_table
from MedAILib.training.evaluate import WORST_SHOWN, Evaluation
from MedAILib.training.task import SegmentationTask


def merged(evaluations: Sequence[Evaluation]) -> Evaluation:
    """All folds' cases as one evaluation: each case judged by the network that has not learnt from it."""
    cases = tuple(result for evaluation in evaluations for result in evaluation.cases)
    dice = {result.case.name: result.mean_dice for result in cases}
    pictures = [picture for evaluation in evaluations for picture in evaluation.worst]
    worst = tuple(sorted(pictures, key=lambda picture: dice[picture.case])[:WORST_SHOWN])
    first = evaluations[0]
    spec = replace(first.spec, title=f"{first.spec.title}, {len(evaluations)}-fold cross-validation")
    return replace(first, spec=spec, cases=cases, worst=worst)


def write_ensemble(task: SegmentationTask, members: Sequence[Path], evaluation: Evaluation, folder: Path) -> None:
    """Write a folder that is an ensemble of bundles, with the cross-validation's table; it replaces an older one.

    Raises:
        OutputError: the folder can't be written, or holds something else.
    """
    if folder.exists() and not (folder / "medai.json").is_file() and not (folder / "configs").is_dir():
        raise OutputError(f"{folder} exists and is no model; choose another folder for the trained model.")
    part, old = (folder.with_name(folder.name + ending) for ending in (".part", ".old"))
    names = [f"fold_{number}" for number in range(len(members))]
    try:
        for rest in (part, old):
            shutil.rmtree(rest, ignore_errors=True)
        part.mkdir(parents=True)
        for name, member in zip(names, members, strict=True):
            shutil.copytree(member, part / name)
        content = {"name": task.title, "version": task.version, "members": names}
        (part / "medai.json").write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        text = f"# {task.title}\n\n{task.description}. {len(names)} networks, one for each fold.\n\n"
        text += "## Cross-validation\n\n"
        (part / "README.md").write_text(text + results_table(evaluation) + "\n", encoding="utf-8")
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(part, ignore_errors=True)
        raise OutputError(f"The trained models can't be written to {folder}: {error.strerror}.") from error
