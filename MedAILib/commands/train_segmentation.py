"""`medai train` for segmentation: examine the data, plan or read the task, train what is asked for."""

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from MedAILib.commands.train_networks import (
    Bench,
    require_begun,
    split_of,
    tasks_without_folds,
    train_all,
    train_fold,
    train_without_folds,
    training_folder,
)
from MedAILib.commands.train_options import ALL, NONE, require_fold, stops_early, tell_choices, write_task
from MedAILib.errors import InputError
from MedAILib.models.store import find_model
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.training.cases import kept_for_stopping
from MedAILib.training.choices import ASKED
from MedAILib.training.continued import like_model
from MedAILib.training.data_folder import DataFolder, open_folder, split_faults
from MedAILib.training.examine import CaseFacts, Examined, examine_cases, groups_of, require_sound
from MedAILib.training.initial import Quiet, require_start
from MedAILib.training.kept_for_testing import faults_of_test_part
from MedAILib.training.overrides import read_settings, require_sense, wishes_of, with_settings
from MedAILib.training.plan import balanced_weights, plan_task, task_choices
from MedAILib.training.plan_grid import CPU, GPU
from MedAILib.training.processes import is_first
from MedAILib.training.samples_picture import write_samples
from MedAILib.training.segmentation import AFTER_FOLDS
from MedAILib.training.task import TASKS, SegmentationTask, read_task


def _segmentation(name: str) -> SegmentationTask:
    """A task of this kind; `medai train` has sent the others elsewhere."""
    task = read_task(name)
    assert isinstance(task, SegmentationTask)
    return task


def run_train_segmentation(options: argparse.Namespace, device: torch.device, machine: str, progress: Progress) -> None:
    """Train a segmentation task, write the model as a bundle, and validate what was written.

    The task that was trained stands in `<bundle>.training/task.json`, to be edited and given back. `--fold all` trains
    all folds, with a report over all cases; the model is the ensemble of their networks, or, with `shipped`, what goes
    on from some of these and learns from all cases. `--fold none` lets networks learn from all cases at once.

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
    _require_cases(bench)
    if not options.resume:
        write_task(task, training_folder(options.output) / "task.json")
    if options.plan_only and given:
        tell_choices(f"The task '{task.name}'", task_choices(task, settings), options.quiet)
    if options.show_augmentation is not None and is_first():
        write_samples(task, data.cases, options.show_augmentation, progress)
    if stops_early(options):
        return
    if options.fold == ALL:
        train_all(bench, progress)
    elif options.fold == NONE:
        train_without_folds(bench, progress)
    else:
        train_fold(bench, int(options.fold or 0), options.output, progress)


def _require_cases(bench: Bench) -> None:
    """See, before anything is written, that there are cases for each network that is asked for.

    Raises:
        InputError: there is no such fold, or too few cases or patients for it; fewer folds than networks that are to
            go on; nothing to resume.
    """
    asked, task = bench.options.fold, bench.task
    if asked == ALL and task.shipped > task.folds:
        raise InputError(
            f"The task's shipped is {task.shipped}: as many networks as there are folds ({task.folds}) can go on; give "
            f"--set shipped={task.folds} or fewer."
        )
    if asked == NONE:
        require_begun(bench)
        learnt = [(bench.data.cases, one.seed) for one in tasks_without_folds(task)]
    else:
        folds = range(task.folds) if asked == ALL else [int(asked or 0)]
        learnt = [(split_of(bench, fold).training, task.seed) for fold in folds]
    if task.patience:
        for cases, seed in learnt:
            kept_for_stopping(cases, seed, bench.groups)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the user has decided by `--set` and `--epochs`, by key of the task.

    Raises:
        InputError: an option makes no sense, or not with another.
    """
    require_fold(options.fold)
    settings = read_settings([*options.set, *([f"epochs={options.epochs}"] if options.epochs is not None else [])])
    if not is_planned(options.task) and "memory_gb" in settings:
        raise InputError("memory_gb is for planning; the task given has its patch and batch already.")
    late = () if options.fold == ALL else ("final_epochs",) if options.fold == NONE else AFTER_FOLDS
    if early := settings.keys() & set(late):
        where = "--fold all" if early != {"shipped"} else "--fold all or none"
        raise InputError(f"{' and '.join(sorted(early))} can be set with {where} only; add that, or leave it out.")
    return settings


def _examined(
    options: argparse.Namespace, given: SegmentationTask | None, initial: Path | None, progress: Progress
) -> tuple[DataFolder, Examined, dict[str, str]]:
    """The data, what each case is, and what cases share; for the task that is given, or for one to be planned.

    Raises:
        InputError: what is wrong with which file.
    """
    known = [(label.value, label.name) for label in read_spec(initial).labels] if initial else []
    wanted = None if given is None else {int(x["value"]): str(x["name"]) for x in given.labels}
    data = open_folder(options.data, wanted, dict(known))
    labels = data.labels if wanted is None else wanted
    told = given.channels if given else data.channels or ()
    several = len(told) if given or len(told) > 1 else None  # one name may stand for a colour's three channels
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
    if len(set(patients_of.values())) < 2 and not data.splits and options.fold != NONE:
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
