"""A classifier against reference labels: run on every image, decided, measured.

What the report looks like is `classification_report`'s business.
"""

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import confusion_matrix

from MedAILib.errors import InputError, SpecError
from MedAILib.models.classifier import ClassifierModel
from MedAILib.progress import Progress
from MedAILib.request import ClassifyOptions
from MedAILib.results import Classification
from MedAILib.spec import Classes, ModelSpec
from MedAILib.training.classification_measures import Measured, per_class, with_intervals
from MedAILib.training.labelled_images import LabelledImage, check_images, numbered, read_labelled

WORST_SHOWN = 5


@dataclass(frozen=True, eq=False)
class ClassifiedCase:
    """One image's truth, what the model said of it, and the seconds that it took.

    Args:
        image: what it is.
        number: its true class.
        likely: (N,), probabilities.
        decided: the class decided for, whether or not the model was sure.
        unsure: why it was not; empty where it was.
        strangeness: its out-of-distribution score; None where the model has none.
        seconds: the model alone.
    """

    image: LabelledImage
    number: int
    likely: NDArray[np.float64]
    decided: int
    unsure: str
    strangeness: float | None
    seconds: float


@dataclass(frozen=True, eq=False)
class ClassifierEvaluation:
    """A classifier's results on a set of images.

    Args:
        spec: the model's description.
        classes: what it decides between.
        cases: results in the order of the images given.
        measured: figures with 95 % intervals, by `classification_measures.MEASURES`.
        each: the figures of each class against all others.
        confusion: (N, N), true classes in rows, decided ones in columns.
        worst: the most wrong cases first, five at most, and a picture (J, I) of each.
        provenance: as the model's first run told it.
        part: which part of the data; empty for all of it.
        started: when, UTC.
    """

    spec: ModelSpec
    classes: Classes
    cases: tuple[ClassifiedCase, ...]
    measured: dict[str, Measured]
    each: list[dict[str, float]]
    confusion: NDArray[np.int64]
    worst: tuple[tuple[ClassifiedCase, NDArray[Any]], ...]
    provenance: dict[str, str]
    part: str
    started: datetime

    @property
    def numbers(self) -> NDArray[np.int64]:
        """True classes (M,)."""
        return np.array([case.number for case in self.cases], dtype=np.int64)

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
        model: of one class for each image.
        images: and their labels, which are matched as `labelled_images.numbered` does.
        progress: told before each image.
        part: what to call these images, such as "test".

    Raises:
        SpecError: the model's classes don't exclude each other, or it takes more than images.
        InputError: no images; a label that the model does not know; an image that is unreadable or does not suit it.
        Cancelled: by `progress`.
    """
    classes = model.spec.classes
    if classes is None or classes.kind == "multilabel" or classes.covariates:
        raise SpecError(
            f"The model {model.spec.name} does not give one class for one image alone, which is what is evaluated."
        )
    if not images:
        raise InputError("There are no images to evaluate the model on.")
    started = datetime.now(timezone.utc)
    told = classes.labels or tuple((name,) for name in classes.names)
    numbers = numbered(images, dict(zip(classes.names, told, strict=True)))
    check_images(images, numbers, classes.names, classes.dimensions, progress)
    cases: list[ClassifiedCase] = []
    provenance: dict[str, str] = {}
    for number, image in enumerate(images):
        progress.step(number, len(images), f"Image {number + 1} of {len(images)}: {image.name}")
        volume = read_labelled(image)
        begun = time.perf_counter()
        result = model.run(volume, ClassifyOptions(), _Quiet(progress if number == 0 else None))
        cases.append(_case(image, int(numbers[number]), result, time.perf_counter() - begun))
        provenance = provenance or dict(result.provenance)
    progress.step(len(images), len(images), "Measuring")
    likely = np.stack([case.likely for case in cases])
    decided = np.array([case.decided for case in cases], dtype=np.int64)
    table = confusion_matrix(numbers, decided, labels=np.arange(len(classes.names)))
    return ClassifierEvaluation(
        model.spec,
        classes,
        tuple(cases),
        with_intervals(numbers, likely, decided),
        per_class(numbers, likely, decided),
        table,
        _worst(cases),
        provenance,
        part,
        started,
    )


def summary(evaluation: ClassifierEvaluation) -> dict[str, Any]:
    """The results, ready for strict JSON: a value that can't be measured is null."""
    names = evaluation.classes.names
    measured = evaluation.measured
    binary = len(names) == 2
    return {
        **{key: _jsonable(found.value) for key, found in measured.items()},
        "intervals_95": {key: [_jsonable(found.low), _jsonable(found.high)] for key, found in measured.items()},
        "confusion": evaluation.confusion.tolist(),
        "classes": list(names),
        "positive": names[1] if binary else None,
        "thresholds": dict(zip(names, evaluation.classes.thresholds, strict=True)),
        "cases": len(evaluation.cases),
        "not_sure": sum(bool(case.unsure) for case in evaluation.cases),
        "per_class": {
            name: {key: _jsonable(value) for key, value in found.items()}
            for name, found in zip(names, evaluation.each, strict=True)
        },
        "metric_per_case": [
            {
                "case": case.image.name,
                "file": str(case.image.source),
                "reference": names[case.number],
                "predicted": names[case.decided],
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
            "started": evaluation.started.isoformat(timespec="seconds"),
            "provenance": evaluation.provenance,
        },
    }


def _case(image: LabelledImage, number: int, result: Classification, seconds: float) -> ClassifiedCase:
    forced = replace(result, strangeness=None, strange_above=None, unsure_below=0.0)
    if result.kind == "multiclass":
        forced = replace(forced, thresholds=(0.0,) * len(result.classes))
    decided = result.classes.index(forced.verdict().classes[0])
    strange = None if result.strangeness is None else float(result.strangeness[0])
    return ClassifiedCase(image, number, result.probabilities[0], decided, result.verdict().unsure, strange, seconds)


def _worst(cases: Sequence[ClassifiedCase]) -> tuple[tuple[ClassifiedCase, NDArray[Any]], ...]:
    """Wrong decisions, those first that left the least probability to the truth; the middle slice or frame of each."""
    wrong = sorted((case for case in cases if case.decided != case.number), key=lambda case: case.likely[case.number])
    return tuple((case, _picture(case.image)) for case in wrong[:WORST_SHOWN])


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
