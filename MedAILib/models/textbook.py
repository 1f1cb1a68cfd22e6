"""The small convolutional network that tutorials show; no network of MONAI's has this shape."""

from collections.abc import Sequence
from math import prod

from monai.networks.layers.factories import Conv, Dropout, Pool
from torch import Tensor, nn


class TextbookCNN(nn.Module):
    """Blocks of convolution, ReLU and max pooling, then a dense layer, dropout and the scores.

    Args:
        spatial_dims: 2 for pictures, 3 for volumes.
        in_channels: of the image.
        out_channels: number of scores; a sigmoid or softmax comes after the network.
        in_shape: size of the image along each axis, since the dense layer sees every place.
        features: channels of each block, each of which halves the size.
        dense: width of the dense layer.
        dropout: share of its values that training leaves out.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        in_shape: Sequence[int],
        *,
        features: Sequence[int] = (32, 64, 128),
        dense: int = 512,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if len(in_shape) != spatial_dims or min(in_shape) < 2 ** len(features):
            raise ValueError(f"an image of {list(in_shape)} can't be halved {len(features)} times")
        convolution, pool, dropped = Conv["conv", spatial_dims], Pool["max", spatial_dims], Dropout["dropout", 1]
        layers: list[nn.Module] = []
        for before, after in zip((in_channels, *features), features, strict=False):
            layers += [convolution(before, after, kernel_size=3, padding=1), nn.ReLU(), pool(2)]
        self.features = nn.Sequential(*layers)
        seen = features[-1] * prod(size // 2 ** len(features) for size in in_shape)
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(seen, dense), nn.ReLU(), dropped(dropout))
        self.scores = nn.Linear(dense, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, out_channels) of images (B, C, X, Y[, Z])."""
        found: Tensor = self.scores(self.dense(self.features(x)))
        return found
