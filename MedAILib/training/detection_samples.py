"""One picture of what the training of a detector sees: images as prepared, and patches of each, changed at random."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from MedAILib.output import whole_file
from MedAILib.training.classification_samples import require_png
from MedAILib.training.detection_data import Sample, changed_patches
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.plots import STYLE
from MedAILib.training.samples import seed_of
from MedAILib.training.samples_picture import COLOURS

ROWS, COLUMNS = 4, 7


def write_boxed_samples(task: DetectionTask, samples: Sequence[Sample], names: Sequence[str], path: Path) -> None:
    """Draw a slice of images, a row for each of four: first whole and without changes, then patches with them.

    Args:
        task: nothing in it is left to be planned.
        samples: see `prepare_image`; the first four are drawn.
        names: of their cases.
        path: of the picture.

    Raises:
        OutputError: the picture can't be written, or its name does not end in .png.
    """
    require_png(path)
    with matplotlib.rc_context(STYLE), whole_file(path) as part:
        draw_boxed_samples(task, samples[:ROWS], names[:ROWS]).savefig(part, dpi=130)


def draw_boxed_samples(task: DetectionTask, samples: Sequence[Sample], names: Sequence[str]) -> Figure:
    """The picture; boxes are the data's, a colour for each class, in slices through the middle of one of them."""
    figure = Figure(figsize=(1.6 * COLUMNS, 1.7 * len(samples) + 0.5), layout="constrained", facecolor="white")
    panels = figure.subplots(len(samples), COLUMNS, squeeze=False)
    for row, (sample, name) in enumerate(zip(samples, names, strict=True)):
        limits = tuple(float(x) for x in np.percentile(sample["image"][0].numpy(), (1, 99.5)))
        _panel(panels[row, 0], {**sample, "box": sample["box"] - 0.5}, limits)
        panels[row, 0].set_title(name if len(name) < 18 else f"{name[:16]}…", fontsize=7)
        patches: list[Sample] = []
        draw = 0
        while len(patches) < COLUMNS - 1:
            patches += changed_patches(sample, task, seed_of(task.seed, row, draw))
            draw += 1
        for column, patch in enumerate(patches[: COLUMNS - 1], start=1):
            _panel(panels[row, column], patch, limits)
    names_told = ", ".join(name.replace("_", " ") for name in task.augmentation) or "no augmentation"
    figure.supxlabel(
        f"Left: as prepared. Others: patches, {names_told}. Boxes: {', '.join(task.names)}. One slice of each.",
        fontsize=7.5,
    )
    return figure


def _panel(axes: Axes, sample: Sample, limits: tuple[float, ...]) -> None:
    """The slice through the middle of the largest box, seen from the feet; voxels reach half to each side."""
    image, boxes = sample["image"][0], sample["box"].numpy()
    k = image.shape[2] // 2
    if len(boxes):
        largest = boxes[np.argmax((boxes[:, 3:] - boxes[:, :3]).prod(axis=1))]
        k = int(np.clip(round(float(largest[2] + largest[5]) / 2), 0, image.shape[2] - 1))
    axes.imshow(torch.as_tensor(image[:, :, k]).T, cmap="gray", vmin=limits[0], vmax=limits[1], origin="lower")
    for box, label in zip(boxes, sample["label"].tolist(), strict=True):
        if box[2] <= k <= box[5]:
            axes.add_patch(_rectangle(box, COLOURS[label % len(COLOURS)]))
    axes.set_axis_off()


def _rectangle(box: NDArray[np.float32], colour: str) -> Rectangle:
    width, height = (float(x) for x in box[3:5] - box[:2])
    return Rectangle((float(box[0]), float(box[1])), width, height, fill=False, edgecolor=colour, linewidth=1.1)
