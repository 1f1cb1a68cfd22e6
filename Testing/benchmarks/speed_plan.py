"""What `speed.py` runs, in which order, and how long that will take: figures that are wanted come first."""

import importlib.util
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import ceil, prod
from statistics import median
from typing import Any

from speed_models import WORKING, Scene

# Seconds of a program before it begins, of a CPU thread for a network's 10^9 operations, and of the programs for a
# voxel of each class on the way back: rough, and corrected by what was measured so far.
START_S, OPERATIONS_S = 12.0, 0.05
LABELS_S = {"nnunet": 3e-7, "stock": 2e-7, "ours": 2e-8, "bare": 0.0}
FASTER = {"openvino": 1.6, "half": 2.5}


@dataclass(frozen=True)
class Way:
    """A program with its options."""

    title: str
    program: str
    options: dict[str, Any] = field(default_factory=dict)


OURS = Way("MedAI, PyTorch", "ours", {"engine": "torch"})
OPENVINO = Way("MedAI, OpenVINO", "ours", {"engine": "openvino"})
HALF = Way("MedAI, half precision", "ours", {"precision": "half"})
NNUNET = Way("nnU-Net's predictor", "nnunet")
STOCK = Way("MONAI's pipeline", "stock")
BARE = Way("network alone", "bare", {"engine": "torch"})
# Windows side by side: memory is the same, and the run takes an eighth of the time.
ONCE = Way("MedAI, windows side by side", "ours", {"engine": "torch", "overlap": 0.0})


@dataclass(frozen=True)
class Job:
    """One run: the part of the report that it is for, the device, what runs on what, in which round."""

    part: str
    device: str
    scene: Scene
    way: Way
    turn: int

    @property
    def key(self) -> str:
        return f"{self.device} | {self.part} | {self.scene.name} | {self.way.title} | {self.turn}"


MANY = "nnU-Net, 118 classes"
# A network and an image as researchers have them: 160 x 256 x 256 voxels of work, 27 windows.
WHOLE = Scene(
    "CT, nnU-Net of 30 million weights",
    "nnunet",
    shape=(120, 512, 512),
    features=(32, 64, 128, 256, 320, 320),
    patch=(96, 128, 128),
    spacing=(2.13, 0.8, 0.8),
    steps=40,
)
ON_CPU = (
    WHOLE,
    Scene("nnU-Net, 15 classes", "nnunet"),
    Scene(MANY, "nnunet", shape=(64, 192, 192), classes=118, features=(8, 16, 32)),
    Scene("hippocampus (built in)", "builtin", shape=(80, 96, 96), classes=3),
    Scene("bundle, 15 classes", "bundle"),
)
FEW = "nnU-Net, 3 classes"
ON_GPU = (
    Scene(FEW, "nnunet", shape=(160, 384, 384), classes=3, features=(32, 64, 128, 256), patch=(64, 96, 96)),
    replace(ON_CPU[2], shape=(160, 384, 384), features=(32, 64, 128, 256), patch=(64, 96, 96)),
    *ON_CPU[3:],
)
BASE = Scene("", "nnunet", shape=(48, 128, 128), classes=8, features=(8, 16, 32), patch=(32, 48, 48), steps=60)
GROWTH = {
    "volume": [replace(BASE, shape=(n * 24, n * 64, n * 64)) for n in (2, 3, 4)],
    "classes": [replace(BASE, classes=n) for n in (4, 16, 64)],
    "windows": [replace(BASE, patch=patch) for patch in ((32, 64, 64), (32, 32, 32), (16, 16, 16))],
}
# Slices as thick as the working spacing, so that the slab is as large for the one as for the other.
LARGE = Scene(
    "",
    "nnunet",
    shape=(600, 512, 512),
    classes=118,
    features=(4, 8, 16),
    patch=(96, 96, 96),
    spacing=(1.6, 0.8, 0.8),
    steps=60,
)
MEMORY = [replace(LARGE, shape=(slices, 512, 512)) for slices in (300, 600)]
SMALL = {"shape": (24, 64, 64), "features": (4, 8), "patch": (16, 32, 32), "steps": 20}


