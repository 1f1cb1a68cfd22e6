"""The model card that a training writes of the classifier that came out of it."""

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax

from MedAILib.training.classification_measures import MEASURES, RESAMPLES, measure, with_intervals
from MedAILib.training.classification_task import AUGMENTATIONS, ClassificationTask
from MedAILib.training.cross_validation import ClassData, Judged, Trained
from MedAILib.training.intensities import intensity_told, own_steps_told
from MedAILib.training.labelled_images import MADE


@dataclass(frozen=True)
class ClassifierRecord:
    """What a card says of how a classifier came about.

    Args:
        initial: the model whose weights it started from; empty for none.
        numbers: the type that the networks computed in.
    """

    task: ClassificationTask
    data: ClassData
    trained: Trained
    command: str
    machine: str
    initial: str
    numbers: str


def write_classifier_card(record: ClassifierRecord) -> str:
    """Markdown of a model card: what it is, its data, its training, its figures on images unseen, its limits."""
    task, chosen = record.task, record.trained.calibration
    strange = (
        f"Where the energy of its scores is above {chosen.strange_above:g}, a limit that {task.strange_quantile:.0%} "
        f'of the images it was trained or validated on keep, the answer is "not sure". '
        f"{task.strange_validated_on}"
        if chosen.strange_above is not None
        else "It has no score of how unlike its training data an image is."
    )
    decision = (
        f"`{task.names[1]}` from a probability of {chosen.threshold:g} on, else `{task.names[0]}`"
        if task.decision == "binary"
        else "the class of the largest probability"
    )
    limits = "\n".join(f"- {text}" for text in task.limits or ["Not tried on images from elsewhere."])
    references = "\n".join(f"- {text}" for text in task.references or ["None told."])
    return f"""# {task.title}

{task.description}.

**{task.intended_use}**

## Input and output

{", ".join(task.channels)}; {_what(task)} of any size, {_before(task)}resampled to
{_times(task.size)} by area{_values(task)} and normalised to mean 0 and standard deviation 1. Decides for {decision}.
Scores are divided by a temperature of {chosen.temperature:g}. {strange}{own_steps_told(task.intensity)}

| class | labels in the data | images |
|---|---|---|
{_class_rows(record)}

## Limits

{limits}

## Data

{task.data_source}. {_parts(record.data)}.{_made(record)}
Licence of the weights, as derived from the data: {task.licence}.

## Training

```
{record.command}
```

{_how(record)}{_started(record)}

Seed {task.seed}. Machine: {record.machine}.

## Validation

{_validation(record)}

## References

{references}
"""


def seed_range(judged: Judged) -> dict[str, tuple[float, float, float]]:
    """Mean, smallest and largest accuracy and AUC of the single networks, a value for each seed."""
    found = [_measured(judged.numbers, scores) for scores in judged.single]
    return {
        key: (
            float(np.mean([x[key] for x in found])),
            min(x[key] for x in found),
            max(x[key] for x in found),
        )
        for key in ("accuracy", "auc")
    }


def _before(task: ClassificationTask) -> str:
    return "cut to what is above zero, " if task.crop_foreground else ""


def _values(task: ClassificationTask) -> str:
    """The steps that change values before the last, as the bundle's config has them."""
    return f", changed by {intensity_told(task.intensity)}" if task.intensity else ""


def _what(task: ClassificationTask) -> str:
    what = "picture" if len(task.size) == 2 else "volume"
    if not task.frames:
        return f"a {what}"
    return (
        f"a sequence of at least 2 {what}s, of which {task.frames} are taken, evenly spaced from the first to the last "
        "(of a shorter one some twice or more), each"
    )


def _class_rows(record: ClassifierRecord) -> str:
    real = [n for n, split in zip(record.data.numbers.tolist(), record.data.splits, strict=True) if split != MADE]
    task, counts = record.task, Counter(real)
    return "\n".join(
        f"| {name} | {', '.join(task.labels[name])} | {counts[number]} |" for number, name in enumerate(task.names)
    )


def _parts(data: ClassData) -> str:
    counts = Counter(split for split in data.splits if split != MADE)
    if set(counts) == {""}:
        return f"{len(data.names)} images"
    return ", ".join(f"{count} images of the part '{part}'" for part, count in counts.items())


def _made(record: ClassifierRecord) -> str:
    made = [n for n, split in zip(record.data.numbers.tolist(), record.data.splits, strict=True) if split == MADE]
    if not made:
        return ""
    counts = ", ".join(f"{made.count(n)} {name}" for n, name in enumerate(record.task.names) if n in made)
    makers = ", ".join(f"`{name}`" for name in record.task.synthetic)
    return f" Beside these it learnt from {len(made)} made pictures ({counts}) of {makers}; none was judged."


