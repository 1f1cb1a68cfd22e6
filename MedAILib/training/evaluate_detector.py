"""A detector against reference boxes: run on every image, matched, measured.

The figures are `detection_measures`' business, what the report looks like `detection_report`'s.
"""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.detections import Box, Detections, overlaps
from MedAILib.errors import InputError
from MedAILib.models.open import OpenedModel
from MedAILib.progress import Progress
from MedAILib.request import DetectOptions
from MedAILib.spec import ModelSpec
from MedAILib.training.boxed_images import BoxedCase, BoxedImage, read_boxed
from MedAILib.training.classification_measures import Measured
from MedAILib.training.detection_measures import (
    FOUND_FROM,
    RATES,
    Boxes,
    Matches,
    at,
    froc_curve,
    matches_of,
    per_class,
    with_intervals,
)
from MedAILib.training.patient_draws import PatientDraws
from MedAILib.volume import Geometry

OUTCOMES = ("found", "false", "missed")
WORST_SHOWN = 5


@dataclass(frozen=True)
class Matched:
    """A box of the model or of the reference.

    Args:
        label: its class.
        outcome: "found" (a reference box, and the model's), "false" (the model's alone) or "missed".
        score: the model's; NaN for what was missed.
        overlap: intersection over union with its reference box; 0 where there is none.
        center_ras: mm.
        size_mm: along the image's axes.
    """

    label: str
    outcome: str
    score: float
    overlap: float
    center_ras: tuple[float, ...]
    size_mm: tuple[float, ...]


@dataclass(frozen=True)
class DetectorCase:
    """One image: what was found, false or missed, and the seconds that the model took."""

    case: BoxedCase
    boxes: tuple[Matched, ...]
    seconds: float

    def count(self, outcome: str) -> int:
        """How many of its boxes came out so."""
        return sum(box.outcome == outcome for box in self.boxes)


@dataclass(frozen=True, eq=False)
class BoxedPicture:
    """One slice of a case with the boxes that reach into it, to look at.

    Args:
        case: the case's name.
        image: (J, I), the first channel.
        boxes: for each whether it is the "reference"'s, or the model's and "found" or "false"; and its faces along I
            and J, in continuous voxel indices.
        spacing_ji_mm: distance of voxel centres along J and I.
        orientation: where I, J and K grow, such as "RAS".
        slice_k: which slice of the image it is.
    """

    case: str
    image: NDArray[Any]
    boxes: tuple[tuple[str, NDArray[np.float64], NDArray[np.float64]], ...]
    spacing_ji_mm: tuple[float, float]
    orientation: str
    slice_k: int


@dataclass(frozen=True, eq=False)
class DetectorEvaluation:
    """A detector's results on a set of images.

    Args:
        spec: the model's description.
        cases: in the order given.
        measured: figures of all classes together with 95 % intervals, by `detection_measures.MEASURES`.
        each: average precisions of each class, by the same keys, and "references"; NaN for a class without any.
        curve: false findings per image, and sensitivity (n,) by falling score.
        worst: slices through boxes that were missed, or found where there are none, five at most.
        matches: what matched in each image, as `detection_measures` has it.
        provenance: as the model's first run told it.
        started: when, UTC.
        patients: whose each image is, "" where that is not known; empty: of none.
    """

    spec: ModelSpec
    cases: tuple[DetectorCase, ...]
    measured: dict[str, Measured]
    each: dict[str, dict[str, float]]
    curve: tuple[NDArray[np.float64], NDArray[np.float64]]
    worst: tuple[BoxedPicture, ...]
    matches: tuple[Matches, ...]
    provenance: dict[str, str]
    started: datetime
    patients: tuple[str, ...] = ()

    @property
    def draws(self) -> PatientDraws:
        """Images by patient."""
        return PatientDraws.of(self.patients or [""] * len(self.cases))


