"""`medai train` for a task of the kind "generation"."""

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from MedAILib.errors import InputError
from MedAILib.progress import Progress
from MedAILib.training.export import Contents, licence_text, write_model
from MedAILib.training.generation import build_pair, make_pictures, pictures_tensor, train_generator
from MedAILib.training.generation_card import GeneratorRecord, sample_sheet, write_generator_card
from MedAILib.training.generation_export import inference, metadata
from MedAILib.training.generation_task import GenerationTask
from MedAILib.training.labelled_images import find_labelled_images, part_of, read_labelled
from MedAILib.training.segmentation import TrainingRun

SHEET = "samples.png"
SAMPLES = 40


def run_train_generator(
    options: argparse.Namespace, task: GenerationTask, device: torch.device, machine: str, progress: Progress
) -> None:
    """Train a generator, write it as a bundle, and a sheet of its pictures beside those it learnt from into its docs.

    Raises:
        MedAIError: the data or the output folder is at fault, or a checkpoint is of another training.
        Cancelled: by `progress`; `--resume` goes on from the last whole epoch.
    """
    if options.fold:
        raise InputError(f"The task {task.name} has no folds; leave --fold out.")
    task = replace(task, epochs=options.epochs or task.epochs)
    pictures = read_pictures(task, options.data, progress)
    folder: Path = options.output
    run = TrainingRun(folder.with_name(folder.name + ".training"), task.epochs, str(device), options.resume)
    weights = train_generator(task, pictures, run, progress)

    generator, _ = build_pair(task)
    generator.load_state_dict(weights)
    made = make_pictures(generator, torch.randn(SAMPLES, task.latent, generator=torch.Generator().manual_seed(0)))
    configs = {"metadata": metadata(task), "inference": inference(task)}
    command = f"medai train {options.task} --data {options.data.name} -o {folder.name} --epochs {task.epochs}"
    card = write_generator_card(GeneratorRecord(task, pictures, made, command, machine, SHEET))
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    sheet = sample_sheet(made.numpy(), pictures.numpy())
    write_model(Contents(configs, card, licence_text(task), halves, {SHEET: sheet}), folder)


def read_pictures(task: GenerationTask, data: Path, progress: Progress) -> torch.Tensor:
    """The pictures (N, 1, size, size) that a task learns from, each scaled to 0 to 1.

    Raises:
        InputError: the data holds no such pictures, or one that is no grey picture or shows nothing.
    """
    images = part_of(find_labelled_images(data), (task.part,))
    if task.label:
        images = tuple(image for image in images if image.label == task.label)
    if not images:
        wanted = f"the label {task.label}" if task.label else f"the part {task.part}"
        raise InputError(f"{data} has no images of {wanted}, which the task {task.name} learns from.")
    found: list[torch.Tensor] = []
    for number, image in enumerate(images):
        progress.step(number, len(images), f"Reading {image.name}")
        voxels = np.squeeze(read_labelled(image, progress).data)
        if voxels.ndim != 2:
            raise InputError(f"{image.name} is no grey picture; the task {task.name} learns from those alone.")
        if not np.isfinite(voxels).all() or voxels.min() == voxels.max():
            raise InputError(f"{image.name} has one value everywhere, or values that are none; leave it out.")
        found.append(torch.from_numpy(voxels.astype(np.float32)))
    return pictures_tensor(found, task.size)
