"""Estimates of classifiers' and detectors' memory against peaks: `python Testing/benchmarks/feature_memory.py`.

Each case runs in a process of its own that treats memory as the worker does; what PyTorch takes by being imported is
left out. Prints one line for each: estimate and measured peak in MiB, and their ratio. Linux alone.
"""

import argparse
import gc
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

TESTING = Path(__file__).parents[1]
RESNET = {"_target_": "ResNet", "layers": [3, 4, 6, 3], "block_inplanes": [64, 128, 256, 512], "n_input_channels": 1}
EFFICIENT = {"_target_": "EfficientNetBN", "model_name": "efficientnet-b0", "pretrained": False}
# Name: network, the image's shape (K, J, I), the method of explanation.
CLASSIFIERS: dict[str, tuple[dict[str, Any], tuple[int, int, int], str]] = {
    "DenseNet-121, 3D": ({"_target_": "DenseNet121"}, (96, 96, 96), ""),
    "DenseNet-121, 2D": ({"_target_": "DenseNet121"}, (1, 800, 800), ""),
    "DenseNet-121, 2D, Grad-CAM": ({"_target_": "DenseNet121"}, (1, 800, 800), "grad-cam"),
    "DenseNet-121, 2D, gradients": ({"_target_": "DenseNet121"}, (1, 256, 256), "integrated-gradients"),
    "ResNet-18, 3D": (RESNET | {"block": "basic", "layers": [2, 2, 2, 2]}, (64, 80, 80), ""),
    "ResNet-50, 2D": (RESNET | {"block": "bottleneck", "conv1_t_stride": 2}, (1, 800, 800), ""),
    "EfficientNet-B0, 2D": (EFFICIENT, (1, 640, 640), ""),
    "SEResNet-50, 2D": ({"_target_": "SEResNet50"}, (1, 800, 800), ""),
}
DETECTOR = "RetinaNet over ResNet-50, 3D"


def measure(name: str, folder: Path) -> None:
    """Run one case in this process."""
    sys.path.insert(0, str(TESTING))
    from classifier_bundles import classifier_bundle
    from detector_bundles import detector_bundle

    from MedAILib.estimate import demand_of
    from MedAILib.models.open import open_model
    from MedAILib.progress import Progress
    from MedAILib.read_spec import read_spec
    from MedAILib.request import ClassifyOptions, DetectOptions, Explain
    from MedAILib.system_memory import keep_freed_memory, peak_process_memory, process_memory, trim_memory
    from MedAILib.volume import Geometry, Volume

    keep_freed_memory()
    if name == DETECTOR:
        backbone = "$monai.networks.nets.resnet.resnet50(spatial_dims=3,n_input_channels=1,conv1_t_stride=[2,2,1])"
        source = detector_bundle(folder, infer_patch_size=[512, 512, 192], backbone=backbone)
        shape, spacing, options = (64, 128, 128), [1.0, 1.0, 1.5], DetectOptions()
    else:
        network, shape, method = CLASSIFIERS[name]
        outputs = "out_channels" if "DenseNet" in network["_target_"] else "num_classes"
        inputs = {} if "n_input_channels" in network else {"in_channels": 1}
        dimensions = {"spatial_dims": 2 if shape[0] == 1 else 3}
        source = classifier_bundle(folder, network | {outputs: 2} | inputs | dimensions, ["no", "yes"])
        spacing, options = [1.0] * 3, ClassifyOptions(explain=Explain(method, "yes") if method else None)
    spec = read_spec(source)
    gc.collect()
    trim_memory()
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here
    before = process_memory() or 0
    data = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    volume = Volume(data, Geometry(shape, np.diag([*spacing, 1.0])))
    demand = demand_of(spec, volume, options)
    assert demand is not None, "its build is known"
    open_model(source, "cpu").run(volume, options, Progress())
    estimate, measured = demand.on_cpu(), (peak_process_memory() or 0) - before
    print(f"{name}: estimate {estimate / 2**20:.0f}, measured {measured / 2**20:.0f}, ratio {estimate / measured:.2f}")


def main() -> None:
    """Run each case in a fresh process."""
    parser = argparse.ArgumentParser(description=__doc__)
    names = [*CLASSIFIERS, DETECTOR]
    parser.add_argument("cases", nargs="*", default=names, help=f"of {'; '.join(names)}")
    parser.add_argument("--here", action="store_true", help="in this process (one case)")
    options = parser.parse_args()
    for case in options.cases:
        with tempfile.TemporaryDirectory() as folder:
            if options.here:
                measure(case, Path(folder) / "model")
            else:
                subprocess.run([sys.executable, __file__, case, "--here"], check=True)


if __name__ == "__main__":
    main()
