"""What a result says of how it came about."""

import platform
from dataclasses import asdict
from datetime import datetime, timezone

import numpy as np
import torch

from MedAILib.request import ClassifyOptions, DetectOptions, RunOptions
from MedAILib.spec import ModelSpec
from MedAILib.version import VERSION
from MedAILib.volume import Volume

# What a result says of the image it came from, where the image says so itself.
SOURCE_KEYS = ("Modality", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


def provenance(
    spec: ModelSpec,
    volume: Volume,
    options: RunOptions | ClassifyOptions | DetectOptions,
    device: torch.device,
    more: dict[str, str],
) -> dict[str, str]:
    """Model, input, options, device, versions and time as plain strings, with `more` of the format's own."""
    about = {
        "input": volume.name,
        **{f"input.{key}": volume.provenance[key] for key in SOURCE_KEYS if key in volume.provenance},
        **{f"option.{key}": str(value) for key, value in asdict(options).items()},
    }
    return made_by(spec, device) | about | more


def made_by(spec: ModelSpec, device: torch.device) -> dict[str, str]:
    """Model, device, versions and time as plain strings."""
    return {
        "model": spec.name,
        "version": spec.version,
        "device": str(device) if device.type == "cpu" else torch.cuda.get_device_name(device),
        "medai": VERSION,
        "numpy": np.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }
