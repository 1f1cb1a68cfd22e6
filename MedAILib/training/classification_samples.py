"""One picture of what the training of a classifier sees: images as prepared, and random changes of each."""

from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor

from MedAILib.errors import OutputError
from MedAILib.output import whole_file
from MedAILib.training.augment_images import Augmentation
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import ClassData
from MedAILib.training.plots import STYLE

ROWS, COLUMNS = 4, 7


def write_class_samples(task: ClassificationTask, data: ClassData, path: Path) -> None:
    """Draw images of all classes in turn, a row for each of four: first without changes, then with.

    Raises:
        OutputError: the picture can't be written, or its name does not end in .png.
    """
    require_png(path)
    with matplotlib.rc_context(STYLE), whole_file(path) as part:
        draw_class_samples(task, data).savefig(part, dpi=130)


def require_png(path: Path) -> None:
    """Raise `OutputError` where a picture's name does not end in .png."""
    if path.suffix.lower() != ".png":
        raise OutputError(f"{path} can't be written: the picture's name has to end in .png.")


def draw_class_samples(task: ClassificationTask, data: ClassData) -> Figure:
    """The picture; where the task mixes images, the last column's are mixed among themselves."""
    chosen = _in_turn(task.decided.marks(data.numbers))
    images = data.images[chosen]
    targets = task.decided.targets(data.numbers[chosen])
    change, mixes = Augmentation(task.augmentation, task.frames > 0), bool(task.augmentation.get("mixup"))
    columns = [images]
    for column in range(1, COLUMNS):
        change.reseed(task.seed + 1000 * column)
        changed = change(images)
        columns.append(change.mixed(changed, targets)[0] if mixes and column == COLUMNS - 1 else changed)
    figure = Figure(figsize=(1.6 * COLUMNS, 1.7 * len(chosen) + 0.5), layout="constrained", facecolor="white")
    panels = figure.subplots(len(chosen), COLUMNS, squeeze=False)
    for row, place in enumerate(chosen):
        for column, batch in enumerate(columns):
            picture, cmap = _picture(_shown(batch[row], task), coloured=len(task.channels) == 3)
            panels[row, column].imshow(picture, cmap=cmap, origin="upper" if len(task.size) == 2 else "lower")
            panels[row, column].set_axis_off()
        name = f"{data.names[place]}: {task.decided.told(data.numbers[place])}"
        panels[row, 0].set_title(name if len(name) < 26 else f"{name[:24]}…", fontsize=7)
    names = ", ".join(name for name, value in task.augmentation.items() if value and name != "mixup") or "no changes"
    mixed = " Last: each mixed with another of these, too." if mixes else ""
    figure.supxlabel(f"Left: as prepared. Others: {names}.{mixed}", fontsize=7.5)
    return figure


def _in_turn(marks: NDArray[np.bool_]) -> list[int]:
    """Places of the first images of each class, one class after the other; `marks` (N, classes) say which they have."""
    each = [np.flatnonzero(having).tolist() for having in marks.T]
    places = dict.fromkeys(found[n] for n in range(len(marks)) for found in each if n < len(found))
    return list(places)[:ROWS]


def _shown(image: Tensor, task: ClassificationTask) -> Tensor:
    """What is drawn (C, X, Y) of an image: of a sequence its middle frame, of a volume its middle slice."""
    frame = image[len(image) // 2] if task.frames else image
    return frame if len(task.size) == 2 else frame[..., frame.shape[-1] // 2]


def _picture(flat: Tensor, coloured: bool) -> tuple[Tensor, str | None]:
    """A picture (J, I) or (J, I, 3) from (C, X, Y), 0 to 1."""
    low, high = flat.min(), flat.max()
    scaled = (flat - low) / (high - low).clamp_min(1e-6)
    return (scaled.permute(2, 1, 0), None) if coloured else (scaled[0].T, "gray")
