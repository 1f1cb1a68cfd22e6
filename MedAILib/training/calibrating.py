"""Temperature, offsets and thresholds, chosen on scores of images that were not learnt from."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize, minimize_scalar
from scipy.special import expit, logsumexp

THRESHOLDS = np.linspace(0.2, 0.8, 121)
SMOOTHED = 0.06  # thresholds this far apart share their accuracy, so that no single image decides
RARE_THRESHOLDS = np.linspace(-5, 5, 201)  # as logits, for labels that few images have
RARE_SMOOTHED = 0.3
OFFSETS = (-8.0, 8.0)


def best_temperature(scores: NDArray[np.float64], numbers: NDArray[np.int64]) -> float:
    """The temperature, 0.05 to 20, at which the true classes (M,) are least surprising to scores (M, N)."""
    return least_surprising(lambda temperature: class_surprise(scores / temperature, numbers))


def least_surprising(surprise: Callable[[float], float]) -> float:
    """The temperature, 0.05 to 20, at which a log loss is least."""
    return float(
        np.exp(minimize_scalar(lambda x: surprise(float(np.exp(x))), bounds=np.log((0.05, 20)), method="bounded").x)
    )


def class_surprise(scores: NDArray[np.float64], numbers: NDArray[np.int64]) -> float:
    """Mean log loss of scores (M, N) of classes that exclude each other."""
    return float(np.mean(logsumexp(scores, axis=1) - scores[np.arange(len(numbers)), numbers]))


def binary_surprise(scores: NDArray[np.float64], truth: NDArray[Any]) -> float:
    """Mean log loss of scores of any shape, each for itself, against ones and zeros, or shares."""
    return float(np.mean(np.logaddexp(0, scores) - scores * truth))


def best_threshold(likely: NDArray[np.float64], numbers: NDArray[np.int64]) -> float:
    """The threshold of the most right decisions, its neighbours' taken into account."""
    right = np.array([np.mean((likely >= threshold) == numbers) for threshold in THRESHOLDS])
    return round(_middle_of_best(THRESHOLDS, right, SMOOTHED), 3)


def best_f1_threshold(likely: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The threshold of the largest F1 of one label (M,), its neighbours' taken into account; 0.5 where none has it."""
    if not truth.any():
        return 0.5
    f1 = []
    for threshold in expit(RARE_THRESHOLDS):
        chosen = likely >= threshold
        f1.append(2 * float((chosen & (truth == 1)).sum()) / float(chosen.sum() + truth.sum()))
    return round(float(expit(_middle_of_best(RARE_THRESHOLDS, np.array(f1), RARE_SMOOTHED))), 4)


def best_offsets(scores: NDArray[np.float64], marks: NDArray[np.int64]) -> tuple[float, NDArray[np.float64]]:
    """A temperature for all labels and an offset for each (labels,), at which marks (M, labels) surprise least.

    A label that none or all of the images have gets no offset: what it should be can't be told. Marks are taken as not
    quite sure (Platt 1999), so that labels which are told apart perfectly get no endless offsets.
    """
    having = marks.sum(axis=0)
    mixed = (having > 0) & (having < len(marks))
    truth = np.where(marks == 1, (having + 1) / (having + 2), 1 / (len(marks) - having + 2))

    def surprise(chosen: NDArray[np.float64]) -> tuple[float, NDArray[np.float64]]:
        """Log loss and its slope at a factor of the scores (first) and offsets."""
        shifted = chosen[0] * scores + chosen[1:]
        apart = (expit(shifted) - truth) / truth.size
        return binary_surprise(shifted, truth), np.append((apart * scores).sum(), apart.sum(axis=0))

    bounds = [(1 / 20, 20.0), *(OFFSETS if one else (0.0, 0.0) for one in mixed)]
    start = np.append(1.0, np.zeros(scores.shape[1]))
    found = minimize(surprise, start, jac=True, bounds=bounds, method="L-BFGS-B", options={"ftol": 1e-12}).x
    return float(1 / found[0]), found[1:]


def _middle_of_best(places: NDArray[np.float64], values: NDArray[np.float64], smoothed: float) -> float:
    near = np.abs(places[:, None] - places) <= smoothed
    smooth = (near @ values) / near.sum(axis=1)
    return float(places[np.flatnonzero(smooth >= smooth.max() - 1e-9)].mean())
