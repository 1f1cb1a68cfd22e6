"""A classifier that compares a picture with the pictures it knows, by what a network of photographs sees in them."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

# Normalised values to those of photographs, -1 to 1: an ultrasound picture's usual contrast and brightness.
CONTRAST, BRIGHTNESS = 0.37, -0.34
AT_ONCE = 8  # enlarged pictures whose inner values are held together


class KernelClassifier(nn.Module):
    """Scores that are a weighted sum of a picture's likeness to known ones, exp(-gamma * mean squared difference).

    The softmax of the scores is that of the sum; their energy (minus the logarithm of the sum of exponentials) is
    gamma times the mean squared difference from the known picture that is nearest: how unlike all of them it is.

    Args:
        backbone: a network from colour pictures (B, 3, rows, columns) to `features` numbers.
        classes: how many scores.
        centres: how many pictures it knows.
        size: what pictures are enlarged or reduced to for the backbone, both sides.
        gamma: how fast likeness falls with the difference of (standardised) features.
    """

    centre: Tensor
    spread: Tensor
    known: Tensor
    weights: Tensor
    bias: Tensor

    def __init__(self, backbone: nn.Module, classes: int, centres: int, size: int, gamma: float) -> None:
        super().__init__()
        self.backbone, self.size, self.gamma = backbone, size, gamma
        features = int(backbone.features)  # type: ignore[arg-type]
        shapes = {
            "centre": (features,),
            "known": (centres, features),
            "weights": (centres, classes),
            "bias": (classes,),
        }
        for name, shape in shapes.items():
            self.register_buffer(name, torch.zeros(shape))
        self.register_buffer("spread", torch.ones(features))

    def features_of(self, x: Tensor) -> Tensor:
        """What the backbone says (B, features), not standardised, of normalised pictures (B, 1 or 3, columns, rows)."""
        found = []
        smaller = max(x.shape[2:]) > self.size
        for part in torch.split(x.transpose(2, 3), AT_ONCE):
            sized = F.interpolate(part, (self.size, self.size), mode="bicubic", align_corners=False, antialias=smaller)
            coloured = (sized * CONTRAST + BRIGHTNESS).expand(-1, 3, -1, -1)
            if torch.is_grad_enabled() and len(x) > 1:  # computed again for the gradients, not held for all pictures
                found.append(checkpoint(self.backbone, coloured, use_reentrant=False))
            else:
                found.append(self.backbone(coloured))
        return torch.cat(found)

    def apart(self, features: Tensor) -> Tensor:
        """Gamma times the mean squared difference (B, centres) of (B, features), standardised, from those known."""
        squares = features.square().sum(dim=1)[:, None] + self.known.square().sum(dim=1)
        return self.gamma * (squares - 2 * features @ self.known.T).clamp_min(0) / features.shape[1]

    def sum_of(self, apart: Tensor) -> Tensor:
        """The weighted sum (B, classes) of likeness to pictures so far apart (B, centres)."""
        return (-apart).exp() @ self.weights + self.bias

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, classes) of pictures (B, 1 or 3, columns, rows)."""
        apart = self.apart((self.features_of(x) - self.centre) / self.spread)
        return self.sum_of(apart).log_softmax(dim=1) - apart.amin(dim=1, keepdim=True)
