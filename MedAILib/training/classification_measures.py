"""How well probabilities of classes agree with the truth, by scikit-learn and MONAI, with bootstrap intervals."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from monai.metrics import calibration_binning
from numpy.typing import NDArray
from scipy.stats import rankdata
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support, roc_auc_score

from MedAILib.training.patient_draws import PatientDraws

RESAMPLES = 1000
SEED = 12345
BINS = 10
_EDGES = torch.linspace(0, 1, BINS + 1).numpy()[1:]
MEASURES = {
    "accuracy": "Accuracy",
    "balanced_accuracy": "Balanced accuracy",
    "auc": "Area under the ROC curve",
    "sensitivity": "Sensitivity",
    "specificity": "Specificity",
    "precision": "Precision",
    "f1": "F1",
    "ece": "Expected calibration error",
}


@dataclass(frozen=True)
class Measured:
    """One figure and the 95 % interval that resampling the cases gives; NaN where there is nothing to measure."""

    value: float
    low: float
    high: float


# Measures of the images in these places (n,), some of them perhaps several times.
Drawn = Callable[[NDArray[np.int64]], dict[str, float]]


@dataclass(frozen=True)
class Measures:
    """How decisions of one kind are measured; each function takes true classes, probabilities and decided classes.

    Args:
        titles: every measure's name for people.
        shown: the measures that each class has for itself, in order.
        whole: every measure, of all classes together, by the libraries.
        drawn: from all images, what gives the same numbers fast of any that are drawn from these, see `Drawn`.
        each: for each class "cases" and the measures `shown`; NaN where undefined.
        table: what was decided for what was true, see `ClassifierEvaluation.confusion`.
    """

    titles: Mapping[str, str]
    shown: tuple[str, ...]
    whole: Callable[..., dict[str, float]]
    drawn: Callable[..., Drawn]
    each: Callable[..., list[dict[str, float]]]
    table: Callable[..., NDArray[np.int64]]


@dataclass(frozen=True)
class Bin:
    """One tenth of the probability: the mean of what was said, the share that was true, and how many cases."""

    said: float
    true: float
    cases: int


def measure(numbers: NDArray[np.int64], likely: NDArray[np.float64], decided: NDArray[np.int64]) -> dict[str, float]:
    """Every one of `MEASURES`, of all classes together.

    Of two classes the second is the one to be found: sensitivity, specificity, precision, F1 and AUC are its own. Of
    more they are means over the classes that there are cases of, each against the rest.

    Args:
        numbers: (M,), true classes.
        likely: (M, N), probabilities.
        decided: (M,), decided classes.
    """
    each = per_class(numbers, likely, decided)
    there = [entry for entry in each if entry["cases"]]
    shown = each[1:] if len(each) == 2 else there
    return {
        "accuracy": float(np.mean(numbers == decided)),
        "balanced_accuracy": _mean([entry["sensitivity"] for entry in there]),
        **{
            key: _mean([entry[key] for entry in shown])
            for key in ("auc", "sensitivity", "specificity", "precision", "f1")
        },
        "ece": calibration_error(numbers, likely),
    }


def per_class(
    numbers: NDArray[np.int64], likely: NDArray[np.float64], decided: NDArray[np.int64]
) -> list[dict[str, float]]:
    """For each class against all others: cases, and accuracy to F1, AUC and ECE (NaN where undefined)."""
    count = likely.shape[1]
    precision, recall, f1, cases = precision_recall_fscore_support(
        numbers, decided, labels=np.arange(count), zero_division=np.nan
    )
    found: list[dict[str, float]] = []
    for number in range(count):
        truth = numbers == number
        both = 0 < truth.sum() < len(truth)
        found.append(
            {
                "cases": int(cases[number]),
                "accuracy": float(np.mean((decided == number) == truth)),
                "sensitivity": float(recall[number]),
                "specificity": float(np.mean(decided[~truth] != number)) if not truth.all() else math.nan,
                "precision": float(precision[number]),
                "f1": float(f1[number]),
                # Of two classes both have the same.
                "auc": found[0]["auc"]
                if count == 2 and found
                else float(roc_auc_score(truth, likely[:, number]))
                if both
                else math.nan,
                "ece": calibration_distance(likely[:, number], truth),
            }
        )
    return found


def calibration_bins(numbers: NDArray[np.int64], likely: NDArray[np.float64]) -> list[Bin]:
    """The tenths of the probability that hold any case.

    Of two classes the probability is the second one's; of more it is the likeliest one's.
    """
    return bins_of(*_said_and_true(numbers, likely))


def _said_and_true(numbers: NDArray[np.int64], likely: NDArray[np.float64]) -> tuple[Any, Any]:
    if likely.shape[1] == 2:
        return likely[:, 1], numbers == 1
    return likely.max(axis=1), numbers == likely.argmax(axis=1)


def bins_of(sure: NDArray[np.float64], true: NDArray[np.bool_]) -> list[Bin]:
    """The tenths of the probability that hold any case, from probabilities (M,) and whether each was true."""
    said, share, cases = calibration_binning(
        torch.from_numpy(sure)[None, None], torch.from_numpy(true.astype(np.float64))[None, None], BINS
    )
    rows = zip(said.ravel().tolist(), share.ravel().tolist(), cases.ravel().tolist(), strict=True)
    return [Bin(p, t, int(n)) for p, t, n in rows if n]


def calibration_error(numbers: NDArray[np.int64], likely: NDArray[np.float64]) -> float:
    """Expected calibration error: how far what was said and what was true are apart, over ten bins."""
    return calibration_distance(*_said_and_true(numbers, likely))


def calibration_distance(sure: NDArray[np.float64], true: NDArray[np.bool_]) -> float:
    """How far probabilities (M,) and the share of them that was true are apart, over ten bins."""
    return sum(abs(x.said - x.true) * x.cases for x in bins_of(sure, true)) / len(true)


def quick_measure(
    numbers: NDArray[np.int64], likely: NDArray[np.float64], decided: NDArray[np.int64]
) -> dict[str, float]:
    """`measure` for the thousandfold: the same numbers by counting and ranking, without a library's checks."""
    count = likely.shape[1]
    table = np.bincount(numbers * count + decided, minlength=count * count).reshape(count, count)
    right, cases, said = np.diag(table), table.sum(axis=1), table.sum(axis=0)
    others = len(numbers) - cases
    with np.errstate(divide="ignore", invalid="ignore"):
        each = {
            "sensitivity": right / cases,
            "specificity": (others - said + right) / others,
            "precision": right / said,
            "f1": 2 * right / (cases + said),
        }
        ranks = rankdata(likely, axis=0)
        sums = np.array([ranks[numbers == number, number].sum() for number in range(count)])
        each["auc"] = (sums - cases * (cases + 1) / 2) / (cases * others)
    if count == 2:
        each["auc"][1] = each["auc"][0]
    shown = np.array([False, True]) if count == 2 else cases > 0
    sure, true = _said_and_true(numbers, likely)
    places = np.minimum(np.searchsorted(_EDGES, sure.astype(np.float32)), BINS - 1)  # as MONAI's are
    apart = np.bincount(places, weights=sure - true, minlength=BINS)
    return {
        "accuracy": float(right.sum() / len(numbers)),
        "balanced_accuracy": _mean(each["sensitivity"][cases > 0].tolist()),
        **{key: _mean(each[key][shown].tolist()) for key in ("auc", "sensitivity", "specificity", "precision", "f1")},
        "ece": float(np.abs(apart).sum() / len(numbers)),
    }


