"""`medai train` for segmentation: examine the data, plan or read the task, train one fold or all, validate."""

import argparse
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from MedAILib.commands.train_options import program, stops_early, tell_choices, write_task
from MedAILib.errors import InputError
from MedAILib.models.bundle import BundleModel
from MedAILib.models.store import find_model
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import RunOptions
from MedAILib.training.card import TrainingRecord, write_card
from MedAILib.training.cases import Split, split_cases
from MedAILib.training.checkpoint import forget
from MedAILib.training.choices import ASKED
from MedAILib.training.continued import like_model
from MedAILib.training.data_folder import DataFolder, open_folder, prescribed_split, split_faults
from MedAILib.training.ensemble_export import write_ensemble
from MedAILib.training.evaluate import Evaluation, evaluate_segmentation
from MedAILib.training.examine import CaseFacts, Examined, digest_of, examine_cases, groups_of, require_sound
from MedAILib.training.folds import merged
from MedAILib.training.initial import Quiet, require_start
from MedAILib.training.kept_for_testing import faults_of_test_part
from MedAILib.training.overrides import read_settings, require_sense, wishes_of, with_settings
from MedAILib.training.plan import balanced_weights, plan_task, task_choices
from MedAILib.training.plan_grid import CPU, GPU
from MedAILib.training.precision import training_type
from MedAILib.training.processes import is_first
from MedAILib.training.report import write_evaluation
from MedAILib.training.samples_picture import write_samples
from MedAILib.training.segmentation import AFTER_FOLDS, train_segmentation
from MedAILib.training.segmentation_export import Bundle, write_bundle
from MedAILib.training.task import TASKS, SegmentationTask, read_task
from MedAILib.training.training_run import TrainingRun


@dataclass(frozen=True, eq=False)
class Bench:
    """What all folds of one training share."""

    options: argparse.Namespace
    task: SegmentationTask
    data: DataFolder
    facts: tuple[CaseFacts, ...]
    groups: dict[str, str]
    device: torch.device
    machine: str
    initial: Path | None


@dataclass(frozen=True, eq=False)
class Fold:
    """A fold's network, its weights by name, and how it does on the cases that it has not learnt from."""

    weights: dict[str, Tensor]
    evaluation: Evaluation | None


def _segmentation(name: str) -> SegmentationTask:
    """A task of this kind; `medai train` has sent the others elsewhere."""
    task = read_task(name)
    assert isinstance(task, SegmentationTask)
    return task


