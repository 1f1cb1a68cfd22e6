"""Time and memory of Grad-CAM, 256 x 256 x 128 voxels, 3D DenseNet-121: `python Testing/benchmarks/explain.py`.

Runs with random weights, each part in a process of its own. Prints seconds by the clock and of the CPU (which other
programs don't change), and peak resident memory in GiB, of a plain run and of one with Grad-CAM, and their ratio.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

TESTING = Path(__file__).parents[1]


def measure(method: str, shape_kji: tuple[int, ...]) -> None:
    """Run one classification, with an explanation unless the method is "none", and print its seconds and GiB."""
    sys.path.insert(0, str(TESTING))
    from classifier_bundles import classifier_bundle

    from MedAILib.models.open import open_model
    from MedAILib.progress import Progress
    from MedAILib.request import ClassifyOptions, Explain
    from MedAILib.volume import Geometry, Volume

    network = {"_target_": "DenseNet121", "spatial_dims": 3, "in_channels": 1, "out_channels": 2}
    with tempfile.TemporaryDirectory() as folder:
        model = open_model(classifier_bundle(Path(folder) / "model", network, ["no", "yes"]), "cpu")
    data = np.random.default_rng(0).normal(size=(1, *shape_kji)).astype(np.float32)
    volume = Volume(data, Geometry(shape_kji, np.eye(4)), "noise")
    explain = None if method == "none" else Explain(method, "yes")
    start, worked = time.perf_counter(), time.process_time()
    model.run(volume, ClassifyOptions(explain=explain), Progress())
    seconds, worked = time.perf_counter() - start, time.process_time() - worked
    print(seconds, worked, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)


def main() -> None:
    """Measure both in processes of their own."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shape", nargs=3, type=int, default=[128, 256, 256], metavar=("K", "J", "I"))
    parser.add_argument("--method", help="measure this one alone, in this process")
    options = parser.parse_args()
    if options.method:
        measure(options.method, tuple(options.shape))
        return
    found = {}
    for method in ("none", "grad-cam"):
        words = [sys.executable, __file__, "--method", method, "--shape", *map(str, options.shape)]
        done = subprocess.run(words, check=True, capture_output=True, text=True)
        found[method] = [float(word) for word in done.stdout.split()[-3:]]
        print(f"{method}: {found[method][0]:.1f} s, {found[method][1]:.1f} s of the CPU, {found[method][2]:.2f} GiB")
    whole = found["grad-cam"][1] / found["none"][1]
    print(f"With Grad-CAM a run takes {whole:.2f} times the CPU's seconds of a plain one")


if __name__ == "__main__":
    main()
