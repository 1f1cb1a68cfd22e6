"""The losses of a generator and its discriminator, epoch by epoch, as a picture and a table."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from MedAILib.output import whole_file
from MedAILib.training.plots import ACCENT, INK, REFERENCE, STYLE
from MedAILib.training.processes import is_first


def write_pair_curves(
    losses: Sequence[tuple[float, float]], folder: Path, distances: Mapping[int, float] | None = None
) -> None:
    """Write `losses.csv` and `losses.png` of the generator's and the discriminator's mean losses of each epoch.

    Of several processes the first does.

    Args:
        losses: of each epoch.
        folder: of the training.
        distances: of made pictures from those kept aside, by the number of the epochs in which they were judged.

    Raises:
        OutputError: a file can't be written.
    """
    if not is_first():
        return
    with whole_file(folder / "losses.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["epoch", "generator", "discriminator", *(["distance_kept_aside"] if distances else [])])
        for number, pair in enumerate(losses, start=1):
            judged = [f"{distances[number]:.6g}" if number in distances else ""] if distances else []
            rows.writerow([number, *(f"{loss:.6g}" for loss in pair), *judged])
    with matplotlib.rc_context(STYLE), whole_file(folder / "losses.png") as part:
        draw_pair_curves(losses, distances or {}).savefig(part, dpi=150)


def draw_pair_curves(losses: Sequence[tuple[float, float]], distances: Mapping[int, float]) -> Figure:
    """Both losses by epoch: neither falls for good in a game of two, but neither should run away."""
    figure = Figure(figsize=(6.4, 4.6 if distances else 3.2), layout="constrained")
    if distances:
        axes, lower = figure.subplots(2, 1, sharex=True)
        lower.plot(list(distances), list(distances.values()), color=INK, linewidth=1.4, marker="o", markersize=3)
        lower.set_ylabel("Distance from pictures\nkept aside")
        lower.grid(axis="y", color="#e6e8eb", linewidth=0.6)
    else:
        axes = lower = figure.subplots()
    marker = "o" if len(losses) < 30 else ""
    numbers = range(1, len(losses) + 1)
    for place, (name, color) in enumerate((("generator", ACCENT), ("discriminator", REFERENCE))):
        values = [pair[place] for pair in losses]
        axes.plot(numbers, values, color=color, linewidth=1.4, label=name, marker=marker, markersize=3)
    axes.set_ylabel("Loss")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.6)
    axes.legend(frameon=False)
    lower.set_xlabel("Epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
