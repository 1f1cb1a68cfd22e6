"""From labelled images to one network: folds, several networks for each, one that learns from all, its calibration.

Each choice that is left (temperature, threshold, what is too strange) is made on images that the networks which judge
them have not learnt from.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from MedAILib.errors import InputError
from MedAILib.models.mean_classifier import MeanClassifier
from MedAILib.models.trust import tree_sha256
from MedAILib.progress import Progress
from MedAILib.training.classification import train_network
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.decision import Calibration
from MedAILib.training.kernel_lesson import apart_from_others, said, see_pictures, solve
from MedAILib.training.labelled_images import MADE, LabelledImage
from MedAILib.training.lesson import Bench, Lesson, scores_of
from MedAILib.training.lesson_curves import PICTURE, TABLE
from MedAILib.training.processes import is_first

# What of a task decides every network's weights; how many there are and how long they learn is each one's own.
DECISIVE = (
    *("network", "student", "folds", "seed", "batch", "learning_rate", "weight_decay", "ema_decay"),
    *("loss", "class_weights", "label_smoothing", "augmentation"),
    *("sampling", "schedule", "accumulate", "patience", "precision"),
)
LESSONS = re.compile(r"(fold_\d+_network_\d+|final_network)\.pt")  # checkpoints, as lessons are named


@dataclass(frozen=True, eq=False)
class ClassData:
    """Images ready for the network, and what they show.

    Args:
        images: (N, C, X, Y[, Z]), or sequences (N, T, C, X, Y[, Z]), normalised.
        numbers: (N,), the class of each; where an image may have several, (N, classes), 1 for those that it has.
        names: (N,), how reports call each.
        splits: (N,), "train", "val", `MADE`, or "" each.
        patients: (N,), or "" where that is not told.
        sources: (N,), where each is from; empty where nobody asks for it.
    """

    images: Tensor
    numbers: NDArray[np.int64]
    names: tuple[str, ...]
    splits: tuple[str, ...]
    patients: tuple[str, ...]
    sources: tuple[LabelledImage, ...] = ()


@dataclass(frozen=True, eq=False)
class Judged:
    """Scores of images by networks that have not learnt from them.

    Args:
        numbers: (M,), or (M, classes), the true classes.
        scores: (M, outputs), in cross-validation those of the mean probabilities of the fold's networks, which the
            shipped network learns to give; without it the shipped network's own.
        single: a (M, outputs) for each seed: one network of the fold alone.
        places: (M,), which of all images these are.
        kernel: (M, N), the kernel classifier alone, where the task has one.
    """

    numbers: NDArray[np.int64]
    scores: NDArray[np.float64]
    single: tuple[NDArray[np.float64], ...]
    places: NDArray[np.int64]
    kernel: NDArray[np.float64] | None = None


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained classifier: its weights by name, what networks like it say of images unseen, its calibration."""

    weights: dict[str, Tensor]
    judged: Judged
    calibration: Calibration


def train_classifier(task: ClassificationTask, data: ClassData, bench: Bench, progress: Progress) -> Trained:
    """Train what the task asks for.

    Raises:
        InputError: too few images or patients for the folds; a checkpoint of another training; too many images for a
            kernel classifier, or no weights of photographs for it.
        ModelError: a loss that is no number.
        Cancelled: by `progress`; every whole epoch stands in the bench's folder.
    """
    started = "" if bench.initial is None else f" {tree_sha256(bench.initial)} {task.frozen_stages}"
    bench = replace(bench, stamp=stamp(task, data) + started)
    if not bench.resume:
        forget_lessons(bench.folder)
    folds = split_folds(task, data)
    photos = see_pictures(task, data.images, bench.device, progress) if task.kernel else None
    networks: list[nn.Module] = []
    scores: list[list[Tensor]] = []
    kernel: list[NDArray[np.float64]] = []
    for number, (learn, judge) in enumerate(folds):
        for member in range(task.networks):
            lesson = _lesson(task, data, learn, f"fold {number} network {member}", number * 100 + member)
            if task.choice == "best":
                lesson = replace(lesson, judged=(data.images[judge], _targets(task, data, judge)))
            networks.append(train_network(task, lesson, bench, progress))
        scores.append([_likely(x, data.images[judge], task, bench) for x in networks[-task.networks :]])
        if photos is not None:
            kernel.append(said(solve(task, photos, data.numbers, learn), photos, judge))
    judged = _judged(task, data, np.concatenate([judge for _, judge in folds]), scores, kernel)
    pool = folds[0][0] if len(folds) == 1 else np.arange(len(data.numbers))
    final, apart = networks[0], None
    if task.shipped:
        members, mirrors = _in_turn(task, networks)[: task.shipped], task.augmentation.get("flip", ())
        final = MeanClassifier(members, mirrors, task.frames > 0, task.decided.activation)
        if photos is not None:
            machine = solve(task, photos, data.numbers, pool)
            apart = apart_from_others(machine, len(photos.features)) if len(folds) > 1 else None
            final = MeanClassifier([MeanClassifier(members), machine.to(bench.device)], mirrors, energy_of=1)
    elif len(networks) > 1:
        lesson = _lesson(task, data, pool, "final network", len(folds) * 100, tuple(networks))
        final = train_network(task, lesson, bench, progress)
    seen = folds[0][1] if len(folds) == 1 else np.arange(len(data.numbers))
    shown = scores_of(final, data.images[seen], bench.device).double().numpy()
    if len(folds) == 1:  # it has not learnt from the validation part
        judged = replace(judged, scores=shown)
    weights = {key: value.detach().cpu().contiguous() for key, value in final.state_dict().items()}
    return Trained(weights, judged, calibrate(task, judged, shown, apart))


