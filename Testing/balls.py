"""Small labelled images that the tests of training make, and tasks that train on them in a second."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np

from MedAILib.cli import main
from MedAILib.progress import Progress
from MedAILib.training.cases import split_cases
from MedAILib.training.data_folder import open_folder
from MedAILib.training.examine import examine_cases
from MedAILib.training.overrides import read_settings, with_settings
from MedAILib.training.plan import plan_task
from MedAILib.training.plan_grid import CPU, Wishes
from MedAILib.training.task import SegmentationTask

SILENT = Progress()


def write_cases(folder: Path, count: int = 6, size: tuple[int, ...] = (20, 22, 18), spacing: float = 1.0) -> Path:
    """Noise with a bright ball in it; the ball's upper half is another structure."""
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in size], indexing="ij"))
    for number in range(count):
        center = np.array(size)[:, None, None, None] / 2 + rng.uniform(-1, 1, (3, 1, 1, 1))
        ball = np.linalg.norm(grid - center, axis=0) < 5
        image = (rng.normal(size=size) * 20 + ball * 100).astype(np.float32)
        label = np.where(ball, np.where(grid[2] > center[2], 1, 2), 0).astype(np.uint8)
        for name, voxels in (("imagesTr", image), ("labelsTr", label)):
            (folder / name).mkdir(exist_ok=True, parents=True)
            affine = np.diag([1, 1, spacing, 1])
            nibabel.save(nibabel.Nifti1Image(voxels, affine), folder / name / f"case_{number}.nii.gz")
    described = {"channel_names": {"0": "MRI"}, "labels": {"background": 0, "cap": 1, "bowl": 2}}
    (folder / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    return folder


def planned(data: Path, budget: Any = CPU, **wishes: Any) -> SegmentationTask:
    folder = open_folder(data)
    facts = examine_cases(folder.cases, folder.labels, SILENT).facts
    return plan_task("balls", folder, facts, budget, Wishes(**wishes))[0]


def small(data: Path, *settings: str, **wishes: Any) -> SegmentationTask:
    """A task that trains in a second."""
    return with_settings(planned(data, replace(CPU, base=4), **wishes), read_settings([*settings, "precision=float32"]))


def task_file(data: Path, *settings: str) -> Path:
    """A small task of patches of 16, written beside its data."""
    path = data.parent / "task.json"
    task = with_settings(small(data, patch=[16, 16, 16]), read_settings(settings))
    path.write_text(json.dumps({"kind": "segmentation", **task.__dict__}), encoding="utf-8")
    return path


def train(*arguments: Any) -> int:
    return main(["train", *map(str, arguments), "--device", "cpu", "--quiet"])


def split_of(task: SegmentationTask, data: Path) -> Any:
    return split_cases(open_folder(data).cases, task.folds, 0, task.seed)
