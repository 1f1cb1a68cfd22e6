"""Several classifiers as one network: the mean of what they say of an image and of its mirror images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class MeanClassifier(nn.Module):
    """The logarithm of the mean probability of several networks, each over mirrored copies of the image.

    Its softmax is that mean, and its energy (the logarithm of the sum of exponentials) the mean of theirs. So several
    networks lie in one bundle, which stock MONAI runs where MedAI is installed.

    Args:
        members: networks from an image to scores, whose softmax are probabilities.
        mirrors: the image's axes (0 the first) along which copies are mirrored, one axis at a time.
        sequence: the members take sequences of images (B, T, C, X, Y[, Z]).
    """

    def __init__(self, members: Sequence[nn.Module], mirrors: Sequence[int] = (), sequence: bool = False) -> None:
        super().__init__()
        if not members:
            raise ValueError("a mean of networks needs one at least")
        self.members = nn.ModuleList(members)
        self.mirrors = tuple(mirrors)
        self.first_axis = 3 if sequence else 2

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, N) of images (B, C, X, Y[, Z]) or sequences."""
        copies = [x, *(x.flip(self.first_axis + axis) for axis in self.mirrors)]
        scores = torch.stack([member(copy) for copy in copies for member in self.members])
        likely = scores.softmax(dim=2).mean(dim=0).clamp_min(1e-12)
        return likely.log() + scores.logsumexp(dim=2).mean(dim=0)[:, None]
