"""What a classifier's training found on images that the judging networks have not learnt from, as an evaluation."""

from dataclasses import replace
from datetime import datetime, timezone

import torch

from MedAILib.errors import SpecError
from MedAILib.models.provenance import made_by
from MedAILib.spec import ModelSpec
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import ClassData, Trained
from MedAILib.training.evaluate_classifier import ClassifiedCase, ClassifierEvaluation, measured_cases


def report_folder(task: ClassificationTask) -> str:
    """What the folder of a training's report is called beside its checkpoints."""
    return "cross_validation" if task.folds > 1 else "validation"


def judged_evaluation(
    task: ClassificationTask, data: ClassData, trained: Trained, spec: ModelSpec, device: torch.device
) -> ClassifierEvaluation:
    """The evaluation of all images that were judged, fold by fold, with the figures that the model card has.

    Args:
        task: how it was trained.
        data: with its `sources`.
        trained: what came out, on that data.
        spec: of the model that was written of it.
        device: where it was trained.

    Raises:
        SpecError: the model gives no classes.
        InputError: an image's file can't be read any more.
    """
    if spec.classes is None:
        raise SpecError(f"The model {spec.name} does not give classes.")
    judged, chosen = trained.judged, trained.calibration
    likely = task.decided.probabilities(judged.scores, chosen.temperature, chosen.offsets)
    decided = task.decided.decide(likely, chosen.thresholds)
    strange = None  # of folds' networks it means nothing: the limit is the shipped network's
    if task.folds == 1 and chosen.strange_above is not None:
        strange = task.decided.strangeness(judged.scores, chosen)
    cases = []
    for row, place in enumerate(judged.places.tolist()):
        score = None if strange is None else float(strange[row])
        image = data.sources[place]
        unsure = _unsure(score, chosen.strange_above)
        cases.append(ClassifiedCase(image, judged.numbers[row], likely[row], decided[row], unsure, score, None))
    titled = replace(spec, title=f"{spec.title}, {_what(task)}")
    part = "val" if task.folds == 1 else ""
    evaluation = measured_cases(titled, spec.classes, cases, made_by(spec, device), part, datetime.now(timezone.utc))
    return replace(evaluation, note=_note(task))


def _unsure(score: float | None, limit: float | None) -> str:
    if score is None or limit is None or score <= limit:
        return ""
    return f"the image is unlike the training data: score {score:.3g} > {limit:g}"


def _what(task: ClassificationTask) -> str:
    return f"{task.folds}-fold cross-validation" if task.folds > 1 else "validation part"


def _note(task: ClassificationTask) -> str:
    """Who judged, and what of the figures flatters."""
    who = "Each image was judged by the model, which has not learnt from it"
    if task.folds > 1:
        who = (
            f"Each image was judged by the networks of that fold, of {task.folds}, which have not learnt from it; the "
            "model itself, which comes of all folds, can't be judged on these images"
        )
    return f"{who}. Temperature and thresholds were chosen on these images, too, so that on others it may do worse."
