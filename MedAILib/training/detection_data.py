"""Images with boxes as a detector learns from them: what is planned from them, and how they are prepared and varied."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.apps.detection.transforms.dictionary import ClipBoxToImaged, RandCropBoxByPosNegLabeld, RandFlipBoxd
from monai.transforms import Compose, RandGaussianNoised, RandScaleIntensityd, RandShiftIntensityd, SpatialPadd
from torch import Tensor

from MedAILib.bundle_plan import BundlePlan, plan_of
from MedAILib.config import Config
from MedAILib.errors import InputError
from MedAILib.inference.prepare import prepare
from MedAILib.models.steps import preprocessing_steps
from MedAILib.progress import Progress
from MedAILib.training.boxed_images import BoxedImage
from MedAILib.training.detection_export import inference, metadata
from MedAILib.training.detection_task import DetectionTask
from MedAILib.volume import closest_axes

Sample = dict[str, Tensor]


@dataclass(frozen=True)
class Choice:
    """What was planned: a key of the task, its value, and why."""

    key: str
    value: Any
    reason: str


def plan_detection(
    task: DetectionTask, labels: Sequence[str], images: Sequence[BoxedImage]
) -> tuple[DetectionTask, list[Choice]]:
    """A task with what it leaves empty planned from the images that are learnt from.

    Args:
        task: classes may be empty.
        labels: those of the data, for classes.
        images: with their boxes; empty while there are no classes.

    Raises:
        InputError: no label, or no box, to plan from.
    """
    choices = []
    if not task.classes:
        if not labels:
            raise InputError("There is no box in the data, so that there is nothing to learn to find.")
        named = [{"name": f"class {x}" if x.isdecimal() else x, "labels": [x]} for x in labels]
        task = replace(task, classes=named)
        choices.append(Choice("classes", list(task.names), "the labels that the data has"))
    if images and not any(image.boxes for image in images):
        raise InputError("There is no box in the images that are for training; add findings, or choose another --fold.")
    if images and not task.spacing_mm:
        told = np.median([_along(image, image.volume.geometry.spacing_kji_mm[::-1], task) for image in images], axis=0)
        task = replace(task, spacing_mm=[round(float(mm), 3) for mm in told])
        choices.append(Choice("spacing_mm", task.spacing_mm, "the median of the images'"))
    if images and not task.anchors:
        sizes = np.array([_along(image, _mm(image, box), task) for image in images for box in image.boxes])
        voxels = sizes / np.array(task.spacing_mm)
        order = np.argsort(voxels.prod(axis=1), kind="stable")
        picked = [voxels[order[int(share * (len(order) - 1))]] for share in (0.1, 0.5, 0.9)]
        anchors = [[float(max(round(n), 2)) for n in size] for size in picked]
        unique = [list(shape) for shape in dict.fromkeys(tuple(shape) for shape in anchors)]
        task = replace(task, anchors=unique)
        choices.append(Choice("anchors", task.anchors, "of the data's boxes by volume the tenth, half and nine tenths"))
    return task, choices


def _mm(image: BoxedImage, box: Any) -> Sequence[float]:
    edges = (np.array(box.high_ijk) - np.array(box.low_ijk)) * np.array(image.volume.geometry.spacing_kji_mm[::-1])
    return tuple(float(edge) for edge in edges)


def _along(image: BoxedImage, ijk: Sequence[float], task: DetectionTask) -> list[float]:
    """Lengths along I, J, K as those along the network's axes."""
    towards = [world for world, _ in closest_axes(image.volume.geometry.ijk_to_ras)]
    return [float(ijk[towards.index("RASLPI".index(letter) % 3)]) for letter in task.orientation]


def plan_of_task(task: DetectionTask) -> BundlePlan:
    """The plan of the bundle that the task will become; nothing of it is on disk."""
    place = Path(task.name)
    config = Config(inference(task), place, {"bundle_root": "."})
    return plan_of(place, place, metadata(task), config, place)


