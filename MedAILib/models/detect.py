"""Boxes from whatever model finds things; so far, from segmentation models."""

from pathlib import Path

from MedAILib.detections import Detections
from MedAILib.inference.components import component_boxes
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.volume import Volume


def detect(
    source: Path, device: str, volume: Volume, options: RunOptions, smallest_ml: float, progress: Progress
) -> Detections:
    """Segment a volume, and put a box around each connected part of each structure.

    Args:
        source: the model's folder or file.
        device: "auto", "cpu", "cuda" or "cuda:1".
        volume: the image.
        options: of the run; with probabilities, a finding's score is the highest one inside of it.
        smallest_ml: parts below this volume are left out.
        progress: hears of every step.

    Raises:
        MedAIError: the model, the volume or an option is at fault.
        Cancelled: by `progress`.
    """
    segmentation = open_model(source, device).run(volume, options, progress)
    progress.step(0, 1, "Looking for connected parts")
    return component_boxes(segmentation, smallest_ml)
