"""The number format that a network computes in, as the user asked and the device can."""

import torch

from MedAILib.progress import Progress
from MedAILib.request import RunOptions

HALF, FULL = "float16", "float32"
# Half precision of some processors, by an engine whose name says so.
ON_CPU = "bfloat16"


def number_format(device: torch.device, options: RunOptions, usual: str = FULL) -> str:
    """What a network computes in on a device: half precision on a GPU alone, and there where it was asked for.

    Args:
        device: where the network runs.
        options: of the run.
        usual: what it computes in on a GPU where the user leaves it to the model.
    """
    if device.type != "cuda":
        return FULL
    return {"auto": usual, "float32": FULL, "half": HALF}[options.precision]


def computed_in(number: str, engine: str) -> str:
    """What a network computed in, for provenance: the engine's own format where its name has one."""
    return ON_CPU if ON_CPU in engine else number


def casting(device: torch.device, number: str) -> torch.autocast:
    """The context in which a network computes in half precision where it can, or as it is."""
    return torch.autocast(device.type, enabled=number == HALF)


def say_if_refused(device: torch.device, options: RunOptions, progress: Progress) -> None:
    """Warn where half precision was asked for and the device has none."""
    if options.precision == "half" and device.type != "cuda":
        progress.warn("Half precision needs an NVIDIA GPU; this run computes in float32.")
