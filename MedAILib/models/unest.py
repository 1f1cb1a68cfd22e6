"""UNesT, a nested transformer under a U-Net's decoder, with the names of tensors that its two bundles of the zoo have.

Written from its published description (Yu et al., Medical Image Analysis 2023; Zhang et al., arXiv 2105.12723), since
MONAI itself has no such network; convolutional blocks are MONAI's.
"""

from collections.abc import Sequence
from typing import Any

import torch
from monai.networks.blocks import Convolution, UnetOutBlock, UnetResBlock
from monai.networks.blocks.dynunet_block import get_conv_layer
from torch import Tensor, nn

SIZE = 96  # of its window along each axis, in voxels
LEVELS = 3
BLOCKS = (64, 8, 1)  # that a level's image is cut into, for attention within each
EPSILON = 1e-6


class UNesT(nn.Module):
    """The network: (1, C, 96, 96, 96) to (1, `out_channels`, 96, 96, 96).

    Args:
        in_channels: 1.
        out_channels: of the output.
        feature_size: channels of the decoder's last level are twice this.
        patch_size: voxels along each axis that become one token.
        depths: layers of each of the three levels.
        num_heads: of attention, for each level.
        embed_dim: length of a token, for each level; the last ones are 16 and 32 times `feature_size`.
        img_size, window_size, norm_name, conv_block, res_block, dropout_rate: as published bundles write them; other
            values than the usual ones are refused.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        *,
        feature_size: int = 16,
        patch_size: int = 4,
        depths: Sequence[int] = (2, 2, 8),
        num_heads: Sequence[int] = (4, 8, 16),
        embed_dim: Sequence[int] = (128, 256, 512),
        **usual: Any,
    ) -> None:
        super().__init__()
        _require_usual(usual)
        if in_channels != 1 or not len(depths) == len(num_heads) == len(embed_dim) == LEVELS:
            raise ValueError("UNesT takes one channel, and has three levels")
        if SIZE % (patch_size * 4):
            raise ValueError(f"patches of {patch_size} voxels don't fit a window of {SIZE}")
        self.nestViT = _NestedTransformer(patch_size, depths, num_heads, embed_dim)
        self.encoder1 = _Layer(1, 2 * feature_size)
        self.encoder2 = _Upward(embed_dim[0], 4 * feature_size)
        self.encoder3 = _Layer(embed_dim[0], 8 * feature_size)
        self.encoder4 = _Layer(embed_dim[1], 16 * feature_size)
        self.decoder5 = _Joining(64 * feature_size, 32 * feature_size)
        self.decoder4 = _Joining(embed_dim[2], 16 * feature_size)
        self.decoder3 = _Joining(16 * feature_size, 8 * feature_size)
        self.decoder2 = _Joining(8 * feature_size, 4 * feature_size)
        self.decoder1 = _Joining(4 * feature_size, 2 * feature_size)
        self.encoder10 = Convolution(
            3, 32 * feature_size, 64 * feature_size, strides=2, adn_ordering="ADN", dropout=0.0
        )
        self.out = UnetOutBlock(3, 2 * feature_size, out_channels)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of a window."""
        deepest, tokens, fine, middle, coarse = self.nestViT(image)
        found = self.decoder5(self.encoder10(deepest), coarse)
        found = self.decoder4(found, self.encoder4(middle))
        found = self.decoder3(found, self.encoder3(fine))
        found = self.decoder2(found, self.encoder2(tokens))
        return torch.as_tensor(self.out(self.decoder1(found, self.encoder1(image))))


def _require_usual(told: dict[str, Any]) -> None:
    """Raise `ValueError` for an argument that would make another network."""
    usual: dict[str, Any] = {
        "img_size": [SIZE] * 3,
        "window_size": [7, 7, 7],
        "norm_name": "instance",
        "conv_block": False,
        "res_block": True,
        "dropout_rate": 0.0,
    }
    for key, value in told.items():
        plain = list(value) if isinstance(value, (list, tuple)) else value
        if key not in usual or plain != usual[key]:
            raise ValueError(f"'{key}' = {value!r} is not how UNesT is built here")


class _NestedTransformer(nn.Module):
    """Tokens of patches through three levels; attention stays within blocks, which each level joins eight to one."""

    def __init__(self, patch: int, depths: Sequence[int], heads: Sequence[int], widths: Sequence[int]) -> None:
        super().__init__()
        side = SIZE // patch // 4  # tokens along an edge of a block
        self.patch_embed = _Patches(patch, widths[0])
        self.levels = nn.ModuleList(
            _Level(BLOCKS[n], side, widths[n], heads[n], depths[n], widths[n - 1] if n else None) for n in range(LEVELS)
        )
        self.norm = nn.LayerNorm(widths[-1], EPSILON)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """The normalised last level, the tokens, and what each of the three levels makes; all (1, C, X, Y, Z)."""
        found = [self.patch_embed(image)]
        for level in self.levels:
            found.append(level(found[-1]))
        deepest = self.norm(found[-1].movedim(1, -1)).movedim(-1, 1)
        return deepest, *found


