"""MedAI's training beside the loop of MONAI's tutorials: the same network, data, batch, patch, augmentations and loss.

python Testing/benchmarks/training_speed.py DATA [--cases 24] [--epochs 3] [--rounds 3]

Each runs in a process of its own, in turns; the first epoch, which reads and prepares, is told apart. The tutorials'
loop (as in spleen_segmentation_3d) is `CacheDataset`, dictionary transforms, `DataLoader`, `DiceCELoss`
and Adam in float32; mixed precision there is for a GPU alone.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import psutil

WAYS = ("tutorial", "ours", "ours, float32")
PAUSE_S = 0.05  # between two looks at the memory


def task_of() -> Any:
    """The built-in task, without what the tutorials' loop has not: averaged outputs of deep supervision."""
    from MedAILib.training.task import read_task

    task = read_task("hippocampus")
    network = task.network | {"deep_supervision": False}
    network.pop("deep_supr_num", None)
    return replace(task, network=network, deep_supervision_weights=[1.0])


def ours(data: Path, cases: int, epochs: int, precision: str) -> list[float]:
    """The seconds at which each epoch ends."""
    from MedAILib.progress import Progress
    from MedAILib.training import segmentation
    from MedAILib.training.cases import Split, find_cases

    ends: list[float] = []
    whole = segmentation.Course.after_epoch

    def after_epoch(course: Any, watched: Any) -> None:
        whole(course, watched)
        ends.append(time.perf_counter())

    segmentation.Course.after_epoch = after_epoch  # type: ignore[method-assign]
    found = tuple(find_cases(data)[:cases])
    with tempfile.TemporaryDirectory() as folder:
        run = segmentation.TrainingRun(Path(folder) / "run", epochs)
        task = replace(task_of(), precision=precision)
        segmentation.train_segmentation(task, Split(found, ()), run, Progress())
    return ends


def tutorial(data: Path, cases: int, epochs: int) -> list[float]:
    """The loop of the tutorials, with MONAI's readers and transforms."""
    import math

    import torch
    from monai import transforms
    from monai.data import CacheDataset, DataLoader
    from monai.losses import DiceCELoss
    from monai.networks.nets import DynUNet
    from monai.utils import set_determinism

    from MedAILib.training.augmentations import filled
    from MedAILib.training.cases import find_cases

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
    files = [{"image": str(case.images[0]), "label": str(case.label)} for case in find_cases(data)[:cases]]
    dataset = CacheDataset(files, transforms.Compose(steps), cache_rate=1.0, num_workers=2, progress=False)
    loader = DataLoader(dataset, batch_size=task.batch, shuffle=True, num_workers=2)
    network = DynUNet(**{key: value for key, value in task.network.items() if key != "_target_"})
    loss_of = DiceCELoss(to_onehot_y=True, softmax=True)
    optimizer = torch.optim.Adam(network.parameters(), task.learning_rate)
    ends = []
    for _ in range(epochs):
        network.train()
        for batch in loader:
            optimizer.zero_grad()
            loss = loss_of(network(batch["image"]), batch["label"])
            loss.backward()
            optimizer.step()
            loss.item()
        ends.append(time.perf_counter())
    return ends


def measured(way: str, data: Path, options: argparse.Namespace) -> dict[str, float]:
    """One run in this process: seconds of an epoch after the first, of the first, CPU-seconds of all, peak memory."""
    os.sched_setaffinity(0, set(range(min(2, os.cpu_count() or 1))))
    held, stop = [0], threading.Event()

    def held_by(process: psutil.Process) -> int:
        try:
            return int(process.memory_full_info().pss)
        except psutil.Error:
            return 0

    def watch() -> None:
        me = psutil.Process()
        while not stop.wait(PAUSE_S):
            held[0] = max(held[0], sum(held_by(p) for p in (me, *me.children())))

    threading.Thread(target=watch, daemon=True).start()
    begin = time.perf_counter()
    if way == "tutorial":
        ends = tutorial(data, options.cases, options.epochs)
    else:
        ends = ours(data, options.cases, options.epochs, "float32" if "float32" in way else "auto")
    stop.set()
    times = os.times()
    later = [b - a for a, b in pairwise(ends)]
    return {
        "epoch": statistics.median(later),
        "first": ends[0] - begin,
        "cpu": times.user + times.system + times.children_user + times.children_system,
        "peak": held[0],
    }


def main() -> None:
    """Run all in turns and print a table with ratios to the tutorials' loop."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--cases", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--one", choices=WAYS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measured(options.one, options.data, options)))
        return
    found: dict[str, list[dict[str, float]]] = {way: [] for way in WAYS}
    for _ in range(options.rounds):
        for way in WAYS:
            words = [sys.executable, __file__, *sys.argv[1:], "--one", way]
            text = subprocess.run(words, check=True, stdout=subprocess.PIPE, text=True).stdout
            found[way].append(json.loads(text.splitlines()[-1]))
    print("| way | epoch, s | CPU-s in all | first epoch, s | peak, GiB | faster | less memory |\n|" + "---|" * 7)
    middle = {way: {key: statistics.median(r[key] for r in runs) for key in runs[0]} for way, runs in found.items()}
    for way, m in middle.items():
        spread = [r["epoch"] for r in found[way]]
        print(
            f"| {way} | {m['epoch']:.2f} ({min(spread):.2f}-{max(spread):.2f}) | {m['cpu']:.1f} | {m['first']:.1f} "
            f"| {m['peak'] / 2**30:.2f} | {middle['tutorial']['epoch'] / m['epoch']:.2f} "
            f"| {middle['tutorial']['peak'] / m['peak']:.2f} |"
        )


if __name__ == "__main__":
    main()
