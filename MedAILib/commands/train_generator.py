"""`medai train` for a task of the kind "generation"."""

import argparse
import shlex
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

import torch

from MedAILib.commands.train_options import program, tell_choices, write_task
from MedAILib.errors import InputError
from MedAILib.output import whole_file
from MedAILib.progress import Progress
from MedAILib.training.choices import ASKED, Choice
from MedAILib.training.export import Contents, licence_text, write_model
from MedAILib.training.generation import make_pictures, require_enough, train_generator
from MedAILib.training.generation_card import SHEET, GeneratorRecord, sample_sheet, write_generator_card
from MedAILib.training.generation_distance import kept_aside
from MedAILib.training.generation_export import inference, metadata
from MedAILib.training.generation_task import GenerationTask
from MedAILib.training.pictures import digest_of_pictures, read_pictures
from MedAILib.training.plan_generator import plan_generator
from MedAILib.training.precision import type_told
from MedAILib.training.processes import is_first
from MedAILib.training.task import is_task
from MedAILib.training.task_settings import with_words
from MedAILib.training.training_run import TrainingRun

JUDGED_AT_MOST = 512
TOLD = (
    *("label", "part", "size", "latent", "generator", "discriminator", "mirror", "batch", "learning_rate", "epochs"),
    *("patience", "precision", "seed"),
)


def run_train_generator(
    options: argparse.Namespace, task: GenerationTask, device: torch.device, machine: str, progress: Progress
) -> None:
    """Train a generator, write it as a bundle, and a sheet of its pictures beside those it learnt from into its docs.

    Raises:
        MedAIError: the data, an option or the output folder is at fault, or a checkpoint is of another training.
        Cancelled: by `progress`; `--resume` goes on from the last whole epoch.
    """
    given = {"--fold": options.fold, "--initial": options.initial, "--show-augmentation": options.show_augmentation}
    for name, value in given.items():
        if value is not None:
            raise InputError(f"The task {task.name} trains a generator, which knows no {name}; leave it out.")
    epochs = [] if options.epochs is None else [f"epochs={options.epochs}"]
    task = with_words(task, [*options.set, *epochs])
    pictures, part = read_pictures(task, options.data, progress)
    folder: Path = options.output
    place = folder.with_name(folder.name + ".training")
    run = TrainingRun(place, task.epochs, str(device), options.resume, data_sha256=digest_of_pictures(pictures))
    kept = None
    if task.patience:
        pictures, kept = kept_aside(pictures, task.seed)
    require_enough(task, pictures)
    if not options.resume:
        write_task(task, place / "task.json")
    if options.plan_only:
        if is_task(options.task):  # a planned one was told when it was planned
            tell_choices(f"The task '{task.name}'", _choices(task, _asked(options)), options.quiet)
        return
    weights = train_generator(task, pictures, run, progress, kept)
    if not is_first():
        return
    halves = {key: value.half() if value.is_floating_point() else value for key, value in weights.items()}
    # As many as there are to compare with, by the very weights that are shipped.
    latents = torch.randn(
        min(max(len(pictures), 40), JUDGED_AT_MOST), task.latent, generator=torch.Generator().manual_seed(0)
    )
    made = make_pictures(task, halves, latents)
    numbers, stopping = type_told(task.precision, device), 0 if kept is None else len(kept)
    record = GeneratorRecord(task, pictures, made, _command(options), machine, part, numbers, stopping)
    sheet = sample_sheet(made.numpy(), pictures.numpy())
    with whole_file(place / SHEET) as partial:
        partial.write_bytes(sheet)
    configs = {"metadata": metadata(task, part, len(pictures)), "inference": inference(task)}
    write_model(Contents(configs, write_generator_card(record), licence_text(task), halves, {SHEET: sheet}), folder)


def planned_generator(options: argparse.Namespace, progress: Progress) -> GenerationTask:
    """A task planned from the pictures, every choice told on standard output; `--set` decides over it, `label` first.

    Raises:
        InputError: the data is at fault, or a value of `--set`.
    """
    told = _asked(options)
    name = options.output.resolve().name
    task, choices = plan_generator(name, options.data, told.get("label", ""), progress)
    shown = [replace(c, value=told[c.key], reason=ASKED) if c.key in told else c for c in choices]
    tell_choices(f"The task '{name}' was planned from {options.data}", shown, options.quiet)
    return task


def _asked(options: argparse.Namespace) -> dict[str, str]:
    """What the user decides over the task, by key."""
    told = {key.strip(): value.strip() for key, _, value in (word.partition("=") for word in options.set)}
    return told if options.epochs is None else told | {"epochs": str(options.epochs)}


def _choices(task: GenerationTask, asked: Container[str]) -> list[Choice]:
    """What a task that was given says, each with where it is from."""
    return [Choice(key, getattr(task, key), ASKED if key in asked else "the task's") for key in TOLD]


def _command(options: argparse.Namespace) -> str:
    """The command line that repeats this training."""
    words = [*program(), str(options.task), "--data", options.data.name, "-o", options.output.name]
    words += [] if options.epochs is None else ["--epochs", str(options.epochs)]
    return shlex.join(words + [word for pair in options.set for word in ("--set", pair)])
