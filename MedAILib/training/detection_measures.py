"""How well boxes agree with the truth: mean average precision and FROC with bootstrap intervals, matched by MONAI.

The surest box first, each takes the reference box of its class that it overlaps most and that is not taken yet.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from monai.apps.detection.metrics.coco import COCOMetric
from monai.apps.detection.metrics.matching import matching_batch
from numpy.typing import NDArray

from MedAILib.detections import overlaps
from MedAILib.training.classification_measures import Measured, interval, resamples

RANGE = (0.1, 0.5, 0.05)  # of the overlap from which a box counts as found: first, last, step
LIMITS = (0.1, 0.5)
FOUND_FROM = 0.1  # for FROC: that a finding was seen at all
RATES = (0.125, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0)  # false findings per image, as LUNA16 has them
MOST = 100  # boxes of an image, the surest
MEASURES = {
    "mAP@0.1:0.5": "mAP at overlaps of 0.1 to 0.5",
    "mAP@0.1": "mAP at an overlap of 0.1",
    "mAP@0.5": "mAP at an overlap of 0.5",
    "froc": "FROC score",
}
PRECISIONS = ("mAP@0.1:0.5", "mAP@0.1", "mAP@0.5")
_METRIC = COCOMetric(
    ["one"], iou_list=LIMITS, iou_range=RANGE, max_detection=(MOST,), per_class=False, verbose=False
)  # of one class at a time
Matches = dict[int, dict[str, NDArray[Any]]]


@dataclass(frozen=True, eq=False)
class Boxes:
    """Boxes of one image: faces (n, 6), low then high, in common units along common axes; classes and scores (n,)."""

    faces: NDArray[np.float64]
    classes: NDArray[np.int64]
    scores: NDArray[np.float64]


def at(rate: float) -> str:
    """The key of the sensitivity at a rate of false findings per image."""
    return f"sensitivity@{rate:g}"


def matches_of(found: Boxes, reference: Boxes) -> Matches:
    """What matches in one image: by class, which boxes are right at each of the limits, and how sure they are."""
    (matched,) = matching_batch(
        _overlaps,
        _METRIC.get_iou_thresholds(),
        pred_boxes=[found.faces],
        pred_classes=[found.classes],
        pred_scores=[found.scores],
        gt_boxes=[reference.faces],
        gt_classes=[reference.classes],
        max_detections=MOST,
    )
    return {int(number): entry for number, entry in matched.items()}


def measure(matches: Sequence[Matches], classes: int) -> dict[str, float]:
    """Every one of `MEASURES` and the sensitivity at each of `RATES`; NaN where there is no reference box.

    Precisions are means over the classes that have reference boxes; FROC counts boxes of all classes.
    """
    each = [entry for entry in (per_class(matches, number) for number in range(classes)) if entry["references"]]
    found = {key: float(np.mean([entry[key] for entry in each])) if each else math.nan for key in PRECISIONS}
    curve = froc_curve(matches)
    sensitivity = np.interp(RATES, *curve) if len(curve[0]) else np.full(len(RATES), math.nan)
    return {
        **found,
        "froc": float(sensitivity.mean()),
        **{at(rate): float(value) for rate, value in zip(RATES, sensitivity, strict=True)},
    }


def per_class(matches: Sequence[Matches], number: int) -> dict[str, float]:
    """Average precisions of one class as COCO has them, and how many "references" it has."""
    own = [{0: entry[number]} for entry in matches if number in entry]
    count = sum(len(entry[0]["gtIgnore"]) for entry in own)
    if not count:
        return dict.fromkeys(PRECISIONS, math.nan) | {"references": 0}
    figures, _ = _METRIC(own)
    return {
        "mAP@0.1:0.5": figures[f"mAP_IoU_{RANGE[0]:.2f}_{RANGE[1]:.2f}_{RANGE[2]:.2f}_MaxDet_{MOST}"],
        **{f"mAP@{limit:g}": figures[f"AP_IoU_{limit:.2f}_MaxDet_{MOST}"] for limit in LIMITS},
        "references": count,
    }


def froc_curve(matches: Sequence[Matches]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """False findings per image, and the sensitivity, (n,) each, from the surest box on; empty without references.

    A box counts as found from an overlap of `FOUND_FROM` on. Bandos et al., Biometrics 65 (2009), has the curve.
    """
    entries = [entry for image in matches for entry in image.values()]
    total = sum(len(entry["gtIgnore"]) for entry in entries)
    if not total:
        return np.empty(0), np.empty(0)
    place = int(np.argmin(np.abs(np.array(_METRIC.get_iou_thresholds()) - FOUND_FROM)))
    right = np.concatenate([np.asarray(entry["dtMatches"])[place] for entry in entries]).astype(bool)
    scores = np.concatenate([np.asarray(entry["dtScores"], np.float64) for entry in entries])
    order = np.argsort(-scores, kind="stable")
    right, scores = right[order], scores[order]
    last = np.append(scores[1:] != scores[:-1], True)[: len(scores)]  # of boxes that are as sure, all or none
    false = np.concatenate([[0.0], np.cumsum(~right)[last] / len(matches)])
    return false, np.concatenate([[0.0], np.cumsum(right)[last] / total])


def with_intervals(matches: Sequence[Matches], classes: int, patients: Sequence[str] = ()) -> dict[str, Measured]:
    """`measure` with percentile bootstrap intervals: resamples of the images' `patients`, seeded."""
    again = [measure([matches[number] for number in row], classes) for row in resamples(len(matches), patients)]
    return {
        key: Measured(value, *interval(np.array([entry[key] for entry in again])))
        for key, value in measure(matches, classes).items()
    }


def _overlaps(first: NDArray[Any], last: NDArray[Any]) -> NDArray[np.float64]:
    both = np.concatenate([first, last])
    return overlaps(both[:, :3], both[:, 3:])[: len(first), len(first) :]
