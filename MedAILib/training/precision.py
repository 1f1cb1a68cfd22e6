"""In which numbers a network computes while it is trained: for "auto" half precision only where the hardware has it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from monai.inferers import SimpleInferer
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

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
        with _computing_in(self.kind, inputs.device.type):
            output = network(inputs, *args, **kwargs)
        return output.float()


class AutocastMaps(nn.Module):
    """A network of several maps by name, run in a number type on any device; what takes the maps sees float32.

    It has the attributes of the network, which stays the one whose weights are learnt.
    """

    def __init__(self, network: nn.Module, kind: torch.dtype) -> None:
        super().__init__()
        self.network, self.kind = network, kind

    def forward(self, images: Tensor) -> dict[str, list[Tensor]]:
        """Maps (B, channels, X, Y, Z), the finest first, by their name."""
        with _computing_in(self.kind, images.device.type):
            found = self.network(images)
        return {name: [one.float() for one in maps] for name, maps in found.items()}


@contextmanager
def _computing_in(kind: torch.dtype, device: str) -> Iterator[None]:
    if kind == torch.float32:
        yield
        return
    with torch.autocast(device, kind), _WithRightGradients():
        yield


class _WithRightGradients(TorchFunctionMode):
    """Has the processor convolve volumes in float32 that have fewer slices along their first axis than the kernel.

    In bfloat16 oneDNN (PyTorch 2.10 to 2.13) takes memory that nobody has written to into the gradients of such
    weights, and writes beyond its own, on processors with AVX-512 BF16: they are off, or no numbers.
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (torch.conv3d, torch.conv_transpose3d) and len(args) > 1 and args[0].device.type == "cpu":
            image, weights = args[:2]
            kernel = weights.shape[-3]
            if image.shape[-3] < kernel or (image.shape[-3] == 2 and kernel == 2):
                with torch.autocast("cpu", enabled=False):
                    return func(*(_in_float32(x) for x in args), **{k: _in_float32(x) for k, x in kwargs.items()})
        return func(*args, **kwargs)


def _in_float32(value: Any) -> Any:
    return value.float() if isinstance(value, Tensor) else value
