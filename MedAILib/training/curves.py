"""Loss curves of a training as a picture and a table."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from MedAILib.output import whole_file
from MedAILib.training.plots import ACCENT, INK, REFERENCE, STYLE
from MedAILib.training.processes import is_first


@dataclass(frozen=True)
class EpochRecord:
    """One epoch: mean loss, learning rate at its end, and how the cases that decide when to stop came out (else 0)."""

    loss: float
    rate: float
    kept_aside: float


def write_curves(epochs: Sequence[EpochRecord], folder: Path, judged_by: str = "dice") -> None:
    """Write `losses.csv` and `losses.png`; of several processes the first does.

    Args:
        epochs: all that are over.
        folder: of the training.
        judged_by: what the cases kept aside are judged by, "dice" or "loss".

    Raises:
        OutputError: a file can't be written.
    """
    if not is_first():
        return
    with whole_file(folder / "losses.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["epoch", "loss", "learning_rate", "dice" if judged_by == "dice" else "loss_kept_aside"])
        rows.writerows([n, *(f"{x:.6g}" for x in (e.loss, e.rate, e.kept_aside))] for n, e in enumerate(epochs, 1))
    with matplotlib.rc_context(STYLE), whole_file(folder / "losses.png") as part:
        draw_curves(epochs, judged_by).savefig(part, dpi=150)


def draw_curves(epochs: Sequence[EpochRecord], judged_by: str = "dice") -> Figure:
    """The loss by epoch, with the Dice or the loss of those that decide when to stop, and the learning rate below."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    numbers = range(1, len(epochs) + 1)
    style: dict[str, Any] = {"marker": "o", "markersize": 3} if len(epochs) < 30 else {}
    upper.plot(numbers, [epoch.loss for epoch in epochs], color=ACCENT, linewidth=1.4, label="training loss", **style)
    upper.set_ylabel("Loss")
    upper.grid(axis="y", color="#e6e8eb", linewidth=0.6)
    kept = [epoch.kept_aside for epoch in epochs]
    if any(kept) and judged_by == "loss":
        upper.plot(numbers, kept, color=REFERENCE, linewidth=1.4, label="loss, kept aside", **style)
        upper.legend(frameon=False)
    elif any(kept):
        right = upper.twinx()
        right.plot(numbers, kept, color=REFERENCE, linewidth=1.4, label="Dice, kept aside", **style)
        right.set_ylabel("Dice")
        right.set_ylim(0, 1)
        right.spines["right"].set_visible(True)
        upper.legend(handles=[*upper.lines, *right.lines], frameon=False, loc="center right")
    lower.plot(numbers, [epoch.rate for epoch in epochs], color=INK, linewidth=1, **style)
    lower.set_ylabel("Learning rate")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("Epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