def _started(record: ClassifierRecord) -> str:
    if not record.initial:
        return ""
    frozen = record.task.frozen_stages
    kept = f", whose first {frozen} stages were kept as they are" if frozen else ""
    return f"\n\nStarted from the weights of {record.initial}{kept}."


def _how(record: ClassifierRecord) -> str:
    task = record.task
    changes = ", ".join(f"{key} {value} ({AUGMENTATIONS[key]})" for key, value in task.augmentation.items() if value)
    smooth = f", label smoothing {task.label_smoothing:g}" if task.label_smoothing else ""
    text = (
        f"{task.network['_target_']}, {task.epochs} epochs in batches of {task.batch}, AdamW with a learning rate of "
        f"{task.learning_rate:g} that rises and falls once and a weight decay of {task.weight_decay:g}, "
        f"{task.loss}{smooth}, classes weighted: {task.class_weights}, moving average of the weights "
        f"({task.ema_decay:g}), {record.numbers}. Augmentation: {changes or 'none'}."
    )
    if task.choice == "best":
        text += " The weights of each network are of the epoch with the least log loss on the images kept from it."
    several = f"\n\n{task.networks} network{'s'[: task.networks > 1]} for each of {task.folds} folds. "
    if task.shipped:
        text += (
            f"{several}Shipped are {task.shipped} of these: the answer is the mean of the probabilities that each "
            "gives for the image and its mirror image. Stock MONAI runs them where MedAI is installed beside it, which "
            "has the network class that takes the mean."
        )
    elif task.networks * task.folds > 1:
        text += (
            f"{several}Distillation: one "
            f"network of the same shape learns, for {task.distil_epochs} epochs, the mean probabilities that all of "
            "these give for augmented images; it alone is shipped."
        )
    return text


def _validation(record: ClassifierRecord) -> str:
    task, judged, chosen = record.task, record.trained.judged, record.trained.calibration
    where = (
        f"{len(judged.numbers)} images, each judged by the networks ({task.networks}, averaged) that have not learnt "
        f"from it: {task.folds}-fold cross-validation, stratified, inside of {' and '.join(task.pool)}, over "
        f"mirrored copies. {_shipped(task)}"
        if task.folds > 1
        else f"{len(judged.numbers)} images of the validation part; the networks learnt from the training part alone"
    )
    likely = softmax(judged.scores / chosen.temperature, axis=1)
    found = with_intervals(judged.numbers, likely, _decided(likely, task, chosen.threshold))
    rows = [f"| {MEASURES[key]} | {x.value:.3f} | {x.low:.3f} to {x.high:.3f} |" for key, x in found.items()]
    seeds = seed_range(judged)
    table: list[dict[str, Any]] = [
        {
            "who": f"one network alone, mean of {len(judged.single)} (lowest to highest)",
            **{key: f"{mean:.3f} ({low:.3f} to {high:.3f})" for key, (mean, low, high) in seeds.items()},
        }
    ]
    several = f"{task.networks} networks averaged" if task.networks > 1 else "the same, over mirrored copies"
    who = several if task.folds > 1 else "the shipped network"
    numbers = {key: f"{found[key].value:.3f} ({found[key].low:.3f} to {found[key].high:.3f})" for key in seeds}
    table.append({"who": f"{who}, at the chosen threshold (95 % interval)", **numbers})
    compared = "\n".join(f"| {row['who']} | {row['accuracy']} | {row['auc']} |" for row in (*table, *task.comparison))
    return "\n".join(
        [
            f"{where}. Temperature and threshold were chosen on the same images, two numbers from "
            f"{len(judged.numbers)}; intervals are of {RESAMPLES} resamples of the images. The test part of the data "
            "took no part in anything here.",
            "",
            "| measure | value | 95 % interval |",
            "|---|---|---|",
            *rows,
            "",
            "Beside others, where nothing else is said at a threshold of 0.5:",
            "",
            "| | accuracy | AUC |",
            "|---|---|---|",
            compared,
        ]
    )


def _shipped(task: ClassificationTask) -> str:
    if task.shipped:
        return (
            f"What is shipped is the mean of {task.shipped} of the networks of all folds; for each of these images "
            "some of them have learnt from it, so that they can't be judged on it together"
        )
    return (
        "The shipped network, which learns to give such means, has learnt from all of these images by way of all "
        "folds' networks and can't be judged on them itself"
    )


def _decided(likely: NDArray[np.float64], task: ClassificationTask, threshold: float) -> NDArray[np.int64]:
    if task.decision == "binary":
        return (likely[:, 1] >= threshold).astype(np.int64)
    return np.asarray(likely.argmax(axis=1), dtype=np.int64)


def _measured(numbers: NDArray[np.int64], scores: NDArray[np.float64]) -> dict[str, float]:
    return measure(numbers, softmax(scores, axis=1), np.asarray(scores.argmax(axis=1), dtype=np.int64))


def _times(numbers: list[int]) -> str:
    return " x ".join(str(number) for number in numbers)
