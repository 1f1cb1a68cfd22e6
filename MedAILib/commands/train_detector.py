"""`medai train` for a task of the kind "detection": look at the data, plan or complete the task, train, validate."""

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from MedAILib.commands.train_options import ALL, NONE, program, require_fold, stops_early, write_task
from MedAILib.errors import InputError
from MedAILib.models.open import open_model
from MedAILib.models.store import find_model
from MedAILib.progress import Progress
from MedAILib.training.boxed_changes import require_following
from MedAILib.training.boxed_images import (
    LISTS,
    BoxedCase,
    as_case,
    channels_there,
    find_boxed_cases,
    label_names,
    labels_there,
    read_boxed,
)
from MedAILib.training.cases import kept_for_stopping, split_cases
from MedAILib.training.checkpoint import forget
from MedAILib.training.choices import ASKED, Choice, told_choices
from MedAILib.training.data_folder import split_faults, splits_of
from MedAILib.training.detection import train_detector
from MedAILib.training.detection_card import DetectorRecord, write_detector_card
from MedAILib.training.detection_data import Sample, prepare_image
from MedAILib.training.detection_export import inference, metadata
from MedAILib.training.detection_folds import merged_detections
from MedAILib.training.detection_report import write_detector_evaluation
from MedAILib.training.detection_samples import ROWS, write_boxed_samples
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.evaluate_detector import DetectorEvaluation, evaluate_detector
from MedAILib.training.examine import digest_of, groups_of, require_sound
from MedAILib.training.examine_boxes import BoxedFacts, examine_boxed
from MedAILib.training.export import Contents, licence_text, write_model
from MedAILib.training.initial import Quiet
from MedAILib.training.intensities import intensity_entries
from MedAILib.training.kept_for_testing import faults_of_test_part
from MedAILib.training.overrides import read_settings, recipe_of, require_kinds
from MedAILib.training.patients import patients_of
from MedAILib.training.plan_detection import plan_detector, plan_left, require_boxes
from MedAILib.training.plan_grid import CPU, GPU
from MedAILib.training.precision import type_told
from MedAILib.training.processes import is_first
from MedAILib.training.taught_detector import first_network
from MedAILib.training.training_run import TrainingRun

PLANNED = "detection"


@dataclass(frozen=True, eq=False)
class _Data:
    """What a data folder holds: cases, what its labels stand for, what was seen of each, and who shares a patient."""

    cases: tuple[BoxedCase, ...]
    names: Mapping[str, str]
    facts: tuple[BoxedFacts, ...]
    groups: dict[str, str]
    splits: tuple[tuple[frozenset[str], frozenset[str]], ...]

    @property
    def digest(self) -> str:
        return digest_of([one.plain for one in self.facts])


@dataclass(frozen=True)
class _Sides:
    """Cases to learn from, those that decide when to stop, and cases to judge by."""

    training: tuple[BoxedCase, ...]
    stopping: tuple[BoxedCase, ...]
    validation: tuple[BoxedCase, ...]


def has_boxes(task: str, data: Path) -> bool:
    """Whether a task that is to be planned is one of detection: it is called so, or the data has a list of boxes."""
    return task == PLANNED or any((data / name).is_file() for name in LISTS)


