"""A network as a function from images to each class's log odds, whose passes are counted while it is explained."""

import torch
from torch import Tensor, nn

from MedAILib.inference.classify import ClassifyRecipe, probabilities_of
from MedAILib.progress import Progress


class Counted(nn.Module):
    """The network as a function from a batch to each class's log odds; each pass is told, and can be cancelled.

    Args:
        network: in evaluation mode.
        recipe: the model's.
        number: of the class that is explained.
        covariates: of the image, where the model takes some.
    """

    def __init__(self, network: nn.Module, recipe: ClassifyRecipe, number: int, covariates: Tensor | None) -> None:
        super().__init__()
        self.network = network
        self.number = number
        self.covariates = covariates
        self._recipe = recipe
        self._progress, self._part = Progress(), (0, 1)
        self._images, self._expected = 0, 1

    def of(self, network: nn.Module) -> "Counted":
        """The same for another network, whose passes count with these."""
        self.network = network
        return self

    def report_to(self, progress: Progress, part: int, parts: int) -> None:
        """Say who hears of passes, and which of several parts of an image this is."""
        self._progress, self._part = progress, (part, parts)

    def expect(self, images: int) -> None:
        """Say how many images are to pass, for the progress."""
        self._expected = max(images, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Log odds (B, C) of a batch."""
        done, parts = self._part
        passed = min(self._images, self._expected)
        self._progress.step(done * self._expected + passed, parts * self._expected, "Explaining")
        self._images += len(x)
        extra = () if self.covariates is None else (self.covariates.expand(len(x), -1),)
        output = self.network(x, *extra)
        output = output[0] if isinstance(output, (list, tuple)) else output
        if self._recipe.classes.kind == "ordinal":
            return probabilities_of(output, self._recipe).clamp_min(1e-12).log()
        if self._recipe.outputs < len(self._recipe.classes.names):
            return torch.cat((-output, output), dim=1)
        return _against_others(output) if self._recipe.activation == "softmax" else output


def _against_others(scores: Tensor) -> Tensor:
    """Log odds (B, C) of the softmax of scores: each score less the log of the sum of exponentials of the others."""
    count = scores.shape[1]
    others = [torch.cat((scores[:, :n], scores[:, n + 1 :]), dim=1).logsumexp(dim=1) for n in range(count)]
    return scores - torch.stack(others, dim=1)