def evaluate_detector(
    model: OpenedModel,
    cases: Sequence[BoxedCase],
    names: Mapping[str, str],
    progress: Progress,
    patients: Mapping[str, str] | None = None,
) -> DetectorEvaluation:
    """Run a detector on every image and compare what it finds with the boxes that are there.

    All files are read and checked before the model first runs. The model's own limits of score and overlap hold.

    Args:
        model: a detector.
        cases: images and boxes.
        names: which class each of the data's labels stands for; see `label_names`.
        progress: told before each image and between the model's windows.
        patients: of cases by name, as far as they are known.

    Raises:
        InputError: no images, no boxes, or a file that is at fault.
        Cancelled: by `progress`.
    """
    if not cases:
        raise InputError("There are no images to evaluate the model on.")
    started, count = datetime.now(timezone.utc), 0
    for number, case in enumerate(cases):
        progress.step(number, len(cases), f"Checking {case.name}")
        count += len(read_boxed(case, names).boxes)
    if not count:
        raise InputError("There is no box in the data, so that there is nothing to find.")
    classes = model.spec.findings
    matches: list[Matches] = []
    results: list[DetectorCase] = []
    provenance: dict[str, str] = {}
    for number, case in enumerate(cases):
        image = read_boxed(case, names)
        begun = time.perf_counter()
        told = model.run(image.volume, DetectOptions(), _Part(progress, number, len(cases), case.name))
        seconds = time.perf_counter() - begun
        assert isinstance(told, Detections), "a detector gives boxes"
        matches.append(matches_of(_boxes(told.boxes, told, classes), _boxes(image.boxes, told, classes)))
        results.append(DetectorCase(case, _outcomes(told, image.boxes), seconds))
        provenance = provenance or dict(told.provenance)
    progress.step(len(cases), len(cases), "Comparing")
    whose = tuple((patients or {}).get(case.name, "") for case in cases)
    return DetectorEvaluation(
        model.spec,
        tuple(results),
        with_intervals(matches, len(classes), whose),
        {name: per_class(matches, number) for number, name in enumerate(classes)},
        froc_curve(matches),
        tuple(_picture(read_boxed(result.case, names), result) for result in worst_cases(results)),
        tuple(matches),
        provenance,
        started,
        whose,
    )


def summary(evaluation: DetectorEvaluation) -> dict[str, Any]:
    """The results as JSON has them; what is not defined is null."""
    measured = evaluation.measured
    return {
        **{key: _plain(found.value) for key, found in measured.items() if not key.startswith("sensitivity")},
        "sensitivity_at_false_per_image": {f"{rate:g}": _plain(measured[at(rate)].value) for rate in RATES},
        "intervals_95": {key: [_plain(found.low), _plain(found.high)] for key, found in measured.items()},
        "froc_overlap": FOUND_FROM,
        "per_class": {
            name: {key: _plain(value) for key, value in figures.items()} for name, figures in evaluation.each.items()
        },
        "patients": evaluation.draws.count if evaluation.draws.shared else None,
        "metric_per_case": [
            {
                "case": result.case.name,
                "images": [str(path) for path in result.case.images],
                **{kind: result.count(kind) for kind in OUTCOMES},
                "seconds": round(result.seconds, 4),
            }
            for result in evaluation.cases
        ],
        "medai": {
            "model": evaluation.spec.name,
            "version": evaluation.spec.version,
            "sha256": evaluation.provenance.get("sha256"),
            "started": evaluation.started.isoformat(timespec="seconds"),
            "provenance": evaluation.provenance,
        },
    }


def worst_cases(results: Sequence[DetectorCase]) -> list[DetectorCase]:
    """The cases of most boxes missed, then of most that are false; those that are right throughout are none."""
    wrong = [one for one in results if one.count("missed") or one.count("false")]
    return sorted(wrong, key=lambda one: (-one.count("missed"), -one.count("false")))[:WORST_SHOWN]


