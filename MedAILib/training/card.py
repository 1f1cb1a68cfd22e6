"""The model card that a training writes of its own result."""

from dataclasses import dataclass

import numpy as np

from MedAILib.training.architectures import OWN_PLACES
from MedAILib.training.cases import Split
from MedAILib.training.evaluate import MEASURES, WORST_SHOWN, Evaluation, statistics
from MedAILib.training.intensities import intensity_told, own_steps_told
from MedAILib.training.recipe import Z_SCORE
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
    half: bool = True
    initial: str = ""


def write_card(record: TrainingRecord, evaluation: Evaluation | None) -> str:
    """Markdown of a model card: what it is, its data, its training, its figures on the validation cases, its limits."""
    task, split = record.task, record.split
    labels = "\n".join(f"| {label['value']} | {label['name']} |" for label in task.labels)
    results = results_table(evaluation) if evaluation is not None else "Not validated."
    limits = "\n".join(f"- {text}" for text in task.warnings)
    references = "\n".join(f"- {text}" for text in task.references)
    return f"""# {task.title}

{task.description}.

**{task.intended_use}**

## Input and output

{len(task.channels)} channel(s): {", ".join(task.channels)}. {_seen(task)}
Windows of {_times(task.patch)} voxels.{own_steps_told(task.intensity)}{_network_told(task)}

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
part in any choice during training. {_taken(task)}
Licence of the weights, as derived from the data: {task.licence}.

## Training

```
{record.command}
```

{_training(record)}

## Validation

{results}

Validation cases: {", ".join(case.name for case in split.validation)}.

## References

{references}
"""


def results_table(evaluation: Evaluation) -> str:
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


def _training(record: TrainingRecord) -> str:
    """How the network was trained, in a paragraph."""
    task = record.task
    loss = {"dice_ce": "Dice plus cross-entropy", "dice_focal": "Dice plus focal loss", "weighted_ce": "cross-entropy"}
    rate = {"poly": " falling to zero by a power of 0.9", "cosine": " falling to zero by a cosine", "constant": ""}
    parts = [
        f"{task.network['_target_']}, {record.epochs} epochs of all training cases in batches of {task.batch}",
        f"AdamW with learning rate {task.learning_rate:g}{rate[task.schedule]}",
        loss[task.loss] + (" with deep supervision" if len(task.deep_supervision_weights) > 1 else ""),
        f"class weights {task.class_weights}" if task.class_weights else "",
        f"moving average of the weights ({task.ema_decay:g})",
        f"gradients of {task.accumulate} batches a step" if task.accumulate > 1 else "",
        f"the encoder's first {task.frozen_stages} stages kept as they were" if task.frozen_stages else "",
        f"started from {record.initial}" if record.initial else "",
        "bfloat16" if record.half else "float32",
    ]
    names = ", ".join(name.replace("_", " ") for name in task.augmentation) or "none"
    sampled = (
        f"Patches chosen by: {task.sampling}, {task.samples} of each case in an epoch. " if task.samples > 1 else ""
    )
    text = f"{', '.join(part for part in parts if part)}. {sampled}Augmentation: {names}. Seed {task.seed}."
    return f"{text} Machine: {record.machine}."


def _network_told(task: SegmentationTask) -> str:
    """A sentence, a space before it, on a network that stock MONAI does not have; else empty."""
    name = str(task.network["_target_"])
    if name not in OWN_PLACES:
        return ""
    return f" The network {name} is MedAI's: stock MONAI runs this model where MedAI is installed, and not alone."


def _seen(task: SegmentationTask) -> str:
    """How an image comes before the network."""
    steps = [
        f"turned to {task.orientation}" if task.orientation else "",
        "cut to what is above zero" if task.crop_foreground else "",
        f"resampled to {_times(task.spacing_mm)} mm" if task.spacing_mm else "",
    ]
    done = ", ".join(step for step in steps if step)
    done += " and its values" if done else "its values are"
    values = f"{done} changed by {_intensity(task)} over the whole image or region of interest."
    if task.orientation:
        return f"Any orientation and voxel spacing; inside, the image is\n{values}"
    kinds = "Slices of any pixel spacing" if task.spacing_mm else "Pictures, taken pixel by pixel"
    whole = "the picture is " if task.crop_foreground or task.spacing_mm else ""
    return f"{kinds}, as they lie; of a volume\neach slice along its third axis by itself. Inside, {whole}{values}"


def _taken(task: SegmentationTask) -> str:
    if task.patience:
        return (
            f"A tenth of the training cases was kept aside to stop after {task.patience} epochs without gain in Dice; "
            "the best epoch's averaged weights on these were taken."
        )
    return "The last epoch's averaged weights were taken, not the best of several."


def _intensity(task: SegmentationTask) -> str:
    """The steps that change values, as the bundle's config has them."""
    if task.intensity == [Z_SCORE]:
        return "normalising each channel to mean 0 and standard deviation 1"
    return intensity_told(task.intensity)


def _times(numbers: list[float] | list[int]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
