"""How well several labels for an image are told: each label for itself, their means, and all decisions together.

A label that no image has is left out of means: whether it would be found can't be told.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score, confusion_matrix, roc_auc_score

from MedAILib.training.classification_measures import (
    BINS,
    Drawn,
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


class LabelRanks:
    """The same numbers for the thousandfold: sorted once, then counted for any images drawn from these.

    Args:
        marks, likely, decided: (M, labels), as for `each_label`.
    """

    def __init__(self, marks: Marks, likely: Likely, decided: Marks) -> None:
        labels = marks.shape[1]
        self.marks, self.decided, self.right = (part.astype(np.float64) for part in (marks, decided, marks & decided))
        self.exact = (marks == decided).all(axis=1)
        self.each = [_Sorted(truth, said) for truth, said in zip(marks.T, likely.T, strict=True)]
        self.pooled = _Sorted(marks.ravel(), likely.ravel())
        bins = np.minimum(np.searchsorted(_EDGES, likely.astype(np.float32)), BINS - 1)
        self.places, self.apart = (bins + BINS * np.arange(labels)).ravel(), likely - marks

    def measured(self, rows: NDArray[np.int64]) -> dict[str, float]:
        """`measure_labels` of the images in these places, some of them perhaps several times."""
        times = self._times(rows)
        each = self.arrays(rows)
        there = times @ self.marks > 0
        right, cases, chosen = (float((times @ x)[there].sum()) for x in (self.right, self.marks, self.decided))
        total = float(times.sum() * there.sum())
        auc, ap = self.pooled.areas((times[:, None] * there).ravel())
        apart = self._apart(times)[there].sum(axis=0)
        pooled = {"auc": auc, "ap": ap, "ece": float(np.abs(apart).sum()) / total if total else math.nan}
        pooled |= {
            "sensitivity": _share(right, cases),
            "specificity": _share(total - cases - chosen + right, total - cases),
            "precision": _share(right, chosen) if cases else math.nan,
            "f1": _share(2 * right, cases + chosen) if cases else math.nan,
        }
        return {
            **{key: _mean(each[key][there].tolist()) for key in SHOWN},
            "exact": float(times @ self.exact / times.sum()),
            **{f"micro_{key}": pooled[key] for key in POOLED},
        }

    def arrays(self, rows: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """What is `SHOWN` of each label, as one array (labels,) for each measure."""
        times = self._times(rows)
        count = float(times.sum())
        cases, chosen, right = times @ self.marks, times @ self.decided, times @ self.right
        alarms, missed = chosen - right, cases - right
        areas = np.array([label.areas(times) for label in self.each])
        with np.errstate(divide="ignore", invalid="ignore"):
            none = np.where(cases > 0, 0.0, math.nan)
            return {
                "auc": areas[:, 0],
                "ap": areas[:, 1],
                "accuracy": 1 - (alarms + missed) / count,
                "sensitivity": right / cases,
                "specificity": 1 - alarms / (count - cases),
                "precision": right / chosen + none,
                "f1": 2 * right / (cases + chosen) + none,
                "ece": np.abs(self._apart(times)).sum(axis=1) / count,
            }

    def _times(self, rows: NDArray[np.int64]) -> NDArray[np.float64]:
        """How often each image is drawn (M,)."""
        return np.bincount(rows, minlength=len(self.marks)).astype(np.float64)

    def _apart(self, times: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sums of what was said less what is true, (labels, BINS)."""
        weights = (self.apart * times[:, None]).ravel()
        sums = np.bincount(self.places, weights, self.marks.shape[1] * BINS)
        return np.asarray(sums, dtype=np.float64).reshape(-1, BINS)


class _Sorted:
    """One label's images, the likeliest first."""

    def __init__(self, truth: NDArray[np.int64], likely: NDArray[np.float64]) -> None:
        self.order = np.argsort(-likely, kind="stable")
        self.truth = truth[self.order]
        self.ends = np.append(np.flatnonzero(np.diff(likely[self.order])), len(likely) - 1)  # of equal probabilities

    def areas(self, times: NDArray[np.float64]) -> tuple[float, float]:
        """Area under the ROC curve and average precision, each image so many times; NaN where undefined."""
        drawn = times[self.order]
        found, seen = np.cumsum(drawn * self.truth)[self.ends], np.cumsum(drawn)[self.ends]
        positive, negative = float(found[-1]), float(seen[-1] - found[-1])
        if not positive:
            return math.nan, math.nan
        steps = np.diff(found, prepend=0)
        precision = float((steps * found / np.maximum(seen, 1)).sum() / positive)
        if not negative:
            return math.nan, precision
        # Before each false alarm lie all that were found until then, and beside it half of those of its probability.
        above = np.diff(seen - found, prepend=0) * (found - steps / 2)
        return float(above.sum() / (positive * negative)), precision


def labels_with_intervals(
    marks: Marks, likely: Likely, decided: Marks, patients: Sequence[str] = ()
) -> list[dict[str, Measured]]:
    """`each_label` with percentile bootstrap intervals: 1000 resamples of the images' `patients`, seeded."""
    ranks = LabelRanks(marks, likely, decided)
    again = [ranks.arrays(row) for row in resamples(len(marks), patients)]
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


def _share(part: float, whole: float) -> float:
    return part / whole if whole else math.nan


def _mean(values: list[float]) -> float:
    told = [value for value in values if math.isfinite(value)]
    return float(np.mean(told)) if told else math.nan


def _drawn(marks: Marks, likely: Likely, decided: Marks) -> Drawn:
    return LabelRanks(marks, likely, decided).measured


LABELS = Measures(TITLES, SHOWN, measure_labels, _drawn, each_label, label_tables)
