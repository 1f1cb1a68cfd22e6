"""A detector against reference boxes: mean average precision, and sensitivity against false findings (FROC).

Boxes match by MONAI's rules and figures: the surest first, each with the reference box of its class that it overlaps
most and that is not taken yet.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
from monai.apps.detection.metrics.coco import COCOMetric
from monai.apps.detection.metrics.matching import matching_batch
from monai.data.box_utils import box_iou
from monai.metrics import compute_froc_curve_data, compute_froc_score
from numpy.typing import NDArray

from MedAILib.detections import Box, Detections, overlaps
from MedAILib.errors import InputError
from MedAILib.models.open import OpenedModel
from MedAILib.progress import Progress
from MedAILib.request import DetectOptions
from MedAILib.spec import ModelSpec
from MedAILib.training.boxed_images import BoxedCase, BoxedImage, read_boxed

LIMITS = (0.1, 0.5)  # of the overlap from which a box counts as found
FOUND_FROM = 0.1  # for FROC: that a finding was seen at all
RATES = (0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false findings per image
MOST = 100


@dataclass(frozen=True)
class Matched:
    """A box of the model or of the reference.

    Args:
        label: its class.
        outcome: "found" (a reference box, and the model's), "false" (the model's alone) or "missed".
        score: the model's; NaN for what was missed.
        overlap: intersection over union with its reference box; 0 where there is none.
        center_ras: mm.
        size_mm: along the image's axes.
    """

    label: str
    outcome: str
    score: float
    overlap: float
    center_ras: tuple[float, ...]
    size_mm: tuple[float, ...]


@dataclass(frozen=True)
class DetectorCase:
    """One image: what was found, false or missed, and the seconds that the model took."""

    case: BoxedCase
    boxes: tuple[Matched, ...]
    seconds: float


@dataclass(frozen=True, eq=False)
class Froc:
    """Sensitivity (n,) against false findings per image (n,), by falling score, and its mean at `RATES`."""

    false_per_image: NDArray[np.float64]
    sensitivity: NDArray[np.float64]
    score: float


@dataclass(frozen=True, eq=False)
class DetectorEvaluation:
    """A detector's results on a set of images.

    Args:
        spec: the model's description.
        cases: in the order given.
        precision: average precision of each class at each of `LIMITS`; NaN for a class without a reference box.
        references: how many reference boxes each class has.
        froc: over all classes.
        provenance: as the model's first run told it.
        started: when, UTC.
    """

    spec: ModelSpec
    cases: tuple[DetectorCase, ...]
    precision: dict[str, dict[float, float]]
    references: dict[str, int]
    froc: Froc
    provenance: dict[str, str]
    started: datetime

    def mean_precision(self, limit: float) -> float:
        """The mean over the classes that have a reference box."""
        return float(np.nanmean([by_limit[limit] for by_limit in self.precision.values()]))


def evaluate_detector(
    model: OpenedModel, cases: Sequence[BoxedCase], names: Mapping[str, str], progress: Progress
) -> DetectorEvaluation:
    """Run a detector on every image and compare what it finds with the boxes that are there.

    All files are read and checked before the model first runs. The model's own limits of score and overlap hold.

    Args:
        model: a detector.
        cases: images and boxes.
        names: which class each of the data's labels stands for; see `label_names`.
        progress: told before each image and between the model's windows.

    Raises:
        InputError: no images, no boxes, or a file that is at fault.
        Cancelled: by `progress`.
    """
    if not cases:
        raise InputError("There are no images to evaluate the model on.")
    started, count = datetime.now(timezone.utc), 0
    for number, case in enumerate(cases):
        progress.step(number, len(cases), f"Checking {case.name}")
        count += len(read_boxed(case, names).boxes)
    if not count:
        raise InputError("There is no box in the data, so that there is nothing to find.")
    found: list[tuple[BoxedImage, Detections]] = []
    results: list[DetectorCase] = []
    for number, case in enumerate(cases):
        image = read_boxed(case, names)
        begun = time.perf_counter()
        told = model.run(image.volume, DetectOptions(), _Part(progress, number, len(cases), case.name))
        seconds = time.perf_counter() - begun
        found.append((BoxedImage(case, image.volume.cropped((slice(0, 1),) * 3), image.boxes), told))
        results.append(DetectorCase(case, _outcomes(told, image.boxes), seconds))
    progress.step(len(cases), len(cases), "Comparing")
    classes = model.spec.findings
    references = {name: sum(box.label == name for image, _ in found for box in image.boxes) for name in classes}
    precision, froc = _measure(found, classes, references)
    return DetectorEvaluation(
        model.spec, tuple(results), precision, references, froc, dict(found[0][1].provenance), started
    )


def summary(evaluation: DetectorEvaluation) -> dict[str, Any]:
    """The results as JSON has them; what is not defined is null."""
    return {
        "model": evaluation.spec.name,
        "version": evaluation.spec.version,
        "sha256": evaluation.provenance.get("sha256"),
        "mAP@0.5": _plain(evaluation.mean_precision(0.5)),
        "mAP@0.1": _plain(evaluation.mean_precision(0.1)),
        "froc": {
            "score": _plain(evaluation.froc.score),
            "sensitivity": {f"{rate:g}": _plain(value) for rate, value in at_rates(evaluation.froc).items()},
            "overlap": FOUND_FROM,
        },
        "classes": {
            name: {
                "AP@0.5": _plain(evaluation.precision[name][0.5]),
                "AP@0.1": _plain(evaluation.precision[name][0.1]),
                "reference_boxes": evaluation.references[name],
            }
            for name in evaluation.precision
        },
        "metric_per_case": [
            {
                "case": result.case.name,
                **{kind: sum(box.outcome == kind for box in result.boxes) for kind in ("found", "false", "missed")},
                "seconds": round(result.seconds, 4),
            }
            for result in evaluation.cases
        ],
        "started": evaluation.started.isoformat(timespec="seconds"),
        "provenance": evaluation.provenance,
    }


def at_rates(froc: Froc) -> dict[float, float]:
    """The sensitivity at each of `RATES`."""
    values = np.interp(RATES, froc.false_per_image, froc.sensitivity)
    return {rate: float(value) for rate, value in zip(RATES, values, strict=True)}


def _measure(
    found: Sequence[tuple[BoxedImage, Detections]], classes: Sequence[str], references: Mapping[str, int]
) -> tuple[dict[str, dict[float, float]], Froc]:
    """Average precisions and FROC, by MONAI's matching over all images at once."""
    metric = COCOMetric(
        classes=classes, iou_list=LIMITS, iou_range=(0.1, 0.5, 0.05), max_detection=(MOST,), verbose=False
    )
    matched = matching_batch(
        box_iou,
        metric.iou_thresholds,
        pred_boxes=[_corners(told.boxes, told) for _, told in found],
        pred_classes=[np.array([classes.index(box.label) for box in told.boxes], int) for _, told in found],
        pred_scores=[np.array([box.score for box in told.boxes], float) for _, told in found],
        gt_boxes=[_corners(image.boxes, told) for image, told in found],
        gt_classes=[np.array([classes.index(box.label) for box in image.boxes], int) for image, _ in found],
        max_detections=MOST,
    )
    figures, _ = metric(matched)
    precision = {
        name: {
            limit: figures[f"{name}_AP_IoU_{limit:.2f}_MaxDet_{MOST}"] if references[name] else math.nan
            for limit in LIMITS
        }
        for name in classes
    }
    place = int(np.argmin(np.abs(np.array(metric.iou_thresholds) - FOUND_FROM)))
    hits, alarms = [], [-1.0]  # MONAI leaves the lowest score out, which is no box's then
    for by_class in matched:
        for one in by_class.values():
            right = np.asarray(one["dtMatches"])[place].astype(bool)
            scores = np.asarray(one["dtScores"], float)
            hits += scores[right].tolist()
            alarms += scores[~right].tolist()
    total = sum(references.values())
    rates, sensitivity = compute_froc_curve_data(np.array(alarms), np.array(hits), total, len(found))
    froc = Froc(
        np.asarray(rates, float)[::-1],
        np.asarray(sensitivity, float)[::-1],
        float(compute_froc_score(rates, sensitivity, RATES)),
    )
    return precision, froc


