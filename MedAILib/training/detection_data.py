"""Images with boxes as a detector learns from them: how they are prepared and varied."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from monai.apps.detection.transforms.dictionary import ClipBoxToImaged, RandCropBoxByPosNegLabeld, RandFlipBoxd
from monai.transforms import Compose, RandGaussianNoised, RandScaleIntensityd, RandShiftIntensityd, SpatialPadd
from torch import Tensor

from MedAILib.bundle_plan import BundlePlan, plan_of
from MedAILib.config import Config
from MedAILib.inference.prepare import prepare
from MedAILib.models.steps import preprocessing_steps
from MedAILib.progress import Progress
from MedAILib.training.boxed_images import BoxedImage
from MedAILib.training.detection_export import inference, metadata
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.processes import own_part, process_count

Sample = dict[str, Tensor]


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
        begun: list[Sample] = []  # what fills up a last batch, where several processes need a part of it each
        for number in order:
            sample = {key: value.clone() for key, value in self._samples[number].items()}
            for patch in self._steps(sample):
                waiting.append(_for_network(patch))
                if len(waiting) == self._task.batch:
                    begun = begun or waiting
                    yield self._own(waiting, begun)
                    waiting = []
        if waiting:
            yield self._own(waiting, begun or waiting)

    def _own(self, batch: list[Sample], begun: list[Sample]) -> list[Sample]:
        """What of a batch is this process's of a batch; all of it where there is one process."""
        return batch if process_count() == 1 else own_part(batch, self._task.batch, begun)


def changed_patches(sample: Sample, task: DetectionTask, seed: int) -> list[Sample]:
    """What an epoch shows of an image, as `prepare_image` gives it: its patches, cut and changed by the seed."""
    steps = _steps(task)
    steps.set_random_state(seed)
    return [_for_network(patch) for patch in steps({key: value.clone() for key, value in sample.items()})]


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