def _picture(image: BoxedImage, result: DetectorCase) -> BoxedPicture:
    """The slice through the middle of the first box that was missed, else of the surest one that is false."""
    geometry = image.volume.geometry
    wrong = [box for kind in ("missed", "false") for box in result.boxes if box.outcome == kind]
    middle = geometry.ijk_of(np.array(wrong[0].center_ras)[None])[0]
    number = int(np.clip(round(float(middle[2])), 0, geometry.shape_kji[0] - 1))
    every = [("reference", *_ends(box)) for box in image.boxes]
    every += [(box.outcome, *_on(geometry, box)) for box in result.boxes if box.outcome != "missed"]
    here = [(kind, low[:2], high[:2]) for kind, low, high in every if low[2] <= number <= high[2]]
    return BoxedPicture(
        image.case.name,
        image.volume.data[0, number],
        tuple(here),
        geometry.spacing_kji_mm[1:],
        geometry.orientation,
        number,
    )


def _ends(box: Box) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array(box.low_ijk), np.array(box.high_ijk)


def _on(geometry: Geometry, box: Matched) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    middle = geometry.ijk_of(np.array(box.center_ras)[None])[0]
    half = np.array(box.size_mm) / np.array(geometry.spacing_kji_mm[::-1]) / 2
    return middle - half, middle + half


def _boxes(boxes: Sequence[Box], told: Detections, classes: Sequence[str]) -> Boxes:
    return Boxes(
        _corners(boxes, told),
        np.array([classes.index(box.label) for box in boxes], dtype=np.int64),
        np.array([box.score for box in boxes], dtype=np.float64),
    )


def _corners(boxes: Sequence[Box], told: Detections) -> NDArray[np.float64]:
    """Boxes (n, 6) in millimetres along the image's axes."""
    spacing = np.array(told.geometry.spacing_kji_mm[::-1])
    every = [[*(np.array(box.low_ijk) * spacing), *(np.array(box.high_ijk) * spacing)] for box in boxes]
    return np.array(every, np.float64).reshape(-1, 6)


def _outcomes(told: Detections, reference: Sequence[Box]) -> tuple[Matched, ...]:
    """Every box of an image, found, false or missed, by an overlap of `FOUND_FROM`; the surest first."""
    mine, theirs = _corners(told.boxes, told), _corners(reference, told)
    both = np.concatenate([mine, theirs])
    alike = overlaps(both[:, :3], both[:, 3:])[: len(mine), len(mine) :]
    taken: set[int] = set()
    found = []
    for number, box in enumerate(told.boxes):
        free = [n for n, other in enumerate(reference) if n not in taken and other.label == box.label]
        best = max(free, key=lambda n: alike[number, n], default=None)
        hit = best is not None and alike[number, best] >= FOUND_FROM
        if hit and best is not None:
            taken.add(best)
        overlap = float(alike[number, best]) if hit and best is not None else 0.0
        found.append(_told(told, box, "found" if hit else "false", box.score, overlap))
    missed = [_told(told, box, "missed", math.nan, 0.0) for number, box in enumerate(reference) if number not in taken]
    return (*found, *missed)


def _told(told: Detections, box: Box, outcome: str, score: float, overlap: float) -> Matched:
    center, size = told.center_ras(box).tolist(), told.size_mm(box).tolist()
    return Matched(box.label, outcome, score, overlap, tuple(center), tuple(size))


def _plain(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)


class _Part(Progress):
    """One image's steps, told as those of all images."""

    def __init__(self, whole: Progress, number: int, count: int, name: str) -> None:
        self.whole, self.number, self.count, self.name = whole, number, count, name

    def step(self, done: int, total: int, text: str = "") -> None:
        share = done / total if total else 0.0
        self.whole.step(int(100 * (self.number + share)), 100 * self.count, f"{self.name}: {text}")

    def warn(self, text: str) -> None:
        self.whole.warn(text)
