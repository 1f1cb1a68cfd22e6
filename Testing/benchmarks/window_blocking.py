"""How long Slicer's main thread is kept from its events: while a model computes, and when its result arrives.

Usage: python Testing/benchmarks/window_blocking.py [--voxels 256 256 200] [--segments 100]

Drives MedAISegment's panel on the stand-in for Slicer's window, with the real worker and, in it, a model that computes
for some seconds and then finds that many segments. A timer of 1 ms in the event loop notes the longest time in which it
was not called; the interpreter's lock is held between events, as Slicer holds it.
"""

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path

TESTING = Path(__file__).parents[1]
sys.path[:0] = [str(TESTING.parent), str(TESTING)]

import numpy as np
import pytest
import slicer.util
from bundles import configs, network_entry
from standin import qt
from standin.session import Session, run_to_end

from MedAILib.worker.client import WorkerClient


class Heartbeat:
    """Notes when it beats; the longest time between two beats is how long nothing else happened."""

    def __init__(self) -> None:
        self.beats: list[float] = [time.monotonic()]
        self._timer = qt.QTimer()
        self._timer.setInterval(1)
        self._timer.connect("timeout()", lambda: self.beats.append(time.monotonic()))
        self._timer.start()

    def longest_ms(self, start: float, end: float) -> float:
        inside = np.array([start, *(beat for beat in self.beats if start < beat < end), end])
        return float(np.diff(inside).max() * 1e3)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--voxels", type=int, nargs=3, default=[256, 256, 200], help="along I, J and K")
    parser.add_argument("--segments", type=int, default=100)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        model = Path(folder) / f"blobs:{options.segments}"
        metadata, inference = configs(network_entry("UNet", classes=2))
        (model / "configs").mkdir(parents=True)
        (model / "configs" / "metadata.json").write_text(json.dumps(metadata))
        (model / "configs" / "inference.json").write_text(json.dumps(inference))
        session = Session(patch, Path(folder))
        server = TESTING / "worker_models" / "standin.py"
        with WorkerClient([sys.executable, str(server)]) as client:
            measure(session, client, str(model), options)
        session.close()


def noise(shape_kji: list[int]) -> np.ndarray:
    """An image of int16 with something to see in it."""
    return np.random.default_rng(0).integers(0, 500, shape_kji, np.int16)


def measure(session: Session, client: WorkerClient, model: str, options: argparse.Namespace) -> None:
    volume = session.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Head")
    slicer.util.updateVolumeFromArray(volume, noise(options.voxels[::-1]))
    widget = session.open(client)
    widget._parameterNode.model = model
    states: list[tuple[float, str]] = []
    tell = widget._current._onProgress
    widget._current._onProgress = lambda state: (states.append((time.monotonic(), state.text)), tell(state))
    heart = Heartbeat()
    begin = time.monotonic()
    run_to_end(widget, 600)
    end = time.monotonic()
    assert widget._run.error is None, widget._run.error
    first = states[0][0]
    arrival = next(moment for moment, text in states if text == "Placing the result")
    surfaces = next(moment for moment, text in states if text == "Surfaces")
    (node,) = session.nodes("vtkMRMLSegmentationNode")
    size = " x ".join(map(str, options.voxels))
    print(f"{size} voxels, {node.GetSegmentation().GetNumberOfSegments()} segments; longest block of the main thread")
    print(f"  from Apply to the worker having been asked    {(first - begin) * 1e3:7.0f} ms  (reading the image)")
    computing, making = arrival - first, end - surfaces
    print(f"  while the worker computes ({computing:5.1f} s)           {heart.longest_ms(first, arrival):7.0f} ms")
    print(f"  when the result arrives                       {heart.longest_ms(arrival, surfaces + 0.05):7.0f} ms")
    print(f"  while surfaces are made ({making:5.1f} s)             {heart.longest_ms(surfaces, end):7.0f} ms")


if __name__ == "__main__":
    main()
