"""Kill a training at random moments, go on each time, and compare the final weights with those of an undisturbed run.

python Testing/benchmarks/training_kills.py DATA [--kills 20] [--epochs 16] [--seed 0]
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from MedAILib.models.weights import load_weights


def main() -> int:
    """Say how many kills there were, when, and whether each weight is the same bit for bit."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    random.seed(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        whole, parts = Path(folder) / "whole", Path(folder) / "parts"
        first, length = _undisturbed(options, whole)
        epoch = (length - first) / options.epochs
        print(f"an undisturbed run takes {length:.1f} s, {first:.1f} s to the end of its first epoch", flush=True)
        killed = 0
        for number in range(options.kills):
            resume = (parts.with_name("parts.training") / "started.json").is_file()
            process = subprocess.Popen(_command(options, parts, resume))
            wait = random.uniform(0.3 * first, first + 2.5 * epoch)
            try:
                process.wait(wait)
            except subprocess.TimeoutExpired:
                os.kill(process.pid, signal.SIGKILL)
                process.wait()
                killed += 1
                print(f"kill {number + 1} after {wait:.1f} s", flush=True)
        resume = (parts.with_name("parts.training") / "started.json").is_file()
        subprocess.run(_command(options, parts, resume), check=True)
        one, other = (load_weights(place / "models" / "model.pt") for place in (whole, parts))
        ours, theirs = (
            load_weights(place.with_name(f"{place.name}.training") / "checkpoint.pt") for place in (whole, parts)
        )
        same = all(torch.equal(value, other[key]) for key, value in one.items())
        full = all(torch.equal(value, theirs["average"][key]) for key, value in ours["average"].items())
    print(f"{killed} kills; weights the same bit for bit: {same}; averages in the checkpoint: {full}")
    return 0 if same and full else 1


def _undisturbed(options: argparse.Namespace, bundle: Path) -> tuple[float, float]:
    """Train without a kill: seconds until the first checkpoint, and in all."""
    state = bundle.with_name(f"{bundle.name}.training") / "checkpoint.pt"
    began, first = time.perf_counter(), 0.0
    process = subprocess.Popen(_command(options, bundle, False))
    while process.poll() is None:
        if not first and state.is_file():
            first = time.perf_counter() - began
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.returncode)
    return first, time.perf_counter() - began


def _command(options: argparse.Namespace, bundle: Path, resume: bool) -> list[str]:
    words = [sys.executable, "-m", "MedAILib", "train", "kills", "--data", str(options.data), "-o", str(bundle)]
    words += ["--epochs", str(options.epochs), "--device", "cpu", "--quiet", "--set", "patch=32,32,32"]
    words += ["--set", "augmentation=+elastic,+bias_field,+ghosting,+spike", "--set", "folds=3"]
    return [*words, *(["--resume"] if resume else [])]


if __name__ == "__main__":
    sys.exit(main())