def run_train_detector(
    options: argparse.Namespace, given: DetectionTask | None, device: torch.device, machine: str, progress: Progress
) -> None:
    """Train a detector, write it as a bundle, and validate what was written.

    The task that was trained stands in `<bundle>.training/task.json`, to be edited and given back. `--fold all` judges
    a network for each fold, with a report over all images, and writes one that has learnt from all of them; `--fold
    none` writes that one alone.

    Raises:
        MedAIError: the task, the data, an option or the output folder is at fault, or a checkpoint is of another
            training.
        Cancelled: by `progress`; `--resume` goes on from the last whole epoch.
    """
    settings = _settings(options)
    wanted = settings.pop("augmentation", None)
    task = None if given is None else replace(_as_meant(given), **settings)
    data = _read(options.data, task, options.fold != NONE, progress)
    task = _whole_task(options, task, settings | ({} if wanted is None else {"augmentation": wanted}), data, device)
    if data.splits:
        task = replace(task, folds=len(data.splits))
    initial = None if options.initial is None else find_model(str(options.initial))
    bench = _Bench(options, task, data, device, machine, initial)
    every = _every(options.fold, data, task)
    for sides in every:  # what a fold lacks is told before anything is written
        require_boxes(data.facts, [case.name for case in sides.training], "training")
        if sides.stopping:
            require_boxes(data.facts, [case.name for case in sides.stopping], "early stopping (--set patience=0: none)")
        if options.fold != NONE:
            require_boxes(data.facts, [case.name for case in sides.validation], "validation")
    inference(task)  # also says what is wrong with the network
    first_network(task, initial, progress if stops_early(options) else Quiet())
    place = _training_folder(options.output)
    if not options.resume:
        write_task(task, place / "task.json")
    if options.show_augmentation is not None and is_first():
        shown = every[0].training[:ROWS]
        names = [case.name for case in shown]
        write_boxed_samples(task, _prepared(shown, bench, progress), names, options.show_augmentation)
    if stops_early(options):
        return
    if options.fold == ALL:
        _train_all(bench, every, progress)
    elif options.fold == NONE:
        _train_without_folds(bench, every[0], progress)
    else:
        _train_fold(bench, (int(options.fold or 0), every[0]), (place, options.output), progress)


@dataclass(frozen=True, eq=False)
class _Bench:
    """What all folds of one training share."""

    options: argparse.Namespace
    task: DetectionTask
    data: _Data
    device: torch.device
    machine: str
    initial: Path | None


def _every(fold: str | None, data: _Data, task: DetectionTask) -> list[_Sides]:
    """The images of each fold that is to be trained; without folds, of the network that learns from all."""
    if fold == NONE:
        return [_sides(data, task, data.cases, ())]
    return [_split(data, task, number) for number in (range(task.folds) if fold == ALL else [int(fold or 0)])]


def _training_folder(bundle: Path) -> Path:
    return bundle.with_name(bundle.name + ".training")


def _prepared(cases: Sequence[BoxedCase], bench: _Bench, progress: Progress) -> list[Sample]:
    samples = []
    for number, case in enumerate(cases):
        progress.step(number, len(cases), f"Preparing {case.name}")
        samples.append(prepare_image(read_boxed(case, bench.data.names), bench.task))
    return samples


def _learnt(
    bench: _Bench, sides: _Sides, fold: int | None, place: Path, progress: Progress
) -> tuple[Contents, DetectorRecord] | None:
    """Train one network; of several processes the first alone has what is to be written."""
    options, task = bench.options, bench.task
    resume = options.resume and (options.fold != ALL or (place / "started.json").is_file())
    names = tuple(tuple(case.name for case in part) for part in (sides.training, sides.stopping))
    told = (bench.data.digest, bench.data.groups)
    run = TrainingRun(place, task.epochs, str(bench.device), resume, bench.initial, *told, cases=names)
    learnt, watched = (_prepared(part, bench, progress) for part in (sides.training, sides.stopping))
    weights = train_detector(task, learnt, run, progress, watched)
    if not is_first():
        return None
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    record = DetectorRecord(
        task,
        [case.name for case in sides.training],
        [case.name for case in sides.validation],
        fold,
        _command(options),
        bench.machine,
        bench.initial.name if bench.initial else "",
        len(sides.stopping),
        type_told(task.precision, bench.device),
    )
    configs = {"metadata": metadata(task), "inference": inference(task)}
    return Contents(configs, write_detector_card(record, None), licence_text(task), halves), record


