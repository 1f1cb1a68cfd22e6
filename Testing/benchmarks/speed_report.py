"""The table and the picture of `speed.py` from its single runs."""

import csv
import platform
from collections.abc import Iterable
from pathlib import Path
from statistics import median

import matplotlib as mpl
import matplotlib.ticker
import numpy as np
from speed_figures import Run, besides, cost, figures, lines

mpl.use("Agg")
from matplotlib import pyplot as plt

COLUMNS = ("Scene", "Program", "Rounds", "Seconds", "Spread", "CPU-s", "Prepare", "Network", "Else", "Peak GiB",
           "GPU GiB", "Faster", "Else faster", "Equal labels", "Computed by")  # fmt: skip
SIZES = {
    "volume": lambda run: float(np.prod(run["scene"]["shape"])),
    "classes": lambda run: float(run["scene"]["classes"]),
    "windows": lambda run: float(run["forwards"]),
}
STAGES = ("read", "prepare", "network", "rest", "labels", "write")


def write_report(runs: list[Run], folder: Path, threads: int) -> None:
    """Write `speed.md`, `speed.csv`, and `speed.png`; of a GPU `speed-cuda.png`."""
    text = [f"# Speed, measured on {machine()}, {threads} threads", ""]
    for device in dict.fromkeys(run["device"] for run in runs):
        here = [run for run in runs if run["device"] == device]
        text += ["## CPU" if device == "cpu" else f"## GPU, {gpu(here)}", "", *section(here, device)]
        picture(here, folder / ("speed.png" if device == "cpu" else f"speed-{device}.png"))
    (folder / "speed.md").write_text("\n".join(text))
    with (folder / "speed.csv").open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["device", "part", "scene", "program", "round", "wall", "cpu", "start", "peak_bytes",
                         "gpu_bytes", "agreement", "load", *(f"cpu_{name}" for name in STAGES),
                         *(f"wall_{name}" for name in STAGES)])  # fmt: skip
        for run in runs:
            writer.writerow([run["device"], run["part"], run["scene"]["name"], run["way"], run["round"], run["wall"],
                             run["cpu"], run["start"], run["peak_bytes"], run["gpu_bytes"], run["agreement"],
                             run["load"], *(run["stages_cpu"].get(name, 0) for name in STAGES),
                             *(run["stages"].get(name, 0) for name in STAGES)])  # fmt: skip


def section(runs: list[Run], device: str) -> list[str]:
    """All about one device, in lines."""
    unit = "CPU-seconds" if device == "cpu" else "seconds"
    return [
        *lines(figures(runs, device)),
        "",
        'Medians of the rounds; the spread is the largest less the smallest as a share of the median. "Else" is all',
        f"but the network. Stages and ratios are of {unit}, ratios against the first program of each scene.",
        "",
        *table(list(summarised([run for run in runs if run["part"] == "programs"]))),
        "",
        *trial_lines(runs),
        "",
        *growth_lines(runs),
        "",
    ]


def trial_lines(runs: list[Run]) -> list[str]:
    """What it cost to convert a network and to try it, once for each model and machine; in no figure above."""
    known = {(run["scene"]["name"], run["way"]): cost(run) for run in runs if run["part"] == "programs"}
    lines = [
        f"- {run['scene']['name']}, {run['way']}: {cost(run) - known[run['scene']['name'], run['way']]:.1f} "
        f"CPU-seconds more in the first run; {run['said'].get('engine', '')}: {run['said'].get('engine.reason', '')}"
        for run in runs
        if run["part"] == "trial" and (run["scene"]["name"], run["way"]) in known
    ]
    return ["Once for each model and machine:", *lines] if lines else []


def gpu(runs: list[Run]) -> str:
    """The GPU's name."""
    return next((run["said"]["gpu"] for run in runs if "gpu" in run["said"]), "of unknown name")


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


def stages_of(run: Run) -> dict[str, float]:
    """What each stage cost, in what is compared."""
    found: dict[str, float] = run["stages" if run["device"] != "cpu" else "stages_cpu"]
    return found


def summarised(runs: list[Run]) -> Iterable[tuple[str, ...]]:
    for scene, programs in grouped(runs).items():
        first = next(iter(programs.values()))
        for way, group in programs.items():
            walls = [run["wall"] for run in group]
            stage = {name: median(stages_of(run).get(name, 0) for run in group) for name in STAGES}
            yield (
                scene, way, str(len(group)), f"{median(walls):.1f}", f"{(max(walls) - min(walls)) / median(walls):.0%}",
                f"{median(run['cpu'] for run in group):.1f}", f"{stage['prepare']:.2f}", f"{stage['network']:.2f}",
                f"{median(besides(run) for run in group):.2f}",
                f"{median(run['peak_bytes'] for run in group) / 2**30:.2f}",
                f"{median(run['gpu_bytes'] for run in group) / 2**30:.2f}",
                f"{median(map(cost, first)) / median(map(cost, group)):.2f} x",
                f"{median(map(besides, first)) / median(map(besides, group)):.1f} x",
                f"{min(run['agreement'] for run in group):.4%}",
                group[-1]["said"].get("engine", "PyTorch"),
            )  # fmt: skip


def table(rows: list[tuple[str, ...]]) -> list[str]:
    return [_line(COLUMNS), _line(("---",) * len(COLUMNS)), *(_line(row) for row in rows)]


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def exponent(sizes: list[float], costs: list[float]) -> float:
    """The power of the size that the cost grows with, fitted."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(costs, 1e-6)), 1)[0])


def growth_lines(runs: list[Run]) -> list[str]:
    lines = []
    for what, size in SIZES.items():
        for way in dict.fromkeys(run["way"] for run in runs if run["part"] == what):
            group = [run for run in runs if run["part"] == what and run["way"] == way]
            if len({size(run) for run in group}) < 3:
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
    """Bars of the cost by stage for each scene, and lines of growth."""
    unit = "CPU-seconds" if runs[0]["device"] == "cpu" else "seconds"
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
            values = [median(stages_of(run).get(stage, 0) for run in group) for group in programs.values()]
            place.barh(range(len(programs)), values, left=left, color=colours[stage], label=stage)
            left += values
        place.set_yticks(range(len(programs)), list(programs))
        place.invert_yaxis()
        totals = [median(map(cost, group)) for group in programs.values()]
        for row, total in enumerate(totals):
            place.text(left[row], row, f" {total:.1f} ({totals[0] / total:.1f} x)", va="center", fontsize=7)
        place.set(xlabel=unit, xlim=(0, 1.35 * max(left)))
        place.set_title(scene, fontsize=10)
    if groups:
        figure.legend(*axes[0, 0].get_legend_handles_labels(), fontsize=7, loc="lower right", ncols=len(STAGES))
    for place, what in zip(axes[-1] if grown else [], grown, strict=False):
        place.set_visible(True)
        for way in dict.fromkeys(run["way"] for run in runs if run["part"] == what):
            group = [run for run in runs if run["part"] == what and run["way"] == way]
            place.loglog([SIZES[what](run) for run in group], [besides(run) for run in group], "o-", label=way)
        sizes = sorted({SIZES[what](run) for run in runs if run["part"] == what})
        place.set_xticks(sizes, [f"{size:,.0f}" for size in sizes], fontsize=7)
        place.xaxis.set_minor_locator(mpl.ticker.NullLocator())
        place.set(title=f"all but the network, by {what}", xlabel=what, ylabel=unit)
        place.legend(fontsize=7)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    figure.savefig(path, dpi=110)
    plt.close(figure)
