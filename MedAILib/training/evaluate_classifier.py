"""A classifier against reference labels: run on every image, decided, measured.

What the report looks like is `classification_report`'s business.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError, SpecError
from MedAILib.models.classifier import ClassifierModel
from MedAILib.progress import Progress
from MedAILib.request import ClassifyOptions
from MedAILib.results import Classification
from MedAILib.spec import Classes, ModelSpec
from MedAILib.training.classification_measures import Measured, with_intervals
from MedAILib.training.decision import Decision
from MedAILib.training.decisions import decision_of
from MedAILib.training.kind_measures import measures_of
from MedAILib.training.label_measures import labels_with_intervals
from MedAILib.training.labelled_checks import check_images
from MedAILib.training.labelled_images import LabelledImage, read_labelled
from MedAILib.training.matched_labels import truth_of
from MedAILib.training.patient_draws import PatientDraws

WORST_SHOWN = 5


@dataclass(frozen=True, eq=False)
class ClassifiedCase:
    """One image's truth, what the model said of it, and the seconds that it took.

    Args:
        image: what it is.
        number: its true class, (); where an image may have several, (N,), 1 for those that it has.
        likely: (N,), probabilities.
        decided: what was decided for, of the same shape, whether or not the model was sure.
        unsure: why it was not; empty where it was.
        strangeness: its out-of-distribution score; None where the model has none.
        seconds: the model alone; None where the images went through it together.
    """

    image: LabelledImage
    number: NDArray[np.int64]
    likely: NDArray[np.float64]
    decided: NDArray[np.int64]
    unsure: str
    strangeness: float | None
    seconds: float | None

    @property
    def right(self) -> bool:
        """Whether the decision is the truth, in all labels where an image may have several."""
        return bool(np.array_equal(self.number, self.decided))


@dataclass(frozen=True, eq=False)
class ClassifierEvaluation:
    """A classifier's results on a set of images.

    Args:
        spec: the model's description.
        classes: what it decides between.
        cases: results in the order of the images given.
        measured: figures with 95 % intervals, by `kind_measures.measures_of`.
        each: the figures of each class against all others, or of each label.
        intervals: the same with 95 % intervals, of each label; empty where classes exclude each other.
        confusion: (N, N), true classes in rows, decided ones in columns; of several labels (N, 2, 2), without and with
            each label in rows, decided against and for it in columns.
        worst: the cases first whose truth was given the least probability, five at most, and a picture (J, I) of each.
        provenance: as the model's first run told it.
        part: which part of the data; empty for all of it.
        started: when, UTC.
        note: how the images were judged, in a sentence, where that was not by running the finished model.
    """

    spec: ModelSpec
    classes: Classes
    cases: tuple[ClassifiedCase, ...]
    measured: dict[str, Measured]
    each: list[dict[str, float]]
    intervals: list[dict[str, Measured]]
    confusion: NDArray[np.int64]
    worst: tuple[tuple[ClassifiedCase, NDArray[Any]], ...]
    provenance: dict[str, str]
    part: str
    started: datetime
    note: str = ""

    @property
    def numbers(self) -> NDArray[np.int64]:
        """True classes (M,), or (M, N)."""
        return np.array([case.number for case in self.cases], dtype=np.int64)

    @property
    def decided(self) -> NDArray[np.int64]:
        """What was decided for, in the same shape."""
        return np.array([case.decided for case in self.cases], dtype=np.int64)

    @property
    def positive(self) -> str | None:
        """The one of two classes that is to be found; None where there are more, or labels by themselves."""
        names = self.classes.names
        return names[1] if len(names) == 2 and self.classes.kind != "multilabel" else None

    @property
    def decision(self) -> Decision:
        """How it is decided between the classes."""
        return decision_of(self.classes.kind, self.classes.names)

    @property
    def draws(self) -> PatientDraws:
        """Images by patient."""
        return PatientDraws.of([case.image.patient for case in self.cases])

    @property
    def likely(self) -> NDArray[np.float64]:
        """Probabilities (M, N)."""
        return np.stack([case.likely for case in self.cases])


def evaluate_classifier(
    model: ClassifierModel, images: Sequence[LabelledImage], progress: Progress, part: str = ""
) -> ClassifierEvaluation:
    """Run a classifier on every image and compare what it says with the labels.

    All images are read and checked before the model first runs. A decision counts whether or not the model was sure of
    it; how often it was not is told apart.

    Args:
        model: that takes an image alone.
        images: and their labels, which are matched as `labelled_images.truth_of` does.
        progress: told before each image.
        part: what to call these images, such as "test".

    Raises:
        SpecError: the model takes more than images.
        InputError: no images; a label that the model does not know; an image that is unreadable or does not suit it.
        Cancelled: by `progress`.
    """
    classes = model.spec.classes
    if classes is None or classes.covariates:
        raise SpecError(
            f"The model {model.spec.name} does not give classes for an image alone, which is what is evaluated."
        )
    if not images:
        raise InputError("There are no images to evaluate the model on.")
    started = datetime.now(timezone.utc)
    told = classes.labels or tuple((name,) for name in classes.names)
    decision = decision_of(classes.kind, classes.names)
    several = classes.kind == "multilabel"
    numbers = truth_of(images, dict(zip(classes.names, told, strict=True)), several)
    check_images(images, numbers, classes.names, classes.dimensions, progress)
    cases: list[ClassifiedCase] = []
    provenance: dict[str, str] = {}
    for number, image in enumerate(images):
        progress.step(number, len(images), f"Image {number + 1} of {len(images)}: {image.name}")
        volume = read_labelled(image)
        begun = time.perf_counter()
        result = model.run(volume, ClassifyOptions(), _Quiet(progress if number == 0 else None))
        decided = decision.decide(result.probabilities, classes.thresholds)[0]
        cases.append(_case(image, (numbers[number], decided), result, time.perf_counter() - begun))
        provenance = provenance or dict(result.provenance)
    progress.step(len(images), len(images), "Measuring")
    return measured_cases(model.spec, classes, cases, provenance, part, started)


def measured_cases(
    spec: ModelSpec,
    classes: Classes,
    cases: Sequence[ClassifiedCase],
    provenance: dict[str, str],
    part: str,
    started: datetime,
) -> ClassifierEvaluation:
    """The figures of cases that are decided, and pictures of the worst; arguments as `ClassifierEvaluation` has them.

    Raises:
        InputError: the file of one of the worst can't be read any more.
    """
    decision, measures = decision_of(classes.kind, classes.names), measures_of(classes.kind)
    numbers = np.array([case.number for case in cases], dtype=np.int64)
    likely = np.stack([case.likely for case in cases])
    chosen = np.array([case.decided for case in cases], dtype=np.int64)
    patients = [case.image.patient for case in cases]
    return ClassifierEvaluation(
        spec,
        classes,
        tuple(cases),
        with_intervals(numbers, likely, chosen, measures, patients),
        measures.each(numbers, likely, chosen),
        labels_with_intervals(numbers, likely, chosen, patients) if classes.kind == "multilabel" else [],
        measures.table(numbers, likely, chosen),
        _worst(cases, decision),
        provenance,
        part,
        started,
    )


def summary(evaluation: ClassifierEvaluation) -> dict[str, Any]:
    """The results, ready for strict JSON: a value that can't be measured is null."""
    names, decision = evaluation.classes.names, evaluation.decision
    measured = evaluation.measured
    return {
        **{key: _jsonable(found.value) for key, found in measured.items()},
        "intervals_95": {key: [_jsonable(found.low), _jsonable(found.high)] for key, found in measured.items()},
        "confusion": evaluation.confusion.tolist(),
        "kind": decision.kind,
        "classes": list(names),
        "positive": evaluation.positive,
        "thresholds": dict(zip(names, evaluation.classes.thresholds, strict=True)),
        "cases": len(evaluation.cases),
        "patients": evaluation.draws.count if evaluation.draws.shared else None,
        "not_sure": sum(bool(case.unsure) for case in evaluation.cases),
        "per_class": {
            name: {key: _jsonable(value) for key, value in found.items()}
            | (
                {"intervals_95": {key: [_jsonable(x.low), _jsonable(x.high)] for key, x in told.items()}}
                if evaluation.intervals
                else {}
            )
            for name, found, told in zip(names, evaluation.each, evaluation.intervals or [{}] * len(names), strict=True)
        },
        "metric_per_case": [
            {
                "case": case.image.name,
                "file": str(case.image.source),
                "reference": _named(case.number, decision),
                "predicted": _named(case.decided, decision),
                "probabilities": dict(zip(names, case.likely.tolist(), strict=True)),
                "not_sure": case.unsure or None,
            }
            for case in evaluation.cases
        ],
        "medai": {
            "model": evaluation.spec.name,
            "version": evaluation.spec.version,
            "sha256": evaluation.provenance.get("sha256"),
            "part": evaluation.part or None,
            "judged": evaluation.note or None,
            "started": evaluation.started.isoformat(timespec="seconds"),
            "provenance": evaluation.provenance,
        },
    }


