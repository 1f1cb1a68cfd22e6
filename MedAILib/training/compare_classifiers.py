"""Two classifiers on the same images, compared by all their measures."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.training.classification_measures import quick_measure
from MedAILib.training.evaluate_classifier import ClassifierEvaluation
from MedAILib.training.paired_test import PairedComparison, paired_differences


def compare_classifiers(first: ClassifierEvaluation, second: ClassifierEvaluation) -> PairedComparison:
    """Compare two evaluations of the same images.

    Raises:
        InputError: the images or the classes differ.
    """
    if [case.image for case in first.cases] != [case.image for case in second.cases]:
        raise InputError("The two models were run on different images; compare them on the same.")
    if first.classes.names != second.classes.names:
        raise InputError(
            f"The models {first.spec.name} and {second.spec.name} decide between different classes "
            f"({', '.join(first.classes.names)}; {', '.join(second.classes.names)}); compare two of the same."
        )
    likely = np.stack([first.likely, second.likely])
    decided = np.array([[case.decided for case in one.cases] for one in (first, second)], dtype=np.int64)

    def values(rows: NDArray[np.int64], swapped: NDArray[np.bool_]) -> tuple[Mapping[str, float], Mapping[str, float]]:
        own = swapped[rows].astype(np.int64)
        truth = first.numbers[rows]
        a, b = (quick_measure(truth, likely[side, rows], decided[side, rows]) for side in (own, 1 - own))
        return a, b

    rows = paired_differences(len(first.cases), values)
    return PairedComparison(first.spec.name, second.spec.name, tuple(rows))
