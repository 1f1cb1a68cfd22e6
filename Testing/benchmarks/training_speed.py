"""MedAI's training beside the loop of MONAI's tutorials: the same network, data, batch, patch, augmentations and loss.

python Testing/benchmarks/training_speed.py DATA [--cases 60] [--epochs 3] [--rounds 3] [--workers 2]

Each runs in a process of its own on two cores, in turns; the first epoch, which reads and prepares, is told apart. The
tutorials' loop (as in spleen_segmentation_3d) is `CacheDataset`, dictionary transforms, `DataLoader` with workers,
`DiceCELoss` and Adam in float32; mixed precision there is for a GPU alone. The tutorials have 4 workers, for machines
of more cores; `--workers` has as many as there are cores here, and one way has none. Ours is what `medai train` does,
in the precision it chooses, and in float32. Memory is measured in runs of its own, since looking takes time.

Beside the ratios stands where a step's time goes: waiting for samples (all of making them where there are no workers),
forward, loss, backward, the optimizer, and the rest (averaged weights, checkpoint, curves, ending workers).
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil
from speed_programs import Stages

WAYS = ("tutorial", "tutorial, no workers", "ours", "ours, float32")
STAGES = ("samples", "forward", "loss", "backward", "optimizer")
CORES = 2
PAUSE_S = 0.1  # between two looks at the memory


def watch(stages: Stages) -> None:
    """Time what both loops call: the loader, the network, the loss, and what follows."""
    import torch
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet
    from torch.utils.data import dataloader

    for owner, method, stage in (
        (dataloader._BaseDataLoaderIter, "__next__", "samples"),
        (DynUNet, "forward", "forward"),
        (DiceCELoss, "forward", "loss"),
        (torch.Tensor, "backward", "backward"),
        (torch.optim.Adam, "step", "optimizer"),
        (torch.optim.AdamW, "step", "optimizer"),
    ):
        setattr(owner, method, stages.watched(stage, getattr(owner, method)))


def task_of() -> Any:
    """The built-in task, without what the tutorials' loop has not: averaged outputs of deep supervision."""
    from MedAILib.training.task import read_task

    task = read_task("hippocampus")
    network = task.network | {"deep_supervision": False}
    network.pop("deep_supr_num", None)
    return replace(task, network=network, deep_supervision_weights=[1.0])


def ours(data: Path, options: argparse.Namespace, precision: str, note: Callable[[], None]) -> None:
    """Train as `medai train` does; `note` is called after each epoch."""
    from MedAILib.progress import Progress
    from MedAILib.system_memory import keep_freed_memory
    from MedAILib.training import segmentation
    from MedAILib.training.cases import Split
    from MedAILib.training.data_folder import find_cases
    from MedAILib.training.training_run import TrainingRun

    keep_freed_memory()
    whole = segmentation.Course.after_epoch

    def after_epoch(course: Any, watched: Any) -> None:
        whole(course, watched)
        note()

    segmentation.Course.after_epoch = after_epoch  # type: ignore[method-assign]
    found = tuple(find_cases(data)[: options.cases])
    with tempfile.TemporaryDirectory() as folder:
        run = TrainingRun(Path(folder) / "run", options.epochs)
        task = replace(task_of(), precision=precision)
        segmentation.train_segmentation(task, Split(found, ()), run, Progress())


def tutorial(data: Path, options: argparse.Namespace, workers: int, note: Callable[[], None]) -> None:
    """The loop of the tutorials, with MONAI's readers and transforms; `note` is called after each epoch."""
    import math

    import torch
    from monai import transforms
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet
    from monai.utils import set_determinism

    from MedAILib.training.augmentations import filled
    from MedAILib.training.data_folder import find_cases

    task, both = task_of(), ("image", "label")
    a = filled(task)
    steps = [
        transforms.LoadImaged(both),
        transforms.EnsureChannelFirstd(both),
        transforms.Orientationd(both, axcodes=task.orientation),
        transforms.Spacingd(both, pixdim=task.spacing_mm, mode=("bilinear", "nearest")),
        transforms.NormalizeIntensityd("image", channel_wise=True),
        transforms.SpatialPadd(both, spatial_size=task.patch),
        transforms.RandAffined(
            both, prob=a["rotation"]["prob"], rotate_range=[math.radians(x) for x in a["rotation"]["degrees"]],
            scale_range=[tuple(a["scaling"]["range"])] * 3, translate_range=a["translation"]["voxels"],
            mode=("bilinear", "nearest"), padding_mode="zeros",
        ),
        transforms.RandSpatialCropd(both, roi_size=task.patch, random_size=False),
        *(transforms.RandFlipd(both, prob=a["flip"]["prob"], spatial_axis=axis) for axis in task.mirror_axes),
        transforms.RandGaussianNoised("image", prob=a["noise"]["prob"], std=a["noise"]["std"]),
        transforms.RandGaussianSmoothd(
            "image", prob=a["blur"]["prob"], **{f"sigma_{axis}": tuple(a["blur"]["sigma"]) for axis in "xyz"}
        ),
        transforms.RandScaleIntensityd("image", prob=a["brightness"]["prob"], factors=a["brightness"]["factor"]),
        transforms.RandScaleIntensityFixedMeand(
            "image", prob=a["contrast"]["prob"], factors=tuple(a["contrast"]["factor"]), preserve_range=True
        ),
        transforms.RandSimulateLowResolutiond(
            "image", prob=a["low_resolution"]["prob"], zoom_range=tuple(a["low_resolution"]["zoom"])
        ),
        transforms.RandAdjustContrastd(
            "image", prob=a["gamma"]["inverted_prob"], invert_image=True, gamma=tuple(a["gamma"]["range"]),
            retain_stats=True,
        ),
        transforms.RandAdjustContrastd(
            "image", prob=a["gamma"]["prob"], gamma=tuple(a["gamma"]["range"]), retain_stats=True
        ),
    ]  # fmt: skip
    set_determinism(0)
    files = [{"image": str(case.images[0]), "label": str(case.label)} for case in find_cases(data)[: options.cases]]
    dataset = CacheDataset(files, transforms.Compose(steps), cache_rate=1.0, num_workers=CORES, progress=False)
    loader = DataLoader(dataset, batch_size=task.batch, shuffle=True, num_workers=workers)
    network = DynUNet(**{key: value for key, value in task.network.items() if key != "_target_"})
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), task.learning_rate)
    for _ in range(options.epochs):
        network.train()
        for batch in loader:
            optimizer.zero_grad()
            loss = loss_of(network(batch["image"]), batch["label"])
            loss.backward()
            optimizer.step()
            loss.item()
        note()


