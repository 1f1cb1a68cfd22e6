"""The tables and the picture of `nnunet_training.py`."""

import json
import math
import os
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import matplotlib as mpl

from MedAILib.training.compare_models import COMPARED, Difference, compare_models, comparison_json
from MedAILib.training.evaluate import MEASURES, Evaluation, statistics
from MedAILib.version import VERSION

mpl.use("Agg")
from matplotlib import pyplot as plt

PAIRS = (("nnU-Net, mirrored", "MedAI"), ("nnU-Net, mirrored", "MedAI, mirrored"), ("nnU-Net", "MedAI"))
PACKAGES = ("torch", "monai", "nnunetv2", "batchgeneratorsv2", "numpy")


def write_report(
    bench: Any,
    trained: dict[str, Any],
    pilot: dict[str, Any],
    evaluations: dict[str, Evaluation],
    kept: dict[str, list[tuple[float, float]]],
) -> None:
    """Write `nnunet_training.md`, `.json` and `.png` into the bench's folder."""
    from speed_report import machine

    options, split = bench.options, bench.split
    said = json.loads((bench.folder / "nnunet" / "trained.json").read_text())
    steps = {"MedAI": math.ceil(len(split.training) * bench.task.samples / bench.task.batch)}
    steps["nnU-Net"] = options.iterations
    batches = {"MedAI": bench.task.batch, "nnU-Net": said["batch"]}
    taken = {
        name: asdict(one)
        | {"iterations": one.epochs * steps[name], "batch": batches[name], "share of a core": one.cpu / one.wall}
        for name, one in trained.items()
    }
    versions = {"medai": VERSION} | {name: version(name) for name in PACKAGES}
    where = {"machine": machine(), "cores": os.cpu_count(), "versions": versions}
    seeds = {"MedAI": bench.task.seed, "nnU-Net": options.seed}
    compared = [compare_models(evaluations[first], evaluations[second]) for first, second in PAIRS]
    content = {
        "asked_minutes": options.minutes, "fold": options.fold, "threads": options.threads, **where, "seeds": seeds,
        "side_by_side": not options.one_after_another, "pilot": pilot, "trained": taken, "nnU-Net plan": said,
        "training": [case.name for case in split.training], "judged": [case.name for case in split.validation],
        "dice": {name: _figures(evaluation) for name, evaluation in evaluations.items()},
        "differences": {f"{second} less {first}": comparison_json(one)["rows"]
                        for (first, second), one in zip(PAIRS, compared, strict=True)},
        "curves": kept,
    }  # fmt: skip
    (bench.folder / "nnunet_training.json").write_text(json.dumps(content, indent=1))
    manner = "one after the other" if options.one_after_another else "side by side"
    lines = [
        f"{len(split.training)} cases to learn from, {len(split.validation)} to judge by (fold {options.fold}); "
        f"{manner}, "
        f"{options.threads} thread(s) each, {options.minutes:g} minutes asked for; {where['machine']}; "
        + ", ".join(f"{name} {number}" for name, number in versions.items())
        + f"; seeds {seeds['MedAI']} (MedAI) and {seeds['nnU-Net']} (nnU-Net).",
        "",
        *_taken_table(taken),
        "",
        *_dice_table(evaluations),
        "",
        *_difference_table([(pair, one.rows) for pair, one in zip(PAIRS, compared, strict=True)]),
    ]
    (bench.folder / "nnunet_training.md").write_text("\n".join(lines) + "\n")
    _picture(kept, bench.folder / "nnunet_training.png")


def _figures(evaluation: Evaluation) -> dict[str, dict[str, Any]]:
    return {
        name: {
            measure.key: asdict(statistics(evaluation.values(label, measure), measure.badness))
            for measure in MEASURES[:3]
        }
        for label, name in evaluation.labels.items()
    }


def _taken_table(taken: dict[str, dict[str, Any]]) -> list[str]:
    """What each training took."""
    head = "| trained | epochs | iterations | batch | samples | wall, min | CPU, min | share of a core | peak, GiB |"
    rows = [
        f"| {name} | {one['epochs']} | {one['iterations']} | {one['batch']} | {one['iterations'] * one['batch']} "
        f"| {one['wall'] / 60:.1f} | {one['cpu'] / 60:.1f} | {one['share of a core']:.2f} | {one['peak'] / 2**30:.2f} |"
        for name, one in taken.items()
    ]
    ours, theirs = taken["MedAI"], taken["nnU-Net"]
    ratios = "".join(f" | {ours[key] / theirs[key]:.2f}" for key in ("wall", "cpu", "share of a core", "peak"))
    return [head, "|" + "---|" * 9, *rows, f"| ratio, MedAI to nnU-Net | | | | {ratios} |"]


def _dice_table(evaluations: dict[str, Evaluation]) -> list[str]:
    """Each program's measures, structure by structure."""
    names = next(iter(evaluations.values())).labels
    head = "| labels by | " + " | ".join(f"{name}: Dice (95 %), HD95 mm" for name in names.values()) + " |"
    rows = []
    for title, evaluation in evaluations.items():
        cells = []
        for label in names:
            dice, hd = (statistics(evaluation.values(label, m), m.badness) for m in MEASURES[:2])
            missed = f", {hd.infinite} missed" if hd.infinite else ""
            cells.append(f"{dice.mean:.4f} ({dice.low:.4f}-{dice.high:.4f}), {hd.mean:.2f}{missed}")
        rows.append(f"| {title} | " + " | ".join(cells) + " |")
    return [head, "|" + "---|" * (1 + len(names)), *rows]


def _difference_table(compared: list[tuple[tuple[str, str], tuple[Difference, ...]]]) -> list[str]:
    """Paired differences of Dice."""
    rows = [
        f"| {second} less {first} | {row.structure} | {row.difference:+.4f} ({row.low:+.4f} to {row.high:+.4f}) "
        f"| {row.better} : {row.worse} | {_p(row.p)} | {_p(row.p_holm)} |"
        for (first, second), all_rows in compared
        for row in all_rows
        if row.key == COMPARED[0].key
    ]
    head = "| difference of Dice | structure | mean (95 %) | better : worse | p (Wilcoxon) | p (Holm, all measures) |"
    return [head, "|" + "---|" * 6, *rows]


def _p(value: float) -> str:
    return "< 0.0001" if value < 0.0001 else f"{value:.4f}"


def _picture(kept: dict[str, list[tuple[float, float]]], path: Any) -> None:
    """Mean Dice against wall time."""
    figure, axes = plt.subplots(figsize=(6, 4), layout="constrained")
    for name, points in kept.items():
        axes.plot([seconds / 60 for seconds, _ in points], [dice for _, dice in points], "o-", label=name)
    axes.set_xlabel("wall time, minutes")
    axes.set_ylabel("mean Dice, cases kept aside")
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)
