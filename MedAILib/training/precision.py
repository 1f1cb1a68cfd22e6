"""In which numbers a network computes while it is trained: for "auto" half precision only where the hardware has it."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn

PRECISIONS = ("auto", "float32", "bfloat16")


def training_type(precision: str, device: torch.device) -> torch.dtype:
    """The number type for a task's `precision`; "auto" is bfloat16 where the device computes in it, else float32."""
    if precision == "auto":
        return torch.bfloat16 if computes_bfloat16(device) else torch.float32
    return torch.bfloat16 if precision == "bfloat16" else torch.float32


def type_told(precision: str, device: torch.device) -> str:
    """The number type as a model card names it."""
    return str(training_type(precision, device)).removeprefix("torch.")


def computes_bfloat16(device: torch.device) -> bool:
    """Whether a device has instructions of its own for bfloat16, and does not only imitate them."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


class SteadyConv3d(nn.Conv3d):
    """A convolution that is done in float32 where PyTorch's in bfloat16 can't be trusted on a CPU.

    Over two slices and with a kernel of three, its gradients of weights (oneDNN's, PyTorch 2.10 to 2.13) take in memory
    that nobody has written to: most often right, sometimes off, sometimes no numbers.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.device.type == "cpu" and input.shape[2] <= 2 and self.kernel_size[0] > 1:
            with torch.autocast("cpu", enabled=False):
                found: Tensor = super().forward(input.float())
            return found
        return super().forward(input)


def steady(network: nn.Module) -> None:
    """Make a network's convolutions `SteadyConv3d`; its parameters and their names stay."""
    for part in network.modules():
        if type(part) is nn.Conv3d:
            part.__class__ = SteadyConv3d


class AutocastInferer(SimpleInferer):
    """Runs the network in a number type on any device; the loss sees float32."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.kind = kind

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        if self.kind == torch.bfloat16 and isinstance(network, nn.Module):
            steady(network)
        with torch.autocast(inputs.device.type, self.kind, enabled=self.kind != torch.float32):
            output = network(inputs, *args, **kwargs)
        return output.float()
