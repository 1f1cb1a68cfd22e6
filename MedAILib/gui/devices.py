"""The devices that the user can choose from, known without PyTorch."""

import shutil
from collections.abc import Sequence
from pathlib import Path

from slicer.i18n import tr as _

from MedAILib.gui.words import size_text
from MedAILib.worker.status import Device

# One folder for each card, where the driver runs (Linux).
DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")


def nvidia_cards() -> int:
    """How many NVIDIA cards have a driver here; 1 where their number can't be known without asking them."""
    if DRIVER_FOLDER.is_dir():
        return sum(1 for each in DRIVER_FOLDER.iterdir())
    return 1 if shutil.which("nvidia-smi") else 0


def device_choices(cards: int, told: Sequence[Device] = ()) -> list[tuple[str, str]]:
    """Names of devices, as a run takes them, each with what the user reads.

    Args:
        cards: how many NVIDIA cards there are here.
        told: what the worker said of its devices, once it did: those may be another computer's.
    """
    choices = [("auto", _("Automatic (the GPU, if there is one)")), ("cpu", _("CPU"))]
    gpus = [device for device in told if device.device != "cpu"]
    for gpu in gpus:
        free = _(", {size} free").format(size=size_text(gpu.free_bytes)) if gpu.total_bytes else ""
        choices.append((gpu.device, f"{gpu.device}: {gpu.title}{free}"))
    if not told:
        choices += [
            (f"cuda:{number}", _("{device}: NVIDIA GPU").format(device=f"cuda:{number}")) for number in range(cards)
        ]
    return choices
