"""How well several labels for an image are told: each label for itself, their means, and all decisions together.

A label that no image has is left out of means: whether it would be found can't be told.
"""

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from MedAILib.training.classification_measures import (
    BINS,
    Measured,
    Measures,
    calibration_distance,
    interval,
    resamples,
)

Marks = NDArray[np.int64]  # (M, labels), 1 where an image has the label
Likely = NDArray[np.float64]  # (M, labels)
SHOWN = ("auc", "ap", "accuracy", "sensitivity", "specificity", "precision", "f1", "ece")
POOLED = ("auc", "ap", "sensitivity", "specificity", "precision", "f1", "ece")
_NAMES = {
    "auc": "area under the ROC curve",
    "ap": "average precision",
    "accuracy": "accuracy",
    "sensitivity": "sensitivity",
    "specificity": "specificity",
    "precision": "precision",
    "f1": "F1",
    "ece": "expected calibration error",
}
TITLES = {
    **{key: f"Mean {name}" for key, name in _NAMES.items()},
    "exact": "All labels of an image right",
    **{f"micro_{key}": f"All decisions together: {_NAMES[key]}" for key in POOLED},
}
_EDGES = np.linspace(0, 1, BINS + 1, dtype=np.float32)[1:]


def measure_labels(marks: Marks, likely: Likely, decided: Marks) -> dict[str, float]:
    """Every one of `TITLES`, by scikit-learn: the labels' means, and those of all decisions as if of one label."""
    each = [entry for entry in each_label(marks, likely, decided) if entry["cases"]]
    pooled = each_label(*_pooled(marks, likely, decided))[0] if each else {}
    return {
        **{key: _mean([entry[key] for entry in each]) for key in SHOWN},
        "exact": float(np.mean((marks == decided).all(axis=1))),
        **{f"micro_{key}": pooled.get(key, math.nan) for key in POOLED},
    }


def each_label(marks: Marks, likely: Likely, decided: Marks) -> list[dict[str, float]]:
    """For each label how many images have it ("cases"), and what is `SHOWN` of it; NaN where undefined."""
    found = []
    for truth, said, chosen in zip(marks.T, likely.T, decided.T, strict=True):
        (rejected, alarms), (missed, right) = confusion_matrix(truth, chosen, labels=[0, 1]).tolist()
        cases, both = int(truth.sum()), 0 < truth.sum() < len(truth)
        found.append(
            {
                "cases": cases,
                "auc": float(roc_auc_score(truth, said)) if both else math.nan,
                "ap": float(average_precision_score(truth, said)) if cases else math.nan,
                "accuracy": float(np.mean(truth == chosen)),
                "sensitivity": _share(right, right + missed),
                "specificity": _share(rejected, rejected + alarms),
                "precision": _share(right, right + alarms) if cases else math.nan,
                "f1": _share(2 * right, 2 * right + alarms + missed) if cases else math.nan,
                "ece": calibration_distance(said, truth == 1),
            }
        )
    return found


def quick_labels(marks: Marks, likely: Likely, decided: Marks) -> dict[str, float]:
    """`measure_labels` for the thousandfold: the same numbers by sorting and counting."""
    there = marks.any(axis=0)
    each = label_arrays(marks[:, there], likely[:, there], decided[:, there])
    pooled = label_arrays(*_pooled(marks, likely, decided))
    return {
        **{key: _mean(each[key].tolist()) for key in SHOWN},
        "exact": float(np.mean((marks == decided).all(axis=1))),
        **{f"micro_{key}": float(pooled[key][0]) if there.any() else math.nan for key in POOLED},
    }


def label_arrays(marks: Marks, likely: Likely, decided: Marks) -> dict[str, NDArray[np.float64]]:
    """What is `SHOWN` of each label, as one array (labels,) for each measure."""
    count, labels = marks.shape
    cases, chosen, right = marks.sum(axis=0), decided.sum(axis=0), (marks & decided).sum(axis=0)
    alarms, missed = chosen - right, cases - right
    areas = np.array([_areas(marks[:, n], likely[:, n]) for n in range(labels)]).reshape(labels, 2)
    places = np.minimum(np.searchsorted(_EDGES, likely.astype(np.float32)), BINS - 1) + BINS * np.arange(labels)
    apart = np.bincount(places.ravel(), weights=(likely - marks).ravel(), minlength=BINS * labels)
    with np.errstate(divide="ignore", invalid="ignore"):
        none = np.where(cases > 0, 0.0, math.nan)
        return {
            "auc": areas[:, 0],
            "ap": areas[:, 1],
            "accuracy": 1 - (alarms + missed) / max(count, 1),
            "sensitivity": right / cases,
            "specificity": 1 - alarms / (count - cases),
            "precision": right / chosen + none,
            "f1": 2 * right / (cases + chosen) + none,
            "ece": np.abs(apart.reshape(labels, BINS)).sum(axis=1) / max(count, 1),
        }


def labels_with_intervals(marks: Marks, likely: Likely, decided: Marks) -> list[dict[str, Measured]]:
    """`each_label` with percentile bootstrap intervals: 1000 resamples of the images, seeded."""
    again = [label_arrays(marks[row], likely[row], decided[row]) for row in resamples(len(marks))]
    drawn = {key: np.stack([entry[key] for entry in again]) for key in SHOWN}
    return [
        {key: Measured(entry[key], *interval(drawn[key][:, number])) for key in SHOWN}
        for number, entry in enumerate(each_label(marks, likely, decided))
    ]


def label_tables(marks: Marks, likely: Likely, decided: Marks) -> NDArray[np.int64]:
    """(labels, 2, 2): for each label the images without it (first row) and with it, and for how many it was decided."""
    tables = [confusion_matrix(truth, chosen, labels=[0, 1]) for truth, chosen in zip(marks.T, decided.T, strict=True)]
    return np.array(tables, dtype=np.int64)


def _pooled(marks: Marks, likely: Likely, decided: Marks) -> tuple[Marks, Likely, Marks]:
    """All decisions on labels that any image has, as if they were of one label (decisions, 1)."""
    there = marks.any(axis=0)
    return marks[:, there].reshape(-1, 1), likely[:, there].reshape(-1, 1), decided[:, there].reshape(-1, 1)


def _areas(truth: NDArray[np.int64], likely: NDArray[np.float64]) -> tuple[float, float]:
    """Area under the ROC curve and average precision of one label; NaN where undefined."""
    order = np.argsort(-likely, kind="stable")
    ends = np.append(np.flatnonzero(np.diff(likely[order])), len(order) - 1)  # of equal probabilities
    found = np.cumsum(truth[order])[ends]
    alarms = ends + 1 - found
    positive, negative = int(found[-1]), int(alarms[-1])
    if not positive:
        return math.nan, math.nan
    steps = np.diff(found, prepend=0)
    precision = float((steps * found / (ends + 1)).sum() / positive)
    if not negative:
        return math.nan, precision
    # Above a step's cases lie all before it, and half of those of its own probability.
    above = np.diff(alarms, prepend=0) * (found - steps / 2)
    return float(above.sum() / (positive * negative)), precision


def _share(part: int, whole: int) -> float:
    return part / whole if whole else math.nan


def _mean(values: list[float]) -> float:
    told = [value for value in values if math.isfinite(value)]
    return float(np.mean(told)) if told else math.nan


LABELS = Measures(TITLES, SHOWN, measure_labels, quick_labels, each_label, label_tables)
