"""`medai train` for a task of the kind "classification"."""

import argparse
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from MedAILib.bundle_plan import plan_of
from MedAILib.commands.train_options import program, stops_early, tell_choices, write_task
from MedAILib.config import Config
from MedAILib.errors import InputError
from MedAILib.models.store import find_model
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.training.checkpoint import require_room
from MedAILib.training.choices import ASKED
from MedAILib.training.classification_card import ClassifierRecord, write_classifier_card
from MedAILib.training.classification_choices import class_choices
from MedAILib.training.classification_export import inference, metadata
from MedAILib.training.classification_report import write_classifier_evaluation
from MedAILib.training.classification_samples import write_class_samples
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.classification_validation import judged_evaluation, report_folder
from MedAILib.training.cross_validation import ClassData, split_folds, train_classifier
from MedAILib.training.decision import Calibration
from MedAILib.training.export import Contents, licence_text, write_model
from MedAILib.training.initial import first_weights
from MedAILib.training.labelled_checks import check_images
from MedAILib.training.labelled_images import find_labelled_images, part_of
from MedAILib.training.lesson import Bench, tried_network
from MedAILib.training.matched_labels import truth_of
from MedAILib.training.plan_classifier import Wanted, plan_classifier
from MedAILib.training.precision import type_told
from MedAILib.training.prepared_images import prepare_images
from MedAILib.training.processes import is_first
from MedAILib.training.synthetic import made_images
from MedAILib.training.task import is_task
from MedAILib.training.task_settings import with_class_words


def run_train_classifier(
    options: argparse.Namespace, task: ClassificationTask, device: torch.device, machine: str, progress: Progress
) -> None:
    """Train a classifier, choose its threshold and temperature, and write it as a bundle, with a report beside it.

    The report is on the images that the judging networks have not learnt from, in the folder of the checkpoints.

    Raises:
        MedAIError: the data or the output folder is at fault, or a checkpoint is of another training.
        Cancelled: by `progress`; `--resume` goes on from the last whole epoch.
    """
    if options.fold not in (None, "all"):
        raise InputError(
            f"--fold {options.fold}: a classifier is chosen and judged over all {task.folds} folds of its task "
            f"{task.name} together; leave --fold out, or give --fold all. For a single part to judge by, give --set "
            "folds=1 and data with the parts train and val."
        )
    task = with_class_words(task, options.set)
    if options.epochs is not None:
        own = any(word.partition("=")[0].strip() == "distil_epochs" for word in options.set)
        task = replace(task, epochs=options.epochs, distil_epochs=task.distil_epochs if own else options.epochs)
    folder: Path = options.output
    place = folder.with_name(folder.name + ".training")
    initial = None if options.initial is None else find_model(str(options.initial))
    size = _require_start(task, initial, progress)
    if options.resume and not place.is_dir():
        raise InputError(f"There is nothing to resume: {place} does not exist.")
    data = read_data(task, options.data, progress)
    _warn_of_unjudged(task, data, progress)  # what is too few for folds is said before the training starts
    require_room(place, size * (task.networks * task.folds + 1))  # a checkpoint for each, and the one that is shipped
    if not options.resume:
        write_task(task, place / "task.json")
    if options.plan_only and is_task(options.task):  # one that was planned is told already
        tell_choices(f"The task '{task.name}'", class_choices(task, data, _asked(options)), options.quiet)
    if options.show_augmentation is not None and is_first():
        write_class_samples(task, data, options.show_augmentation)
    if stops_early(options):
        return
    bench = Bench(place, str(device), options.resume, "", initial)
    trained = train_classifier(task, data, bench, progress)
    if not is_first():
        return
    command = (
        f"{shlex.join(program())} {options.task} --data {shlex.quote(options.data.name)} -o {shlex.quote(folder.name)}"
    )
    command += f" --epochs {options.epochs}" if options.epochs else ""
    command += "".join(f" --set {shlex.quote(word)}" for word in options.set)
    known = len(trained.weights["members.1.known"]) if task.kernel else 0
    configs = {"metadata": metadata(task, trained.calibration), "inference": inference(task, known)}
    command += f" --initial {shlex.quote(options.initial.name)}" if options.initial else ""
    start = initial.name if initial else ""
    numbers = type_told(task.precision, device)
    card = write_classifier_card(ClassifierRecord(task, data, trained, command, machine, start, numbers))
    weights = {key: value.half() if value.is_floating_point() else value for key, value in trained.weights.items()}
    write_model(Contents(configs, card, licence_text(task), weights), folder)
    progress.step(0, 1, "Writing the report on images that were not learnt from")
    evaluation = judged_evaluation(task, data, trained, read_spec(folder), device)
    write_classifier_evaluation(evaluation, place / report_folder(task), command)