def prepare_image(image: BoxedImage, task: DetectionTask) -> Sample:
    """An image as the network sees it, and its boxes there.

    Returns:
        "image" (C, X, Y, Z); "box" (N, 6), lowest and highest faces in voxels, of which one reaches from its number to
        the next, as MONAI's transforms have it; "label" (N,), class numbers from 0 on.

    Raises:
        InputError: as `prepare`.
    """
    working, frame = prepare(image.volume, preprocessing_steps(plan_of_task(task).preprocessing), Progress())
    boxes = np.zeros((len(image.boxes), 6), np.float32)
    for number, box in enumerate(image.boxes):
        for axis in range(3):
            ends = np.array([box.low_ijk[frame.axes[axis]], box.high_ijk[frame.axes[axis]]])
            low, high = sorted((ends - frame.offset[axis]) / frame.scale[axis] + 0.5)
            boxes[number, axis], boxes[number, axis + 3] = max(low, 0.0), min(high, frame.shape[axis])
    there = (boxes[:, 3:] - boxes[:, :3] > 0).all(axis=1)
    labels = np.array([task.names.index(box.label) for box in image.boxes], np.int64)
    return {
        "image": working.contiguous(),
        "box": torch.from_numpy(boxes[there]),
        "label": torch.from_numpy(labels.reshape(-1)[there]),
    }


class Batches:
    """Patches of the images, drawn anew in every epoch by the seed and the epoch's number.

    Args:
        samples: as `prepare_image` gives them.
        task: the task.
        epoch: how many epochs are over.
    """

    def __init__(self, samples: Sequence[Sample], task: DetectionTask, epoch: int) -> None:
        self._samples, self._task, self._epoch = list(samples), task, epoch
        self._steps = _steps(task)

    def __len__(self) -> int:
        return math.ceil(len(self._samples) * self._task.samples / self._task.batch)

    def __iter__(self) -> Iterator[list[Sample]]:
        seed = self._task.seed + 1000 * self._epoch
        self._epoch += 1
        self._steps.set_random_state(seed)
        order = torch.randperm(len(self._samples), generator=torch.Generator().manual_seed(seed)).tolist()
        waiting: list[Sample] = []
        for number in order:
            sample = {key: value.clone() for key, value in self._samples[number].items()}
            for patch in self._steps(sample):
                waiting.append(_for_network(patch))
                if len(waiting) == self._task.batch:
                    yield waiting
                    waiting = []
        if waiting:
            yield waiting


def _steps(task: DetectionTask) -> Compose:
    """Pad, cut patches, half of them around a finding, mirror and vary values; all of it MONAI's."""
    image = ["image"]
    return Compose(
        [
            SpatialPadd(image, spatial_size=task.patch, method="end"),
            RandCropBoxByPosNegLabeld(image, "box", "label", task.patch, num_samples=task.samples, allow_smaller=True),
            ClipBoxToImaged("box", ["label"], "image", remove_empty=True),
            *(RandFlipBoxd(image, ["box"], ["image"], prob=0.5, spatial_axis=axis) for axis in task.mirror_axes),
            RandScaleIntensityd(image, 0.1, prob=0.5),
            RandShiftIntensityd(image, 0.1, prob=0.5),
            *([RandGaussianNoised(image, prob=0.5, std=task.noise)] if task.noise else []),
        ]
    )


def _for_network(patch: dict[str, Any]) -> Sample:
    """From MONAI's transforms, where a voxel reaches from its number to the next, to its centre at its number."""
    image, boxes, labels = (torch.as_tensor(patch[key]) for key in ("image", "box", "label"))
    plain = image.as_tensor() if hasattr(image, "as_tensor") else image
    return {"image": plain.float(), "box": boxes.float().reshape(-1, 6) - 0.5, "label": labels.long().reshape(-1)}