def run_train_segmentation(options: argparse.Namespace, device: torch.device, machine: str, progress: Progress) -> None:
    """Train a segmentation task, write the model as a bundle, and validate what was written.

    The task that was trained stands in `<bundle>.training/task.json`, to be edited and given back. `--fold all` trains
    all folds, with a report over all cases; the model is the ensemble of their networks, or, with `shipped`, what goes
    on from some of these and learns from all cases.

    Raises:
        MedAIError: the task, the data, an option or the output folder is at fault.
        Cancelled: by `progress`; `--resume` goes on from the last whole epoch.
    """
    settings = _settings(options)
    given = None if is_planned(options.task) else with_settings(_segmentation(options.task), settings)
    initial = None if options.initial is None else find_model(str(options.initial))
    data, examined, patients_of = _examined(options, given, initial, progress)
    task = given or _plan(options, data, examined.facts, settings, device, initial)
    if data.splits:
        if settings.get("folds", len(data.splits)) != len(data.splits):
            raise InputError(
                f"{data.folder / 'splits_final.json'} prescribes {len(data.splits)} folds; leave --set folds out."
            )
        task = replace(task, folds=len(data.splits))
    if task.loss == "weighted_ce" and not task.class_weights:
        task = replace(task, class_weights=balanced_weights(examined.facts, task.classes))
        progress.warn(f"class_weights are {task.class_weights}: one over the root of each class's share of the voxels")
    require_sense(task)
    require_start(task, initial, progress if stops_early(options) else Quiet())
    bench = Bench(options, task, data, examined.facts, patients_of, device, machine, initial)
    for fold in range(task.folds) if options.fold == "all" else [int(options.fold or 0)]:
        _split(bench, fold)  # a fold that there is not is told before anything is written
    if not options.resume:
        write_task(task, _training_folder(options.output) / "task.json")
    if options.plan_only and given:
        tell_choices(f"The task '{task.name}'", task_choices(task, settings), options.quiet)
    if options.show_augmentation is not None and is_first():
        write_samples(task, data.cases, options.show_augmentation, progress)
    if stops_early(options):
        return
    if options.fold == "all":
        _train_all(bench, progress)
    else:
        _train_fold(bench, int(options.fold or 0), options.output, progress)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the user has decided by `--set` and `--epochs`, by key of the task.

    Raises:
        InputError: an option makes no sense, or not with another.
    """
    if options.fold not in (None, "all") and not options.fold.isdecimal():
        raise InputError(f"--fold {options.fold} is none; give a number from 0, or all.")
    settings = read_settings([*options.set, *([f"epochs={options.epochs}"] if options.epochs is not None else [])])
    if not is_planned(options.task) and "memory_gb" in settings:
        raise InputError("memory_gb is for planning; the task given has its patch and batch already.")
    if options.fold != "all" and (early := settings.keys() & set(AFTER_FOLDS)):
        raise InputError(f"{' and '.join(sorted(early))} can be set with --fold all only; add that, or leave it out.")
    return settings


def _examined(
    options: argparse.Namespace, given: SegmentationTask | None, initial: Path | None, progress: Progress
) -> tuple[DataFolder, Examined, dict[str, str]]:
    """The data, what each case is, and what cases share; for the task that is given, or for one to be planned.

    Raises:
        InputError: what is wrong with which file.
    """
    data = open_folder(options.data)
    labels = data.labels if given is None else {int(x["value"]): str(x["name"]) for x in given.labels}
    told = given.channels if given else data.channels or ()
    several = len(told) if given or len(told) > 1 else None  # one name may stand for a colour's three channels
    known = [(label.value, label.name) for label in read_spec(initial).labels] if initial else []
    examined = examine_cases(data.cases, labels, progress, several, known)
    patients_of = groups_of(examined.facts, data.patients)
    sides = []
    if not (data.faults or examined.faults):
        sides = split_faults(data.folder, data.splits, patients_of, examined.facts)
        sides += faults_of_test_part(data.folder, examined.facts, progress)
    require_sound(examined, progress, [*data.faults, *sides])
    if given and any(fact.is_slice != (given.axes == 2) for fact in examined.facts):
        kinds = ("volumes", "single slices") if given.axes == 3 else ("single slices", "volumes")
        raise InputError(f"The task {given.name} is for {kinds[0]}, and {options.data} has {kinds[1]}; plan a new one.")
    if len(set(patients_of.values())) < 2 and not data.splits:
        raise InputError(
            f"All cases in {options.data} are of one patient, so that nothing is left to validate on; add another's."
        )
    return data, examined, patients_of


def is_planned(name: str) -> bool:
    """Whether a task is planned from the data: one that is no file, of a name that no task has."""
    return not name.endswith(".json") and not (TASKS / f"{name}.json").is_file()


def _plan(
    options: argparse.Namespace,
    data: DataFolder,
    facts: tuple[CaseFacts, ...],
    settings: dict[str, Any],
    device: torch.device,
    initial: Path | None,
) -> SegmentationTask:
    """Plan a task, tell every choice on standard output, and apply what the user decided."""
    name = options.output.resolve().name if options.task == "segmentation" else options.task
    wishes = wishes_of(settings)
    task, choices = plan_task(name, data, facts, CPU if device.type == "cpu" else GPU, wishes)
    if initial is not None:
        task, choices = like_model(task, choices, initial, settings)
    done = ("patch", *(["network"] if isinstance(settings.get("network"), str) else []))  # by the plan itself
    taken = {key: value for key, value in settings.items() if key not in done}
    task = with_settings(task, taken)
    shown = [replace(c, value=taken[c.key], reason=ASKED) if c.key in taken else c for c in choices]
    tell_choices(f"The task '{name}' was planned from {len(facts)} cases", shown, options.quiet)
    return task


def _training_folder(bundle: Path) -> Path:
    return bundle.with_name(bundle.name + ".training")


def _split(bench: Bench, fold: int) -> Split:
    if bench.data.splits:
        return prescribed_split(bench.data, fold)
    return split_cases(bench.data.cases, bench.task.folds, fold, bench.task.seed, bench.groups)


def _train_fold(bench: Bench, fold: int, folder: Path, progress: Progress) -> Fold:
    """Train one fold, write its bundle, and validate that on the cases kept aside.

    Of several processes the first alone writes and validates; the others have no evaluation.
    """
    options, task = bench.options, bench.task
    split = _split(bench, fold)
    place = _training_folder(options.output)
    place = place / f"fold_{fold}" if options.fold == "all" else place
    weights = train_segmentation(task, split, _run(bench, place, task.epochs), progress)
    if not is_first():
        return Fold(weights, None)
    record = _record(bench, split, fold)
    bundle = Bundle(task, weights, write_card(record, []))
    write_bundle(bundle, folder)
    labels = {int(label["value"]): str(label["name"]) for label in task.labels}
    evaluation = evaluate_segmentation(
        BundleModel(folder, bench.device), split.validation, labels, progress, RunOptions()
    )
    write_bundle(replace(bundle, card=write_card(record, [evaluation])), folder)
    write_evaluation(evaluation, place / "validation", _command(options, task))
    return Fold(weights, evaluation)


def _run(bench: Bench, place: Path, epochs: int, start: dict[str, Tensor] | None = None) -> TrainingRun:
    resume = bench.options.resume and (bench.options.fold != "all" or (place / "started.json").is_file())
    initial = bench.initial if start is None else None
    data = digest_of(bench.facts)
    return TrainingRun(place, epochs, str(bench.device), resume, initial, data, bench.groups, start)


def _record(bench: Bench, split: Split, fold: int) -> TrainingRecord:
    options, task = bench.options, bench.task
    half = training_type(task.precision, bench.device) != torch.float32
    start = bench.initial.name if bench.initial else ""
    record = TrainingRecord(task, split, _command(options, task), task.epochs, fold, bench.machine, half, start)
    return replace(record, prescribed=bool(bench.data.splits))


def _train_all(bench: Bench, progress: Progress) -> None:
    """Train all folds; the model is the ensemble of their networks, or what goes on from them with all cases."""
    folder, task = bench.options.output, bench.task
    place = _training_folder(folder)
    members = [place / f"fold_{number}" / "bundle" for number in range(task.folds)]
    if task.folds == 1 and not task.shipped:  # the data prescribe one
        members = [folder]
    if is_first() and not bench.options.resume:
        for folder_before in (*place.glob("fold_*"), *place.glob("final_*")):
            forget(folder_before)
    evaluations, starts = [], []
    for number, member in enumerate(members):
        fold = _train_fold(bench, number, member, progress)
        evaluations += [fold.evaluation] if fold.evaluation is not None else []
        starts += [fold.weights] if number < task.shipped else []
    if is_first():
        write_evaluation(merged(evaluations), place / "cross_validation", _command(bench.options, task))
    if task.shipped:
        members = [place / f"final_{number}" / "bundle" for number in range(task.shipped)]
        members = [folder] if task.shipped == 1 else members
        for number, member in enumerate(members):
            run = _run(bench, place / f"final_{number}", task.final.epochs, starts[number])
            _go_on(bench, run, number, evaluations, member, progress)
    if is_first() and len(members) > 1:
        record = replace(_record(bench, Split(bench.data.cases, ()), 0), networks=len(members))
        write_ensemble(task, members, write_card(record, evaluations), folder)
    write_task(task, place / "task.json")  # folds that were there may have gone on another way


def _go_on(
    bench: Bench, run: TrainingRun, fold: int, evaluations: list[Evaluation], folder: Path, progress: Progress
) -> None:
    """Let a fold's network learn from all cases, and write it as a bundle whose card has the folds' figures."""
    whole = Split(bench.data.cases, ())
    weights = train_segmentation(bench.task.final, whole, run, progress)
    if is_first():
        card = write_card(_record(bench, whole, fold), evaluations)
        write_bundle(Bundle(bench.task, weights, card), folder)


def _command(options: argparse.Namespace, task: SegmentationTask) -> str:
    """The command line that repeats this training."""
    words = [*program(), str(options.task), "--data", options.data.name, "-o", options.output.name]
    words += ["--fold", options.fold or "0", "--epochs", str(task.epochs)]
    words += [word for pair in options.set for word in ("--set", pair)]
    return shlex.join(words + (["--initial", options.initial.name] if options.initial else []))
