"""Networks of a segmentation task: one fold's, all folds', those that learn from all cases; written and validated."""

import argparse
import shlex
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from MedAILib.commands.train_options import ALL, NONE, program, write_task
from MedAILib.errors import InputError
from MedAILib.models.bundle import BundleModel
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.training.card import TrainingRecord, write_card
from MedAILib.training.cases import Split, split_cases
from MedAILib.training.checkpoint import STARTED, forget
from MedAILib.training.data_folder import DataFolder, prescribed_split
from MedAILib.training.ensemble_export import write_ensemble
from MedAILib.training.evaluate import Evaluation, evaluate_segmentation
from MedAILib.training.examine import CaseFacts, digest_of
from MedAILib.training.folds import merged
from MedAILib.training.precision import training_type
from MedAILib.training.processes import is_first
from MedAILib.training.report import write_evaluation
from MedAILib.training.segmentation import train_segmentation
from MedAILib.training.segmentation_export import Bundle, write_bundle
from MedAILib.training.task import SegmentationTask
from MedAILib.training.training_run import TrainingRun


@dataclass(frozen=True, eq=False)
class Bench:
    """What all networks of one training share."""

    options: argparse.Namespace
    task: SegmentationTask
    data: DataFolder
    facts: tuple[CaseFacts, ...]
    groups: dict[str, str]
    device: torch.device
    machine: str
    initial: Path | None

    @property
    def place(self) -> Path:
        """The folder of checkpoints and reports."""
        return training_folder(self.options.output)


@dataclass(frozen=True, eq=False)
class Fold:
    """A fold's network, its weights by name, and how it does on the cases that it has not learnt from."""

    weights: dict[str, Tensor]
    evaluation: Evaluation | None


@dataclass(frozen=True, eq=False)
class Whole:
    """What is to learn from all cases.

    Args:
        task: as its card tells it.
        learnt: as it is learnt; its length and rate are those of the end where a fold's network goes on.
        fold: where it goes on from; None: it begins anew.
        start: that fold's weights by name.
    """

    task: SegmentationTask
    learnt: SegmentationTask
    fold: int | None = None
    start: dict[str, Tensor] | None = None


def training_folder(bundle: Path) -> Path:
    """Where checkpoints and reports of a model's training stand."""
    return bundle.with_name(bundle.name + ".training")


def split_of(bench: Bench, fold: int) -> Split:
    """A fold's cases, as the data prescribe them or as they are dealt.

    Raises:
        InputError: there is no such fold, or too few cases or patients for it.
    """
    if bench.data.splits:
        return prescribed_split(bench.data, fold)
    return split_cases(bench.data.cases, bench.task.folds, fold, bench.task.seed, bench.groups)


def train_fold(bench: Bench, fold: int, folder: Path, progress: Progress) -> Fold:
    """Train one fold, write its bundle, and validate that on the cases kept aside.

    Of several processes the first alone writes and validates; the others have no evaluation.
    """
    options, task = bench.options, bench.task
    split = split_of(bench, fold)
    place = bench.place / f"fold_{fold}" if options.fold == ALL else bench.place
    weights = train_segmentation(task, split, _run(bench, place, task.epochs), progress)
    if not is_first():
        return Fold(weights, None)
    record = _record(bench, split, fold)
    bundle = Bundle(task, weights, write_card(record, []))
    write_bundle(bundle, folder)
    labels = {int(label["value"]): str(label["name"]) for label in task.labels}
    evaluation = evaluate_segmentation(
        BundleModel(folder, bench.device), split.validation, labels, progress, RunOptions(), bench.groups
    )
    write_bundle(replace(bundle, card=write_card(record, [evaluation])), folder)
    write_evaluation(evaluation, place / "validation", _command(options, task))
    return Fold(weights, evaluation)