def _train_fold(
    bench: _Bench, fold: tuple[int, _Sides], places: tuple[Path, Path], progress: Progress
) -> DetectorEvaluation | None:
    """Train a fold, write its bundle, and validate that on the images kept aside.

    Args:
        bench: shared.
        fold: its number and its images.
        places: the folder of its checkpoints, and that of its bundle.
        progress: hears of every step.

    Returns:
        None where another process is the first.
    """
    number, sides = fold
    place, folder = places
    learnt = _learnt(bench, sides, number, place, progress)
    if learnt is None:
        return None
    contents, record = learnt
    write_model(contents, folder)
    model = open_model(folder, str(bench.device))
    evaluation = evaluate_detector(model, sides.validation, bench.data.names, progress, bench.data.groups)
    write_model(replace(contents, card=write_detector_card(record, evaluation)), folder)
    write_detector_evaluation(evaluation, place / "validation", record.command)
    return evaluation


def _train_all(bench: _Bench, every: Sequence[_Sides], progress: Progress) -> None:
    """Train and judge a network for each fold; the model learns from all images, and its card has those figures."""
    folder: Path = bench.options.output
    place = _training_folder(folder)
    if is_first() and not bench.options.resume:
        for folder_before in (*place.glob("fold_*"), place / "all"):
            forget(folder_before)
    evaluations = []
    for number, sides in enumerate(every):
        inside = place / f"fold_{number}"
        found = _train_fold(bench, (number, sides), (inside, inside / "bundle"), progress)
        evaluations += [] if found is None else [found]
    learnt = _learnt(bench, _sides(bench.data, bench.task, bench.data.cases, ()), None, place / "all", progress)
    if learnt is None:
        return
    contents, record = learnt
    whole = merged_detections(evaluations)
    write_detector_evaluation(whole, place / "cross_validation", record.command)
    write_model(replace(contents, card=write_detector_card(record, whole)), folder)


def _train_without_folds(bench: _Bench, sides: _Sides, progress: Progress) -> None:
    """The model learns from all images, and nothing is left to judge it by."""
    learnt = _learnt(bench, sides, None, _training_folder(bench.options.output) / "all", progress)
    if learnt is not None:
        write_model(learnt[0], bench.options.output)


def _settings(options: argparse.Namespace) -> dict[str, Any]:
    """What the user decided, by key of the task.

    Raises:
        InputError: an option that detectors do not have, or a value of a wrong kind.
    """
    require_fold(options.fold)
    words = [*options.set, *([f"epochs={options.epochs}"] if options.epochs is not None else [])]
    settings = read_settings(words, DetectionTask)
    if "intensity" in settings:
        settings["intensity"] = intensity_entries(settings["intensity"])
    require_kinds(DetectionTask, {key: value for key, value in settings.items() if key != "augmentation"})
    return settings


def _as_meant(task: DetectionTask) -> DetectionTask:
    """A task of a file, whose words for intensities stand for the same as with `--set`.

    Raises:
        InputError: a value of a wrong kind.
    """
    if isinstance(task.intensity, list):
        task = replace(task, intensity=intensity_entries(task.intensity))
    require_kinds(DetectionTask, asdict(task))
    return task


def _read(folder: Path, task: DetectionTask | None, judged: bool, progress: Progress) -> _Data:
    """All that a folder holds, looked at.

    Raises:
        InputError: anything in it is at fault; the sentence, or a table of them, names the files.
    """
    cases = find_boxed_cases(folder, channels_there(folder) if task is None else len(task.channels))
    classes = task.labels if task is not None and task.classes else labels_there(folder, cases)
    if not classes:
        raise InputError(f"There is no box in {folder}, so that there is nothing to learn to find.")
    names = label_names(folder, classes)
    facts, examined = examine_boxed(cases, names, progress, None if task is None else len(task.channels))
    known = {case.name for case in cases}
    groups = groups_of(examined.facts, patients_of(folder, [as_case(case) for case in cases]))
    splits = splits_of(folder / "splits_final.json", known)
    sides = []
    if not examined.faults:
        sides = split_faults(folder, splits, groups, examined.facts)
        sides += faults_of_test_part(folder, examined.facts, progress)
    require_sound(examined, progress, sides)
    if len(set(groups.values())) < 2 and not splits and judged:
        raise InputError(
            f"All images in {folder} are of one patient, so that nothing is left to validate on; add another's."
        )
    return _Data(cases, names, facts, groups, splits)


