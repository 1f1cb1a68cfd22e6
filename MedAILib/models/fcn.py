"""The fully convolutional network with three score layers, for pictures and volumes, of MONAI's blocks.

MONAI's own network of that name is a global convolutional network for pictures, which needs torchvision.
"""

from collections.abc import Sequence

import torch
from monai.networks.blocks import Convolution
from monai.networks.layers.factories import Conv, Pool
from torch import Tensor, nn
from torch.nn.functional import interpolate

SCORED = 3  # depths whose scores are summed


class FCN(nn.Module):
    """FCN-8s of Long, Shelhamer and Darrell (CVPR 2015): scores of the three coarsest levels, upsampled and summed.

    Each level halves the image by max pooling and convolves it; a convolution with kernels of 1 scores each of the last
    three. The coarsest scores are upsampled by a transposed convolution that is learnt from linear interpolation on,
    added to those of the level above, and so again; the sum is interpolated to the image's size. With five halvings
    that is by 8, as in the paper.

    Args:
        spatial_dims: 2 for pictures, 3 for volumes.
        in_channels: of the image.
        out_channels: number of scores for each voxel; a softmax comes after the network.
        channels: of each level, the finest first.
        strides: of the pooling before each level but the first; for all axes, or for each.
        convolutions: of each level, with kernels of 3, instance norm and ReLU.
        dropout: share of the coarsest level's channels that training leaves out.
    """

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        out_channels: int,
        channels: Sequence[int],
        strides: Sequence[int | Sequence[int]],
        *,
        convolutions: int = 2,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if len(strides) != len(channels) - 1 or not strides or convolutions < 1:
            raise ValueError(f"{len(channels)} levels need {len(channels) - 1} strides, one at least, and convolutions")
        steps = [(n,) * spatial_dims if isinstance(n, int) else tuple(n) for n in strides]
        if any(len(step) != spatial_dims or not set(step) <= {1, 2} for step in steps):
            raise ValueError(f"strides are 1 or 2 along each of the {spatial_dims} axes, not {list(strides)}")
        pool = Pool["max", spatial_dims]
        self.levels = nn.ModuleList()
        for number, width in enumerate(channels):
            before = channels[number - 1] if number else in_channels
            parts: list[nn.Module] = [pool(steps[number - 1], ceil_mode=True)] if number else []
            for place in range(convolutions):
                dropped = dropout if number == len(channels) - 1 else 0.0
                parts.append(
                    Convolution(spatial_dims, width if place else before, width, act="relu", dropout=dropped or None)
                )
            self.levels.append(nn.Sequential(*parts))
        scored = min(SCORED, len(channels))
        self.scores = nn.ModuleList(
            Conv["conv", spatial_dims](width, out_channels, kernel_size=1) for width in channels[-scored:]
        )
        self.upsampling = nn.ModuleList(
            _doubling(spatial_dims, out_channels, step) for step in steps[len(steps) - scored + 1 :]
        )

    def forward(self, x: Tensor) -> Tensor:
        """Scores (B, out_channels, X, Y[, Z]) of images (B, C, X, Y[, Z])."""
        found: list[Tensor] = []
        level = x
        for part in self.levels:
            level = part(level)
            found = [*found, level][-len(self.scores) :]
        total = self.scores[-1](found[-1])
        for number in range(len(found) - 2, -1, -1):
            total = self.scores[number](found[number]) + _cut(self.upsampling[number](total), found[number])
        mode = "bilinear" if x.ndim == 4 else "trilinear"
        return total if total.shape[2:] == x.shape[2:] else interpolate(total, size=x.shape[2:], mode=mode)


def _doubling(axes: int, channels: int, step: Sequence[int]) -> nn.Module:
    """A transposed convolution of so many channels that begins as linear interpolation by 2 (by 1 along some axes)."""
    kernel = [2 * n if n == 2 else 1 for n in step]
    layer: nn.Module = Conv["convtrans", axes](
        channels, channels, kernel_size=kernel, stride=list(step), padding=[n - 1 for n in step], bias=False
    )
    weights = torch.eye(channels)
    for size in kernel:
        weights = weights[..., None] * torch.tensor([0.25, 0.75, 0.75, 0.25] if size == 4 else [1.0])
    with torch.no_grad():
        layer.get_parameter("weight").copy_(weights)
    return layer


def _cut(larger: Tensor, like: Tensor) -> Tensor:
    """The beginning of a map, of another one's size: pooling rounds odd sizes up."""
    for axis in range(2, like.ndim):
        larger = larger.narrow(axis, 0, like.shape[axis])
    return larger