def confusion(numbers: NDArray[np.int64], likely: NDArray[np.float64], decided: NDArray[np.int64]) -> NDArray[np.int64]:
    """(N, N): how many images of each true class (rows) were decided to be each class (columns)."""
    return np.asarray(confusion_matrix(numbers, decided, labels=np.arange(likely.shape[1])), dtype=np.int64)


def drawn_by(quick: Callable[..., dict[str, float]]) -> Callable[..., Drawn]:
    """`Measures.drawn` by measuring the images drawn with a function of theirs."""

    def drawn(*told: NDArray[Any]) -> Drawn:
        return lambda rows: quick(*(part[rows] for part in told))

    return drawn


SHOWN = ("accuracy", "sensitivity", "specificity", "precision", "f1", "auc", "ece")
CLASSES = Measures(MEASURES, SHOWN, measure, drawn_by(quick_measure), per_class, confusion)


def with_intervals(
    numbers: NDArray[np.int64],
    likely: NDArray[np.float64],
    decided: NDArray[np.int64],
    measures: Measures = CLASSES,
    patients: Sequence[str] = (),
) -> dict[str, Measured]:
    """Every measure with its percentile bootstrap interval: 1000 resamples of the images' `patients`, seeded."""
    again = [*map(measures.drawn(numbers, likely, decided), resamples(len(numbers), patients))]
    return {
        key: Measured(value, *interval(np.array([entry[key] for entry in again])))
        for key, value in measures.whole(numbers, likely, decided).items()
    }


def resamples(count: int, patients: Sequence[str] = ()) -> Iterator[NDArray[np.int64]]:
    """`RESAMPLES` times the places of images whose patients are drawn with replacement, always the same.

    Args:
        count: how many images there are.
        patients: whose each is, "" where that is not known; empty: of none.
    """
    draws = PatientDraws.of(patients or [""] * count)
    drawn = np.random.default_rng(SEED).integers(draws.count, size=(RESAMPLES, draws.count))
    return map(draws.images, drawn)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """The middle 95 % of what resampling gave (n,); NaN where nothing is measured."""
    told = values[np.isfinite(values)]
    if not told.size:
        return math.nan, math.nan
    low, high = np.percentile(told, (2.5, 97.5))
    return float(low), float(high)


def _mean(values: list[float]) -> float:
    told = [value for value in values if math.isfinite(value)]
    return float(np.mean(told)) if told else math.nan
