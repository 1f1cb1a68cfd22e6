"""Loss curves of a training of several networks, one picture and one table for all."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from MedAILib.output import whole_file
from MedAILib.training.plots import STYLE

TABLE, PICTURE = "losses.csv", "losses.png"
HEAD = ("network", "epoch", "loss", "learning_rate", "loss_kept_aside")


@dataclass(frozen=True)
class LessonRecord:
    """One epoch: mean loss, learning rate at its end, loss on the images that choose the best epoch (else 0)."""

    loss: float
    rate: float
    surprise: float


def without_gain(records: Sequence[LessonRecord]) -> int:
    """How many epochs have passed since the best one."""
    if not records:
        return 0
    best = min(range(len(records)), key=lambda number: records[number].surprise)
    return len(records) - 1 - best


def write_lesson(network: str, records: Sequence[LessonRecord], folder: Path, drawn: bool) -> None:
    """Write a network's epochs into `losses.csv`, in the place of its older ones, and draw `losses.png` of all.

    Raises:
        OutputError: a file can't be written.
    """
    every = read_lessons(folder / TABLE) | {network: list(records)}
    with whole_file(folder / TABLE) as part, part.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(HEAD)
        for name, epochs in every.items():
            rows.writerows(
                [name, n, f"{e.loss:.6g}", f"{e.rate:.6g}", f"{e.surprise:.6g}"] for n, e in enumerate(epochs, start=1)
            )
    if drawn:
        with matplotlib.rc_context(STYLE), whole_file(folder / PICTURE) as part:
            draw_lessons(every).savefig(part, dpi=150)


def read_lessons(path: Path) -> dict[str, list[LessonRecord]]:
    """What a table has of each network, by its name; nothing where there is no such table."""
    found: dict[str, list[LessonRecord]] = {}
    if not path.is_file():
        return found
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.reader(file)
        if tuple(next(rows, ())) != HEAD:
            return found
        for name, _, *numbers in rows:
            found.setdefault(name, []).append(LessonRecord(*(float(number) for number in numbers)))
    return found


def draw_lessons(every: "dict[str, list[LessonRecord]]") -> Figure:
    """The loss by epoch, a line for each network, that on images kept aside dashed; the learning rate below."""
    figure = Figure(figsize=(6.4, 4.6), layout="constrained")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    shades = matplotlib.colormaps["viridis"].resampled(max(len(every), 2))
    for number, (name, epochs) in enumerate(every.items()):
        places, marker = range(1, len(epochs) + 1), "o" if len(epochs) < 30 else ""
        color = shades(number / max(len(every), 2))
        shape = {"color": color, "linewidth": 1.2, "marker": marker, "markersize": 3}
        upper.plot(places, [epoch.loss for epoch in epochs], label=name, **shape)
        if any(epoch.surprise for epoch in epochs):
            upper.plot(places, [e.surprise for e in epochs], label=f"{name}, kept aside", linestyle="--", **shape)
        lower.plot(places, [epoch.rate for epoch in epochs], **shape)
    upper.set_ylabel("Loss")
    upper.grid(axis="y", color="#e6e8eb", linewidth=0.6)
    if len(upper.lines) <= 10:
        upper.legend(frameon=False, fontsize="small")
    lower.set_ylabel("Learning rate")
    lower.set_ylim(bottom=0)
    lower.set_xlabel("Epoch")
    lower.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure
