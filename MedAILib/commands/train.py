"""`medai train`: from labelled images to a model with a card of its own."""

import argparse
import logging
import os
import platform

import torch

from MedAILib.commands.train_classifier import planned_classifier, run_train_classifier
from MedAILib.commands.train_detector import has_boxes, run_train_detector
from MedAILib.commands.train_generator import planned_generator, run_train_generator
from MedAILib.commands.train_options import stops_early
from MedAILib.commands.train_segmentation import run_train_segmentation
from MedAILib.errors import InputError
from MedAILib.progress import Progress
from MedAILib.training.classification_samples import require_png
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.export import require_place
from MedAILib.training.generation_task import GenerationTask
from MedAILib.training.plan_classifier import has_classes, is_labelled
from MedAILib.training.processes import is_first, own_device, process_count, together
from MedAILib.training.task import is_task, read_task

# Kinds by which a task may be called that is to be planned; it has the output folder's name then.
SEGMENTATION, CLASSIFICATION, GENERATION = "segmentation", "classification", "generation"


def run_train(options: argparse.Namespace, progress: Progress) -> None:
    """Train a task, write the model as a bundle, and validate what was written (a classifier: while it is trained).

    In several processes (`torchrun`) the first alone writes and tells; each takes its part of every batch.
    Checkpoints stand in a folder beside the bundle (`<bundle>.training`), for `--resume`.

    Raises:
        MedAIError: the task, the data or the output folder is at fault.
        Cancelled: by `progress`; `--resume` goes on from the last whole epoch.
    """
    engines = logging.getLogger("ignite")
    engines.addHandler(logging.NullHandler())
    engines.propagate = False  # an error is told once, by the command line
    device = own_device(options.device)
    with together(device):
        if not is_first():
            options.quiet, progress = True, Progress()
        _run_task(options, device, progress)


def _run_task(options: argparse.Namespace, device: torch.device, progress: Progress) -> None:
    """Train the task that is named or planned, on this process's device."""
    _require_together(options)
    require_place(options.output)
    task = read_task(options.task) if is_task(options.task) else None
    if isinstance(task, ClassificationTask):
        run_train_classifier(options, task, device, _machine(device), progress)
    elif isinstance(task, DetectionTask) or (task is None and has_boxes(options.task, options.data)):
        run_train_detector(options, task, device, _machine(device), progress)
    elif isinstance(task, GenerationTask):
        run_train_generator(options, task, device, _machine(device), progress)
    elif task is None and options.task == GENERATION:
        run_train_generator(options, planned_generator(options, progress), device, _machine(device), progress)
    elif task is None and (has_classes(options.data) or options.task == CLASSIFICATION):
        if options.task == SEGMENTATION:
            raise InputError(
                f"{options.data} has images of classes and no label maps, so that no segmentation can be learnt from "
                "it; call the task classification, or give a folder with images and labels in it."
            )
        if not has_classes(options.data) and is_labelled(options.data):
            raise InputError(
                f"{options.data} has images and label maps and no classes of images, so that no classification can be "
                "learnt from it; call the task segmentation, or give a folder for each class, a .csv or a .npz."
            )
        planned = planned_classifier(options, progress)
        run_train_classifier(options, planned, device, _machine(device), progress)
    else:
        run_train_segmentation(options, device, _machine(device), progress)


def _require_together(options: argparse.Namespace) -> None:
    """Raise `MedAIError` where options contradict each other, before anything is read."""
    if options.resume and stops_early(options):
        name = "--plan-only" if options.plan_only else "--show-augmentation"
        raise InputError(f"--resume goes on with a training, and {name} trains nothing; leave one of them out.")
    if options.show_augmentation is not None:
        require_png(options.show_augmentation)


def _machine(device: torch.device) -> str:
    one = f"{os.cpu_count()} CPU cores ({platform.machine()})"
    if device.type == "cuda":
        one = torch.cuda.get_device_name(device)
    return one if process_count() == 1 else f"{process_count()} processes, {one}"
