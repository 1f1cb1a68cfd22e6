"""Which classes labelled images have, and how it is to be decided between them; each choice with its reason."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from MedAILib.errors import InputError
from MedAILib.training.labelled_images import LabelledImage

RARE = 0.2  # a label that fewer of the images have is weighted


@dataclass(frozen=True)
class PlannedClasses:
    """Classes and the decision between them.

    Args:
        labels: the classes, as the data calls them, in the order of their numbers or of the alphabet.
        decision: one of `DECISIONS`.
        why: its reason, and how to have another.
        counted: how many images each class has, in words.
        weights, threshold: as `ClassificationTask` has them, with their reasons.
    """

    labels: tuple[str, ...]
    decision: str
    why: str
    counted: str
    weights: str
    why_weights: str
    threshold: str
    why_threshold: str


def plan_classes(data: Path, images: Sequence[LabelledImage], decision: str, ordered: bool) -> PlannedClasses:
    """Plan classes and decision.

    Args:
        data: the images' source, for messages.
        images: at least one.
        decision: what the user asked for; empty: as the data has it.
        ordered: the user gives the classes' order.

    Raises:
        InputError: fewer than two classes; grades whose order is not told.
    """
    several = any(image.labels is not None for image in images)
    labels = _labels(images)
    if len(labels) < 2 and several:
        raise InputError(
            f"The images of {data} have {len(labels)} labels in all; there must be two, or classes that exclude each "
            "other."
        )
    if len(labels) < 2:
        raise InputError(f"{data} has images of one class only, {labels[0]}; there must be some of another.")
    if decision == "ordinal" and not ordered and any(_number(label) is None for label in labels):
        raise InputError(
            f"The labels of {data} ({', '.join(labels)}) don't begin with numbers, so that the order of these grades "
            'can\'t be told; give them in order: --set \'classes=[{"name": "none", "labels": ["none"]}, ...]\'.'
        )
    counts = dict(zip(labels, counted(images, labels), strict=True))
    if not several:
        usual = "binary" if len(labels) == 2 else "multiclass"
        return PlannedClasses(
            labels,
            decision or usual,
            _why_one(decision, labels),
            "; ".join(f"{counts[label]} images of {label}" for label in labels),
            "balanced",
            "the rarer a class, the heavier its images",
            "balanced",
            "0.5; --set threshold=accuracy chooses it on images that were not learnt from"
            if len(labels) == 2 or decision == "ordinal"
            else "the likeliest class is taken",
        )
    rare = min(counts.values()) < RARE * len(images)
    none = sum(not image.labels for image in images)
    return PlannedClasses(
        labels,
        "multilabel",
        _why_several(images),
        "; ".join(f"{count} images with {label}" for label, count in counts.items()) + f"; {none} with none",
        "balanced" if rare else "none",
        f"{'some' if rare else 'no'} label is in less than {RARE:.0%} of the images; these count more in images with it"
        if rare
        else f"each label is in {RARE:.0%} of the images or more",
        "f1",
        "each label's best F1 on images that were not learnt from; --set threshold=balanced takes 0.5",
    )


def counted(images: Sequence[LabelledImage], labels: Sequence[str]) -> list[int]:
    """How many of the images have each label."""
    counts = Counter(label for image in images for label in _own(image))
    return [counts[label] for label in labels]


def _own(image: LabelledImage) -> tuple[str, ...]:
    return (image.label,) if image.labels is None else image.labels


def _labels(images: Sequence[LabelledImage]) -> tuple[str, ...]:
    """All labels that the data tells of: its columns in their order, else by number or alphabet."""
    columns = dict.fromkeys(label for image in images for label in image.among)
    if columns:
        return tuple(columns)
    found = {label for image in images for label in _own(image)}
    if all(_number(label) is not None for label in found):
        return tuple(sorted(found, key=lambda label: (_number(label) or 0.0, label)))
    return tuple(sorted(found))


def _number(label: str) -> float | None:
    """The number that a label is or begins with, such as of "2" and "2_mild"."""
    found = re.match(r"\s*(-?\d+(?:\.\d+)?)(?![\d.])", label)
    return None if found is None else float(found.group(1))


def _why_one(decision: str, labels: Sequence[str]) -> str:
    if decision == "ordinal":
        return f"asked for by --set; grades from {labels[0]} to {labels[-1]}, in this order"
    if decision:
        return "asked for by --set"
    grades = ""
    if len(labels) > 2:
        grades = "; if they are grades in order: --set decision=ordinal"
    return f"each image has one class of {len(labels)}, which exclude each other{grades}"


def _why_several(images: Sequence[LabelledImage]) -> str:
    most = max(len(image.labels or ()) for image in images)
    if all(len(image.labels or ()) == 1 for image in images):
        return (
            "the data has a place for several labels of an image; if they exclude each other: --set decision=multiclass"
        )
    least = min(len(image.labels or ()) for image in images)
    return f"the data has {least} to {most} labels for an image; each is decided for itself"
