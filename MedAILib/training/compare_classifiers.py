"""Two classifiers on the same images, compared by all their measures."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.spec import ModelSpec
from MedAILib.training.evaluate_classifier import ClassifierEvaluation
from MedAILib.training.kind_measures import measures_of
from MedAILib.training.paired_test import PairedComparison, paired_differences


def require_alike(first: ModelSpec, second: ModelSpec) -> None:
    """Raise `InputError` where two classifiers can't be compared: other classes, or another kind of decision."""
    one, other = first.classes, second.classes
    if one is None or other is None or one.names != other.names:
        told = "; ".join(", ".join(classes.names if classes else ("none",)) for classes in (one, other))
        raise InputError(
            f"The models {first.name} and {second.name} decide between different classes ({told}); compare two of the "
            "same."
        )
    if one.kind != other.kind:
        raise InputError(
            f"The models {first.name} and {second.name} decide by different kinds of decision ({one.kind}, "
            f"{other.kind}); compare two of the same."
        )


def compare_classifiers(first: ClassifierEvaluation, second: ClassifierEvaluation) -> PairedComparison:
    """Compare two evaluations of the same images.

    Raises:
        InputError: the images or the classes differ.
    """
    if [case.image for case in first.cases] != [case.image for case in second.cases]:
        raise InputError("The two models were run on different images; compare them on the same.")
    require_alike(first.spec, second.spec)
    both = [np.concatenate(parts) for parts in zip(_told(first), _told(second), strict=True)]
    measured, count = measures_of(first.classes.kind).drawn(*both), len(first.cases)

    def values(rows: NDArray[np.int64], swapped: NDArray[np.bool_]) -> tuple[Mapping[str, float], Mapping[str, float]]:
        # The second model's images come after the first's.
        own = swapped[rows].astype(np.int64)
        return measured(rows + count * own), measured(rows + count * (1 - own))

    rows = paired_differences(first.draws, values)
    return PairedComparison(first.spec.name, second.spec.name, tuple(rows), first.draws)


def _told(evaluation: ClassifierEvaluation) -> tuple[NDArray[Any], ...]:
    return evaluation.numbers, evaluation.likely, evaluation.decided