def planned_classifier(options: argparse.Namespace, progress: Progress) -> ClassificationTask:
    """A task planned from the data, every choice told on standard output; `--set` decides over it, `frames` first.

    Raises:
        InputError: the data is at fault, or a value of `--set`.
    """
    told = dict(word.partition("=")[::2] for word in options.set)
    if options.epochs is not None:
        told["epochs"] = str(options.epochs)
    frames = told.get("frames")
    if frames is not None and not frames.strip().isdecimal():
        raise InputError(f"--set frames={frames}: the task's frames has to be a whole number.")
    name = options.output.resolve().name if options.task == "classification" else options.task
    wanted = Wanted(None if frames is None else int(frames), told.get("decision", ""), "classes" in told)
    task, choices = plan_classifier(name, options.data, wanted, progress)
    shown = [replace(c, value=told[c.key], reason=ASKED) if c.key in told.keys() - {"decision"} else c for c in choices]
    tell_choices(f"The task '{name}' was planned from {options.data}", shown, options.quiet)
    return task


def _warn_of_unjudged(task: ClassificationTask, data: ClassData, progress: Progress) -> None:
    """Tell of labels that none of the images has that networks are judged by.

    Raises:
        InputError: the data is too little for the task's folds.
    """
    judged = np.concatenate([judge for _, judge in split_folds(task, data)])
    counts = task.decided.marks(data.numbers[judged]).sum(axis=0).tolist()
    if lacking := [name for name, count in zip(task.names, counts, strict=True) if not count]:
        progress.warn(
            f"No image to judge by has {', '.join(lacking)}: thresholds there stay at 0.5, and what can't be measured "
            "is left out of means."
        )


def _asked(options: argparse.Namespace) -> set[str]:
    """The task's keys that the command line gave."""
    epochs = set() if options.epochs is None else {"epochs", "distil_epochs"}
    return epochs | {word.partition("=")[0].strip() for word in options.set}


def _require_start(task: ClassificationTask, initial: Path | None, progress: Progress) -> int:
    """See, before any image is read, that networks take such images and the weights they are to start from.

    Returns:
        how many bytes one network's weights have.

    Raises:
        MedAIError: they can't be built, or don't.
    """
    if task.frozen_stages and initial is None:
        raise InputError("frozen_stages keeps the weights of another model; name it with --initial.")
    frames = (task.frames,) if task.frames else ()
    network = tried_network(task.network, (*frames, len(task.channels), *task.size), task.decided.outputs)
    if task.student:
        tried_network(task.network | task.student, (*frames, len(task.channels), *task.size), task.decided.outputs)
    if initial is not None:
        first_weights(network, initial, (str(task.network["_target_"]), task.frozen_stages), progress)
    return sum(part.nbytes for part in network.parameters())


def read_data(task: ClassificationTask, path: Path, progress: Progress) -> ClassData:
    """The images that a task learns from, checked and as the network sees them.

    Raises:
        InputError: the data is at fault; the sentence names the file.
    """
    images = find_labelled_images(path, task.frames > 0, task.several)
    pool = part_of(images, task.pool)
    if not pool:
        raise InputError(f"{path} has no images for {' or '.join(task.pool)}, which the task {task.name} learns from.")
    every = truth_of(images, task.labels, task.several)  # a wrong label is said wherever it is
    check_images(images, every, task.names, len(task.size), progress)
    numbers = truth_of(pool, task.labels, task.several)
    task.decided.require_examples(numbers, str(path), max(2, task.folds))
    plan = plan_of(
        Path(task.name),
        Path(task.name),
        metadata(task, Calibration(1.0, task.decided.usual_thresholds)),
        Config(inference(task), Path(task.name), {"bundle_root": "."}),
        Path(task.name),
    )
    if task.synthetic:
        made = made_images(task, pool, numbers, progress)
        pool, numbers = (*pool, *made), np.concatenate([numbers, truth_of(made, task.labels, task.several)])
    return prepare_images(task, pool, numbers, plan.preprocessing)