def _whole_task(
    options: argparse.Namespace,
    given: DetectionTask | None,
    settings: Mapping[str, Any],
    data: _Data,
    device: torch.device,
) -> DetectionTask:
    """The task with nothing left to be planned; every choice is told on standard output.

    Raises:
        InputError: augmentations that there are not, or that boxes can't follow.
    """
    wanted = settings.get("augmentation")
    settings = {key: value for key, value in settings.items() if key != "augmentation"}
    if given is None:
        name = options.output.resolve().name if options.task == PLANNED else options.task
        classes = {name: _called(name, data.names) for name in dict.fromkeys(data.names.values())}
        budget = CPU if device.type == "cpu" else GPU
        task, choices = plan_detector(name, options.data, classes, data.facts, budget, settings)
    else:
        task, choices = _with_classes(given, data)
        task, left = plan_left(task, data.facts)
        name, choices = task.name, choices + left
    if wanted is not None:
        task = replace(task, augmentation=recipe_of(wanted, task.augmentation))
        told = Choice("augmentation", ", ".join(task.augmentation) or "none", ASKED)
        choices = [told if choice.key == "augmentation" else choice for choice in choices]
    require_following(task.augmentation)
    if choices and not options.quiet:
        print(f"The task '{name}' was planned from {len(data.facts)} images:\n{told_choices(choices)}", flush=True)
    return task


def _with_classes(task: DetectionTask, data: _Data) -> tuple[DetectionTask, list[Choice]]:
    """A task with the classes that it leaves to its data."""
    if task.classes:
        return task, []
    every = list(dict.fromkeys(data.names.values()))
    named = [{"name": name, "labels": list(_called(name, data.names))} for name in every]
    return replace(task, classes=named), [Choice("classes", ", ".join(every), "the labels that the data has")]


def _called(name: str, names: Mapping[str, str]) -> tuple[str, ...]:
    """What the data calls a class."""
    return tuple(text for text, other in names.items() if other == name)


def _split(data: _Data, task: DetectionTask, fold: int) -> _Sides:
    """Cases of the fold that the data prescribes, or that are dealt by the seed."""
    by_name = {case.name: case for case in data.cases}
    if data.splits:
        if fold >= len(data.splits):
            raise InputError(f"There is no fold {fold}: the data has folds 0 to {len(data.splits) - 1}.")
        parts = [sorted(part) for part in data.splits[fold]]
        learnt, judged = ([by_name[name] for name in part] for part in parts)
        return _sides(data, task, learnt, judged)
    if task.folds < 2:
        raise InputError(
            f"The task {task.name} has one fold only, so that nothing is left to validate on; give 2 or more."
        )
    dealt = split_cases(tuple(one.plain.case for one in data.facts), task.folds, fold, task.seed, data.groups)
    learnt, judged = ([by_name[case.name] for case in part] for part in (dealt.training, dealt.validation))
    return _sides(data, task, learnt, judged)


def _sides(data: _Data, task: DetectionTask, learnt: Sequence[BoxedCase], judged: Sequence[BoxedCase]) -> _Sides:
    """The cases, some of those to be learnt from set aside where the task stops early."""
    if not task.patience:
        return _Sides(tuple(learnt), (), tuple(judged))
    by_name = {case.name: case for case in learnt}
    kept, stopping = kept_for_stopping(tuple(as_case(case) for case in learnt), task.seed, data.groups)
    here = tuple(by_name[case.name] for case in kept), tuple(by_name[case.name] for case in stopping)
    return _Sides(*here, tuple(judged))


def _command(options: argparse.Namespace) -> str:
    """The command line that repeats this training."""
    words = [*program(), str(options.task), "--data", options.data.name, "-o", options.output.name]
    words += ["--fold", options.fold or "0"] + (["--epochs", str(options.epochs)] if options.epochs else [])
    words += [word for pair in options.set for word in ("--set", pair)]
    return shlex.join(words + (["--initial", options.initial.name] if options.initial else []))
