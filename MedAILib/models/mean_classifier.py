"""Several classifiers as one network: the mean of what they say of an image and of its mirror images."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

NEAREST = 1e-6  # to 0 and 1 that a mean by sigmoid may be, so that its logit stays finite


class MeanClassifier(nn.Module):
    """The logarithm of the mean probability of several networks, each over mirrored copies of the image.

    Its softmax is that mean, and its energy (minus the logarithm of the sum of exponentials) the mean of theirs; of
    outputs by themselves its sigmoid is their mean. So several networks lie in one bundle, which stock MONAI runs where
    MedAI is installed.

    Args:
        members: networks from an image to scores, whose softmax or sigmoid are probabilities.
        mirrors: the image's axes (0 the first) along which copies are mirrored, one axis at a time.
        sequence: the members take sequences of images (B, T, C, X, Y[, Z]).
        activation: what makes probabilities of their scores: "softmax", or "sigmoid" of each for itself.
        energy_of: the member (0 the first) whose energy alone is the whole's; None: that of all. With softmax only.

    Raises:
        ValueError: an activation or a member that there is not, or no members.
    """

    def __init__(
        self,
        members: Sequence[nn.Module],
        mirrors: Sequence[int] = (),
        sequence: bool = False,
        activation: str = "softmax",
        energy_of: int | None = None,
    ) -> None:
        super().__init__()
        if activation not in ("softmax", "sigmoid"):
            raise ValueError("probabilities are made by softmax or sigmoid")
        if not members:
            raise ValueError("a mean of networks needs one at least")
        if energy_of is not None and (activation != "softmax" or not 0 <= energy_of < len(members)):
            raise ValueError(f"the energy can't be that of member {energy_of}: of softmax it is of one of the members")
        self.members = nn.ModuleList(members)
        self.mirrors = tuple(mirrors)
        self.first_axis = 3 if sequence else 2
        self.activation = activation
        self.energy_of = slice(None) if energy_of is None else slice(energy_of, energy_of + 1)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, N) of images (B, C, X, Y[, Z]) or sequences."""
        copies = [x, *(x.flip(self.first_axis + axis) for axis in self.mirrors)]
        scores = torch.stack([torch.stack([member(copy) for member in self.members]) for copy in copies])
        if self.activation == "sigmoid":
            return scores.sigmoid().mean(dim=(0, 1)).clamp(NEAREST, 1 - NEAREST).logit()
        likely = scores.softmax(dim=3).mean(dim=(0, 1)).clamp_min(1e-12)
        return likely.log() + scores[:, self.energy_of].logsumexp(dim=3).mean(dim=(0, 1))[:, None]
