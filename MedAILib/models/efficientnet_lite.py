"""The first blocks of EfficientNet-Lite0 (Tan and Le 2019, without its gates): what it sees in a picture, as numbers.

MONAI's EfficientNets have gates and another activation, so that weights of this one, small enough to ship, don't fit.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

# For each stage: blocks, kernel, stride of the first block, widening inside of a block, channels.
STAGES = (
    *((1, 3, 1, 1, 16), (2, 3, 2, 6, 24), (2, 5, 2, 6, 40), (3, 3, 2, 6, 80)),
    *((3, 5, 1, 6, 112), (4, 5, 2, 6, 192), (1, 3, 1, 6, 320)),
)
STEM = 32
BLOCKS = sum(stage[0] for stage in STAGES)


class EfficientNetLite(nn.Module):
    """Mean and spread over the picture of each channel, after some of the blocks.

    Args:
        taps: numbers of these blocks, 0 to 15, rising; what comes after the last is left out.

    Attributes:
        features: how many numbers it gives for a picture.
    """

    def __init__(self, taps: Sequence[int]) -> None:
        super().__init__()
        if not taps or list(taps) != sorted(set(taps)) or not 0 <= taps[0] <= taps[-1] < BLOCKS:
            raise ValueError(f"taps are rising numbers of blocks, 0 to {BLOCKS - 1}, not {list(taps)}")
        self.taps = tuple(taps)
        self.stem = _Layer(3, STEM, 3, stride=2)
        blocks, channels = [], STEM
        for count, kernel, stride, widening, out in STAGES:
            for number in range(count):
                blocks.append(_Block(channels, out, kernel, stride if number == 0 else 1, widening))
                channels = out
        self.blocks = nn.ModuleList(blocks[: taps[-1] + 1])
        self.features = sum(2 * blocks[tap].channels for tap in taps)

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, features) of colour pictures (B, 3, rows, columns), values -1 to 1, sides a multiple of 32."""
        x = self.stem(x)
        found = []
        for number, block in enumerate(self.blocks):
            x = block(x)
            if number in self.taps:
                spread = (x.var(dim=(2, 3), correction=0) + 1e-8).sqrt()
                found += [x.mean(dim=(2, 3)), spread]
        return torch.cat(found, dim=1)


class _Layer(nn.Module):
    """Convolution, batch norm, and ReLU6 unless it is the last of a block."""

    def __init__(
        self, inputs: int, out: int, kernel: int, stride: int = 1, groups: int = 1, last: bool = False
    ) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(inputs, out, kernel, stride, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(out, eps=1e-3)
        self.activation = nn.Identity() if last else nn.ReLU6()
        before = (kernel - stride) // 2  # TensorFlow's "same": of an odd number the larger half lies behind
        self.margins = (before, kernel - stride - before) * 2

    def forward(self, x: Tensor) -> Tensor:
        return torch.as_tensor(self.activation(self.norm(self.convolution(F.pad(x, self.margins)))))


class _Block(nn.Module):
    """A residual block that is wide inside; its middle layer works on each channel alone."""

    def __init__(self, inputs: int, out: int, kernel: int, stride: int, widening: int) -> None:
        super().__init__()
        inner, self.channels = inputs * widening, out
        self.residual = stride == 1 and inputs == out
        self.layers = nn.Sequential(
            *([_Layer(inputs, inner, 1)] if widening > 1 else []),
            _Layer(inner, inner, kernel, stride, groups=inner),
            _Layer(inner, out, 1, last=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        found = self.layers(x)
        return found + x if self.residual else torch.as_tensor(found)
