"""The pictures that a generator learns from: found, checked, and brought to one size and range."""

import hashlib
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from MedAILib.errors import InputError
from MedAILib.inference.looks import with_channels
from MedAILib.progress import Progress
from MedAILib.training.generation_task import GenerationTask
from MedAILib.training.labelled_checks import check_images
from MedAILib.training.labelled_images import LabelledImage, find_labelled_images, part_of, read_labelled


def read_pictures(task: GenerationTask, data: Path, progress: Progress) -> tuple[Tensor, str]:
    """The pictures (N, 1, size, size) that a task learns from, axes I and J, each scaled to 0 to 1.

    Those of other sizes are resampled, and colour becomes grey, which is said.

    Returns:
        the pictures, and the part of the data that they are from; empty where it has no parts.

    Raises:
        InputError: the data holds no such pictures, or one that is a volume or shows nothing; the sentence names it.
    """
    images = _wanted(task, data)
    check_images(images, np.zeros(len(images), np.int64), ("pictures",), 2, progress)
    found, shapes, coloured = [], Counter[str](), 0
    for number, image in enumerate(images):
        progress.step(number, len(images), f"Reading {image.name}")
        volume = read_labelled(image)
        coloured += volume.channels > 1
        try:
            voxels = np.squeeze(with_channels(volume, 1, False, _Quiet()).data[0])
        except InputError as error:
            raise InputError(f"{image.name}: {error}") from error
        shapes[" x ".join(str(n) for n in reversed(voxels.shape))] += 1
        found.append(torch.from_numpy(voxels.T.astype(np.float32)))
    if coloured:
        progress.warn(f"{coloured} of {len(images)} pictures are in colour; they were converted to grey.")
    if len(shapes) > 1:
        sizes = ", ".join(f"{shape} ({count})" for shape, count in shapes.most_common(3))
        more = f" and {len(shapes) - 3} more" if len(shapes) > 3 else ""
        progress.warn(
            f"The pictures are of {len(shapes)} sizes, {sizes}{more}; all are resampled to {task.size} x {task.size}."
        )
    return pictures_tensor(found, task.size), images[0].split


def pictures_tensor(pictures: list[Tensor], size: int) -> Tensor:
    """Pictures (I, J) of any size and range as one batch (N, 1, size, size), float32, each from 0 to 1."""
    made = []
    for picture in pictures:
        low, high = picture.min(), picture.max()
        scaled = ((picture.float() - low) / (high - low).clamp_min(1e-6))[None, None]
        made.append(interpolate(scaled, size=(size, size), mode="bilinear", align_corners=False, antialias=True))
    return torch.cat(made)


def digest_of_pictures(pictures: Tensor) -> str:
    """The SHA-256 of all pictures, so that a resume on changed data is noticed."""
    return hashlib.sha256(np.ascontiguousarray(pictures.numpy()).tobytes()).hexdigest()


def _wanted(task: GenerationTask, data: Path) -> tuple[LabelledImage, ...]:
    every = find_labelled_images(data)
    images = part_of(every, (task.part,))
    if not images:
        there = ", ".join(sorted({image.split for image in every}))
        raise InputError(f"{data} has no images of the part '{task.part}', only of {there}; give another --set part=.")
    if not task.label:
        return images
    chosen = tuple(image for image in images if image.label == task.label)
    if not chosen:
        labels = ", ".join(f"'{label}' ({count})" for label, count in Counter(x.label for x in images).most_common(8))
        raise InputError(f"{data} has no images of the label '{task.label}'; its labels are {labels}.")
    return chosen


class _Quiet(Progress):
    """Keeps quiet of each picture's conversion; how many there were is said once."""

    def warn(self, text: str) -> None:
        pass
