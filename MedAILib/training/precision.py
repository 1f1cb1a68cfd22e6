"""In which numbers a network computes while it is trained: for "auto" half precision only where the hardware has it."""

from collections.abc import Callable
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor

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


class AutocastInferer(SimpleInferer):
    """Runs the network in a number type on any device; the loss sees float32."""

    def __init__(self, kind: torch.dtype) -> None:
        super().__init__()
        self.kind = kind

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(inputs.device.type, self.kind, enabled=self.kind != torch.float32):
            output = network(inputs, *args, **kwargs)
        return output.float()