def small(scene: Scene) -> Scene:
    """The same question in seconds, for a trial of the benchmark itself."""
    if scene.kind == "builtin":
        return replace(scene, shape=(48, 64, 64))
    grown = {name: getattr(scene, name) for name, usual in (("shape", BASE.shape), ("patch", BASE.patch))
             if not scene.name and getattr(scene, name) != usual}  # fmt: skip
    less = {name: tuple(max(n // 2, 8) for n in sizes) for name, sizes in grown.items()}
    return replace(scene, **SMALL | {"classes": min(scene.classes, 40)} | less)


def ways(scene: Scene, device: str) -> list[Way]:
    """What is compared on a scene."""
    theirs = [NNUNET] if scene.kind == "nnunet" else [STOCK]
    if device != "cpu":
        return [*theirs, OURS, HALF]
    import torch

    extra = [OPENVINO] if importlib.util.find_spec("openvino") else []
    return [*theirs, OURS, *extra, *([HALF] if torch.cpu._is_avx512_bf16_supported() else [])]


def scenes(device: str, only: Iterable[str], smallest: bool, own: Scene | None) -> list[Scene]:
    """What programs are compared on."""
    if own is not None:
        return [own]
    chosen = [scene for scene in (ON_CPU if device == "cpu" else ON_GPU) if any(word in scene.name for word in only)]
    return [small(scene) for scene in chosen] if smallest else chosen


def jobs(device: str, chosen: list[Scene], rounds: int, extras: Iterable[str], smallest: bool) -> Iterator[Job]:
    """All runs on a device, interleaved; the first round of everything before the second of anything."""
    for turn in range(rounds):
        for scene in chosen:
            for way in ways(scene, device) if turn == 0 else ():
                if way in (OPENVINO, HALF) and device == "cpu":
                    # What else may run the network is converted and tried once for each model and machine.
                    yield Job("trial", device, scene, way, 0)
            for way in ways(scene, device):
                yield Job("programs", device, scene, way, turn)
            yield Job("bare", device, scene, BARE, turn)
        if turn == 0:
            yield from _once(device, extras, smallest)


def _once(device: str, extras: Iterable[str], smallest: bool) -> Iterator[Job]:
    """What is measured once: growth, and the memory of a large volume."""
    if "growth" in extras:
        for what, each in GROWTH.items():
            for number, scene in enumerate(each):
                named = replace(small(scene) if smallest else scene, name=f"{what} {number}")
                for way in (NNUNET, OURS):
                    yield Job(what, device, named, way, 0)
    if "memory" in extras and device == "cpu":
        for scene in MEMORY:
            slices = scene.shape[0]
            if smallest:
                scene = replace(scene, shape=(slices // 10, 64, 64), patch=(16, 32, 32), steps=20)  # noqa: PLW2901
            yield Job("memory", device, replace(scene, name=f"{scene.shape[0]} slices"), ONCE, 0)


def rough_seconds(job: Job, threads: int) -> float:
    """How long a run takes, before anything is known of this machine."""
    scene = job.scene
    overlap = job.way.options.get("overlap", 0.5)
    grid = [max(round(n * a / b), 1) for n, a, b in zip(scene.shape, scene.spacing, WORKING, strict=True)]
    steps = [ceil(max(n - m, 0) / (m * (1 - overlap))) + 1 for n, m in zip(grid, scene.patch, strict=True)]
    first = scene.features[0]
    operations = prod(steps) * prod(scene.patch) * (430.0 * first * first + 2 * first * scene.classes)
    faster = max((FASTER.get(str(word), 1.0) for word in job.way.options.values()), default=1.0)
    device = 1.0 if job.device == "cpu" else 50.0
    network = OPERATIONS_S * operations / 1e9 / max(threads, 1) / faster / device
    return START_S + network + LABELS_S[job.way.program] * prod(scene.shape) * scene.classes


def making_seconds(scene: Scene, threads: int) -> float:
    """How long it takes to train a scene's network and to draw its image, roughly."""
    trained = scene.steps if scene.kind == "nnunet" and scene.own is None else 0
    # Forth and back, and the gradients of the weights.
    operations = 3 * trained * prod(min(n, 48) for n in scene.patch) * 430.0 * scene.features[0] ** 2
    return OPERATIONS_S * operations / 1e9 / max(threads, 1) + 1e-6 * prod(scene.shape)


def seconds_left(waiting: list[Job], runs: Mapping[str, Mapping[str, Any]], threads: int) -> float:
    """How long the runs that wait will take: as they did before, or by rough numbers in the measured proportion."""
    known: dict[tuple[str, str, str], list[float]] = {}
    ratios = []
    for run in runs.values():
        known.setdefault((run["device"], run["scene"]["name"], run["way"]), []).append(run["whole"])
        ratios.append(run["whole"] / run["rough"])
    share = median(ratios) if ratios else 1.0
    made = {run["scene"]["name"] for run in runs.values()}
    new = {job.scene.name: job.scene for job in waiting if job.scene.name not in made}
    return sum(making_seconds(scene, threads) for scene in new.values()) + sum(
        median(known.get((job.device, job.scene.name, job.way.title), [share * rough_seconds(job, threads)]))
        for job in waiting
    )
