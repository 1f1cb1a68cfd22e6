"""A model against reference labels: run on every case, measured per structure, summed up over the cases.

What the report looks like is `report`'s business; what the measures mean is `metrics`'s.
"""

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from MedAILib.errors import InputError
from MedAILib.models.open import Model
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.results import Label, Segmentation
from MedAILib.spec import ModelSpec
from MedAILib.training.case_images import read_case
from MedAILib.training.cases import Case
from MedAILib.training.metrics import Agreement, compare
from MedAILib.training.patient_draws import PatientDraws
from MedAILib.volume import Volume

TOLERANCE_MM = 1.0
WORST_SHOWN = 5
RESAMPLES = 2000
SEED = 12345


@dataclass(frozen=True)
class Measure:
    """One column of the results.

    Args:
        key: its name in files; those of nnU-Net are nnU-Net's.
        title: its name for people, with the unit.
        of: how to take it from one structure in one image.
        badness: grows as the value gets worse; None for plain counts.
        decimals: how many are worth printing.
    """

    key: str
    title: str
    of: Callable[[Agreement], float]
    badness: Callable[[float], float] | None = None
    decimals: int = 3


MEASURES = (
    Measure("Dice", "Dice", lambda a: a.overlap.dice, lambda x: -x),
    Measure("HD95", "95 % Hausdorff distance (mm)", lambda a: a.hd95_mm, lambda x: x, 2),
    Measure("SurfaceDice_1mm", "Surface Dice at 1 mm", lambda a: a.surface_dice, lambda x: -x),
    Measure("MeanSurfaceDistance", "Mean surface distance (mm)", lambda a: a.mean_distance_mm, lambda x: x, 2),
    Measure("VolumeDifference_mL", "Volume difference (mL)", lambda a: a.volume_difference_ml, abs),
    Measure("RelativeVolumeDifference", "Relative volume difference", lambda a: a.relative_volume_difference, abs),
    Measure("IoU", "Intersection over union", lambda a: a.overlap.iou, lambda x: -x),
    Measure("TP", "True positive voxels", lambda a: a.overlap.tp),
    Measure("FP", "False positive voxels", lambda a: a.overlap.fp),
    Measure("FN", "False negative voxels", lambda a: a.overlap.fn),
    Measure("TN", "True negative voxels", lambda a: a.overlap.tn),
    Measure("n_pred", "Predicted voxels", lambda a: a.overlap.n_pred),
    Measure("n_ref", "Reference voxels", lambda a: a.overlap.n_ref),
)


@dataclass(frozen=True)
class CaseResult:
    """One case's measures, a structure's under its label value, and the seconds that the model took."""

    case: Case
    agreements: dict[int, Agreement]
    seconds: float

    @property
    def mean_dice(self) -> float:
        """Mean Dice of the structures that are there in reference or prediction; NaN when none is."""
        return finite_mean([agreement.overlap.dice for agreement in self.agreements.values()])


