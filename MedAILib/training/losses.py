"""Losses that a segmentation task may name, over one output or over the heads of deep supervision."""

from typing import Any

import torch
from monai.losses import DeepSupervisionLoss, DiceCELoss, DiceFocalLoss
from torch import Tensor, nn
from torch.nn.modules.loss import _Loss

from MedAILib.training.task import SegmentationTask

LOSSES = ("dice_ce", "dice_focal", "weighted_ce")


class CrossEntropy(_Loss):
    """Cross-entropy of logits (N, C, *spatial) with labels (N, 1, *spatial), weighted by class."""

    def __init__(self, weight: Tensor | None) -> None:
        super().__init__()
        self.loss = nn.CrossEntropyLoss(weight)

    def forward(self, logits: Tensor, label: Tensor) -> Tensor:
        result: Tensor = self.loss(logits, label[:, 0].long())
        return result


class SupervisedHeads(nn.Module):
    """A loss over a network's output (N, C, *spatial), or over the heads that DynUNet stacks along axis 1.

    Args:
        loss: of one output.
        weights: of the heads, finest first.
        axes: how many spatial axes there are.
    """

    def __init__(self, loss: _Loss, weights: list[float], axes: int) -> None:
        super().__init__()
        self.single, self.axes = loss, axes
        self.several = DeepSupervisionLoss(loss, weights=[weight / sum(weights) for weight in weights])

    def forward(self, output: Tensor, label: Tensor) -> Tensor:
        if output.ndim == self.axes + 3:
            result: Tensor = self.several(list(output.unbind(1)), label)
        else:
            result = self.single(output, label)
        return result


def build_loss(task: SegmentationTask, device: torch.device) -> SupervisedHeads:
    """The task's loss; background counts in cross-entropy and focal loss, not in Dice."""
    weight = torch.tensor(task.class_weights, device=device) if task.class_weights else None
    shared: dict[str, Any] = {"to_onehot_y": True, "softmax": True, "batch": True}
    loss: _Loss
    if task.loss == "dice_focal":
        # include_background: MONAI leaves the background out of the focal part too, which would let it be ignored.
        loss = DiceFocalLoss(include_background=True, weight=weight, gamma=2.0, **shared)
    elif task.loss == "weighted_ce":
        loss = CrossEntropy(weight)
    else:
        loss = DiceCELoss(include_background=False, weight=weight, **shared)
    return SupervisedHeads(loss, task.deep_supervision_weights or [1.0], int(task.network.get("spatial_dims", 3)))
