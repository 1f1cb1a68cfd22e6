"""`medai train`: from labelled images to a model with a card of its own."""

import argparse
import os
import platform
import shlex
from dataclasses import replace
from pathlib import Path

import torch

from MedAILib.commands.train_classifier import run_train_classifier
from MedAILib.models.bundle import BundleModel
from MedAILib.models.device import find_device
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.training.card import TrainingRecord, write_card
from MedAILib.training.cases import find_cases, split_cases
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.evaluate import evaluate_segmentation
from MedAILib.training.export import Bundle, require_place, write_bundle
from MedAILib.training.segmentation import TrainingRun, train_segmentation
from MedAILib.training.task import read_task


def run_train(options: argparse.Namespace, progress: Progress) -> None:
    """Train a task, write the model as a bundle, and validate what was written (a classifier: while it is trained).

    Checkpoints stand in a folder beside the bundle (`<bundle>.training`), for `--resume`.

    Raises:
        MedAIError: the task, the data or the output folder is at fault.
        Cancelled: by `progress`; `--resume` goes on from the last whole epoch.
    """
    require_place(options.output)
    task = read_task(options.task)
    device = find_device(options.device)
    if isinstance(task, ClassificationTask):
        run_train_classifier(options, task, device, _machine(device), progress)
        return
    split = split_cases(find_cases(options.data, len(task.channels)), task.folds, options.fold, task.seed)
    epochs = options.epochs or task.epochs
    folder: Path = options.output
    run = TrainingRun(folder.with_name(folder.name + ".training"), epochs, str(device), options.resume)
    weights = train_segmentation(task, split, run, progress)

    command = f"medai train {options.task} --data {shlex.quote(options.data.name)} -o {shlex.quote(folder.name)}"
    command += f" --fold {options.fold} --epochs {epochs}"
    record = TrainingRecord(task, split, command, epochs, options.fold, _machine(device))
    bundle = Bundle(task, weights, write_card(record, None))
    write_bundle(bundle, folder)
    labels = {int(label["value"]): str(label["name"]) for label in task.labels}
    model = BundleModel(folder, device)
    evaluation = evaluate_segmentation(model, split.validation, labels, progress, RunOptions())
    write_bundle(replace(bundle, card=write_card(record, evaluation)), folder)


def _machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{os.cpu_count()} CPU cores ({platform.machine()})"
