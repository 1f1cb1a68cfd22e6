"""Made pictures to learn from beside the real ones: each from a generator that learnt from one class alone."""

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.models.generate import generate
from MedAILib.models.store import find_model
from MedAILib.plans import read_any_plan
from MedAILib.progress import Progress
from MedAILib.request import GenerateOptions
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.labelled_images import MADE, LabelledImage
from MedAILib.training.matched_labels import numbered


def made_images(
    task: ClassificationTask, images: Sequence[LabelledImage], numbers: NDArray[np.int64], progress: Progress
) -> tuple[LabelledImage, ...]:
    """Pictures by the task's generators, as labelled images of the part `MADE`: a share of their class's real ones.

    They are decided by the task's seed, and made on the CPU, so that they are the same everywhere.

    Args:
        task: names the generators and the share.
        images: the real ones.
        numbers: their classes.
        progress: hears of each picture; may cancel.

    Raises:
        InputError: the images that networks are judged by would be known to a generator; a generator of no class.
        MedAIError: a generator that can't be run.
    """
    if task.several:
        raise InputError(
            f"The task {task.name} has several labels for an image, and made pictures are of one class each; leave "
            "synthetic out."
        )
    if task.folds > 1 or len(task.size) != 2:
        why = "judges in folds, on images that the generators may have learnt from" if task.folds > 1 else "has volumes"
        raise InputError(
            f"The task {task.name} {why}; made pictures are for tasks of pictures that learn from the part 'train' and "
            "are judged by 'val' (--set folds=1)."
        )
    there = Counter(int(n) for n, image in zip(numbers, images, strict=True) if image.split == "train")
    made: list[LabelledImage] = []
    for name in dict.fromkeys(task.synthetic):
        source = find_model(name)
        label = _label_of(source, progress)
        (number,) = numbered([LabelledImage(f"what {name} makes", label, MADE, source)], task.labels)
        count = round(task.synthetic_share * there[int(number)])
        if count:
            found = generate(source, GenerateOptions(count, task.seed), "cpu", progress)
            made += [
                LabelledImage(f"{name} {seed}", label, MADE, source, volume.data[0, 0])
                for seed, volume in zip(found.seeds, found.volumes, strict=True)
            ]
    return tuple(made)


def _label_of(source: Path, progress: Progress) -> str:
    """The label that all pictures of a generator have.

    Raises:
        InputError: it has none, or learnt from what classifiers are judged by.
    """
    told = (read_any_plan(source).metadata.get("medai") or {}).get("generation") or {}
    if not told.get("label"):
        raise InputError(
            f"The model {source} does not tell of which class its pictures are; give a generator that learnt from one "
            "label (medai train TASK --set label=...)."
        )
    if told.get("part") in ("val", "test"):
        raise InputError(
            f"The generator {source} learnt from the part '{told['part']}', which classifiers are judged by; give one "
            "that learnt from 'train'."
        )
    if not told.get("part"):
        progress.warn(f"{source} learnt from data without parts; see that no image to be judged by was among them.")
    return str(told["label"])
