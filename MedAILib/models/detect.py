"""Boxes from whatever model finds things: one that detects, or one that segments."""

from MedAILib.detections import Detections, suppressed
from MedAILib.inference.components import component_boxes
from MedAILib.models.open import OpenedModel
from MedAILib.progress import Progress
from MedAILib.request import DetectOptions, RunOptions
from MedAILib.volume import Volume


def detect(
    model: OpenedModel, volume: Volume, options: DetectOptions, segmenting: RunOptions | None, progress: Progress
) -> Detections:
    """Find things in a volume, with a model of either kind.

    Args:
        model: one that detects, or that segments.
        volume: the image.
        options: which findings are wanted.
        segmenting: how a model that segments is run, with probabilities for the findings' scores; None for a detector.
        progress: hears of every step.

    Raises:
        MedAIError: the volume or an option does not suit the model.
        Cancelled: by `progress`.
    """
    return (
        model.run(volume, options, progress)
        if segmenting is None
        else boxes_of_segments(model, volume, options, progress, segmenting)
    )


def boxes_of_segments(
    model: OpenedModel,
    volume: Volume,
    options: DetectOptions,
    progress: Progress,
    segmenting: RunOptions | None = None,
) -> Detections:
    """Findings of a model that segments: a box around each connected part, as sure as its surest voxel.

    Args:
        model: one that segments.
        volume: the image.
        options: which findings are wanted.
        progress: hears of every step.
        segmenting: how it is run; None takes the usual options, and probabilities for the scores.

    Raises:
        MedAIError: the volume or an option does not suit the model.
        Cancelled: by `progress`.
    """
    run = segmenting or RunOptions(roi=options.roi, probabilities=True)
    segmentation = model.run(volume, run, progress)
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
    return Detections(boxes, found.classes, found.geometry, least, said, found.codes)
