"""How much memory a run takes, and what gives way when that would be too much."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from MedAILib.errors import InputError
from MedAILib.estimate import FULL_PRECISION_BYTES


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that memory ran out, on the CPU or a GPU."""
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


@contextmanager
def memory_told(doing: str, remedy: str = "give a region of interest, or close other programs") -> Iterator[None]:
    """Say it in one sentence where memory runs out inside.

    Args:
        doing: what was done then ("spleen ran on CT 3").
        remedy: what the user may try.

    Raises:
        InputError: memory ran out.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise InputError(f"Memory ran out while {doing}; {remedy}.") from error


def accumulator_dtype(elements: int) -> torch.dtype:
    """The number format for sums of overlapping windows: float32, or float16 where that would take over 3 GiB."""
    return torch.float32 if 4 * elements <= FULL_PRECISION_BYTES else torch.float16
