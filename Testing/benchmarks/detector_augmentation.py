"""Train a detector as planned and with the changes of images that detectors had before, and compare both.

python Testing/benchmarks/detector_augmentation.py FOLDER [--epochs N] [--images N] [--judged N]

Images are made: one long ellipsoid that lies anyhow is to be found, among balls as bright and noise. Both detectors
learn from the same few images, by the same plan but for `augmentation`, and are judged on the same others.
"""

import argparse
import json
from dataclasses import asdict, replace
from pathlib import Path

import nibabel
import numpy as np
from scipy.spatial.transform import Rotation

from MedAILib.cli import main
from MedAILib.training.detection_task import DetectionTask, former_recipe
from MedAILib.training.task import read_task

SIDE, NOISE = 48, 0.6
LONG, ROUND = (10.0, 4.0, 4.0), (5.5, 5.5, 5.5)  # half axes, voxels
APART = 16.0


def compare() -> None:
    """Print a table in Markdown: each figure of both, and its difference with an interval."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--epochs", type=int, default=25)
    parser.add_argument("--images", type=int, default=8)
    parser.add_argument("--judged", type=int, default=16)
    options = parser.parse_args()
    folder: Path = options.folder
    data, others = write_images(folder / "data", options.images, 0), write_images(folder / "others", options.judged, 1)
    words = ["--data", data, "-o", folder / "planned", "--epochs", options.epochs, "--set", "samples=4"]
    run("train", "detection", *words)
    task = read_task(str(folder / "planned.training" / "task.json"))
    assert isinstance(task, DetectionTask), "a detector was planned"
    former = replace(task, augmentation=former_recipe())
    (folder / "former.json").write_text(json.dumps({"kind": "detection", **asdict(former)}), encoding="utf-8")
    run("train", folder / "former.json", "--data", data, "-o", folder / "former")
    words = ["-m", folder / "former", "--compare", folder / "planned", "--data", others, "-o", folder / "report"]
    run("evaluate", *words)
    rows = json.loads((folder / "report" / "summary.json").read_text(encoding="utf-8"))["comparison"]["rows"]
    print("| measure | as before | as planned | difference (95 % interval) |\n|---|---|---|---|")
    for row in rows:
        interval = f"{row['difference']:+.3f} ({row['low']:+.3f} to {row['high']:+.3f})"
        print(f"| {row['key']} | {row['first']:.3f} | {row['second']:.3f} | {interval} |")


def write_images(folder: Path, count: int, seed: int) -> Path:
    """Images and label maps of what is to be found, in a data folder."""
    draws = np.random.default_rng(seed)
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    grid = np.stack(np.meshgrid(*[np.arange(float(SIDE))] * 3, indexing="ij"))
    for number in range(count):
        image, labels = draws.normal(0, NOISE, (SIDE,) * 3), np.zeros((SIDE,) * 3, np.uint8)
        taken: list[np.ndarray] = []
        for half in (LONG, ROUND, ROUND):
            middle = draws.uniform(11, SIDE - 12, 3)
            while any(np.linalg.norm(middle - other) <= APART for other in taken):
                middle = draws.uniform(11, SIDE - 12, 3)
            taken.append(middle)
            turn = Rotation.from_quat(draws.normal(size=4)).as_matrix()
            away = np.tensordot(turn, grid - middle.reshape(3, 1, 1, 1), 1) / np.reshape(half, (3, 1, 1, 1))
            inside = (away**2).sum(axis=0) <= 1
            image[inside] += draws.uniform(0.9, 2.1)
            labels[inside] = half is LONG
        for name, voxels in (("images", image.astype(np.float32)), ("labels", labels)):
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / name / f"case{number:02d}.nii.gz")
    return folder


def run(*words: object) -> None:
    """A command of MedAI's, on the CPU; what goes wrong ends this."""
    if code := main([*map(str, words), "--device", "cpu", "--quiet"]):
        raise SystemExit(code)


if __name__ == "__main__":
    compare()
