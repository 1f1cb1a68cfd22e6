"""What a classification task is going to do with data, choice by choice, before anything is trained."""

from collections.abc import Container

from MedAILib.training.choices import ASKED, Choice
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import ClassData, split_folds

SHOWN = (
    *("decision", "channels", "size", "orientation", "intensity", "network", "folds", "networks", "shipped", "kernel"),
    *("epochs", "distil_epochs", "batch"),
    *("learning_rate", "schedule", "accumulate", "weight_decay", "ema_decay", "precision", "patience", "loss"),
    *("class_weights", "sampling", "label_smoothing", "augmentation"),
    *("choice", "threshold", "strange_quantile", "frozen_stages", "synthetic", "synthetic_share", "seed"),
)


def class_choices(task: ClassificationTask, data: ClassData, asked: Container[str]) -> list[Choice]:
    """Each choice with its reason: the data, the task's file, or the command line.

    Args:
        task: with the changes that were asked for.
        data: checked.
        asked: keys that the command line gave.

    Raises:
        InputError: the data is too little for the task's folds.
    """
    counts = task.decided.marks(data.numbers).sum(axis=0).tolist()
    classes = ", ".join(f"{count} {name}" for count, name in zip(counts, task.names, strict=True))
    folds = ", ".join(f"{len(learn)} and {len(judge)}" for learn, judge in split_folds(task, data))
    patients = " without dividing a patient" if any(data.patients) else ""
    dealt = f"dealt into {task.folds} folds{patients}" if task.folds > 1 else "the parts 'train' and 'val' of the data"
    own = "the task's"
    return [
        Choice("classes", classes, "counted in the data"),
        Choice("learnt and judged", folds, dealt),
        *(
            Choice(key, _told(getattr(task, key)), ASKED if key in asked else own)
            for key in SHOWN
            if getattr(task, key) not in ("", []) and (task.kernel or key != "kernel")
        ),
    ]


def _told(value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_told(inner)}" for key, inner in value.items())
    return f"[{', '.join(_told(x) for x in value)}]" if isinstance(value, list) else str(value)