def _corners(boxes: Sequence[Box], told: Detections) -> NDArray[np.float64]:
    """Boxes (n, 6) in millimetres along the image's axes."""
    spacing = np.array(told.geometry.spacing_kji_mm[::-1])
    every = [[*(np.array(box.low_ijk) * spacing), *(np.array(box.high_ijk) * spacing)] for box in boxes]
    return np.array(every, np.float64).reshape(-1, 6)


def _outcomes(told: Detections, reference: Sequence[Box]) -> tuple[Matched, ...]:
    """Every box of an image, found, false or missed, by an overlap of `FOUND_FROM`; the surest first."""
    mine, theirs = _corners(told.boxes, told), _corners(reference, told)
    both = np.concatenate([mine, theirs])
    alike = overlaps(both[:, :3], both[:, 3:])[: len(mine), len(mine) :]
    taken: set[int] = set()
    found = []
    for number, box in enumerate(told.boxes):
        free = [n for n, other in enumerate(reference) if n not in taken and other.label == box.label]
        best = max(free, key=lambda n: alike[number, n], default=None)
        hit = best is not None and alike[number, best] >= FOUND_FROM
        if hit and best is not None:
            taken.add(best)
        overlap = float(alike[number, best]) if hit and best is not None else 0.0
        found.append(_told(told, box, "found" if hit else "false", box.score, overlap))
    missed = [_told(told, box, "missed", math.nan, 0.0) for number, box in enumerate(reference) if number not in taken]
    return (*found, *missed)


def _told(told: Detections, box: Box, outcome: str, score: float, overlap: float) -> Matched:
    center, size = told.center_ras(box).tolist(), told.size_mm(box).tolist()
    return Matched(box.label, outcome, score, overlap, tuple(center), tuple(size))


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


class _Part(Progress):
    """One image's steps, told as those of all images."""

    def __init__(self, whole: Progress, number: int, count: int, name: str) -> None:
        self.whole, self.number, self.count, self.name = whole, number, count, name

    def step(self, done: int, total: int, text: str = "") -> None:
        share = done / total if total else 0.0
        self.whole.step(int(100 * (self.number + share)), 100 * self.count, f"{self.name}: {text}")

    def warn(self, text: str) -> None:
        self.whole.warn(text)
