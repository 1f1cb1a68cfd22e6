"""nnU-Net's planning, preprocessing and training in a process of its own: `nnunet_training_program.py JOB.json`.

All is nnU-Net's: planner, plan, preprocessing, augmentation, network, loss, optimizer, schedule. The number of epochs
and of iterations in each is the job's. Where another program says when it will end, the number of epochs follows: after
each, the schedule is laid out anew so that it ends with that one.
"""

import contextlib
import json
import math
import os
import random
import shutil
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

VALIDATED = 5  # iterations for each of validation, as in nnU-Net's 250 and 50
DATASET = "Dataset001_Data"


class TimeIsOver(Exception):
    """Another epoch would end later than the other program, by more than half of it."""


def raw_dataset(job: dict[str, Any], root: Path) -> dict[str, Any]:
    """Lay the cases out as nnU-Net wants them; the content of `dataset.json`."""
    folder = root / "raw" / DATASET
    for name in ("imagesTr", "labelsTr"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for name, (images, label) in job["cases"].items():
        ending = label[label.rindex(name) + len(name) :]
        for number, image in enumerate(images):
            shutil.copy(image, folder / "imagesTr" / f"{name}_{number:04d}{ending}")
        shutil.copy(label, folder / "labelsTr" / f"{name}{ending}")
    content = {
        "channel_names": {str(number): name for number, name in enumerate(job["channels"])},
        "labels": {"background": 0, **job["labels"]},
        "numTraining": len(job["cases"]),
        "file_ending": ending,
    }
    (folder / "dataset.json").write_text(json.dumps(content))
    return content


def prepare(job: dict[str, Any], root: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """nnU-Net's fingerprint, plan and preprocessing; plans and dataset."""
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiments, preprocess

    dataset, processes = raw_dataset(job, root), job["threads"]
    extract_fingerprints([1], num_processes=processes, show_progress_bar=False)
    plan_experiments([1])
    preprocess([1], configurations=("3d_fullres",), num_processes=(processes,), show_progress_bar=False)
    place = root / "preprocessed" / DATASET
    (place / "splits_final.json").write_text(json.dumps([{"train": job["training"], "val": job["validation"]}]))
    return json.loads((place / "nnUNetPlans.json").read_text()), dataset


def trainer_of(job: dict[str, Any], plans: dict[str, Any], dataset: dict[str, Any]) -> Any:
    """nnU-Net's own trainer with the job's length."""
    import numpy as np
    import torch
    from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

    for seeded in (torch.manual_seed, np.random.seed, random.seed):
        seeded(job["seed"])
    trainer = nnUNetTrainer(plans | {"continue_training": False}, "3d_fullres", 0, dataset, torch.device("cpu"))
    trainer.num_epochs, trainer.num_iterations_per_epoch = job["epochs"], job["iterations"]
    trainer.num_val_iterations_per_epoch = max(1, job["iterations"] // VALIDATED)
    trainer._best_ema = math.inf  # never a "best" checkpoint, which would be written at nearly each short epoch
    trainer.logger.plot_progress_png = lambda _: None
    return trainer


def watch_epochs(trainer: Any, job: dict[str, Any], folder: Path) -> None:
    """Write a line after each epoch, and keep weights where the job says so."""
    began, due, end = float(os.environ["BEGAN"]), list(job["snapshots"]), trainer.on_epoch_end
    path = folder / "epochs.csv"
    path.write_text("epoch,seconds\n")
    ends: list[float] = []

    def after(whole: Any) -> None:
        whole()
        seconds = time.time() - began
        ends.append(seconds)
        if due and seconds >= due[0]:
            due.pop(0)
            trainer.save_checkpoint(str(Path(trainer.output_folder) / f"snapshot_{seconds:.0f}.pth"))
        with path.open("a") as file:
            file.write(f"{trainer.current_epoch},{seconds:.2f}\n")
        schedule = trainer.lr_scheduler
        schedule.max_steps = max(schedule.max_steps, trainer.current_epoch + 1)
        if (end_s := told_end(folder)) is not None and len(ends) > 1:
            follow(trainer, ends, end_s)

    trainer.on_epoch_end = partial(after, end)


def told_end(folder: Path) -> float | None:
    """When the other program will end, in seconds from its start, which is this one's; None: nobody says."""
    path = folder / "end.txt"
    return float(path.read_text()) if path.is_file() else None


def follow(trainer: Any, ends: list[float], end_s: float) -> None:
    """Lay the schedule out anew for as many epochs as end by then, at the pace of the last ones.

    Raises:
        TimeIsOver: not even half of another one does.
    """
    last = ends[-4:]
    left = round((end_s - ends[-1]) / ((last[-1] - last[0]) / (len(last) - 1)))
    if left < 1:
        raise TimeIsOver
    trainer.lr_scheduler.max_steps = len(ends) + left


def main() -> None:
    """Run a job."""
    job = json.loads(Path(sys.argv[1]).read_text())
    root = Path(job["folder"])
    for name in ("raw", "preprocessed", "results"):
        (root / name).mkdir(exist_ok=True)
        os.environ[f"nnUNet_{name}"] = str(root / name)
    os.environ |= {"nnUNet_n_proc_DA": str(job["threads"]), "nnUNet_def_n_proc": str(job["threads"])}  # threads here
    import torch

    plans, dataset = prepare(job, root)
    torch.set_num_threads(job["threads"])
    os.environ["nnUNet_n_proc_DA"] = str(job["threads"] - 1)  # noqa: SIM112 - processes beside the training's own
    trainer = trainer_of(job, plans, dataset)
    watch_epochs(trainer, job, root)
    trainer.initialize()
    trainer.lr_scheduler.max_steps = job["epochs"]
    trainer.num_epochs = job["most"]
    with contextlib.suppress(TimeIsOver):
        trainer.run_training()
    if trainer.current_epoch < job["most"]:
        trainer.on_train_end()
    plan = plans["configurations"]["3d_fullres"]
    said = {
        "cases": sorted(trainer.do_split()[0]), "result": trainer.output_folder_base, "batch": plan["batch_size"],
        "patch": plan["patch_size"], "epochs": trainer.current_epoch,
        "features": plan["architecture"]["arch_kwargs"]["features_per_stage"],
        "parameters": sum(p.numel() for p in trainer.network.parameters()),
    }  # fmt: skip
    part = root / "trained.part"
    part.write_text(json.dumps(said))
    part.rename(root / "trained.json")


if __name__ == "__main__":
    main()