def train_all(bench: Bench, progress: Progress) -> None:
    """Train all folds; the model is the ensemble of their networks, or what goes on from them with all cases."""
    folder, task = bench.options.output, bench.task
    _begin(bench, "fold_*", "final_*")
    members = [bench.place / f"fold_{number}" / "bundle" for number in range(task.folds)]
    if task.folds == 1 and not task.shipped:  # the data prescribe one
        members = [folder]
    evaluations, lessons = [], []
    for number, member in enumerate(members):
        fold = train_fold(bench, number, member, progress)
        evaluations += [fold.evaluation] if fold.evaluation is not None else []
        lessons += [Whole(task, task.final, number, fold.weights)] if number < task.shipped else []
    if is_first():
        write_evaluation(merged(evaluations), bench.place / "cross_validation", _command(bench.options, task))
    if lessons:
        _learn_from_all(bench, lessons, evaluations, progress)
    elif is_first() and len(members) > 1:
        record = replace(_record(bench, Split(bench.data.cases, ()), 0), networks=len(members))
        write_ensemble(task, members, write_card(record, evaluations), folder)
    write_task(task, bench.place / "task.json")  # folds that were there may have gone on another way


def train_without_folds(bench: Bench, progress: Progress) -> None:
    """Train a network, or as many as `shipped` says with a seed for each, on all cases; nothing is left to judge by."""
    _begin(bench, "network_*")
    _learn_from_all(bench, [Whole(task, task) for task in tasks_without_folds(bench.task)], [], progress)
    write_task(bench.task, bench.place / "task.json")  # what was there may have had fewer networks


def tasks_without_folds(task: SegmentationTask) -> list[SegmentationTask]:
    """What each of the networks learns that have no fold: the same by another seed."""
    return [replace(task, seed=task.seed + number) for number in range(max(task.shipped, 1))]


def require_begun(bench: Bench) -> None:
    """Raise `InputError` where a training without folds is to go on and has not begun."""
    if bench.options.resume and not any(bench.place.glob(f"network_*/{STARTED}")):
        raise InputError(f"There is nothing to resume: {bench.place} has no network that learns without folds.")


def _begin(bench: Bench, *patterns: str) -> None:
    """Forget what an older training of this kind has left, unless it is to go on."""
    if is_first() and not bench.options.resume:
        for pattern in patterns:
            for folder in bench.place.glob(pattern):
                forget(folder)


def _learn_from_all(bench: Bench, lessons: Sequence[Whole], evaluations: list[Evaluation], progress: Progress) -> None:
    """Let networks learn from all cases; one is the model, several are its members. Cards have the folds' figures."""
    folder, whole = bench.options.output, Split(bench.data.cases, ())
    places = [bench.place / (f"network_{n}" if x.fold is None else f"final_{n}") for n, x in enumerate(lessons)]
    members = [folder] if len(lessons) == 1 else [place / "bundle" for place in places]
    for lesson, place, member in zip(lessons, places, members, strict=True):
        run = _run(bench, place, lesson.learnt.epochs, lesson.start)
        weights = train_segmentation(lesson.learnt, whole, run, progress)
        if is_first():
            record = replace(_record(bench, whole, lesson.fold), task=lesson.task)
            write_bundle(Bundle(lesson.task, weights, write_card(record, evaluations)), member)
    if is_first() and len(members) > 1:
        record = replace(_record(bench, whole, lessons[0].fold), networks=len(members))
        write_ensemble(bench.task, members, write_card(record, evaluations), folder)


def _run(bench: Bench, place: Path, epochs: int, start: dict[str, Tensor] | None = None) -> TrainingRun:
    several = bench.options.fold in (ALL, NONE)
    resume = bench.options.resume and (not several or (place / STARTED).is_file())
    initial = bench.initial if start is None else None
    data = digest_of(bench.facts)
    return TrainingRun(place, epochs, str(bench.device), resume, initial, data, bench.groups, start)


def _record(bench: Bench, split: Split, fold: int | None) -> TrainingRecord:
    options, task = bench.options, bench.task
    half = training_type(task.precision, bench.device) != torch.float32
    start = bench.initial.name if bench.initial else ""
    record = TrainingRecord(task, split, _command(options, task), task.epochs, fold, bench.machine, half, start)
    return replace(record, prescribed=bool(bench.data.splits))


def _command(options: argparse.Namespace, task: SegmentationTask) -> str:
    """The command line that repeats this training."""
    words = [*program(), str(options.task), "--data", options.data.name, "-o", options.output.name]
    words += ["--fold", options.fold or "0", "--epochs", str(task.epochs)]
    words += [word for pair in options.set for word in ("--set", pair)]
    return shlex.join(words + (["--initial", options.initial.name] if options.initial else []))
