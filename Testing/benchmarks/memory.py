"""Peak memory of segmenting a 512 x 512 x 400 volume with random weights: `python Testing/benchmarks/memory.py 2 100`.

Each number of classes runs in a process of its own, as `medai segment` would; the network is small, so that what is
measured is what MedAI holds around it. Prints one line for each: classes, seconds, peak resident memory in GiB.
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
SHAPE_KJI = (400, 512, 512)


def measure(classes: int, spacing_mm: float) -> None:
    """Make a bundle of that many classes and run it on noise with 0.8 x 0.8 x 1 mm voxels, in this process."""
    sys.path.insert(0, str(TESTING))
    from bundles import network_entry, random_bundle

    from MedAILib.models.open import open_model
    from MedAILib.progress import Progress
    from MedAILib.request import RunOptions
    from MedAILib.volume import Geometry, Volume

    with tempfile.TemporaryDirectory() as folder:
        network = network_entry("UNet", classes=classes) | {"channels": [8, 16, 32]}
        inferer = {"_target_": "SlidingWindowInferer", "roi_size": [96, 96, 96], "overlap": 0.25, "mode": "gaussian"}
        steps = [
            {"_target_": "LoadImaged", "keys": "image"},
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [spacing_mm] * 3 if spacing_mm else [0.8, 0.8, 1.0]},
            {"_target_": "NormalizeIntensityd", "keys": "image"},
        ]
        preprocessing = {"_target_": "Compose", "transforms": steps}
        bundle = random_bundle(Path(folder), network, inferer=inferer, preprocessing=preprocessing)
        rng = np.random.default_rng(0)
        data = rng.integers(-1000, 1000, (1, *SHAPE_KJI), np.int16)
        volume = Volume(data, Geometry(SHAPE_KJI, np.diag([-0.8, -0.8, 1.0, 1.0])))
        start = time.perf_counter()
        result = open_model(bundle, "cpu").run(volume, RunOptions(), Progress())
        seconds = time.perf_counter() - start
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        grid, sums = f"{spacing_mm:g} mm" if spacing_mm else "own voxels", result.provenance["accumulation"]
        print(f"{classes} classes, {grid}: {seconds:.0f} s, {peak:.2f} GiB, sums in {sums}")


def main() -> None:
    """Run each number of classes in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("classes", nargs="+", type=int)
    parser.add_argument("--spacing", type=float, default=0.0, help="the model's voxels in mm; 0: the image's")
    parser.add_argument("--here", action="store_true", help="in this process (one number of classes)")
    options = parser.parse_args()
    if options.here:
        measure(options.classes[0], options.spacing)
        return
    for classes in options.classes:
        command = [sys.executable, __file__, str(classes), "--spacing", str(options.spacing), "--here"]
        subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