class _Patches(nn.Module):
    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv3d(1, width, kernel_size=patch, stride=patch)

    def forward(self, image: Tensor) -> Tensor:
        return torch.as_tensor(self.proj(image))


class _Level(nn.Module):
    """Halve the image (but for the first level), and let the tokens of each block see each other."""

    def __init__(self, blocks: int, side: int, width: int, heads: int, depth: int, before: int | None) -> None:
        super().__init__()
        self.side = side
        self.pos_embed = nn.Parameter(torch.zeros(1, blocks, side**3, width))
        self.pool = nn.Identity() if before is None else _Pool(before, width)
        self.transformer_encoder = nn.Sequential(*(_Transformer(width, heads) for _ in range(depth)))

    def forward(self, image: Tensor) -> Tensor:
        image = self.pool(image).movedim(1, -1)
        side, (x, y, z), width = self.side, [n // self.side for n in image.shape[1:4]], image.shape[-1]
        cut = image.reshape(1, x, side, y, side, z, side, width).permute(0, 1, 3, 5, 2, 4, 6, 7)
        tokens = self.transformer_encoder(cut.reshape(1, x * y * z, side**3, width) + self.pos_embed)
        back = tokens.reshape(1, x, y, z, side, side, side, width).permute(0, 7, 1, 4, 2, 5, 3, 6)
        return torch.as_tensor(back.reshape(1, width, x * side, y * side, z * side))


class _Pool(nn.Module):
    def __init__(self, before: int, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(before, width, kernel_size=3, padding=1)
        self.norm = nn.LayerNorm(width, EPSILON)
        self.pool = nn.MaxPool3d(kernel_size=3, stride=2, padding=1)

    def forward(self, image: Tensor) -> Tensor:
        return torch.as_tensor(self.pool(self.norm(self.conv(image).movedim(1, -1)).movedim(-1, 1)))


class _Transformer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width, EPSILON)
        self.attn = _Attention(width, heads)
        self.norm2 = nn.LayerNorm(width, EPSILON)
        self.mlp = _Perceptron(width)

    def forward(self, tokens: Tensor) -> Tensor:
        tokens = tokens + self.attn(self.norm1(tokens))
        return torch.as_tensor(tokens + self.mlp(self.norm2(tokens)))


class _Attention(nn.Module):
    """Attention among the tokens of each block: (1, blocks, tokens, width)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"tokens of length {width} are not shared out evenly to {heads} heads")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        _, blocks, count, width = tokens.shape
        parts = self.qkv(tokens).reshape(1, blocks, count, 3, self.heads, width // self.heads)
        wanted, offered, given = parts.permute(3, 0, 4, 1, 2, 5)
        weights = (wanted @ offered.transpose(-2, -1)) * wanted.shape[-1] ** -0.5
        # (1, heads, blocks, tokens, part): the heads come last in a token, as the published weights have it.
        mixed = (weights.softmax(dim=-1) @ given).permute(0, 2, 3, 4, 1).flatten(3)
        return torch.as_tensor(self.proj(mixed))


class _Perceptron(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, tokens: Tensor) -> Tensor:
        return torch.as_tensor(self.fc2(nn.functional.gelu(self.fc1(tokens))))


class _Layer(nn.Module):
    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layer = UnetResBlock(3, before, after, kernel_size=3, stride=1, norm_name="instance")

    def forward(self, image: Tensor) -> Tensor:
        return torch.as_tensor(self.layer(image))


class _Upward(nn.Module):
    """Double the image's size, and one more convolution of single voxels."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.transp_conv_init = _transposed(before, after, 2)
        self.blocks = nn.ModuleList([_transposed(after, after, 1)])

    def forward(self, image: Tensor) -> Tensor:
        return torch.as_tensor(self.blocks[0](self.transp_conv_init(image)))


class _Joining(nn.Module):
    """Double the coarse image's size and join it with the finer one."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.transp_conv = _transposed(before, after, 2)
        self.conv_block = UnetResBlock(3, 2 * after, after, kernel_size=3, stride=1, norm_name="instance")

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return torch.as_tensor(self.conv_block(torch.cat((self.transp_conv(coarse), fine), dim=1)))


def _transposed(before: int, after: int, times: int) -> nn.Module:
    layer: nn.Module = get_conv_layer(
        3, before, after, kernel_size=times, stride=times, conv_only=True, is_transposed=True
    )
    return layer
