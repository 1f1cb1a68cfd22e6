"""Patches blended with other patches of their batch (Zhang et al., ICLR 2018), and the loss that goes with it."""

from typing import Any

import torch
from monai.engines import default_prepare_batch
from torch import Tensor, nn


class Mixup(nn.Module):
    """Blends a batch with itself in another order, and takes the loss against both labels in the same shares.

    Random numbers are PyTorch's own, which a training seeds before each step.

    Args:
        loss: of an output and a label (B, 1, X, Y[, Z]).
        prob: how often a batch is blended.
        alpha: shares are of the beta distribution of (alpha, alpha).
    """

    def __init__(self, loss: nn.Module, prob: float, alpha: float) -> None:
        super().__init__()
        self.loss, self.prob = loss, prob
        self.shares = torch.distributions.Beta(alpha, alpha)
        self.share = 1.0

    def prepare(self, batch: Any, device: torch.device, non_blocking: bool = False, **_: Any) -> tuple[Tensor, Tensor]:
        """Blended images (B, C, X, Y[, Z]) of a batch, and the labels as they are."""
        image, label = default_prepare_batch(batch, device, non_blocking)[:2]
        image, label = torch.as_tensor(image), torch.as_tensor(label)
        self.share = float(self.shares.sample()) if float(torch.rand(())) < self.prob else 1.0
        return (image if self.share == 1 else torch.lerp(image.roll(1, 0), image, self.share)), label

    def forward(self, output: Tensor, label: Tensor) -> Tensor:
        """The loss of what a network says of the images that were blended last."""
        own: Tensor = self.loss(output, label)
        return own if self.share == 1 else self.share * own + (1 - self.share) * self.loss(output, label.roll(1, 0))