def _named(number: NDArray[np.int64], decision: Decision) -> str | list[str]:
    """A class by its name, or all labels by theirs."""
    names = [name for name, has in zip(decision.names, decision.marks(number[None])[0], strict=True) if has]
    return names if decision.kind == "multilabel" else names[0]


def _case(
    image: LabelledImage,
    found: tuple[NDArray[np.int64], NDArray[np.int64]],
    result: Classification,
    seconds: float,
) -> ClassifiedCase:
    """One image's results; `found` has what is true and what was decided."""
    strange = None if result.strangeness is None else float(result.strangeness[0])
    number, decided = found
    return ClassifiedCase(image, number, result.probabilities[0], decided, result.verdict().unsure, strange, seconds)


def _worst(cases: Sequence[ClassifiedCase], decision: Decision) -> tuple[tuple[ClassifiedCase, NDArray[Any]], ...]:
    """The cases that left the least probability to the truth, right or wrong; the middle slice or frame of each."""
    worst = sorted(cases, key=lambda case: _left_to_truth(case, decision))[:WORST_SHOWN]
    return tuple((case, _picture(case.image)) for case in worst)


def _left_to_truth(case: ClassifiedCase, decision: Decision) -> float:
    """The probability of the true class; of several labels, of what is true of the one where it is least."""
    if decision.kind == "multilabel":
        return float(np.where(case.number == 1, case.likely, 1 - case.likely).min())
    apart = abs(int(case.number) - int(case.decided)) - 1 if decision.kind == "ordinal" else 0
    return float(case.likely[case.number]) - apart  # farther grades first


def _picture(image: LabelledImage) -> NDArray[Any]:
    data = read_labelled(image).data.astype(np.float64)
    if image.sequence and len(data) > 3:  # its frames
        data = data[len(data) // 2][None]
    elif image.sequence:  # its frames are slices
        return np.asarray(data[:, data.shape[1] // 2].mean(axis=0))
    axis = int(np.argmin(data.shape[1:])) + 1
    picture = np.take(data, data.shape[axis] // 2, axis=axis)
    return np.asarray(picture.mean(axis=0))


def _jsonable(value: float) -> float | int | None:
    return value if math.isfinite(value) else None


class _Quiet(Progress):
    """Hands on the warnings of the first image, such as of colours that were converted; others have the same."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress

    def warn(self, text: str) -> None:
        if self._progress is not None:
            self._progress.warn(text)
