"""MedAI beside nnU-Net's own predictor and MONAI's own pipeline: `python Testing/benchmarks/speed.py`.

The same weights and volumes, each program in a process of its own, one after the other in each of several rounds. Each
reads the image's file and writes labels to one. Writes `speed.md`, `speed.csv`, `speed.png` and every single run into
the folder given by `-o`; a run that is there is not done again, so an interrupted measurement goes on where it stopped.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
from speed_models import Scene, make
from speed_report import write_report

HERE = Path(__file__).parent
SAMPLE_S = 0.05


@dataclass(frozen=True)
class Way:
    """A program with its options."""

    title: str
    program: str
    options: dict[str, str] = field(default_factory=dict)


OURS = Way("MedAI, PyTorch", "ours", {"engine": "torch"})
OPENVINO = Way("MedAI, OpenVINO", "ours", {"engine": "openvino"})
HALF = Way("MedAI, half precision", "ours", {"precision": "half"})
NNUNET = Way("nnU-Net's predictor", "nnunet")
STOCK = Way("MONAI's pipeline", "stock")

SCENES = (
    Scene("nnU-Net, 15 classes", "nnunet"),
    Scene("nnU-Net, 118 classes", "nnunet", shape=(64, 192, 192), classes=118, features=(8, 16, 32)),
    Scene("hippocampus (built in)", "builtin", shape=(80, 96, 96)),
    Scene("bundle, 15 classes", "bundle"),
)
BASE = Scene("", "nnunet", shape=(48, 128, 128), classes=8, features=(8, 16, 32), patch=(32, 48, 48))
GROWTH = {
    "volume": [replace(BASE, shape=(n * 24, n * 64, n * 64)) for n in (2, 3, 4)],
    "classes": [replace(BASE, classes=n) for n in (4, 16, 64)],
    "windows": [replace(BASE, patch=patch) for patch in ((32, 64, 64), (32, 32, 32), (16, 16, 16))],
}


def ways(scene: Scene, device: str) -> list[Way]:
    """What is compared on a scene."""
    theirs = [NNUNET] if scene.kind == "nnunet" else [STOCK]
    if device != "cpu":
        return [*theirs, OURS, HALF]
    import importlib.util

    extra = [OPENVINO] if importlib.util.find_spec("openvino") else []
    import torch

    return [*theirs, OURS, *extra, *([HALF] if torch.cpu._is_avx512_bf16_supported() else [])]


def jobs(options: argparse.Namespace) -> Iterator[tuple[str, Scene, Way, int]]:
    """(part of the report, scene, way, round), interleaved."""
    chosen = [scene for scene in SCENES if any(word in scene.name for word in options.only)]
    for turn in range(options.rounds):
        for scene in chosen:
            for way in ways(scene, options.device):
                yield "programs", scene, way, turn
    for what, scenes in GROWTH.items() if options.growth else ():
        for number, scene in enumerate(scenes):
            named = replace(scene, name=f"{what} {number}")
            for way in (NNUNET, OURS):
                yield what, named, way, 0


def run(folder: Path, scene: Scene, way: Way, turn: int, options: argparse.Namespace) -> dict[str, Any]:
    """One run in a process of its own, its memory watched from here."""
    model, image = make(scene, folder / "made" / _slug(scene.name))
    output = folder / "labels" / f"{_slug(scene.name)}-{_slug(way.title)}.nii.gz"
    output.parent.mkdir(exist_ok=True)
    job = {
        "program": way.program, "kind": scene.kind, "model": str(model), "image": str(image), "output": str(output),
        "device": options.device, "threads": options.threads, "mirror": scene.mirror, "options": way.options,
    }  # fmt: skip
    path = folder / "job.json"
    path.write_text(json.dumps(job))
    load, begin = os.getloadavg()[0], time.perf_counter()
    environment = os.environ | {
        "OMP_NUM_THREADS": str(options.threads), "MEDAI_MODELS": str(folder / "store"), "nnUNet_compile": "f",
    }  # fmt: skip
    with (folder / "log.txt").open("a") as log:
        process = subprocess.Popen(
            [sys.executable, str(HERE / "speed_programs.py"), str(path)], stdout=subprocess.PIPE, stderr=log,
            env=environment, text=True,
        )  # fmt: skip
        peak = watched_peak(process)
        text = process.communicate()[0]
    if process.returncode:
        raise SystemExit(f"{way.title} failed on {scene.name}; see {folder / 'log.txt'}.")
    measured: dict[str, Any] = json.loads(text.splitlines()[-1])
    whole = time.perf_counter() - begin
    return measured | {"peak_bytes": peak, "whole": whole, "load": load, "labels": str(output), "round": turn}


def watched_peak(process: "subprocess.Popen[str]") -> int:
    """The most memory (resident sets) that a process and its children held at one time."""
    peak, parent = 0, psutil.Process(process.pid)
    while process.poll() is None:
        held = 0
        for one in (parent, *_children(parent)):
            try:
                held += one.memory_info().rss
            except psutil.Error:
                continue
        peak = max(peak, held)
        time.sleep(SAMPLE_S)
    return peak


def _children(parent: psutil.Process) -> list[psutil.Process]:
    try:
        return parent.children(recursive=True)
    except psutil.Error:
        return []


def agreement(one: str, other: str) -> float:
    """The share of equal voxels of two label files."""
    first, second = (np.squeeze(np.asarray(nibabel.load(path).dataobj)) for path in (one, other))
    return float((first == second).mean())


def _slug(text: str) -> str:
    return "".join(letter if letter.isalnum() else "-" for letter in text.lower())


def main() -> None:
    """Measure what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("-o", "--output", type=Path, default=Path("speed"), help="folder for the results")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each program")
    parser.add_argument("--device", default="", help="cpu or cuda; a GPU where there is one")
    parser.add_argument("--only", nargs="+", default=[""], help="scenes with one of these words in their name")
    parser.add_argument("--no-growth", dest="growth", action="store_false", help="leave out growth with size")
    options = parser.parse_args()
    if not options.device:
        import torch

        options.device = "cuda" if torch.cuda.is_available() else "cpu"
    options.output = options.output.absolute()
    options.output.mkdir(parents=True, exist_ok=True)
    place = options.output / f"runs-{options.device}-{options.threads}.json"
    runs: dict[str, Any] = json.loads(place.read_text()) if place.is_file() else {}
    for part, scene, way, turn in jobs(options):
        key = f"{part} | {scene.name} | {way.title} | {turn}"
        if key in runs:
            continue
        measured = run(options.output, scene, way, turn, options)
        reference = next((r for k, r in runs.items() if k.startswith(f"{part} | {scene.name} | ")), None)
        measured["agreement"] = agreement(measured["labels"], reference["labels"]) if reference else 1.0
        runs[key] = measured | {"part": part, "scene": asdict(scene), "way": way.title}
        place.with_suffix(".part").write_text(json.dumps(runs, indent=1))
        place.with_suffix(".part").replace(place)
        print(f"{key}: {measured['wall']:.1f} s, {measured['cpu']:.1f} CPU-s, {measured['agreement']:.4%}", flush=True)
        write_report(list(runs.values()), options.output, options.device, options.threads)
    write_report(list(runs.values()), options.output, options.device, options.threads)
    print((options.output / "speed.md").read_text())


if __name__ == "__main__":
    main()
