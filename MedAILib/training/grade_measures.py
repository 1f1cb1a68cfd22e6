"""How well grades in order are told: what is measured of any classes, and how far from the true grade a decision is."""

import math

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import cohen_kappa_score

from MedAILib.training.classification_measures import (
    MEASURES,
    SHOWN,
    Measures,
    confusion,
    drawn_by,
    measure,
    per_class,
    quick_measure,
)

KAPPA, DISTANCE = "kappa", "mae"
TITLES = {KAPPA: "Quadratic-weighted kappa", DISTANCE: "Mean absolute error, grades", **MEASURES}


def measure_grades(
    numbers: NDArray[np.int64], likely: NDArray[np.float64], decided: NDArray[np.int64]
) -> dict[str, float]:
    """Every one of `TITLES`; kappa is NaN where all are of one grade and decided to be."""
    one = len(np.union1d(numbers, decided)) < 2
    grades = np.arange(likely.shape[1])
    kappa = math.nan if one else float(cohen_kappa_score(numbers, decided, labels=grades, weights="quadratic"))
    return {
        KAPPA: kappa,
        DISTANCE: float(np.mean(np.abs(numbers - decided))),
        **measure(numbers, likely, decided),
    }


def quick_grades(
    numbers: NDArray[np.int64], likely: NDArray[np.float64], decided: NDArray[np.int64]
) -> dict[str, float]:
    """`measure_grades` for the thousandfold."""
    apart = (numbers - decided) ** 2
    # What chance would give: the mean squared distance of every true grade to every decided one.
    by_chance = np.mean(numbers**2) + np.mean(decided**2) - 2 * numbers.mean() * decided.mean()
    return {
        KAPPA: float(1 - apart.mean() / by_chance) if by_chance > 0 else math.nan,
        DISTANCE: float(np.sqrt(apart).mean()),
        **quick_measure(numbers, likely, decided),
    }


GRADES = Measures(TITLES, SHOWN, measure_grades, drawn_by(quick_grades), per_class, confusion)
