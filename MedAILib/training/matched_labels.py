"""Labels as data has them, matched to the classes of a task or a model."""

import re
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.training.labelled_images import LabelledImage, listed_names


def numbered(images: Sequence[LabelledImage], labels: Mapping[str, Sequence[str]]) -> NDArray[np.int64]:
    """Each image's class, as its place in `labels` (class name: what data may call it).

    A class's own name counts too, whatever its case and its dashes; where nothing else is told, so does its number.

    Raises:
        InputError: a label that is no class's; the sentence names its images.
    """
    known = _known(labels)
    unknown = [image for image in images if _plain(image.label) not in known]
    if unknown:
        raise InputError(
            f"The label '{unknown[0].label}' of {listed_names(image.name for image in unknown)} is none of the "
            f"classes: {_classes_told(labels)}."
        )
    return np.array([known[_plain(image.label)] for image in images], dtype=np.int64)


def marked(images: Sequence[LabelledImage], labels: Mapping[str, Sequence[str]]) -> NDArray[np.int64]:
    """Which labels each image has, as ones in the places that they have in `labels`: (N, labels).

    Raises:
        InputError: a label that is none of these, or one that the data's columns don't tell of; the sentence says
            where it stands.
    """
    known = _known(labels)
    found = np.zeros((len(images), len(labels)), np.int64)
    for among in dict.fromkeys(image.among for image in images if image.among):
        _require_columns(among, labels, known, next(image.told_in for image in images if image.among == among))
    for row, image in enumerate(images):
        for label in (image.label,) if image.labels is None else image.labels:
            if _plain(label) not in known:
                where = f" in {image.told_in}" if image.told_in else ""
                raise InputError(
                    f"The label '{label}' of {image.name}{where} is none of the labels: {_classes_told(labels)}."
                )
            found[row, known[_plain(label)]] = 1
    return found


def truth_of(images: Sequence[LabelledImage], labels: Mapping[str, Sequence[str]], several: bool) -> NDArray[np.int64]:
    """`marked` where images may have several labels, else `numbered`."""
    return marked(images, labels) if several else numbered(images, labels)


def _known(labels: Mapping[str, Sequence[str]]) -> dict[str, int]:
    """The place of each class by all that data may call it."""
    known: dict[str, int] = {}
    for number, (name, told) in enumerate(labels.items()):
        known |= {_plain(text): number for text in (name, *told)}
    if not any(_plain(text) != _plain(name) for name, told in labels.items() for text in told):
        known |= {str(number): number for number in range(len(labels)) if str(number) not in known}
    return known


def _classes_told(labels: Mapping[str, Sequence[str]]) -> str:
    return "; ".join(f"{name} ({', '.join(told)})" for name, told in labels.items())


def _require_columns(
    among: Sequence[str], labels: Mapping[str, Sequence[str]], known: Mapping[str, int], told_in: str
) -> None:
    """Raise `InputError` where columns of labels are not those of the classes."""
    unknown = [name for name in among if _plain(name) not in known]
    if unknown:
        raise InputError(
            f"There is a column for the label '{unknown[0]}' ({told_in}), which is none of the labels: "
            f"{_classes_told(labels)}."
        )
    told = {known[_plain(name)] for name in among}
    missing = [name for number, name in enumerate(labels) if number not in told]
    if missing:
        raise InputError(
            f"There is no column for the label {missing[0]} ({told_in}), only for {', '.join(among)}; so it can't be "
            "told which images have it."
        )


def _plain(text: str) -> str:
    return " ".join(re.split(r"[\s_,/-]+", text.casefold().strip()))
