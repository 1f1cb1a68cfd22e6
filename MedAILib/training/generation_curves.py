"""The losses of a generator and its discriminator, epoch by epoch, as a picture and a table."""

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from MedAILib.output import whole_file
from MedAILib.training.plots import ACCENT, REFERENCE, STYLE
from MedAILib.training.processes import is_first


def write_pair_curves(losses: Sequence[tuple[float, float]], folder: Path) -> None:
    """Write `losses.csv` and `losses.png` of the generator's and the discriminator's mean losses of each epoch.

    Of several processes the first does.

    Raises:
        OutputError: a file can't be written.
    """
    if not is_first():
        return
    with whole_file(folder / "losses.csv") as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(["epoch", "generator", "discriminator"])
        rows.writerows([number, f"{g:.6g}", f"{d:.6g}"] for number, (g, d) in enumerate(losses, start=1))
    with matplotlib.rc_context(STYLE), whole_file(folder / "losses.png") as part:
        draw_pair_curves(losses).savefig(part, dpi=150)


def draw_pair_curves(losses: Sequence[tuple[float, float]]) -> Figure:
    """Both losses by epoch: neither falls for good in a game of two, but neither should run away."""
    figure = Figure(figsize=(6.4, 3.2), layout="constrained")
    axes = figure.subplots()
    marker = "o" if len(losses) < 30 else ""
    numbers = range(1, len(losses) + 1)
    for place, (name, color) in enumerate((("generator", ACCENT), ("discriminator", REFERENCE))):
        values = [pair[place] for pair in losses]
        axes.plot(numbers, values, color=color, linewidth=1.4, label=name, marker=marker, markersize=3)
    axes.set_ylabel("Loss")
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.6)
    axes.legend(frameon=False)
    axes.set_xlabel("Epoch")
    axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
