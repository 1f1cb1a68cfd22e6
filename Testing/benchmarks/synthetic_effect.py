"""Train a classifier with and without made pictures, and compare both on the validation part, which neither has seen.

python Testing/benchmarks/synthetic_effect.py DATA GENERATOR... [--task NAME] [--epochs N] [--seeds N]

Rows: the real pictures alone; with as many steps as the row of all generators, classes weighted or not; with all
generators, as many made as real pictures; with each generator alone, as many as its class lacks to be the largest. All
learn from the part "train". The interval is that of the difference in AUC from as many steps without made pictures: the
seeds' mean, the images resampled in pairs.
"""

import argparse
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedAILib.commands.train_classifier import read_data
from MedAILib.progress import Progress
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import train_classifier
from MedAILib.training.labelled_images import MADE
from MedAILib.training.lesson import Bench
from MedAILib.training.task import read_task

RESAMPLES = 2000
SEED, APART = 12345, 1_000_000  # so that no two seeds share a made picture


class _Quiet(Progress):
    def warn(self, text: str) -> None:
        pass


def main() -> None:
    """Print a table in Markdown: accuracy and AUC of each seed's network, and what made pictures changed."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("data", type=Path)
    parser.add_argument("generators", nargs="+")
    parser.add_argument("--task", default="breast_ultrasound_textbook")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    task = read_task(options.task)
    assert isinstance(task, ClassificationTask), "a task of the kind classification"
    task = replace(task, folds=1, networks=1, shipped=0, epochs=options.epochs)
    began = time.process_time()
    both = replace(task, synthetic=options.generators)
    rows = {"real pictures alone": task}
    rows["real pictures alone, as many steps"] = replace(task, epochs=2 * options.epochs)
    rows["real pictures alone, as many steps, classes weighted"] = replace(
        task, epochs=2 * options.epochs, class_weights="balanced"
    )
    rows[f"and made ones of {' and '.join(Path(g).name for g in options.generators)}, 1 : 1"] = both
    for generator in options.generators:
        if share := _lacking(replace(task, synthetic=[generator]), options.data):
            one = replace(task, synthetic=[generator], synthetic_share=share)
            rows[f"and made ones of {Path(generator).name} alone, {share:.2f} : 1"] = one
    found = {name: _scores(row, options) for name, row in rows.items()}
    truth = found["real pictures alone"][0]
    fair = found["real pictures alone, as many steps"][1]
    print("| learnt from | accuracy | AUC | AUC, difference (95 % interval) |\n|---|---|---|---|")
    for name, (_, scores) in found.items():
        right = [float(np.mean((x > 0) == truth)) for x in scores]
        areas = [float(_wins(truth, x).mean()) for x in scores]
        print(f"| {name} | {_told(right)} | {_told(areas)} | {_difference(truth, scores, fair)} |")
    print(f"\n{len(truth)} images, {options.seeds} seeds, {time.process_time() - began:.0f} s of processor time")


def _lacking(task: ClassificationTask, data: Path) -> float:
    """How many pictures, as a share of the real ones, a generator's class lacks to be as large as the largest."""
    read = read_data(task, data, _Quiet())
    splits = np.array(read.splits)
    counts = np.bincount(read.numbers[splits == "train"])
    return float(counts.max() / counts[read.numbers[splits == MADE][0]] - 1)


def _scores(
    task: ClassificationTask, options: argparse.Namespace
) -> tuple[NDArray[np.int64], list[NDArray[np.float64]]]:
    """The validation part's classes, and for each seed how much more its network believes in the second class."""
    found = []
    for number in range(options.seeds):
        seeded = replace(task, seed=SEED + number * APART)
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), "cpu", False, "")
            judged = train_classifier(seeded, read_data(seeded, options.data, _Quiet()), bench, _Quiet()).judged
        found.append(judged.scores[:, 1] - judged.scores[:, 0])
    return judged.numbers, found


def _difference(truth: NDArray[np.int64], one: list[NDArray[np.float64]], other: list[NDArray[np.float64]]) -> str:
    """The difference of the mean AUC of some networks' scores from that of others, with its interval."""
    wins = np.mean([_wins(truth, scores) for scores in one], axis=0)
    wins -= np.mean([_wins(truth, scores) for scores in other], axis=0)
    times = np.random.default_rng(0).multinomial(len(truth), np.full(len(truth), 1 / len(truth)), RESAMPLES)
    above, below = times[:, truth == 1], times[:, truth == 0]
    drawn = np.einsum("rp,pn,rn->r", above, wins, below) / (above.sum(axis=1) * below.sum(axis=1))
    low, high = np.quantile(drawn, (0.025, 0.975))
    return f"{wins.mean():+.3f} ({low:+.3f} to {high:+.3f})"


def _wins(truth: NDArray[np.int64], scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """For each image of the second class and each of the first 1 where it scores higher, 0.5 where alike; mean: AUC."""
    apart = scores[truth == 1][:, None] - scores[truth == 0]
    return (np.sign(apart) + 1) / 2


def _told(values: list[float]) -> str:
    return f"{np.mean(values):.3f} ({', '.join(f'{value:.3f}' for value in values)})"


if __name__ == "__main__":
    main()
