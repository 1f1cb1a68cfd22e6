"""MedAI's training beside nnU-Net's own: the same cases, the same wall time, the same machine, judged alike.

python Testing/benchmarks/nnunet_training.py DATA -o FOLDER [--minutes 25] [--fold 0] [--threads 1]
                                             [--one-after-another]

`medai train` plans a network from DATA and trains it as a user would; nnU-Net's own planner, preprocessing and trainer
do the same with their own plan (3d_fullres), on a CPU as it stands. Both learn from the same cases, those of a fold of
`medai train`, side by side, each on cores of its own (`--threads` each), or one after the other. Both schedules end
with the time: a pilot under the same conditions measures how long each prepares and how long an epoch takes, and each
is given as many epochs as fit. Other programs on the machine change the pace: MedAI's number of epochs stays, and
nnU-Net's follows, epoch by epoch, so that its schedule ends when MedAI's does. Wall time is from a program's start to
its final weights: reading, planning, preprocessing and what nnU-Net validates in each epoch count; the pilot and the
final judging don't. An epoch of nnU-Net's is 5 iterations for 1 of validation, not 250 for 50, since that would take an
hour on a core; its picture of the curves and its "best" checkpoint at each epoch, which a long epoch would not notice,
are left out.

nnU-Net's own predictor makes its labels, `medai segment`'s code MedAI's, each with and without mirroring, and one
evaluation judges all on the cases kept aside. FOLDER gets `nnunet_training.md`, `.json` and `.png` (Dice against wall
time by weights kept on the way, on a few of the cases). What is there is not done again.
"""

import argparse
import json
import os
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

TESTING = Path(__file__).parents[1]
sys.path[:0] = [
    path for path in (str(TESTING.parent), str(TESTING), str(Path(__file__).parent)) if path not in sys.path
]

from nnunet_training_watch import Program, Trained, run_programs  # noqa: E402

from MedAILib.training.cases import Split, split_cases  # noqa: E402
from MedAILib.training.data_folder import DataFolder, open_folder, prescribed_split  # noqa: E402
from MedAILib.training.examine import examine_cases, groups_of  # noqa: E402
from MedAILib.training.overrides import wishes_of  # noqa: E402
from MedAILib.training.plan import plan_task  # noqa: E402
from MedAILib.training.plan_grid import CPU  # noqa: E402
from MedAILib.training.task import SegmentationTask  # noqa: E402

NAME = "against_nnunet"
MEDAI, NNUNET = "MedAI", "nnU-Net"
USED = 0.97  # the share of the time that the schedules are laid out for: the machine's pace changes
ENDLESS, PILOT_EPOCHS = 1000, 2
SNAPSHOTS = 6


@dataclass(frozen=True)
class Bench:
    """What is compared.

    Args:
        data: the labelled images.
        task: as `medai train` plans it.
        split: cases to learn from and to judge by.
        folder: of all results.
        options: of the command line.
    """

    data: DataFolder
    task: SegmentationTask
    split: Split
    folder: Path
    options: argparse.Namespace


def bench_of(options: argparse.Namespace) -> Bench:
    """Plan and split as `medai train` does."""
    from MedAILib.progress import Progress

    data = open_folder(options.data)
    examined = examine_cases(data.cases, data.labels, Progress())
    task, _ = plan_task(NAME, data, examined.facts, CPU, wishes_of({}))
    groups = groups_of(examined.facts, data.patients)
    split = (
        prescribed_split(data, options.fold)
        if data.splits
        else split_cases(data.cases, task.folds, options.fold, task.seed, groups)
    )
    return Bench(data, task, split, options.output, options)


def programs_of(bench: Bench, folder: Path, epochs: dict[str, int], snapshots: list[float]) -> list[Program]:
    """Both programs, about to start anew in `folder`, for so many epochs; weights are kept at `snapshots` (s)."""
    options, environment = bench.options, _environment(bench.options.threads)
    sides = sorted(os.sched_getaffinity(0))
    needed = options.threads * (1 if options.one_after_another else 2)
    if len(sides) < needed:
        raise SystemExit(f"{len(sides)} cores are too few for {needed} threads; give --one-after-another or fewer.")
    ours = sides[: options.threads]
    theirs = ours if options.one_after_another else sides[options.threads : 2 * options.threads]
    bundle, training, own = folder / "medai", folder / "medai.training", folder / "nnunet"
    own.mkdir(parents=True, exist_ok=True)
    (own / "end.txt").unlink(missing_ok=True)
    fixed = bool(options.epochs) or epochs[MEDAI] == ENDLESS
    words = [sys.executable, "-m", "MedAILib", "train", NAME, "--data", str(bench.data.folder), "-o", str(bundle)]
    words += ["--fold", str(options.fold), "--epochs", str(epochs[MEDAI]), "--device", "cpu", "--quiet"]
    kept = tuple(snapshots)
    medai = Program(
        MEDAI, words, environment, ours, training / "losses.csv", bundle / "models" / "model.pt",
        training / "checkpoint.pt", kept, epochs[MEDAI], None if fixed else own / "end.txt",
    )  # fmt: skip
    channels = bench.data.channels or bench.task.channels
    job = {
        "folder": str(own), "epochs": epochs[NNUNET], "most": epochs[NNUNET] if fixed else ENDLESS,
        "iterations": options.iterations, "threads": options.threads,
        "seed": options.seed, "snapshots": snapshots, "channels": list(channels),
        "labels": {str(label["name"]): int(label["value"]) for label in bench.task.labels},
        "cases": {case.name: [[str(path) for path in case.images], str(case.label)] for case in bench.data.cases},
        "training": [case.name for case in bench.split.training],
        "validation": [case.name for case in bench.split.validation],
    }  # fmt: skip
    (own / "job.json").write_text(json.dumps(job, indent=1))
    words = [sys.executable, str(Path(__file__).with_name("nnunet_training_program.py")), str(own / "job.json")]
    return [medai, Program(NNUNET, words, environment, theirs, own / "epochs.csv", own / "trained.json", None, ())]


