"""One picture of what a training sees: cases as prepared, and random changes of each."""

from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from MedAILib.output import whole_file
from MedAILib.progress import Progress
from MedAILib.training.augment import random_steps
from MedAILib.training.cases import Case
from MedAILib.training.classification_samples import require_png
from MedAILib.training.plots import STYLE
from MedAILib.training.samples import prepared_cases, seed_of
from MedAILib.training.task import SegmentationTask

ROWS, COLUMNS = 4, 7
COLOURS = ("#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#f0e442", "#d55e00", "#0072b2")


def write_samples(task: SegmentationTask, cases: tuple[Case, ...], path: Path, progress: Progress) -> None:
    """Draw the middle slice of samples, a row for each of four cases: first without changes, then with.

    Raises:
        OutputError: the picture can't be written, or its name does not end in .png.
    """
    require_png(path)
    with matplotlib.rc_context(STYLE), whole_file(path) as part:
        draw_samples(task, cases[:ROWS], progress).savefig(part, dpi=130)


def draw_samples(task: SegmentationTask, cases: tuple[Case, ...], progress: Progress) -> Figure:
    """The picture; outlines are the labels', in the order of their values."""
    prepared = prepared_cases(task, cases, progress)
    steps = random_steps(task)
    figure = Figure(figsize=(1.6 * COLUMNS, 1.7 * len(cases) + 0.5), layout="constrained", facecolor="white")
    panels = figure.subplots(len(cases), COLUMNS, squeeze=False)
    for row, case in enumerate(cases):
        image, label = prepared[row]["image"], prepared[row]["label"]
        limits = tuple(float(x) for x in np.percentile(image[0].numpy(), (1, 99.5)))
        _panel(panels[row, 0], image[0], label[0], limits)
        panels[row, 0].set_title(case.name if len(case.name) < 18 else f"{case.name[:16]}…", fontsize=7)
        for column in range(1, COLUMNS):
            steps.set_random_state(seed_of(task.seed, 0, row * COLUMNS + column))
            sample = steps(dict(prepared[row]))
            _panel(panels[row, column], sample["image"][0], sample["label"][0], limits)
    shown = [name for name in task.augmentation if name != "mixup"]  # which blends whole batches
    names = ", ".join(name.replace("_", " ") for name in shown) or "no augmentation"
    figure.supxlabel(f"Left: as prepared. Others: {names}. One slice of each sample.", fontsize=7.5)
    return figure


def _panel(axes: Axes, image: Tensor, label: Tensor, limits: tuple[float, ...]) -> None:
    """The slice with most of the structures, seen from the feet; the first axis runs to the right, the second up.

    A picture's second axis runs down.
    """
    picture = image.ndim == 2
    if not picture:
        slices = (label > 0).sum(dim=(0, 1))
        k = int(torch.argmax(slices)) if bool(slices.any()) else image.shape[2] // 2
        image, label = image[:, :, k], label[:, :, k]
    axes.imshow(image.T, cmap="gray", vmin=limits[0], vmax=limits[1], origin="upper" if picture else "lower")
    for value in np.unique(label.numpy()).astype(int):
        if value > 0:
            mask = np.pad((label == value).numpy().T.astype(float), 1)
            places = [np.arange(-1, n - 1) for n in mask.shape]
            axes.contour(places[1], places[0], mask, levels=[0.5], colors=COLOURS[(value - 1) % 7], linewidths=0.9)
    axes.set_axis_off()