def measured(way: str, data: Path, options: argparse.Namespace) -> dict[str, float]:
    """One run in this process: seconds of an epoch after the first and of its stages, of the first, CPU-seconds."""
    begin, stages = time.perf_counter(), Stages()
    if way.startswith("ours"):
        from MedAILib.threads import wait_asleep

        wait_asleep()  # as `medai train` has it, before PyTorch comes
    watch(stages)
    ends: list[float] = []
    spent: list[dict[str, float]] = []

    def note() -> None:
        ends.append(time.perf_counter())
        spent.append(dict(stages.seconds))

    if way.startswith("tutorial"):
        tutorial(data, options, 0 if "no workers" in way else options.workers, note)
    else:
        ours(data, options, "float32" if "float32" in way else "auto", note)
    times, later = os.times(), len(ends) - 1
    parts = {stage: (spent[-1].get(stage, 0) - spent[0].get(stage, 0)) / later for stage in STAGES}
    parts["rest"] = (ends[-1] - ends[0]) / later - sum(parts.values())
    return {
        "epoch": statistics.median(b - a for a, b in pairwise(ends)),
        "first": ends[0] - begin,
        "cpu": times.user + times.system + times.children_user + times.children_system,
        **parts,
    }


def run_one(way: str, look: bool) -> dict[str, float]:
    """One run in a process of its own on the cores allowed; with `look` its peak memory, children's too, instead."""
    words = [sys.executable, __file__, *sys.argv[1:], "--one", way]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    seen, peak = psutil.Process(process.pid), 0
    seen.cpu_affinity(sorted(os.sched_getaffinity(0))[:CORES])
    while look and process.poll() is None:
        peak = max(peak, sum(_held_by(one) for one in (seen, *_children(seen))))
        time.sleep(PAUSE_S)
    said = process.communicate()[0]
    if process.returncode:
        raise SystemExit(process.returncode)
    return {"peak": peak} if look else json.loads(said.splitlines()[-1])


def _children(process: psutil.Process) -> list[psutil.Process]:
    try:
        return list(process.children(recursive=True))
    except psutil.Error:
        return []


def _held_by(process: psutil.Process) -> int:
    """Bytes; pages that several processes share are shared out."""
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0


def main() -> None:
    """Run all in turns and print tables with ratios to the tutorials' loop."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", type=int, default=60)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="of the tutorials' loader")
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.epochs < 2:
        parser.error("the first epoch is told apart: give at least --epochs 2")
    if options.one:
        print(json.dumps(measured(options.one, options.data, options)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            found[way].append(run_one(way, look=False))
    peaks = {way: run_one(way, look=True)["peak"] for way in WAYS}
    middle = {way: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for way, runs in found.items()}
    first, step = middle["tutorial"], 1000 / -(-options.cases // task_of().batch)
    print("| way | epoch, s | CPU-s in all | first epoch, s | peak, GiB | faster | less CPU | less memory |")
    print("|" + "---|" * 8)
    for way, m in middle.items():
        spread = [r["epoch"] for r in found[way]]
        print(
            f"| {way} | {m['epoch']:.2f} ({min(spread):.2f}-{max(spread):.2f}) | {m['cpu']:.1f} | {m['first']:.1f} "
            f"| {peaks[way] / 2**30:.2f} | {first['epoch'] / m['epoch']:.2f} | {first['cpu'] / m['cpu']:.2f} "
            f"| {peaks['tutorial'] / peaks[way]:.2f} |"
        )
    print(f"\n| ms of a step | {' | '.join((*STAGES, 'rest'))} |\n|" + "---|" * (len(STAGES) + 2))
    for way, m in middle.items():
        print(f"| {way} | {' | '.join(f'{m[stage] * step:.0f}' for stage in (*STAGES, 'rest'))} |")


if __name__ == "__main__":
    main()