def _environment(threads: int) -> dict[str, str]:
    named = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS")
    paths = os.pathsep.join([str(TESTING.parent), *filter(None, [os.environ.get("PYTHONPATH")])])
    return os.environ | dict.fromkeys(named, str(threads)) | {"PYTHONPATH": paths}


def fitting(pilot: dict[str, Any], seconds: float) -> int:
    """How many epochs fit into the time, after what a pilot measured: "prepare" and "epoch" in seconds."""
    return max(1, int((seconds * USED - pilot["prepare"]) / pilot["epoch"]))


def measured_epochs(bench: Bench) -> tuple[dict[str, int], dict[str, Any]]:
    """The length of both trainings, and what the pilot said."""
    if bench.options.epochs:
        return dict(zip((MEDAI, NNUNET), bench.options.epochs, strict=True)), {}
    path = bench.folder / "pilot.json"
    if not path.is_file():
        pilots = programs_of(bench, bench.folder / "pilot", {MEDAI: ENDLESS, NNUNET: ENDLESS}, [])
        found = run_programs(pilots, bench.folder / "pilot", bench.options.one_after_another, PILOT_EPOCHS)
        path.write_text(json.dumps({name: trained.pace for name, trained in found.items()}, indent=1))
    pilot = json.loads(path.read_text())
    return {name: fitting(pilot[name], 60 * bench.options.minutes) for name in (MEDAI, NNUNET)}, pilot


def trained(bench: Bench) -> tuple[dict[str, Trained], dict[str, Any]]:
    """Train both; what was measured of each, and the pilot."""
    path = bench.folder / "trained.json"
    if not path.is_file():
        epochs, pilot = measured_epochs(bench)
        print(f"Epochs: {epochs}; pilot: {pilot}", flush=True)
        end = 60 * bench.options.minutes
        places = [end * (number + 1) / SNAPSHOTS for number in range(SNAPSHOTS - 1)]
        both = programs_of(bench, bench.folder, epochs, places)
        found = run_programs(both, bench.folder, bench.options.one_after_another)
        done = json.loads((bench.folder / "nnunet" / "trained.json").read_text())["epochs"]
        content = {name: asdict(one) | {"epochs": epochs[name]} for name, one in found.items()}
        content[NNUNET]["epochs"] = done
        path.write_text(json.dumps({"pilot": pilot, "trained": content}, indent=1))
    content = json.loads(path.read_text())
    return {name: Trained(**one) for name, one in content["trained"].items()}, content["pilot"]


def require_same_cases(bench: Bench) -> None:
    """Both have learnt from the same cases."""
    known = json.loads((bench.folder / "medai.training" / "started.json").read_text())["cases"]
    theirs = json.loads((bench.folder / "nnunet" / "trained.json").read_text())["cases"]
    if sorted(known) != sorted(theirs):
        raise SystemExit("MedAI and nnU-Net have learnt from different cases; the comparison means nothing.")


def main(words: list[str] | None = None) -> None:
    """Train, judge, and write the report."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("-o", "--output", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=25, help="wall time of each training")
    parser.add_argument("--fold", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1, help="of each program, on as many cores")
    parser.add_argument("--one-after-another", action="store_true", help="not side by side")
    parser.add_argument("--epochs", type=int, nargs=2, metavar=(MEDAI, NNUNET), help="instead of measuring what fits")
    parser.add_argument("--iterations", type=int, default=5, help="in an epoch of nnU-Net's")
    parser.add_argument("--seed", type=int, default=0, help="of nnU-Net's random numbers")
    parser.add_argument("--curve-cases", type=int, default=10, help="to judge the weights kept on the way by")
    options = parser.parse_args(words)
    options.output.mkdir(parents=True, exist_ok=True)
    bench = bench_of(options)
    found, pilot = trained(bench)
    require_same_cases(bench)
    from nnunet_training_judge import curves, judged
    from nnunet_training_report import write_report

    evaluations = judged(bench.folder, bench.task, bench.split.validation)
    kept = curves(bench.folder, bench.task, bench.split.validation[: options.curve_cases], found)
    write_report(bench, found, pilot, evaluations, kept)
    print((bench.folder / "nnunet_training.md").read_text())


if __name__ == "__main__":
    main()
