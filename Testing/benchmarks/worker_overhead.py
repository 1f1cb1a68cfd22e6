"""What the worker adds to a run: `python Testing/benchmarks/worker_overhead.py`.

First line: runs of the built-in model on one crop, the network's own time taken off (the same windows through the same
network in this process, at the same number of threads). Second: a 512 x 512 x 400 int16 image there, its labels back.
"""

import os
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from MedAILib.request import RunOptions, RunRequest
from MedAILib.volume import Geometry, Volume
from MedAILib.worker.client import WorkerClient

ROOT = Path(__file__).parents[2]
STANDIN = (sys.executable, str(ROOT / "Testing" / "worker_models" / "standin.py"))
SHAPE_KJI = (35, 51, 35)
REPEATS = 5


def timed(action: Callable[[], object]) -> float:
    """Seconds that an action takes."""
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


def overhead_of_runs() -> None:
    """The built-in model: start, second run, and the network alone."""
    data = np.random.default_rng(0).normal(size=(1, *SHAPE_KJI)).astype(np.float32)
    volume = Volume(data, Geometry(SHAPE_KJI, np.diag([-1.0, 1.0, 1.0, 1.0])), "crop")
    request = RunRequest("hippocampus", "cpu")
    with WorkerClient() as client:
        first = timed(lambda: client.submit(request, volume).result())
        later = [timed(lambda: client.submit(request, volume).result()) for _ in range(REPEATS)]

    from MedAILib.models.open import open_model
    from MedAILib.progress import Progress

    model = open_model(ROOT / "Resources" / "Models" / "hippocampus", "cpu")
    model.run(volume, RunOptions(), Progress())
    here = [timed(lambda: model.run(volume, RunOptions(), Progress())) for _ in range(REPEATS)]
    network = [seconds_in_network(model, volume) for _ in range(REPEATS)]
    print(
        f"hippocampus, one crop: first run {first:.2f} s; then {statistics.median(later):.3f} s through the worker, "
        f"{statistics.median(here):.3f} s in this process, {statistics.median(network):.3f} s of it in the network: "
        f"{statistics.median(later) - statistics.median(network):.3f} s of overhead"
    )


def seconds_in_network(model, volume: Volume) -> float:  # type: ignore[no-untyped-def]
    """What a run spends inside of the network, by hooks on it."""
    from MedAILib.progress import Progress

    spent, started = [0.0], [0.0]

    def before(*_: object) -> None:
        started[0] = time.perf_counter()

    def after(*_: object) -> None:
        spent[0] += time.perf_counter() - started[0]

    hooks = [model._network.register_forward_pre_hook(before), model._network.register_forward_hook(after)]
    model.run(volume, RunOptions(), Progress())
    for hook in hooks:
        hook.remove()
    return spent[0]


def round_trip() -> None:
    """A large image through the worker; what thresholding takes by itself is taken off."""
    data = np.random.default_rng(0).integers(-1000, 1000, (1, 400, 512, 512), np.int16)
    volume = Volume(data, Geometry((400, 512, 512), np.diag([-0.8, -0.8, 1.0, 1.0])), "large")
    small = Volume(data[:, :1, :1, :1], Geometry((1, 1, 1), np.eye(4)))
    with WorkerClient(STANDIN) as client:
        client.submit(RunRequest("threshold"), small).result()
        whole = [timed(lambda: client.submit(RunRequest("threshold"), volume).result()) for _ in range(REPEATS)]
    own = [timed(lambda: (data[:1] > 0).astype(np.uint8)) for _ in range(REPEATS)]
    overhead = statistics.median(whole) - statistics.median(own)
    print(f"512 x 512 x 400 int16 and its labels: {overhead:.2f} s of overhead")


def main() -> None:
    """Print both figures, and how busy the machine is."""
    print(f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}")
    round_trip()
    overhead_of_runs()


if __name__ == "__main__":
    main()
