"""Boxes from whatever model finds things: one that detects, or one that segments."""

from pathlib import Path

from MedAILib.detections import Detections, suppressed
from MedAILib.inference.components import component_boxes
from MedAILib.models.open import OpenedModel, open_model
from MedAILib.progress import Progress
from MedAILib.request import DetectOptions, RunOptions
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


def boxes_of_segments(model: OpenedModel, volume: Volume, options: DetectOptions, progress: Progress) -> Detections:
    """Findings of a model that segments: a box around each connected part, as sure as its surest voxel.

    Raises:
        MedAIError: the volume or an option does not suit the model.
        Cancelled: by `progress`.
    """
    segmentation = model.run(volume, RunOptions(roi=options.roi, probabilities=True), progress)
    progress.step(0, 1, "Looking for connected parts")
    found = component_boxes(segmentation, options.smallest_ml)
    least, limit = options.score_threshold or 0.0, options.overlap_limit
    boxes = tuple(box for box in found.boxes if box.score >= least)
    if limit is not None:
        boxes = suppressed(boxes, found.geometry, limit)
    said = found.provenance | {
        "option.smallest_ml": str(options.smallest_ml),
        "option.score_threshold": str(options.score_threshold),
        "option.overlap_limit": str(options.overlap_limit),
    }
    return Detections(boxes, found.classes, found.geometry, least, said)
