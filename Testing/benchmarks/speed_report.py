"""The table and the picture of `speed.py` from its single runs."""

import csv
import platform
from collections.abc import Iterable
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib as mpl
import numpy as np

mpl.use("Agg")
from matplotlib import pyplot as plt

Run = dict[str, Any]
COLUMNS = ("Scene", "Program", "Rounds", "Seconds", "Spread", "CPU-s", "Prepare", "Network", "Else", "Peak GiB",
           "Faster", "Else faster", "Equal labels", "Computed by")  # fmt: skip
SIZES = {
    "volume": lambda run: float(np.prod(run["scene"]["shape"])),
    "classes": lambda run: float(run["scene"]["classes"]),
    "windows": lambda run: float(run["forwards"]),
}
STAGES = ("read", "prepare", "network", "rest", "labels", "write")


def write_report(runs: list[Run], folder: Path, device: str, threads: int) -> None:
    """Write `speed.md`, `speed.csv` and `speed.png`."""
    rows = list(summarised([run for run in runs if run["part"] == "programs"]))
    lines = [
        f"Measured on {machine()}, {threads} threads, device {device}; medians of the rounds, the spread is the",
        'largest less the smallest as a share of the median. "Else" is all but the network. Ratios are of CPU-seconds',
        "on the CPU, of seconds on a GPU, against the first program of each scene.",
        "",
        *table(rows),
        "",
        *overheads(runs),
        "",
        *growth_lines(runs),
        "",
    ]
    (folder / "speed.md").write_text("\n".join(lines))
    with (folder / "speed.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["part", "scene", "program", "round", "wall", "cpu", "start", "peak_bytes", "gpu_bytes",
                         "agreement", "load", *(f"cpu_{name}" for name in STAGES)])  # fmt: skip
        for run in runs:
            writer.writerow([run["part"], run["scene"]["name"], run["way"], run["round"], run["wall"], run["cpu"],
                             run["start"], run["peak_bytes"], run["gpu_bytes"], run["agreement"], run["load"],
                             *(run["stages_cpu"].get(name, 0) for name in STAGES)])  # fmt: skip
    picture(runs, folder / "speed.png")


def machine() -> str:
    """The processor, or what Python knows of it, and the system."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor()
    return f"{name}, {platform.system()}, Python {platform.python_version()}"


def grouped(runs: Iterable[Run]) -> dict[str, dict[str, list[Run]]]:
    """Runs by scene and program, in the order of measuring."""
    groups: dict[str, dict[str, list[Run]]] = {}
    for run in runs:
        groups.setdefault(run["scene"]["name"], {}).setdefault(run["way"], []).append(run)
    return groups


def cost(run: Run) -> float:
    """What is compared: CPU-seconds, which other programs on the machine change little; seconds on a GPU."""
    return run["wall"] if run["said"].get("device", "cpu") != "cpu" else run["cpu"]


def besides(run: Run) -> float:
    """The cost of all but the network."""
    stages = run["stages"] if cost(run) == run["wall"] else run["stages_cpu"]
    return sum(seconds for name, seconds in stages.items() if name != "network")


def summarised(runs: list[Run]) -> Iterable[tuple[str, ...]]:
    for scene, programs in grouped(runs).items():
        first = next(iter(programs.values()))
        for way, group in programs.items():
            walls = [run["wall"] for run in group]
            stage = {name: median(run["stages_cpu"].get(name, 0) for run in group) for name in STAGES}
            yield (
                scene, way, str(len(group)), f"{median(walls):.1f}", f"{(max(walls) - min(walls)) / median(walls):.0%}",
                f"{median(run['cpu'] for run in group):.1f}", f"{stage['prepare']:.2f}", f"{stage['network']:.2f}",
                f"{median(besides(run) for run in group):.2f}",
                f"{median(run['peak_bytes'] for run in group) / 2**30:.2f}",
                f"{median(map(cost, first)) / median(map(cost, group)):.2f} x",
                f"{median(map(besides, first)) / median(map(besides, group)):.1f} x",
                f"{min(run['agreement'] for run in group):.4%}",
                group[-1]["said"].get("engine", "PyTorch"),
            )  # fmt: skip


def table(rows: list[tuple[str, ...]]) -> list[str]:
    return [_line(COLUMNS), _line(("---",) * len(COLUMNS)), *(_line(row) for row in rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def overheads(runs: list[Run]) -> list[str]:
    """What MedAI adds to the bare network, in the same runs."""
    lines = []
    for scene, programs in grouped(run for run in runs if run["part"] == "programs").items():
        for way, group in programs.items():
            shares = [
                run["stages_cpu"].get("rest", 0) / max(run["stages_cpu"].get("network", 0), 1e-9) for run in group
            ]
            if way == "MedAI, PyTorch":
                lines.append(
                    f"- {scene}: windows, sums and labels take {median(shares):.1%} of what the network takes."
                )
    return ["MedAI around the network:", *lines] if lines else []


def exponent(sizes: list[float], costs: list[float]) -> float:
    """The power of the size that the cost grows with, fitted."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(costs, 1e-6)), 1)[0])


def growth_lines(runs: list[Run]) -> list[str]:
    lines = []
    for what, size in SIZES.items():
        for way in dict.fromkeys(run["way"] for run in runs if run["part"] == what):
            group = [run for run in runs if run["part"] == what and run["way"] == way]
            if len(group) < 3:
                continue
            sizes = [size(run) for run in group]
            powers = [
                f"{name} {exponent(sizes, [of(run) for run in group]):.2f}"
                for name, of in (
                    ("total", cost),
                    ("all but the network", besides),
                    ("memory", lambda r: r["peak_bytes"]),
                )
            ]
            lines.append(f"- {way}, with {what} ({sizes[0]:g} to {sizes[-1]:g}): {', '.join(powers)}")
    return ["Exponents of growth (1 is linear):", *lines] if lines else []


def picture(runs: list[Run], path: Path) -> None:
    """Bars of CPU-seconds by stage for each scene, and lines of growth."""
    groups = grouped(run for run in runs if run["part"] == "programs")
    grown = [what for what in SIZES if any(run["part"] == what for run in runs)]
    columns = max(len(groups), len(grown), 1)
    figure, axes = plt.subplots(2 if grown else 1, columns, figsize=(4.2 * columns, 7.5 if grown else 4), squeeze=False)
    for place in axes.flat:
        place.set_visible(False)
    colours = dict(zip(STAGES, plt.get_cmap("tab10").colors, strict=False))
    for place, (scene, programs) in zip(axes[0], groups.items(), strict=False):
        place.set_visible(True)
        left = np.zeros(len(programs))
        for stage in STAGES:
            values = [median(run["stages_cpu"].get(stage, 0) for run in group) for group in programs.values()]
            place.barh(range(len(programs)), values, left=left, color=colours[stage], label=stage)
            left += values
        place.set_yticks(range(len(programs)), list(programs))
        place.invert_yaxis()
        place.set(title=scene, xlabel="CPU-seconds")
    if groups:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=7, loc="lower right", ncols=len(STAGES))
    for place, what in zip(axes[-1] if grown else [], grown, strict=False):
        place.set_visible(True)
        for way in dict.fromkeys(run["way"] for run in runs if run["part"] == what):
            group = [run for run in runs if run["part"] == what and run["way"] == way]
            place.loglog([SIZES[what](run) for run in group], [besides(run) for run in group], "o-", label=way)
        place.set(title=f"all but the network, by {what}", xlabel=what, ylabel="CPU-seconds")
        place.legend(fontsize=7)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