def forget_lessons(folder: Path) -> None:
    """Remove checkpoints and curves of another training that stood in a folder; of several processes the first does."""
    if not is_first():
        return
    for path in folder.glob("*.pt"):
        if LESSONS.fullmatch(path.name):
            path.unlink()
    for name in (TABLE, PICTURE):
        (folder / name).unlink(missing_ok=True)


def _in_turn(task: ClassificationTask, networks: Sequence[nn.Module]) -> list[nn.Module]:
    """The first network of each fold, then the second of each, and so on."""
    return [network for first in range(task.networks) for network in networks[first :: task.networks]]


def split_folds(task: ClassificationTask, data: ClassData) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each fold the places of the images to learn from and to judge by; patients stay together.

    Raises:
        InputError: too few images of a class, or a part of the data without images.
    """
    if task.folds == 1:
        parts = [np.flatnonzero(np.isin(data.splits, part)) for part in (("train", MADE), ("val",))]
        for name, part in zip(("train", "val"), parts, strict=True):
            if not len(part):
                raise InputError(f"The part '{name}' of the data has no images; the task needs some there.")
            task.decided.require_judges(data.numbers[part], name)
        return [(parts[0], parts[1])]
    told = any(data.patients)
    if told and len(set(data.patients)) < 2:
        listed = f"{data.names[0]} and {len(data.names) - 1} more"
        raise InputError(
            f"All images ({listed}) are of the patient {data.patients[0]}, so that nothing is left to judge by; add "
            "another patient's."
        )
    if told and len(set(data.patients)) < task.folds:
        raise InputError(f"{len(set(data.patients))} patients are too few for {task.folds} folds.")
    groups = _groups(data)
    if len(set(groups)) < task.folds:
        raise InputError(f"{len(set(groups))} images that are no copies of others are too few for {task.folds} folds.")
    return task.decided.deal(data.numbers, groups, task.folds, task.seed)


def _groups(data: ClassData) -> list[str]:
    """What has to stay on one side of a fold: images of one patient, and copies of one image."""
    first: dict[str, int] = {}
    parent = list(range(len(data.names)))

    def root(number: int) -> int:
        while parent[number] != number:
            number = parent[number]
        return number

    for number, patient in enumerate(data.patients):
        content = hashlib.sha256(np.ascontiguousarray(data.images[number].numpy()).tobytes()).hexdigest()
        for key in (content, f"patient {patient}" if patient else ""):
            if key:
                parent[root(number)] = root(first.setdefault(key, number))
    return [data.names[root(number)] for number in range(len(parent))]


def calibrate(
    task: ClassificationTask, judged: Judged, shown: NDArray[np.float64], apart: NDArray[np.float64] | None = None
) -> Calibration:
    """Temperature of the least log loss, thresholds, and the strangeness above which an image is not decided.

    Args:
        task: says how.
        judged: what temperature and thresholds are chosen on.
        shown: (M, outputs), the shipped network's own scores, whose strangeness the last is a quantile of.
        apart: (M,), that strangeness of images that the shipped network knows by heart, as if it did not.
    """
    chosen = task.decided.calibrated(judged.scores, judged.numbers, task.threshold)
    if not task.strange_quantile:
        return chosen
    strange = task.decided.strangeness(shown, chosen) if apart is None else apart
    return replace(chosen, strange_above=round(float(np.quantile(strange, task.strange_quantile)), 4))


def stamp(task: ClassificationTask, data: ClassData) -> str:
    """Tells this training from any other; what is only written, or chosen after it, may change."""
    decisive = {key: value for key, value in asdict(task).items() if key in DECISIVE}
    dealt_by = [data.names, data.splits, data.patients]  # which images a network has not learnt from follows from these
    told = hashlib.sha256(json.dumps([decisive, dealt_by], sort_keys=True).encode())
    told.update(np.ascontiguousarray(data.images.numpy()).tobytes() + data.numbers.tobytes())
    return told.hexdigest()


def _lesson(
    task: ClassificationTask,
    data: ClassData,
    places: NDArray[np.int64],
    name: str,
    number: int,
    teachers: tuple[nn.Module, ...] = (),
) -> Lesson:
    targets = _targets(task, data, places)
    network: dict[str, Any] = task.network | (task.student if teachers else {})
    epochs = task.distil_epochs if teachers else task.epochs
    return Lesson(name, network, data.images[places], targets, epochs, task.seed + 100_000 * number, teachers)


def _targets(task: ClassificationTask, data: ClassData, places: NDArray[np.int64]) -> Tensor:
    return task.decided.targets(data.numbers[places])


def _likely(network: nn.Module, images: Tensor, task: ClassificationTask, bench: Bench) -> Tensor:
    """Scores (N, outputs) of the mean probabilities over mirrored copies, which is what is taught."""
    copies = [images, *(images.flip(axis) for axis in task.mirrored_axes)]
    each = [task.decided.likely(scores_of(network, copy, bench.device).double()) for copy in copies]
    return task.decided.raw(torch.stack(each).mean(dim=0))


def _judged(
    task: ClassificationTask,
    data: ClassData,
    places: NDArray[np.int64],
    scores: Sequence[Sequence[Tensor]],
    kernel: Sequence[NDArray[np.float64]],
) -> Judged:
    """What all folds say of the images in places, from each fold's list of its networks' scores, and its kernel's."""
    single = [torch.cat(parts).double() for parts in zip(*scores, strict=True)]
    likely = torch.stack([task.decided.likely(found) for found in single]).mean(dim=0)
    alone = np.concatenate(kernel) if kernel else None
    if alone is not None:
        likely = (likely + task.decided.likely(torch.from_numpy(alone))) / 2
    every = tuple(found.numpy() for found in single)
    return Judged(data.numbers[places], task.decided.raw(likely).numpy(), every, places, alone)
