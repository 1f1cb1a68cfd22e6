"""The devices that the user can choose from, known without PyTorch."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from MedAILib.gui.words import size_text

# One folder for each card, where the driver runs (Linux).
DRIVER_FOLDER = Path("/proc/driver/nvidia/gpus")


def nvidia_cards() -> int:
    """How many NVIDIA cards have a driver here; 1 where their number can't be known without asking them."""
    if DRIVER_FOLDER.is_dir():
        return sum(1 for _ in DRIVER_FOLDER.iterdir())
    return 1 if shutil.which("nvidia-smi") else 0


def device_choices(cards: int, told: Sequence[Mapping[str, Any]] = ()) -> list[tuple[str, str]]:
    """Names of devices, as a run takes them, each with what the user reads.

    Args:
        cards: how many NVIDIA cards there are.
        told: what the worker said of its devices, once it did: "name" ("cuda:0"), "title", "free_bytes".
    """
    choices = [("auto", "Automatic (the GPU, if there is one)"), ("cpu", "CPU")]
    if told:
        for device in told:
            if str(device["name"]).startswith("cuda"):
                free = device.get("free_bytes")
                text = f"{device['name']}: {device.get('title', 'GPU')}"
                choices.append((device["name"], text if free is None else f"{text}, {size_text(free)} free"))
    else:
        choices += [(f"cuda:{number}", f"cuda:{number}: NVIDIA GPU") for number in range(cards)]
    return choices
