"""Cross-validation of detectors: one evaluation over all folds, each image judged by a network that never saw it."""

from collections.abc import Sequence
from dataclasses import replace

from MedAILib.training.detection_measures import froc_curve, per_class, with_intervals
from MedAILib.training.evaluate_detector import DetectorEvaluation, worst_cases


def merged_detections(evaluations: Sequence[DetectorEvaluation]) -> DetectorEvaluation:
    """All folds' images as one evaluation; figures are of all of them together, not means of the folds'."""
    first = evaluations[0]
    cases = tuple(result for evaluation in evaluations for result in evaluation.cases)
    matches = tuple(found for evaluation in evaluations for found in evaluation.matches)
    pictures = {picture.case: picture for evaluation in evaluations for picture in evaluation.worst}
    worst = [result.case.name for result in worst_cases([x for x in cases if x.case.name in pictures])]
    classes = first.spec.findings
    patients = tuple(patient for evaluation in evaluations for patient in evaluation.patients)
    return replace(
        first,
        spec=replace(first.spec, title=f"{first.spec.title}, {len(evaluations)}-fold cross-validation"),
        cases=cases,
        measured=with_intervals(matches, len(classes), patients),
        each={name: per_class(matches, number) for number, name in enumerate(classes)},
        curve=froc_curve(matches),
        worst=tuple(pictures[name] for name in worst),
        matches=matches,
        patients=patients,
    )
