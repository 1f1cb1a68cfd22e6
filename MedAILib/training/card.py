"""The model card that a training writes of its own result."""

from dataclasses import dataclass

import numpy as np

from MedAILib.training.cases import Split
from MedAILib.training.evaluate import MEASURES, WORST_SHOWN, Evaluation, statistics
from MedAILib.training.task import SegmentationTask

SHOWN = ("Dice", "HD95", "SurfaceDice_1mm", "VolumeDifference_mL")


@dataclass(frozen=True)
class TrainingRecord:
    """What a card says of how the model came about."""

    task: SegmentationTask
    split: Split
    command: str
    epochs: int
    fold: int
    machine: str


def write_card(record: TrainingRecord, evaluation: Evaluation | None) -> str:
    """Markdown of a model card: what it is, its data, its training, its figures on the validation cases, its limits."""
    task, split = record.task, record.split
    labels = "\n".join(f"| {label['value']} | {label['name']} |" for label in task.labels)
    results = _results(evaluation) if evaluation is not None else "Not validated."
    limits = "\n".join(f"- {text}" for text in task.warnings)
    references = "\n".join(f"- {text}" for text in task.references)
    return f"""# {task.title}

{task.description}.

**{task.intended_use}**

## Input and output

{len(task.channels)} channel(s): {", ".join(task.channels)}. Any orientation and voxel spacing; inside, the image is
turned to {task.orientation}, resampled to {_times(task.spacing_mm)} mm and normalised to mean 0 and standard deviation
1 over the whole image or region of interest. Windows of {_times(task.patch)} voxels.

| label | structure |
|---|---|
{labels}

## Limits

{limits}
- What differs from the training data (other sequences, contrast agents, surgery, tumours, children) was not tested.
- The figures below are of cases from the same hospital as the training data.

## Data

{task.data_source}. {len(split.training)} cases for training and {len(split.validation)} for validation (part
{record.fold} of {task.folds} after shuffling the sorted names with seed {task.seed}); the validation cases took no
part in any choice during training and the last epoch's averaged weights were taken, not the best of several.
Licence of the weights, as derived from the data: {task.licence}.

## Training

```
{record.command}
```

{task.network["_target_"]}, {record.epochs} epochs of all training cases in batches of {task.batch}, AdamW with learning
rate {task.learning_rate:g} falling to zero by a power of 0.9, Dice plus cross-entropy with deep supervision, moving
average of the weights, bfloat16. Augmentation: rotation, scaling, translation, mirroring, noise, blur, brightness,
contrast, low resolution, gamma (after nnU-Net). Seed {task.seed}. Machine: {record.machine}.

## Validation

{results}

Validation cases: {", ".join(case.name for case in split.validation)}.

## References

{references}
"""


def _results(evaluation: Evaluation) -> str:
    """Two tables: each structure over all cases, and the cases of lowest mean Dice."""
    rows = []
    for value, name in evaluation.labels.items():
        for measure in (measure for measure in MEASURES if measure.key in SHOWN):
            found = statistics(evaluation.values(value, measure), measure.badness)
            numbers = (found.mean, found.sd, found.low, found.high, found.median, found.worst)
            mean, sd, low, high, median, worst = (f"{number:.{measure.decimals}f}" for number in numbers)
            rows.append(f"| {name} | {measure.title} | {mean} | {sd} | {low} to {high} | {median} | {worst} |")
    lowest = sorted(evaluation.cases, key=lambda result: np.nan_to_num(result.mean_dice, nan=2.0))[:WORST_SHOWN]
    dice = next(measure for measure in MEASURES if measure.key == "Dice")
    cases = [
        f"| {result.case.name} | "
        + " | ".join(f"{dice.of(result.agreements[v]):.3f}" for v in evaluation.labels)
        + " |"
        for result in lowest
    ]
    names = list(evaluation.labels.values())
    return "\n".join(
        [
            f"{len(evaluation.cases)} cases, one network, without mirroring; see `MedAILib/training/metrics.py`.",
            "",
            "| structure | measure | mean | sd | 95 % interval of the mean | median | worst |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            "Cases of lowest mean Dice:",
            "",
            f"| case | {' | '.join(f'Dice {name}' for name in names)} |",
            "|---|" + "---|" * len(names),
            *cases,
        ]
    )


def _times(numbers: list[float] | list[int]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
