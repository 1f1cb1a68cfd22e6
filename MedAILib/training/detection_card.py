"""The model card that a training writes of the detector that came out of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from MedAILib.training.classification_measures import RESAMPLES
from MedAILib.training.detection_measures import FOUND_FROM, MEASURES, RATES, at
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.evaluate_detector import DetectorEvaluation

LIMITS = (
    "A score is no probability: it was not calibrated.",
    "What differs from the training data (other sequences, contrast agents, surgery, children) was not tested.",
)
SAME_SOURCE = "The figures below are of images from the same source as the training data."


@dataclass(frozen=True)
class DetectorRecord:
    """What a card says of how a detector came about.

    Args:
        training: names of the cases that it learnt from.
        validation: of those kept aside; none where it learnt from all.
        fold: which; None for all cases, whose figures are those of cross-validation.
        stopping: how many more decided when to stop.
        numbers: the type that the network computed in.
    """

    task: DetectionTask
    training: Sequence[str]
    validation: Sequence[str]
    fold: int | None
    command: str
    machine: str
    initial: str = ""
    stopping: int = 0
    numbers: str = "float32"


def write_detector_card(record: DetectorRecord, evaluation: DetectorEvaluation | None) -> str:
    """Markdown of a model card: what it is, its data, its training, its figures on images kept aside, its limits."""
    task = record.task
    classes = "\n".join(f"| {name} | {', '.join(task.labels[name])} |" for name in task.names)
    limits = "\n".join(f"- {text}" for text in (*task.warnings, *LIMITS, *([SAME_SOURCE] if evaluation else [])))
    references = "\n".join(f"- {text}" for text in task.references)
    return f"""# {task.title}

{task.description}.

**{task.intended_use}**

## Input and output

{len(task.channels)} channel(s): {", ".join(task.channels)}. Any orientation and voxel spacing; inside, the image is
turned to {task.orientation}, resampled to {_times(task.spacing_mm)} mm and its values changed by {_intensity(task)}.
Windows of {_times(task.patch)} voxels. The answer is boxes along the image's axes, each with a class and a score;
scores below {task.score_threshold:g} are left out, and of boxes that overlap by more than {task.overlap_limit:g} the
surest is kept, {task.most} at most.

| class | labels in the data |
|---|---|
{classes}

## Limits

{limits}

## Data

{task.data_source}. {_parts(record)}
{_epoch_taken(record)}
Licence of the weights, as derived from the data: {task.licence}.

## Training

```
{record.command}
```

{_how(record)}

## Validation

{_validation(record, evaluation)}

## References

{references}
"""


def _epoch_taken(record: DetectorRecord) -> str:
    if not record.stopping:
        return "The last epoch's averaged weights were taken, not the best of several."
    return (
        f"{record.stopping} more images decided when to stop: the averaged weights are those of the epoch in which the "
        f"loss on\nthese was lowest, {record.task.patience} epochs without gain ended the training."
    )


def _parts(record: DetectorRecord) -> str:
    """Which images it learnt from."""
    if record.fold is None:
        return f"It learnt from {'' if record.stopping else 'all '}{len(record.training)} images."
    return (
        f"{len(record.training)} images for training and {len(record.validation)} for validation (part\n"
        f"{record.fold} of {record.task.folds}); the validation images took no part in any choice during training."
    )


def _validation(record: DetectorRecord, evaluation: DetectorEvaluation | None) -> str:
    if evaluation is None and record.fold is None:
        return (
            "No image was kept aside to judge by: how good this network is can be told by other images only (`medai\n"
            "evaluate`), and how good networks of this task are by cross-validation (`--fold all`)."
        )
    if evaluation is None:
        return "Not validated."
    if record.fold is None:
        return (
            f"{record.task.folds}-fold cross-validation: the figures are of {record.task.folds} other networks of this "
            f"task, each judged on\nthe images that it had not learnt from. {_parts(record)}"
            f"\n\n{results_table(evaluation)}"
        )
    return f"{results_table(evaluation)}\n\nValidation images: {', '.join(record.validation)}."


def results_table(evaluation: DetectorEvaluation) -> str:
    """Tables of the figures with their intervals, and of each class."""
    keys = MEASURES | {at(rate): f"sensitivity at {rate:g} false findings per image" for rate in RATES}
    rows = [
        f"| {title} | {found.value:.3f} | {found.low:.3f} to {found.high:.3f} |"
        for title, found in ((title, evaluation.measured[key]) for key, title in keys.items())
    ]
    each = [
        f"| {name} | {figures['references']:g} | {figures['mAP@0.5']:.3f} | {figures['mAP@0.1']:.3f} |"
        for name, figures in evaluation.each.items()
    ]
    return "\n".join(
        [
            f"{len(evaluation.cases)} images; intervals are of {RESAMPLES} resamples of the "
            f"{evaluation.draws.told('images')}. For FROC a box "
            f"counts as found from an overlap of {FOUND_FROM:g} on; see `MedAILib/training/detection_measures.py`.",
            "",
            "| measure | value | 95 % interval |",
            "|---|---|---|",
            *rows,
            "",
            "| class | reference boxes | AP at 0.5 | AP at 0.1 |",
            "|---|---|---|---|",
            *each,
        ]
    )


FALLS = {"cosine": " falling to zero by a cosine", "poly": " falling to zero by a power of 0.9", "constant": ""}


def _how(record: DetectorRecord) -> str:
    """How the network was trained, in a paragraph."""
    task = record.task
    losses = {"bce": "cross-entropy", "focal": "focal loss", "giou": "generalised IoU", "smooth_l1": "smooth L1"}
    parts = [
        f"RetinaNet over {task.backbone['_target_']} with a feature pyramid of {task.width} channels",
        f"anchors of {', '.join(_times(shape) for shape in task.anchors)} voxels matched by ATSS",
        f"{task.epochs} epochs, {task.samples} patches of each image in an epoch, in batches of {task.batch}",
        f"AdamW with learning rate {task.learning_rate:g}{FALLS[task.schedule]}",
        f"gradients of {task.accumulate} batches summed up for a step" if task.accumulate > 1 else "",
        f"{losses[task.class_loss]} for classes and {losses[task.box_loss]} for boxes",
        "the hardest of the places without a finding" if task.hard_negatives else "all places alike",
        "patches around each class that an image has as often" if task.sampling == "classes" else "",
        f"the backbone's first stages kept as they were ({task.frozen_stages})" if task.frozen_stages else "",
        f"moving average of the weights ({task.ema_decay:g})",
        f"computed in {record.numbers}",
        f"started from {record.initial}" if record.initial else "",
    ]
    changes = ", ".join(name.replace("_", " ") for name in task.augmentation) or "none"
    text = f"{'; '.join(part for part in parts if part)}. Augmentation: {changes}."
    return f"{text} Seed {task.seed}. Machine: {record.machine}."


def _intensity(task: DetectionTask) -> str:
    """The steps that change values, as the bundle's config has them."""
    return ", then ".join(_step(entry) for entry in task.intensity) or "nothing"


def _step(entry: dict[str, Any]) -> str:
    told = ", ".join(f"{key} {value}" for key, value in entry.items() if key != "_target_")
    return f"{str(entry['_target_']).removesuffix('d')} ({told})"


def _times(numbers: Sequence[float]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
