"""The model card that a training writes of its own result."""

from collections.abc import Sequence
from dataclasses import dataclass

from MedAILib.training.architectures import OWN_PLACES
from MedAILib.training.cases import Split
from MedAILib.training.evaluate import Evaluation
from MedAILib.training.folds import validation_told
from MedAILib.training.intensities import intensity_told, own_steps_told
from MedAILib.training.recipe import Z_SCORE
from MedAILib.training.task import SegmentationTask

UNTRIED = (
    "What differs from the training data (other sequences, contrast agents, surgery, tumours, children) was not tested."
)
SAME_PLACE = "The figures below are of cases from the same hospital as the training data."


@dataclass(frozen=True)
class TrainingRecord:
    """What a card says of how the model came about.

    Args:
        task: what was trained.
        split: of one network's cases; nothing in its validation part: of a model that comes of all folds.
        command: that repeats the training.
        epochs: of a fold's network.
        fold: of the network, or where it went on from; None: it has learnt from all cases from the start.
        machine: on which it was trained.
        half: whether in bfloat16.
        initial: the model that it started from; empty: none.
        networks: how many it has, whose probabilities are averaged.
        prescribed: whether the data tell the folds, in splits_final.json.
    """

    task: SegmentationTask
    split: Split
    command: str
    epochs: int
    fold: int | None
    machine: str
    half: bool = True
    initial: str = ""
    networks: int = 1
    prescribed: bool = False


def write_card(record: TrainingRecord, evaluations: Sequence[Evaluation]) -> str:
    """Markdown of a model card: what it is, its data, its training, its figures on the validation cases, its limits.

    Args:
        record: how it came about.
        evaluations: of the cases kept aside; of each fold's where the model comes of all; none yet: empty.
    """
    task = record.task
    labels = "\n".join(f"| {label['value']} | {label['name']} |" for label in task.labels)
    limits = "\n".join(f"- {text}" for text in [*task.warnings, UNTRIED, *([SAME_PLACE] if evaluations else [])])
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

## Data

{task.data_source}. {_parts(record)} {_taken(record)}
Licence of the weights, as derived from the data: {task.licence}.

## Training

```
{record.command}
```

{_training(record)}

## Validation

{_validation(record, evaluations)}

## References

{references}
"""


def _parts(record: TrainingRecord) -> str:
    """What was learnt from, and what was kept aside."""
    task, split = record.task, record.split
    if record.fold is None:
        return f"{len(split.training)} cases, none of which was kept aside to judge by."
    if not split.validation and task.shipped:
        return f"{len(split.training)} cases, all to learn from in the end; none was kept aside then."
    if not split.validation:
        return f"{len(split.training)} cases; each network has learnt from the training cases of its fold."
    dealt = f"part\n{record.fold} of {task.folds} after shuffling the sorted names with seed {task.seed}"
    if record.prescribed:
        dealt = f"fold\n{record.fold} of {task.folds} in the data's splits_final.json"
    return (
        f"{len(split.training)} cases for training and {len(split.validation)} for validation ({dealt}); the "
        "validation cases took no\npart in any choice during training."
    )


def _validation(record: TrainingRecord, evaluations: Sequence[Evaluation]) -> str:
    if record.fold is None:
        networks = "these networks are" if record.networks > 1 else "this network is"
        return (
            f"No case was kept aside to judge by: how good {networks} can be told by other cases only (`medai\n"
            "evaluate`), and how good networks of this task are by cross-validation (`--fold all`)."
        )
    if not evaluations:
        return "Not validated."
    if record.split.validation:
        names = ", ".join(case.name for case in record.split.validation)
        return f"{validation_told(evaluations)}\n\nValidation cases: {names}."
    here = f"the {record.networks} networks here are" if record.networks > 1 else "the network here is"
    limits = (
        f"before they went on: how good {here} can be told by other cases only, since all of these were learnt from."
        if record.task.shipped
        else "each alone: how good their average is, only other cases can tell."
    )
    return f"{validation_told(evaluations)}\n\nThese are figures of the folds' networks, {limits}"


def _training(record: TrainingRecord) -> str:
    """How the network was trained, in a paragraph."""
    task = record.task
    loss = {"dice_ce": "Dice plus cross-entropy", "dice_focal": "Dice plus focal loss", "weighted_ce": "cross-entropy"}
    rate = {"poly": " falling to zero by a power of 0.9", "cosine": " falling to zero by a cosine", "constant": ""}
    again = f" (then {task.final.learning_rate:g})" if _went_on(record) else ""
    parts = [
        f"{task.network['_target_']}, {_learnt_from(record)}",
        f"AdamW with learning rate {task.learning_rate:g}{again}{rate[task.schedule]}",
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
    seeds = f"Seed {task.seed}"
    if record.fold is None and record.networks > 1:
        seeds = f"Seeds {task.seed} to {task.seed + record.networks - 1}"
    text = f"{', '.join(part for part in parts if part)}. {sampled}Augmentation: {names}. {seeds}."
    return f"{text} Machine: {record.machine}."


def _went_on(record: TrainingRecord) -> bool:
    """Whether it learnt from all cases after it had learnt from a fold's."""
    return record.fold is not None and not record.split.validation and record.task.shipped > 0


def _learnt_from(record: TrainingRecord) -> str:
    """How long, and of which cases."""
    each = f"in batches of {record.task.batch}"
    if record.split.validation:
        return f"{record.epochs} epochs of all training cases {each}"
    several = f"{record.networks} networks, whose probabilities are averaged, each " if record.networks > 1 else ""
    if record.fold is None:
        learnt = "the training cases" if record.task.patience else "all cases"
        return f"{several}{record.epochs} epochs of {learnt} {each}"
    if not record.task.shipped:
        return f"{several}{record.epochs} epochs of the training cases of its fold {each}"
    of = f"one of the folds 0 to {record.networks - 1}" if several else f"fold {record.fold}"
    final = record.task.final.epochs
    return f"{several}{record.epochs} epochs of the training cases of {of} {each}, then {final} more of all cases"


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


def _taken(record: TrainingRecord) -> str:
    """Which epoch's weights were taken."""
    last = "The last epoch's averaged weights were taken, not the best of several."
    if not record.task.patience:
        return last
    stopped = (
        f"A tenth of the {'cases' if record.fold is None else 'training cases'} was kept aside to stop after "
        f"{record.task.patience} epochs without gain in Dice; the best epoch's averaged weights on these were taken."
    )
    if _went_on(record):
        return f"Before that, of each fold: {stopped[0].lower()}{stopped[1:]} In the end: {last[0].lower()}{last[1:]}"
    return stopped


def _intensity(task: SegmentationTask) -> str:
    """The steps that change values, as the bundle's config has them."""
    if task.intensity == [Z_SCORE]:
        return "normalising each channel to mean 0 and standard deviation 1"
    return intensity_told(task.intensity)


def _times(numbers: list[float] | list[int]) -> str:
    return " x ".join(f"{number:g}" for number in numbers)