@dataclass(frozen=True, eq=False)
class Picture:
    """One slice of a case, to look at.

    Args:
        case: the case's name.
        image: (J, I), the first channel.
        reference, predicted: (J, I), label values.
        spacing_ji_mm: distance of voxel centres along J and I.
        orientation: where I, J and K grow, such as "RAS".
        slice_k: which slice of the image it is.
    """

    case: str
    image: NDArray[Any]
    reference: NDArray[np.uint16]
    predicted: NDArray[np.uint16]
    spacing_ji_mm: tuple[float, float]
    orientation: str
    slice_k: int


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A model's results on a set of cases.

    Args:
        spec: the model's description.
        labels: names of the structures compared, by label value.
        cases: results in the order of the cases given.
        worst: pictures of the cases of lowest mean Dice, worst first, five at most.
        provenance: model, version, SHA-256, device, library versions, as the model's first run told them.
        started: when, UTC.
        patients: whose each case is, "" where that is not known; empty: of none.
    """

    spec: ModelSpec
    labels: dict[int, str]
    cases: tuple[CaseResult, ...]
    worst: tuple[Picture, ...]
    provenance: dict[str, str]
    started: datetime
    patients: tuple[str, ...] = ()

    @property
    def draws(self) -> PatientDraws:
        """Cases by patient."""
        return PatientDraws.of(self.patients or [""] * len(self.cases))

    def statistics(self, label: int, measure: Measure) -> "Statistics":
        """One measure of one structure, summed up."""
        return statistics(self.values(label, measure), measure.badness, self.draws)

    def values(self, label: int, measure: Measure) -> NDArray[np.float64]:
        """One measure of one structure, case by case (n,); NaN or infinite where there is nothing to measure."""
        return np.array([measure.of(result.agreements[label]) for result in self.cases], dtype=np.float64)


@dataclass(frozen=True)
class Statistics:
    """One measure of one structure over all cases.

    Mean, sd and interval are over the cases with a finite value; median and worst count infinite ones too (structures
    that are missed or made up have infinite distances). NaN where there are too few cases.

    Args:
        cases: how many have a value, finite or not.
        infinite: how many of them are infinite.
        low, high: 95 % interval of the mean: percentiles of the means of 2000 resamples of the patients, seeded.
    """

    cases: int
    infinite: int
    mean: float
    sd: float
    median: float
    worst: float
    low: float
    high: float


def evaluate_segmentation(
    model: Model,
    cases: Sequence[Case],
    labels: Mapping[int, str],
    progress: Progress,
    options: RunOptions | None = None,
    patients: Mapping[str, str] | None = None,
) -> Evaluation:
    """Run a model on every case and compare what it finds with the case's label.

    All files are read and checked before the model first runs. Structures compared are those that both the model and
    `labels` know.

    Args:
        model: any that gives segmentations.
        cases: images and labels.
        labels: names of the reference's label values, background left out.
        progress: told before each case and between the model's windows.
        options: how to run the model; by default as it is meant to be.
        patients: of cases by name, as far as they are known.

    Raises:
        InputError: no cases; a label map that is none, is on another grid than its image or has a value that the model
            does not know; names of label values that contradict the model's; an image that does not suit the model.
        Cancelled: by `progress`.
    """
    if not cases:
        raise InputError("There are no cases to evaluate the model on.")
    started = datetime.now(timezone.utc)
    compared = match_labels(model.spec, labels, progress)
    _check_files(model.spec, cases, progress)
    results: list[CaseResult] = []
    worst: list[tuple[float, Picture]] = []
    provenance: dict[str, str] = {}
    for number, case in enumerate(cases):
        part = _PartProgress(progress, number, len(cases), case.name)
        part.step(0, 1)
        image, reference = read_case(case, Progress())  # the check before told of what there is to tell
        begun = time.perf_counter()
        segmentation = model.run(image, options or RunOptions(), part)
        result = _measure(case, reference, segmentation, compared, time.perf_counter() - begun)
        results.append(result)
        provenance = provenance or dict(segmentation.provenance)
        if not math.isnan(result.mean_dice):
            worst.append((result.mean_dice, _picture(result, image, reference, segmentation)))
            worst = sorted(worst, key=lambda entry: entry[0])[:WORST_SHOWN]
    progress.step(len(cases), len(cases), f"Case {len(cases)} of {len(cases)}: {cases[-1].name}")
    names = {label.value: label.name for label in compared}
    pictures, whose = tuple(picture for _, picture in worst), patients or {}
    told = tuple(whose.get(case.name, "") for case in cases)
    return Evaluation(model.spec, names, tuple(results), pictures, provenance, started, told)


def match_labels(spec: ModelSpec, labels: Mapping[int, str], progress: Progress) -> tuple[Label, ...]:
    """The model's labels that the reference has too, by value; tells of what looks wrong but need not be.

    Names match when the words of one are all in the other, whatever their case ("anterior", "Anterior hippocampus").

    Raises:
        InputError: no value in common; two structures of one name under different values; a value whose name in the
            reference is that of another of the model's labels.
    """
    if any(label.layer for label in spec.labels):
        raise InputError(f"The structures of the model {spec.name} overlap; evaluation takes one label for each voxel.")
    known = {label.value: label for label in spec.labels}
    for value, name in labels.items():
        other = next((x for x in spec.labels if x.value != value and _words(x.name) == _words(name)), None)
        if other is not None:
            raise InputError(
                f"'{name}' has the value {value} in the data and {other.value} in the model {spec.name}; give both the "
                "same values in the data's labels and dataset.json."
            )
    compared = tuple(known[value] for value in sorted(labels) if value in known)
    if not compared:
        raise InputError(
            f"The data's label values {sorted(labels)} and those of the model {spec.name}, {sorted(known)}, have none "
            "in common; is this the model's data?"
        )
    for label in compared:
        ours, theirs = _words(label.name), _words(labels[label.value])
        if not (ours <= theirs or theirs <= ours):
            progress.warn(
                f"The value {label.value} is '{labels[label.value]}' in the data and '{label.name}' in the model "
                f"{spec.name}; the figures mean something only if both are the same structure."
            )
    if unused := [label.name for label in spec.labels if label.value not in labels]:
        progress.warn(f"The data has no reference for {', '.join(unused)}; not evaluated.")
    return compared


def statistics(
    values: NDArray[np.float64], badness: Callable[[float], float] | None, draws: PatientDraws | None = None
) -> Statistics:
    """Sum up one measure over cases.

    Args:
        values: (n,), NaN for cases that say nothing.
        badness: grows as a value gets worse.
        draws: cases by patient; by default each is another's.
    """
    told = values[~np.isnan(values)]
    finite = told[np.isfinite(told)]
    means = (draws or PatientDraws.of([""] * len(values))).means(values, RESAMPLES, SEED)
    low, high = (float(x) for x in np.percentile(means, (2.5, 97.5))) if means.size else (math.nan, math.nan)
    return Statistics(
        int(told.size),
        int(told.size - finite.size),
        float(finite.mean()) if finite.size else math.nan,
        float(finite.std(ddof=1)) if finite.size > 1 else math.nan,
        float(np.median(told)) if told.size else math.nan,
        float(max(told, key=badness)) if told.size and badness else math.nan,
        low,
        high,
    )


def summary(evaluation: Evaluation) -> dict[str, Any]:
    """The results in the layout of nnU-Net's `summary.json`, ready for strict JSON.

    Beside nnU-Net's measures stand ours (`HD95`, `SurfaceDice_1mm`, `VolumeDifference_mL`, …), and beside its entries
    one of our own, "medai". Two differences from nnU-Net: values that are not finite are null (it writes NaN, which is
    no JSON), and `prediction_file` is null, since predictions are not kept. Means leave out what is not finite, those
    of the foreground too.
    """
    mean = {
        str(label): {measure.key: _jsonable(finite_mean(evaluation.values(label, measure))) for measure in MEASURES}
        for label in evaluation.labels
    }
    foreground = {
        measure.key: _jsonable(finite_mean([finite_mean(evaluation.values(x, measure)) for x in evaluation.labels]))
        for measure in MEASURES
    }
    return {
        "foreground_mean": foreground,
        "mean": mean,
        "metric_per_case": [
            {
                "metrics": {
                    str(label): {measure.key: _jsonable(measure.of(agreement)) for measure in MEASURES}
                    for label, agreement in result.agreements.items()
                },
                "prediction_file": None,
                "reference_file": str(result.case.label),
            }
            for result in evaluation.cases
        ],
        "medai": {
            "model": evaluation.spec.name,
            "version": evaluation.spec.version,
            "sha256": evaluation.provenance.get("sha256"),
            "started": evaluation.started.isoformat(timespec="seconds"),
            "labels": {str(label): name for label, name in evaluation.labels.items()},
            "patients": evaluation.draws.count if evaluation.draws.shared else None,
            "statistics": {
                str(label): {
                    measure.key: {
                        key: _jsonable(value) for key, value in asdict(evaluation.statistics(label, measure)).items()
                    }
                    for measure in MEASURES
                    if measure.badness is not None
                }
                for label in evaluation.labels
            },
            "provenance": evaluation.provenance,
        },
    }


def finite_mean(values: Sequence[float] | NDArray[np.float64]) -> float:
    """The mean of those values that are finite; NaN when none is."""
    array = np.asarray(values, dtype=np.float64)
    finite = array[np.isfinite(array)]
    return float(finite.mean()) if finite.size else math.nan


def _jsonable(value: float) -> float | int | None:
    return value if math.isfinite(value) else None


class _PartProgress(Progress):
    """Counts cases, and says in words where the model is within one; each of its steps can be the last."""

    def __init__(self, whole: Progress, number: int, total: int, name: str) -> None:
        self._whole, self._number, self._total, self._name = whole, number, total, name

    def step(self, done: int, total: int, text: str = "") -> None:
        within = f", {text[0].lower()}{text[1:]} {done} of {total}" if text else ""
        self._whole.step(self._number, self._total, f"Case {self._number + 1} of {self._total}: {self._name}{within}")

    def warn(self, text: str) -> None:
        self._whole.warn(f"{self._name}: {text}")


def _words(name: str) -> set[str]:
    return set(name.casefold().replace("_", " ").replace("-", " ").split())


def _check_files(spec: ModelSpec, cases: Sequence[Case], progress: Progress) -> None:
    """Read every file once before the long work, so that a bad one is told of at once and not after an hour."""
    known = [label.value for label in spec.labels]
    for number, case in enumerate(cases):
        progress.step(number, len(cases), f"Checking {case.name}")
        _, reference = read_case(case, progress)
        present = np.flatnonzero(np.bincount(reference.ravel()))
        unknown = np.setdiff1d(present, [0, *known])
        if unknown.size:
            raise InputError(
                f"{case.label} has the label value {unknown[0]}, which the model {spec.name} does not know (it knows "
                f"{known}); take that label out of the file, or evaluate another model."
            )
    progress.step(len(cases), len(cases), f"Checking {cases[-1].name}")


def _measure(
    case: Case, reference: NDArray[np.uint16], segmentation: Segmentation, labels: Sequence[Label], seconds: float
) -> CaseResult:
    predicted = segmentation.layers[0]
    boxes = _boxes(reference, predicted)
    agreements = {}
    for label in labels:
        box = boxes.get(label.value, (slice(0, 2),) * 3)
        part = compare(
            reference[box] == label.value,
            predicted[box] == label.value,
            segmentation.geometry.spacing_kji_mm,
            TOLERANCE_MM,
        )
        outside = reference.size - reference[box].size
        agreements[label.value] = replace(part, overlap=replace(part.overlap, tn=part.overlap.tn + outside))
    return CaseResult(case, agreements, seconds)


def _boxes(reference: NDArray[Any], predicted: NDArray[Any]) -> dict[int, tuple[slice, ...]]:
    """For each label value in either array, the box around it and one voxel more: what lies outside says nothing."""
    found: dict[int, list[tuple[slice, ...]]] = {}
    for labels in (reference, predicted):
        for number, box in enumerate(find_objects(labels), start=1):
            if box is not None:
                found.setdefault(number, []).append(box)
    return {
        value: tuple(
            slice(max(min(s.start for s in sides) - 1, 0), max(s.stop for s in sides) + 1)
            for sides in zip(*boxes, strict=True)
        )
        for value, boxes in found.items()
    }


def _picture(result: CaseResult, image: Volume, reference: NDArray[np.uint16], segmentation: Segmentation) -> Picture:
    """The slice through the middle of the structure of lowest Dice: half of the reference's voxels on either side.

    Where the reference has none, the prediction's middle is taken.
    """
    label = min(result.agreements, key=lambda value: np.nan_to_num(result.agreements[value].overlap.dice, nan=2.0))
    masks = {x.value: segmentation.mask(x) for x in segmentation.labels if x.value in result.agreements}
    mask = reference == label if result.agreements[label].overlap.n_ref else masks[label]
    heaped = np.cumsum(mask.sum(axis=(1, 2)))
    k = int(np.searchsorted(heaped, heaped[-1] / 2))
    predicted = np.zeros_like(reference[k])
    for value, found in masks.items():
        predicted[found[k]] = value
    return Picture(
        result.case.name,
        np.array(image.data[0, k]),
        np.where(np.isin(reference[k], list(masks)), reference[k], 0).astype(np.uint16),
        predicted,
        (image.geometry.spacing_kji_mm[1], image.geometry.spacing_kji_mm[2]),
        image.geometry.orientation,
        k,
    )
