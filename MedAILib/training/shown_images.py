"""What a classification network is shown of a batch: its images changed, and targets or what teachers say of these."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from MedAILib.training.augment_images import Augmentation
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.lesson import Lesson
from MedAILib.training.precision import training_type

TEACHERS_AT_ONCE = 2


class ShownImages:
    """Prepares batches of a lesson, as MONAI's trainer asks for them.

    Args:
        task: says how images are changed, and what a network's output means.
        lesson: has the teachers; without any the targets count.
        device: where it is computed.
    """

    def __init__(self, task: ClassificationTask, lesson: Lesson, device: torch.device) -> None:
        self._decision, self._teachers, self._flip = task.decided, lesson.teachers, task.mirrored_axes
        self._kind = training_type(task.precision, device)
        self._change = Augmentation(task.augmentation, task.frames > 0)
        self._choice = torch.Generator()

    def reseed(self, seed: int) -> None:
        """Make all that is random from here on a function of the seed."""
        self._change.reseed(seed)
        self._choice.manual_seed(seed)
        torch.manual_seed(seed)  # of dropout

    def prepare(self, batch: Sequence[Tensor], device: Any, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Images (B, ...) and targets (B, outputs) on the device."""
        images, targets = self._change.mixed(self._change(batch[0].to(device)), batch[1].to(device))
        return images, self._taught(images) if self._teachers else targets

    @torch.no_grad()
    def _taught(self, images: Tensor) -> Tensor:
        """Mean probabilities (B, outputs) of some teachers, each of which sees the images as they are or mirrored.

        Over the epochs that amounts to the mean of all teachers over all mirrored copies.
        """
        chosen = torch.randperm(len(self._teachers), generator=self._choice)[:TEACHERS_AT_ONCE].tolist()
        total = torch.zeros(1, device=images.device)
        for number in chosen:
            axes = [axis for axis in self._flip if float(torch.rand(1, generator=self._choice)) < 0.5]
            with torch.autocast(images.device.type, self._kind, enabled=self._kind != torch.float32):
                found = self._teachers[number](images.flip(axes) if axes else images)
            total = total + self._decision.likely(found.float())
        return total / len(chosen)
