"""How much memory a run takes, and what gives way when that would be too much."""

import torch

from MedAILib.estimate import FULL_PRECISION_BYTES


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on the CPU or a GPU."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def accumulator_dtype(elements: int) -> torch.dtype:
    """The number format for sums of overlapping windows: float32, or float16 where that would take over 3 GiB."""
    return torch.float32 if 4 * elements <= FULL_PRECISION_BYTES else torch.float16
