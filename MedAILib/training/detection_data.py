"""Images with boxes as a detector learns from them: how they are prepared and varied."""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from MedAILib.bundle_plan import BundlePlan, plan_of
from MedAILib.config import Config
from MedAILib.inference.prepare import prepare
from MedAILib.models.steps import preprocessing_steps
from MedAILib.progress import Progress
from MedAILib.training.boxed_changes import OWNER, POINTS, REACH, random_patches
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
        the next, as MONAI's transforms have it; "label" (N,), class numbers from 0 on; and what each finding's box is
        made of when the image is turned (see `boxed_changes`): "points" and "reach" (M, 3) in voxels, whose middles
        are at their numbers, "owner" (M,), the finding's number.

    Raises:
        InputError: as `prepare`.
    """
    working, frame = prepare(image.volume, preprocessing_steps(plan_of_task(task).preprocessing), Progress())
    axes, offset, scale = list(frame.axes), np.array(frame.offset), np.array(frame.scale)
    shape = np.array(frame.shape)
    found: list[tuple[NDArray[np.float64], int, NDArray[np.float64], NDArray[np.float64]]] = []
    for number, box in enumerate(image.boxes):
        ends = (np.array([box.low_ijk, box.high_ijk])[:, axes] - offset) / scale
        faces = np.concatenate([np.maximum(ends.min(axis=0) + 0.5, 0.0), np.minimum(ends.max(axis=0) + 0.5, shape)])
        if (faces[3:] <= faces[:3]).any():
            continue
        points, reach = ends.mean(axis=0)[None], abs(ends[1] - ends[0]) / 2
        if image.outermost:
            points, reach = (image.outermost[number][:, axes] - offset) / scale, abs(0.5 / scale)
        found.append((faces, task.names.index(box.label), points, np.broadcast_to(reach, points.shape)))
    counts = [len(points) for *_, points, _ in found]
    told = {
        "box": np.array([faces for faces, *_ in found], np.float32).reshape(-1, 6),
        "label": np.array([label for _, label, *_ in found], np.int64),
        POINTS: np.concatenate([np.empty((0, 3)), *(points for *_, points, _ in found)]),
        REACH: np.concatenate([np.empty((0, 3)), *(reach for *_, reach in found)]),
        OWNER: np.repeat(np.arange(len(found)), counts),
    }
    return {"image": working.contiguous(), **{key: torch.from_numpy(value) for key, value in told.items()}}


class Batches:
    """Patches of the images, drawn anew in every epoch by the seed and the epoch's number.

    Args:
        samples: as `prepare_image` gives them.
        task: the task.
        epoch: how many epochs are over.
    """

    def __init__(self, samples: Sequence[Sample], task: DetectionTask, epoch: int) -> None:
        self._samples, self._task, self._epoch = list(samples), task, epoch
        self._steps = random_patches(task)

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
            for patch in self._steps(self._samples[number]):
                waiting.append(patch)
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
    steps = random_patches(task)
    steps.set_random_state(seed)
    return list(steps(sample))
