"""MedAI beside nnU-Net's own predictor and MONAI's own pipeline: `python Testing/benchmarks/speed.py`.

The same weights and volumes, each program in a process of its own, one after the other in each of several rounds. Each
reads the image's file and writes labels to one. Where there is a GPU it measures there, too. Writes `speed.md` (what is
wanted and what was measured, first), `speed.csv`, `speed.png` and every single run into the folder given by `-o`, after
each run; a run that is there is not done again, so an interrupted measurement goes on where it stopped.

    python Testing/benchmarks/speed.py -o speed --plan            what it would do, and how long that takes
    python Testing/benchmarks/speed.py -o speed --minutes 40      as much as fits, what is wanted first
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import psutil
from speed_models import Scene, make
from speed_plan import Job, jobs, rough_seconds, scenes, seconds_left
from speed_report import write_report

HERE = Path(__file__).parent
SAMPLE_S = 0.05


def run(folder: Path, job: Job, options: argparse.Namespace) -> dict[str, Any]:
    """One run in a process of its own, its memory watched from here."""
    scene, way = job.scene, job.way
    if scene.own is None and not (folder / "made" / _slug(scene.name) / "made.json").is_file():
        print(f"making the model and the image of {scene.name}", flush=True)
    model, image = make(scene, folder / "made" / _slug(scene.name))
    output = folder / "labels" / f"{job.device}-{_slug(scene.name)}-{_slug(way.title)}.nii.gz"
    output.parent.mkdir(exist_ok=True)
    told = {
        "program": way.program, "kind": scene.kind, "model": str(model), "image": str(image), "output": str(output),
        "device": job.device, "threads": options.threads, "mirror": scene.mirror, "options": way.options,
        "classes": scene.classes,
    }  # fmt: skip
    path = folder / "job.json"
    path.write_text(json.dumps(told))
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
    return measured | {
        "peak_bytes": peak, "whole": whole, "load": load, "labels": str(output), "round": job.turn, "part": job.part,
        "device": job.device, "scene": asdict(scene), "way": way.title, "model": str(model),
    }  # fmt: skip


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


def own_scene(options: argparse.Namespace) -> Scene | None:
    """The user's own model and image, if they are given."""
    if options.nnunet is None:
        return None
    folder, image = (path.absolute() for path in options.nnunet)
    described = next(folder.rglob("dataset.json"), folder / "dataset.json")
    shape = tuple(int(n) for n in nibabel.load(image).shape[2::-1])
    classes = len(json.loads(described.read_text())["labels"])
    return Scene(f"{folder.name}, {image.name}", "nnunet", shape, classes, own=(str(folder), str(image)))


def main() -> None:
    """Measure what is missing, then write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-o", "--output", type=Path, default=Path("speed"), help="folder for the results")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--minutes", type=float, help="begin no run that would end later than this")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="of each program")
    parser.add_argument("--device", choices=("cpu", "cuda"), help="one alone; else the CPU, and a GPU if there is one")
    parser.add_argument("--only", nargs="+", default=[""], help="scenes with one of these words in their name")
    parser.add_argument("--nnunet", nargs=2, type=Path, metavar=("MODEL", "IMAGE"), help="an nnU-Net of your own")
    parser.add_argument("--no-growth", action="store_true", help="leave out growth with size")
    parser.add_argument("--no-memory", action="store_true", help="leave out 118 classes on 512 x 512 x 600")
    parser.add_argument("--small", action="store_true", help="tiny images and networks: a trial of this script alone")
    parser.add_argument("--plan", action="store_true", help="say what would be run and how long it takes, and stop")
    options = parser.parse_args()
    options.output = options.output.absolute()
    options.output.mkdir(parents=True, exist_ok=True)
    wanted = list(wanted_jobs(options))
    place = options.output / f"runs-{options.threads}.json"
    runs = known_runs(place, wanted)
    waiting = [job for job in wanted if job.key not in runs]
    left = seconds_left(waiting, runs, options.threads)
    print(f"{len(wanted)} runs, {len(waiting)} of them to be done, about {left / 60:.0f} minutes", flush=True)
    if options.plan:
        for job in waiting:
            print(f"{job.key}: about {seconds_left([job], runs, options.threads):.0f} s")
        return
    end = time.monotonic() + 60 * options.minutes if options.minutes is not None else float("inf")
    skipped = 0
    while waiting:
        job = waiting.pop(0)
        if time.monotonic() + seconds_left([job], runs, options.threads) > end:
            skipped += 1
            continue
        measured = run(options.output, job, options)
        similar = (r for r in runs.values() if (r["device"], r["scene"]["name"]) == (job.device, job.scene.name))
        reference = next((r for r in similar if r["part"] == job.part), None)
        alike = agreement(measured["labels"], reference["labels"]) if reference and job.part != "bare" else 1.0
        runs[job.key] = measured | {"agreement": alike, "rough": rough_seconds(job, options.threads)}
        place.with_suffix(".part").write_text(json.dumps(runs, indent=1))
        place.with_suffix(".part").replace(place)
        write_report(list(runs.values()), options.output, options.threads)
        left = seconds_left(waiting, runs, options.threads)
        print(
            f"{job.key}: {measured['wall']:.1f} s, {measured['cpu']:.1f} CPU-s, {alike:.4%} equal; "
            f"{len(waiting)} runs and about {left / 60:.0f} minutes to go",
            flush=True,
        )
    write_report(list(runs.values()), options.output, options.threads)
    print((options.output / "speed.md").read_text())
    if skipped:
        print(f"{skipped} runs would have taken longer than {options.minutes:g} minutes; the same command goes on.")


def wanted_jobs(options: argparse.Namespace) -> Iterator[Job]:
    """All runs that the options ask for, in order."""
    import torch

    there = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    own = own_scene(options)
    extras = [] if own else [name for name in ("growth", "memory") if not getattr(options, f"no_{name}")]
    for device in [options.device] if options.device else there:
        chosen = scenes(device, options.only, options.small, own)
        yield from jobs(device, chosen, options.rounds, extras, options.small)


def known_runs(place: Path, wanted: list[Job]) -> dict[str, Any]:
    """What was measured before of the scenes as they are now; other scenes' results stay, too."""
    runs: dict[str, Any] = json.loads(place.read_text()) if place.is_file() else {}
    now = {job.key: json.loads(json.dumps(asdict(job.scene))) for job in wanted}
    return {key: one for key, one in runs.items() if now.get(key, one["scene"]) == one["scene"]}


if __name__ == "__main__":
    main()
