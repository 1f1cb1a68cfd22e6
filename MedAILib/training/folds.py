"""What folds say together: one evaluation of all cases, and the tables of a model card."""

import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from MedAILib.training.evaluate import MEASURES, WORST_SHOWN, Evaluation, finite_mean

SHOWN = ("Dice", "HD95", "SurfaceDice_1mm", "VolumeDifference_mL")


def merged(evaluations: Sequence[Evaluation]) -> Evaluation:
    """All folds' cases as one evaluation: each case judged by the network that has not learnt from it."""
    cases = tuple(result for evaluation in evaluations for result in evaluation.cases)
    dice = {result.case.name: result.mean_dice for result in cases}
    pictures = [picture for evaluation in evaluations for picture in evaluation.worst]
    worst = tuple(sorted(pictures, key=lambda picture: dice[picture.case])[:WORST_SHOWN])
    first = evaluations[0]
    if len(evaluations) == 1:
        return first
    spec = replace(first.spec, title=f"{first.spec.title}, {len(evaluations)}-fold cross-validation")
    patients = tuple(patient for evaluation in evaluations for patient in evaluation.patients)
    return replace(first, spec=spec, cases=cases, worst=worst, patients=patients)


def validation_told(evaluations: Sequence[Evaluation]) -> str:
    """Tables of one evaluation, or of each fold's and of all together."""
    if len(evaluations) == 1:
        return _results_table(evaluations[0])
    return (
        f"{len(evaluations)}-fold cross-validation: each case is judged by the network that has not learnt from it.\n\n"
        f"{_folds_table(evaluations)}\n\nAll folds: {_results_table(merged(evaluations))}"
    )


def _folds_table(evaluations: Sequence[Evaluation]) -> str:
    """Each fold's mean Dice, and the mean over all cases."""
    names = list(evaluations[0].labels.values())
    dice = next(measure for measure in MEASURES if measure.key == "Dice")
    rows = []
    for title, evaluation in (*((str(n), one) for n, one in enumerate(evaluations)), ("all", merged(evaluations))):
        means = [finite_mean(evaluation.values(value, dice)) for value in evaluation.labels]
        rows.append(f"| {title} | {len(evaluation.cases)} | " + " | ".join(_number(mean, 3) for mean in means) + " |")
    head = f"| fold | cases | {' | '.join(f'Dice {name}' for name in names)} |"
    return "\n".join([head, "|---|---|" + "---|" * len(names), *rows])


def _results_table(evaluation: Evaluation) -> str:
    """Two tables: each structure over all cases, and the cases of lowest mean Dice."""
    rows = []
    for value, name in evaluation.labels.items():
        for measure in (measure for measure in MEASURES if measure.key in SHOWN):
            found = evaluation.statistics(value, measure)
            numbers = (found.mean, found.sd, found.low, found.high, found.median, found.worst)
            mean, sd, low, high, median, worst = (_number(number, measure.decimals) for number in numbers)
            rows.append(f"| {name} | {measure.title} | {mean} | {sd} | {low} to {high} | {median} | {worst} |")
    lowest = sorted(evaluation.cases, key=lambda result: np.nan_to_num(result.mean_dice, nan=2.0))[:WORST_SHOWN]
    dice = next(measure for measure in MEASURES if measure.key == "Dice")
    cases = [
        f"| {result.case.name} | "
        + " | ".join(_number(dice.of(result.agreements[v]), 3) for v in evaluation.labels)
        + " |"
        for result in lowest
    ]
    names = list(evaluation.labels.values())
    return "\n".join(
        [
            f"{_counted(evaluation)}, one network, without mirroring; see `MedAILib/training/metrics.py`.",
            "",
            "| structure | measure | mean | sd | 95 % interval of the mean | median | worst |",
            "|---|---|---|---|---|---|---|",
            *rows,
            "",
            "Cases of lowest mean Dice:",
            "",
            f"| case | {' | '.join(f'Dice {name}' for name in names)} |",
            "|---|" + "---|" * len(names),
            *cases,
        ]
    )


def _counted(evaluation: Evaluation) -> str:
    """How many cases, and what the intervals are of where several are of one patient."""
    told, draws = f"{len(evaluation.cases)} cases", evaluation.draws
    return f"{told} of {draws.count} patients (whom the intervals draw)" if draws.shared else told


def _number(value: float, decimals: int) -> str:
    """A figure, or a dash where there is none: of a structure that no case has."""
    return "–" if math.isnan(value) else f"{value:.{decimals}f}"
