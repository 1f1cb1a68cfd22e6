"""The model card that a training writes of the classifier that came out of it."""

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.training.classification_augmentations import AUGMENTATIONS
from MedAILib.training.classification_measures import RESAMPLES, with_intervals
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import ClassData, Judged, Trained
from MedAILib.training.decision import Calibration, Decision
from MedAILib.training.intensities import intensity_told, own_steps_told
from MedAILib.training.kind_measures import measures_of
from MedAILib.training.labelled_images import MADE
from MedAILib.training.patient_draws import PatientDraws

KERNEL = "the kernel classifier alone"
# Before the loss's name.
_LOSSES = {"binary": "", "multiclass": "", "multilabel": "for each label ", "ordinal": "for each step between grades "}
# What the score of an unlike image is worked out from.
_STRANGE = {"energy": "scores", "entropy": "probabilities"}


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

    @property
    def patients(self) -> list[str]:
        """Of each image that was judged, "" where that is not known."""
        return [self.data.patients[place] for place in self.trained.judged.places.tolist()]


def write_classifier_card(record: ClassifierRecord) -> str:
    """Markdown of a model card: what it is, its data, its training, its figures on images unseen, its limits."""
    task, chosen = record.task, record.trained.calibration
    decision = task.decided.in_words(chosen.thresholds)
    offsets = " and shifted by an offset for each label" if any(chosen.offsets) else ""
    own = own_steps_told(task.intensity)
    limits = "\n".join(f"- {text}" for text in task.limits or ["Not tried on images from elsewhere."])
    references = "\n".join(f"- {text}" for text in task.references or ["None told."])
    return f"""# {task.title}

{task.description}.

**{task.intended_use}**

## Input and output

{", ".join(task.channels)}; {_what(task)} of any size, {_before(task)}resampled to
{_times(task.size)} by area{_values(task)} and normalised to mean 0 and standard deviation 1. Decides for {decision}.
Scores are divided by a temperature of {chosen.temperature:g}{offsets}. {_strange(task, chosen)}{own}

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


def seed_range(judged: Judged, decision: Decision) -> dict[str, tuple[float, float, float]]:
    """Mean, smallest and largest accuracy and AUC of the single networks, a value for each seed."""
    found = [_measured(judged.numbers, scores, decision) for scores in judged.single]
    return {
        key: (
            float(np.mean([x[key] for x in found])),
            min(x[key] for x in found),
            max(x[key] for x in found),
        )
        for key in ("accuracy", "auc")
    }


def _strange(task: ClassificationTask, chosen: Calibration) -> str:
    """When an image is too unlike the training data to be decided."""
    if chosen.strange_above is None:
        return "It has no score of how unlike its training data an image is."
    what = f"the {task.decided.strange_by} of its {_STRANGE[task.decided.strange_by]}"
    whose = "of the images it was trained or validated on keep"
    if task.kernel:
        what += f", {task.kernel['gamma']:g} x mean squared difference of its features from the nearest known image's,"
        itself = "it and its mirror image" if task.augmentation.get("flip") else "it"
        whose += f" (each as if {itself} were not known)" if task.folds > 1 else ""
    return (
        f"Where {what} is above {chosen.strange_above:g}, a limit that {100 * task.strange_quantile:g}% {whose}, "
        f'the answer is "not sure". {task.strange_validated_on}'
    )


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
    task = record.task
    real = np.array([split != MADE for split in record.data.splits])
    counts = task.decided.marks(record.data.numbers[real]).sum(axis=0).tolist()
    rows = [
        f"| {name} | {', '.join(task.labels[name])} | {count} |" for name, count in zip(task.names, counts, strict=True)
    ]
    if task.several:
        rows.append(f"| none of them | | {int((record.data.numbers[real].sum(axis=1) == 0).sum())} |")
    return "\n".join(rows)


def _parts(data: ClassData) -> str:
    counts = Counter(split for split in data.splits if split != MADE)
    if set(counts) == {""}:
        return f"{len(data.names)} images"
    return ", ".join(f"{count} images of the part '{part}'" for part, count in counts.items())


def _made(record: ClassifierRecord) -> str:
    if MADE not in record.data.splits:
        return ""
    made = [n for n, split in zip(record.data.numbers.tolist(), record.data.splits, strict=True) if split == MADE]
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
        f"{_LOSSES[task.decision]}{task.loss}{smooth}, classes weighted: {task.class_weights}, moving average of the "
        "weights "
        f"({task.ema_decay:g}), {record.numbers}. Augmentation: {changes or 'none'}."
    )
    if task.choice == "best":
        text += " The weights of each network are of the epoch with the least log loss on the images kept from it."
    several = f"\n\n{task.networks} network{'s'[: task.networks > 1]} for each of {task.folds} folds. "
    if task.shipped:
        whole = "half of the answer" if task.kernel else "the answer"
        text += (
            f"{several}Shipped are {task.shipped} of these: {whole} is the mean of the probabilities that each "
            f"gives for the image and its mirror image. {_kernel(task)}Stock MONAI runs them where MedAI is installed "
            "beside it, which has the network class that takes the mean."
        )
    elif task.networks * task.folds > 1:
        text += (
            f"{several}Distillation: one "
            f"network of the same shape learns, for {task.distil_epochs} epochs, the mean probabilities that all of "
            "these give for augmented images; it alone is shipped."
        )
    return text


def _kernel(task: ClassificationTask) -> str:
    """How the kernel classifier came about; nothing where the task has none."""
    if not (told := task.kernel):
        return ""
    taps = " and ".join(str(tap) for tap in told["taps"])
    return (
        f"The other half says a kernel classifier: features of the image, enlarged to {told['size']} x "
        f"{told['size']}, are mean and spread of each channel after blocks {taps} of EfficientNet-Lite0 with the "
        "weights that it learnt from photographs (ImageNet; Apache License 2.0), unchanged; on these, standardised, "
        f"least squares with the kernel exp(-{told['gamma']:g} x mean squared difference) and {told['noise']:g} on its "
        "diagonal, from all images and their mirror images, in each fold without those that are judged; its scores are "
        "as steep as fits best what it says of images that are left out. "
    )


def _validation(record: ClassifierRecord) -> str:
    task, judged, chosen = record.task, record.trained.judged, record.trained.calibration
    where = (
        f"{len(judged.numbers)} images, each judged by the networks ({task.networks}, averaged){_beside(task)} "
        f"that have not learnt from it: {task.folds}-fold cross-validation, stratified, inside of "
        f"{' and '.join(task.pool)}, over mirrored copies. {_shipped(task)}"
        if task.folds > 1
        else f"{len(judged.numbers)} images of the validation part; the networks learnt from the training part alone"
    )
    likely = task.decided.probabilities(judged.scores, chosen.temperature, chosen.offsets)
    measures = measures_of(task.decision)
    decided = task.decided.decide(likely, chosen.thresholds)
    patients, draws = record.patients, PatientDraws.of(record.patients)
    found = with_intervals(judged.numbers, likely, decided, measures, patients)
    rows = [f"| {measures.titles[key]} | {x.value:.3f} | {x.low:.3f} to {x.high:.3f} |" for key, x in found.items()]
    seeds = seed_range(judged, task.decided)
    table: list[dict[str, Any]] = [
        {
            "who": f"one network alone, mean of {len(judged.single)} (lowest to highest)",
            **{key: f"{mean:.3f} ({low:.3f} to {high:.3f})" for key, (mean, low, high) in seeds.items()},
        }
    ]
    if judged.kernel is not None:
        networks = np.mean([task.decided.probabilities(scores) for scores in judged.single], axis=0)
        alone = task.decided.probabilities(judged.kernel)
        for part, plain in ((f"{len(judged.single)} networks averaged, alone", networks), (KERNEL, alone)):
            usual = task.decided.decide(plain, task.decided.usual_thresholds)
            each = with_intervals(judged.numbers, plain, usual, measures, patients)
            told = {key: f"{each[key].value:.3f} ({each[key].low:.3f} to {each[key].high:.3f})" for key in seeds}
            table.append({"who": f"{part} (95 % interval)", **told})
    several = f"{task.networks} networks averaged" if task.networks > 1 else "the same, over mirrored copies"
    several += _beside(task)
    who = several if task.folds > 1 else "the shipped network"
    numbers = {key: f"{found[key].value:.3f} ({found[key].low:.3f} to {found[key].high:.3f})" for key in seeds}
    table.append({"who": f"{who}, at the chosen threshold (95 % interval)", **numbers})
    compared = "\n".join(f"| {row['who']} | {row['accuracy']} | {row['auc']} |" for row in (*table, *task.comparison))
    return "\n".join(
        [
            f"{where}. {_chosen(task)} chosen on these {len(judged.numbers)} images, too; intervals are of {RESAMPLES} "
            f"resamples of the {draws.told('images')}. The test part of the data "
            "took no part in anything here.",
            "",
            "| measure | value | 95 % interval |",
            "|---|---|---|",
            *rows,
            *_each_label(task, measures.each(judged.numbers, likely, decided)),
            "",
            "Beside others, where nothing else is said at a threshold of 0.5:",
            "",
            "| | accuracy | AUC |",
            "|---|---|---|",
            compared,
        ]
    )


def _beside(task: ClassificationTask) -> str:
    return " and the kernel classifier" if task.kernel else ""


def _shipped(task: ClassificationTask) -> str:
    if task.shipped:
        beside = ", and a kernel classifier of all images" if task.kernel else ""
        return (
            f"What is shipped is the mean of {task.shipped} of the networks of all folds{beside}; for each of these "
            "images some of them have learnt from it, so that they can't be judged on it together"
        )
    return (
        "The shipped network, which learns to give such means, has learnt from all of these images by way of all "
        "folds' networks and can't be judged on them itself"
    )


def _chosen(task: ClassificationTask) -> str:
    """What was chosen on the judged images."""
    if task.several:
        return "Temperature, and an offset and a threshold for each label, were"
    return "Temperature and threshold were"


def _each_label(task: ClassificationTask, each: list[dict[str, float]]) -> list[str]:
    """Of several labels or grades, a table with a row for each."""
    if task.decision not in ("multilabel", "ordinal"):
        return []
    keys = ("auc", "ap", "sensitivity", "specificity", "f1") if task.several else ("auc", "sensitivity", "specificity")
    rows = [
        f"| {name} | {int(found['cases'])} | {' | '.join(_number(found[key]) for key in keys)} |"
        for name, found in zip(task.names, each, strict=True)
    ]
    head = " | ".join({"auc": "AUC", "ap": "average precision", "f1": "F1"}.get(key, key) for key in keys)
    return ["", f"| | images | {head} |", f"|---|---|{'---|' * len(keys)}", *rows]


def _number(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _measured(numbers: NDArray[np.int64], scores: NDArray[np.float64], decision: Decision) -> dict[str, float]:
    likely = decision.probabilities(scores)
    return measures_of(decision.kind).whole(numbers, likely, decision.decide(likely, decision.usual_thresholds))


def _times(numbers: list[int]) -> str:
    return " x ".join(str(number) for number in numbers)
