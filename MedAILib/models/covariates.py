"""A classifier of an image together with numbers beside it, such as age and laboratory values."""

import torch
from torch import Tensor, nn


class CovariateClassifier(nn.Module):
    """A backbone's features and the covariates, through one hidden layer, to the classes.

    Args:
        backbone: a network from an image to a vector of features.
        features: length of that vector.
        covariates: how many numbers there are beside the image.
        out_channels: of the output.
        hidden: width of the layer that sees both.
    """

    def __init__(
        self, backbone: nn.Module, features: int, covariates: int, out_channels: int, hidden: int = 32
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = nn.Sequential(nn.Linear(features + covariates, hidden), nn.ReLU(), nn.Linear(hidden, out_channels))

    def forward(self, x: Tensor, covariates: Tensor) -> Tensor:
        """Scores (B, out_channels) of images (B, C, X, Y[, Z]) and covariates (B, covariates)."""
        return torch.as_tensor(self.head(torch.cat((self.backbone(x), covariates.to(x.dtype)), dim=1)))
