"""What decisions by independent outputs share: a sigmoid for each, and a loss for each."""

import torch
from monai.losses import FocalLoss
from torch import Tensor, nn

from MedAILib.training.decision import Decision, LossOptions

NEAREST = 1e-6  # to 0 and 1 that a probability may be, so that its logit stays finite


class IndependentOutputs(Decision):
    """A decision whose outputs are log odds, each of something for itself."""

    activation = "sigmoid"

    def taught_loss(self) -> nn.Module:
        """Binary cross-entropy with the teachers' probabilities."""
        return nn.BCEWithLogitsLoss()

    def likely(self, scores: Tensor) -> Tensor:
        """The sigmoid of each."""
        return scores.sigmoid()

    def raw(self, likely: Tensor) -> Tensor:
        """The logit of each."""
        return likely.clamp(NEAREST, 1 - NEAREST).logit()


class OutputLoss(nn.Module):
    """Binary cross-entropy or focal loss of each output (B, outputs), the mean of all, weighted.

    Args:
        options: which of both, and how far targets are smoothed.
    """

    def __init__(self, options: LossOptions) -> None:
        super().__init__()
        self.smoothing = options.smoothing
        self.loss: nn.Module = (
            FocalLoss(reduction="none") if options.loss == "focal" else nn.BCEWithLogitsLoss(reduction="none")
        )

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        smooth = targets * (1 - self.smoothing) + self.smoothing / 2
        found: Tensor = (self.loss(scores, smooth) * self.weights(targets)).mean()
        return found

    def weights(self, targets: Tensor) -> Tensor:
        """How much each output of each image counts, of a shape that broadcasts to (B, outputs)."""
        return torch.ones(1, device=targets.device)
