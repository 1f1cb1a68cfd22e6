"""Preparing alone, on the CPU and on a GPU where there is one: `python Testing/benchmarks/preparing.py`.

One CT of 120 x 512 x 512 voxels, as a bundle prepares it (orientation, linear spacing, intensities, foreground) and as
nnU-Net does (crop, normalisation, splines of order 3), each several times in turns. Prints seconds and CPU-seconds
(medians, the first time apart, which makes matrices and loads kernels), the GPU's peak memory beside what is foretold,
and how far the GPU's values are from the CPU's.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import fields
from statistics import median
from typing import Any

import numpy as np
import torch

from MedAILib.config_values import Component
from MedAILib.estimate import BLOCKS_BYTES, FLOAT, WIDE_PREPARING
from MedAILib.inference.prepare import CropForeground, Intensity, Orient, Space, prepared
from MedAILib.models.nnunet_prepare import prepare_nnunet, view_of
from MedAILib.models.steps import intensity_step
from MedAILib.nnunet_plan import NnunetPlan, Normalization, Resampling
from MedAILib.progress import Progress
from MedAILib.system_memory import keep_freed_memory
from MedAILib.volume import Geometry, Volume

SHAPE, SPACING = (120, 512, 512), (2.5, 0.7, 0.7)
WANTED = (1.9, 1.4, 1.4)
WINDOW = {"a_min": -57, "a_max": 164, "b_min": 0.0, "b_max": 1.0, "clip": True}
Prepare = Callable[[torch.device], torch.Tensor]


def ways(volume: Volume) -> dict[str, Prepare]:
    """What is measured: a function of the device each."""
    window = intensity_step("ScaleIntensityRange", Component("ScaleIntensityRanged", WINDOW))
    share = intensity_step(
        "ScaleIntensityRangePercentiles",
        Component("ScaleIntensityRangePercentilesd", {"lower": 1, "upper": 99, "b_min": 0.0, "b_max": 1.0}),
    )
    plain = (Orient("RAS"), Space(WANTED[::-1]), Intensity(window), CropForeground())
    told: dict[str, Any] = {field.name: None for field in fields(NnunetPlan)} | {
        "to_ras": True, "transpose": (0, 1, 2), "spacing_mm": WANTED, "channels": ("CT",), "stage_values": (),
        "normalizations": (Normalization("CTNormalization", False, (-900.0, 1200.0), 31.0, 88.0),),
        "image_resampling": Resampling("resample_data_or_seg_to_shape"),
        "output_resampling": Resampling("resample_data_or_seg_to_shape"),
    }  # fmt: skip
    plan = NnunetPlan(**told)
    view = view_of(plan, volume.geometry)
    return {
        "bundle": lambda device: prepared(volume, plain, Progress(), device)[0],
        "bundle, percentiles": lambda device: prepared(volume, (Intensity(share), *plain), Progress(), device)[0],
        "nnU-Net, order 3": lambda device: prepare_nnunet(volume, plan, view, None, Progress(), device).image,
    }


def timed(prepare: Prepare, device: torch.device) -> tuple[torch.Tensor, float, float]:
    """The prepared image, seconds and CPU-seconds."""
    begin = time.perf_counter(), time.process_time()
    image = prepare(device)
    if device.type == "cuda":
        torch.cuda.synchronize()
    return image, time.perf_counter() - begin[0], time.process_time() - begin[1]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shape", type=int, nargs=3, default=SHAPE, metavar=("K", "J", "I"))
    options = parser.parse_args()
    keep_freed_memory()
    shape = (options.shape[0], options.shape[1], options.shape[2])
    data = np.random.default_rng(0).integers(-1000, 1500, (1, *shape)).astype(np.int16)
    data[:, : shape[0] // 20] = 0
    volume = Volume(data, Geometry(shape, np.diag([-SPACING[2], -SPACING[1], SPACING[0], 1.0])), "CT")
    devices = [torch.device("cpu"), *([torch.device("cuda")] if torch.cuda.is_available() else [])]
    for name, prepare in ways(volume).items():
        reference = None
        for device in devices:
            if device.type == "cuda":
                torch.cuda.empty_cache()
                torch.cuda.reset_peak_memory_stats()
            with torch.inference_mode():
                image, first, _ = timed(prepare, device)
                runs = [timed(prepare, device)[1:] for _ in range(options.rounds)]
            wall, cpu = (median(one[which] for one in runs) for which in (0, 1))
            text = f"{name}, {device.type}: {wall:.3f} s, {cpu:.3f} CPU-s (the first time {first:.3f} s)"
            if reference is None:
                reference = image
            else:
                voxels = max(data.size, image.numel())
                foretold = WIDE_PREPARING * FLOAT * (data.size + 2 * voxels) + BLOCKS_BYTES
                peak, far = torch.cuda.max_memory_allocated(), float((image.cpu() - reference).abs().max())
                text += f", {peak / 2**30:.2f} GiB ({foretold / 2**30:.2f} foretold), at most {far:.2g} from the CPU's"
            print(text, flush=True)


if __name__ == "__main__":
    main()
