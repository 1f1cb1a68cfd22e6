"""`medai train` for a task of the kind "classification"."""

import argparse
import json
import shlex
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import torch

from MedAILib.bundle_plan import plan_of
from MedAILib.config import Config
from MedAILib.errors import InputError
from MedAILib.output import whole_file
from MedAILib.progress import Progress
from MedAILib.training.classification import Bench
from MedAILib.training.classification_card import ClassifierRecord, write_classifier_card
from MedAILib.training.classification_export import inference, metadata
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import Calibration, ClassData, split_folds, train_classifier
from MedAILib.training.export import Contents, licence_text, write_model
from MedAILib.training.labelled_images import check_images, find_labelled_images, numbered, part_of, require_classes
from MedAILib.training.plan import told_choices
from MedAILib.training.plan_classifier import plan_classifier
from MedAILib.training.prepared_images import prepare_images
from MedAILib.training.synthetic import made_images
from MedAILib.training.task_settings import with_words


def run_train_classifier(
    options: argparse.Namespace, task: ClassificationTask, device: torch.device, machine: str, progress: Progress
) -> None:
    """Train a classifier, choose its threshold and temperature, and write it as a bundle.

    Raises:
        MedAIError: the data or the output folder is at fault, or a checkpoint is of another training.
        Cancelled: by `progress`; `--resume` goes on from the last whole epoch.
    """
    if options.fold is not None:
        raise InputError(f"The task {task.name} runs all its {task.folds} folds by itself; leave --fold out.")
    for name, value in {"--initial": options.initial, "--show-augmentation": options.show_augmentation}.items():
        if value is not None:
            raise InputError(f"{name} is for segmentation; leave it out.")
    task = with_words(task, options.set)
    if options.epochs:
        task = replace(task, epochs=options.epochs, distil_epochs=options.epochs)
    data = read_data(task, options.data, progress)
    split_folds(task, data)  # what is too few for them is said before the training starts
    folder: Path = options.output
    place = folder.with_name(folder.name + ".training")
    if not options.resume:
        _write_task(task, place / "task.json")
    if options.plan_only:
        return
    bench = Bench(place, str(device), options.resume, "")
    trained = train_classifier(task, data, bench, progress)
    command = f"medai train {options.task} --data {shlex.quote(options.data.name)} -o {shlex.quote(folder.name)}"
    command += f" --epochs {options.epochs}" if options.epochs else ""
    command += "".join(f" --set {shlex.quote(word)}" for word in options.set)
    configs = {"metadata": metadata(task, trained.calibration), "inference": inference(task)}
    card = write_classifier_card(ClassifierRecord(task, data, trained, command, machine))
    weights = {key: value.half() if value.is_floating_point() else value for key, value in trained.weights.items()}
    write_model(Contents(configs, card, licence_text(task), weights), folder)


def planned_classifier(options: argparse.Namespace, progress: Progress) -> ClassificationTask:
    """A task planned from the data, every choice told on standard output; `--set` decides over it, `frames` first.

    Raises:
        InputError: the data is at fault, or a value of `--set`.
    """
    told = dict(word.partition("=")[::2] for word in options.set)
    frames = told.get("frames")
    if frames is not None and not frames.strip().isdecimal():
        raise InputError(f"--set frames={frames}: the task's frames has to be a whole number.")
    name = options.output.resolve().name if options.task == "classification" else options.task
    task, choices = plan_classifier(name, options.data, None if frames is None else int(frames), progress)
    if not options.quiet:
        shown = [replace(c, value=told[c.key], reason="asked for by --set") if c.key in told else c for c in choices]
        print(f"The task '{name}' was planned from {options.data}:\n{told_choices(shown)}", flush=True)
    return task


def _write_task(task: ClassificationTask, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as part:
        text = json.dumps({"kind": "classification", **asdict(task)}, indent=2, ensure_ascii=False)
        part.write_text(text + "\n", encoding="utf-8")


def read_data(task: ClassificationTask, path: Path, progress: Progress) -> ClassData:
    """The images that a task learns from, checked and as the network sees them.

    Raises:
        InputError: the data is at fault; the sentence names the file.
    """
    images = find_labelled_images(path, task.frames > 0)
    pool = part_of(images, task.pool)
    if not pool:
        raise InputError(f"{path} has no images for {' or '.join(task.pool)}, which the task {task.name} learns from.")
    every = numbered(images, task.labels)  # a wrong label is said wherever it is
    check_images(images, every, task.names, len(task.size), progress)
    numbers = numbered(pool, task.labels)
    require_classes(numbers, task.names, str(path), least=max(2, task.folds))
    plan = plan_of(
        Path(task.name),
        Path(task.name),
        metadata(task, Calibration(1.0, 0.5, None)),
        Config(inference(task), Path(task.name), {"bundle_root": "."}),
        Path(task.name),
    )
    if task.synthetic:
        made = made_images(task, pool, numbers, progress)
        pool, numbers = (*pool, *made), np.concatenate([numbers, numbered(made, task.labels)])
    return prepare_images(task, pool, numbers, plan.preprocessing)
