"""The estimate of a run's memory against its measured peak: `python Testing/benchmarks/worker_memory.py`.

Each case runs in a process of its own that treats memory as the worker does; what PyTorch takes by being imported is
left out. Prints one line for each: estimate, measured peak in MiB, and their ratio. Linux alone.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parents[2]
# Name: classes of a model with random weights (0: the built-in model), network, window, the image's shape (K, J, I).
CASES = {
    "hippocampus": (0, "", 0, (35, 51, 35)),
    "hippocampus, 1 mm brain": (0, "", 0, (189, 233, 197)),
    "100 classes": (100, "UNet", 96, (96, 160, 160)),
    "100 classes, small window": (100, "UNet", 48, (120, 192, 192)),
    "100 classes, DynUNet": (100, "DynUNet", 64, (80, 128, 128)),
    "3 classes, BasicUNet": (3, "BasicUNet", 64, (80, 128, 128)),
    "3 classes, SegResNet": (3, "SegResNet", 64, (80, 128, 128)),
    "2 classes, 512 x 512 x 200": (2, "UNet", 96, (200, 512, 512)),
}


def measure(name: str, folder: Path) -> None:
    """Run one case in this process."""
    sys.path.insert(0, str(ROOT / "Testing"))
    from bundles import network_entry, random_bundle

    from MedAILib.estimate import estimate_memory
    from MedAILib.models.open import open_model
    from MedAILib.progress import Progress
    from MedAILib.read_spec import read_spec
    from MedAILib.request import RunOptions
    from MedAILib.system_memory import keep_freed_memory, peak_process_memory, process_memory, trim_memory
    from MedAILib.volume import Geometry, Volume

    keep_freed_memory()
    classes, network, window, shape = CASES[name]
    source = ROOT / "Resources" / "Models" / "hippocampus"
    if classes:
        inferer = {"_target_": "SlidingWindowInferer", "roi_size": [window] * 3, "overlap": 0.25, "mode": "gaussian"}
        wide = {"UNet": {"channels": [8, 16, 32]}, "DynUNet": {"filters": [24, 48, 96]}}
        wide |= {"BasicUNet": {"features": [16, 16, 32, 64, 64, 16]}, "SegResNet": {"init_filters": 16}}
        entry = network_entry(network, classes=classes) | wide[network]
        source = random_bundle(folder / "model", entry, inferer=inferer)
    spec, geometry = read_spec(source), Geometry(shape, np.diag([-1.0, -1.0, 1.0, 1.0]))
    estimate = estimate_memory(spec, geometry, np.int16)
    trim_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = process_memory() or 0
    data = np.random.default_rng(0).integers(-1000, 1000, (1, *shape), np.int16)
    open_model(source, "cpu").run(Volume(data, geometry), RunOptions(), Progress())
    measured = (peak_process_memory() or 0) - before
    print(f"{name}: estimate {estimate / 2**20:.0f}, measured {measured / 2**20:.0f}, ratio {estimate / measured:.2f}")


def main() -> None:
    """Run each case in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("cases", nargs="*", default=list(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--here", action="store_true", help="in this process (one case)")
    options = parser.parse_args()
    for case in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            if options.here:
                measure(case, Path(folder))
            else:
                subprocess.run([sys.executable, __file__, case, "--here"], check=True)


if __name__ == "__main__":
    main()
