"""What a result says of how it came about."""

import platform
from datetime import datetime, timezone

import monai
import numpy as np
import torch

from MedAILib.spec import ModelSpec
from MedAILib.version import VERSION
from MedAILib.volume import Volume

# What a result says of the image it came from, where the image says so itself.
SOURCE_KEYS = ("Modality", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


def run_provenance(
    spec: ModelSpec, sha256: str, device: torch.device, volume: Volume, said: dict[str, str]
) -> dict[str, str]:
    """Model, image, device, what the run says for itself, library versions and time."""
    return {
        "model": spec.name,
        "version": spec.version,
        "sha256": sha256,
        "input": volume.name,
        **{f"input.{key}": volume.provenance[key] for key in SOURCE_KEYS if key in volume.provenance},
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        **said,
        "medai": VERSION,
        "numpy": np.__version__,
        "torch": torch.__version__,
        "monai": monai.__version__,
        "python": platform.python_version(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
