"""Two detectors on the same images, compared by mAP and FROC."""

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.training.detection_measures import MEASURES, Matches, measure
from MedAILib.training.evaluate_detector import DetectorEvaluation
from MedAILib.training.paired_test import PairedComparison, PairedDifference, paired_differences
from MedAILib.training.patient_draws import PatientDraws


def compare_detectors(first: DetectorEvaluation, second: DetectorEvaluation) -> PairedComparison:
    """Compare two evaluations of the same images.

    Raises:
        InputError: the images or the classes differ.
    """
    if [one.case for one in first.cases] != [one.case for one in second.cases]:
        raise InputError("The two models were run on different images; compare them on the same.")
    if first.spec.findings != second.spec.findings:
        raise InputError(
            f"The models {first.spec.name} and {second.spec.name} look for different classes "
            f"({', '.join(first.spec.findings)}; {', '.join(second.spec.findings)}); compare two of the same."
        )
    rows = differences(first.matches, second.matches, len(first.spec.findings), first.draws)
    return PairedComparison(first.spec.name, second.spec.name, tuple(rows), first.draws)


def differences(
    first: Sequence[Matches], second: Sequence[Matches], classes: int, draws: PatientDraws
) -> list[PairedDifference]:
    """Every one of `detection_measures.MEASURES`, compared over all images, patient by patient."""

    def values(rows: NDArray[np.int64], swapped: NDArray[np.bool_]) -> tuple[Mapping[str, float], Mapping[str, float]]:
        pairs = [(second[n], first[n]) if swapped[n] else (first[n], second[n]) for n in rows.tolist()]
        a, b = (measure([pair[side] for pair in pairs], classes) for side in (0, 1))
        return {key: a[key] for key in MEASURES}, {key: b[key] for key in MEASURES}

    return paired_differences(draws, values)
