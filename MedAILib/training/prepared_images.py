"""Labelled images as a classification network sees them, by the very steps that the finished model will take."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from MedAILib.config_values import Component
from MedAILib.errors import InputError
from MedAILib.inference.classify import ClassifyRecipe, prepare_look
from MedAILib.inference.looks import looks_at
from MedAILib.models.steps import preprocessing_steps
from MedAILib.progress import Progress
from MedAILib.request import ClassifyOptions
from MedAILib.spec import Classes
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import ClassData
from MedAILib.training.labelled_images import LabelledImage, read_labelled


def prepare_images(
    task: ClassificationTask,
    images: Sequence[LabelledImage],
    numbers: NDArray[np.int64],
    preprocessing: tuple[Component, ...],
) -> ClassData:
    """Images, read and checked, as one block of tensors.

    Args:
        task: what they are for.
        images: already checked.
        numbers: their classes.
        preprocessing: the model's steps, as `bundle_plan` reads them.

    Raises:
        InputError: an image has other channels than the task takes.
    """
    recipe = _recipe(task, preprocessing)
    seen = []
    converted = _Converted()
    for image in images:
        volume = read_labelled(image)
        try:
            (look,) = looks_at(volume, recipe.classes, recipe.channels, recipe.colour, ClassifyOptions(), converted)
        except InputError as error:
            raise InputError(f"{image.name}: {error}") from error
        seen.append(prepare_look(look, recipe, converted).image[0])
    return ClassData(
        torch.stack(seen),
        numbers,
        tuple(image.name for image in images),
        tuple(image.split for image in images),
        tuple(image.patient for image in images),
        tuple(images),
    )


def _recipe(task: ClassificationTask, preprocessing: tuple[Component, ...]) -> ClassifyRecipe:
    count, axes = len(task.channels), len(task.size)
    classes = Classes(
        task.names, task.decision, axes, (0.5,) * len(task.names), sequence=task.frames > 0, frames=task.frames
    )
    steps = preprocessing_steps(preprocessing, axes)
    outputs, activation = task.decided.outputs, task.decided.activation
    return ClassifyRecipe(steps, classes, count, outputs, activation, axes == 2 and count in (1, 3))


class _Converted(Progress):
    """Keeps quiet of each image's conversion; what matters is said once, before."""

    def warn(self, text: str) -> None:
        pass
