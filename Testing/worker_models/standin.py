"""A worker process with a model that does what the request's model name says; started by the worker's tests.

Usage: python standin.py [BYTES]

BYTES is what warm models may hold; a model called "holds:N" says that it holds N bytes.

Model names: "threshold", "slow", and the ways to misbehave that `BEHAVIOURS` lists. Anything after a colon in the name
is the behaviour's own parameter.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from MedAILib.errors import DeviceError, UntrustedCodeError
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.results import Code, Label, Segmentation, Terminology
from MedAILib.spec import ModelSpec
from MedAILib.volume import Volume
from MedAILib.worker import server
from MedAILib.worker.server import Library, main

BRAIN = Terminology(Code("SCT", "123037004", "Anatomical Structure"), Code("SCT", "12738006", "Brain"))

GREEDY = ModelSpec("greedy", "1", "segmentation", Path("greedy"), "", "", ("image",), (), window_values=1e15)


class Behaviour:
    """Does what its name says with the volume, then thresholds it above 0."""

    def __init__(self, source: Path, opened: int) -> None:
        name, self.folder = source.name, source.parent
        self.name, _, self.parameter = name.partition(":")
        self.opened = opened
        self.weights_bytes = int(self.parameter or 0) if self.name == "holds" else 0
        self.spec = GREEDY if self.name == "greedy" else None

    def run(self, volume: Volume, options: RunOptions, progress: Progress) -> Segmentation:
        BEHAVIOURS[self.name](self, progress)
        if self.name == "blobs":
            return blobs(volume, int(self.parameter))
        probabilities = (volume.data > 0).astype(np.float32) if options.probabilities else None
        return Segmentation(
            (volume.data[:1] > 0).astype(np.uint8),
            (Label(1, "Über 0", (1.0, 0.5, 0.0), BRAIN),),
            volume.geometry,
            probabilities,
            tuple(f"channel {c}" for c in range(volume.channels)) if options.probabilities else (),
            {"opened": str(self.opened), "image": volume.name, "environment": " ".join(sorted(os.environ))},
            np.full(volume.geometry.shape_kji, 0.25, np.float32) if options.uncertainty else None,
        )


def blobs(volume: Volume, count: int) -> Segmentation:
    """Balls in a regular pattern, as many as the parameter says."""
    layer = np.zeros(volume.geometry.shape_kji, np.uint8)
    per_axis = int(np.ceil(count ** (1 / 3)))
    side = [n // per_axis for n in layer.shape]
    axes = [(np.arange(n) - (n - 1) / 2) / (n / 2) for n in side]
    ball = sum(x**2 for x in np.meshgrid(*axes, indexing="ij", sparse=True)) < 0.8
    for value in range(1, count + 1):
        place = np.unravel_index(value - 1, (per_axis,) * 3)
        corner = tuple(slice(p * n, (p + 1) * n) for p, n in zip(place, side, strict=True))
        layer[corner][ball] = value
    labels = tuple(Label(value, f"Ball {value}") for value in range(1, count + 1))
    return Segmentation(layer[np.newaxis], labels, volume.geometry)


def threshold(model: Behaviour, progress: Progress) -> None:
    progress.step(1, 1, "Thresholding")


def holds(model: Behaviour, progress: Progress) -> None:
    progress.step(1, 1, "Holding")


def greedy(model: Behaviour, progress: Progress) -> None:
    progress.step(1, 1, "Needing, by its own account, more memory than there is")


def slow(model: Behaviour, progress: Progress) -> None:
    count = int(model.parameter or 1000)
    for done in range(count):
        progress.step(done, count, "Segmenting")
        time.sleep(0.01)


def gated(model: Behaviour, progress: Progress) -> None:
    """Until a file "go" appears beside the model."""
    done = 0
    while not (model.folder / "go").exists():
        progress.step(done, 100_000, "Segmenting")
        time.sleep(0.01)
        done += 1


def compute(model: Behaviour, progress: Progress) -> None:
    for done in range(100):
        progress.step(done, 100, "Segmenting")
        time.sleep(0.03)


def stuck(model: Behaviour, progress: Progress) -> None:
    progress.step(0, 1, "Stuck")
    ctypes.PyDLL(None).sleep(900)  # PyDLL keeps the interpreter's lock: not even the reading thread moves


def kernel(model: Behaviour, progress: Progress) -> None:
    progress.step(0, 1, "Computing")
    ctypes.CDLL(None).sleep(900)


def children(model: Behaviour, progress: Progress) -> None:
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(900)"])
    progress.warn(str(child.pid))
    slow(model, progress)


def litter(model: Behaviour, progress: Progress) -> None:
    with tempfile.NamedTemporaryFile(delete=False) as file:
        progress.warn(file.name)
    slow(model, progress)


def leave(model: Behaviour, progress: Progress) -> None:
    print("about to leave", file=sys.stderr, flush=True)
    os._exit(int(model.parameter))


def die(model: Behaviour, progress: Progress) -> None:
    signal.raise_signal(getattr(signal, model.parameter))


def unwell(model: Behaviour, progress: Progress) -> None:
    """Like a driver that fails when it is asked how much memory there is."""

    def ask() -> int:
        raise RuntimeError("an illegal memory access was encountered")

    server.process_memory = ask


def chatty(model: Behaviour, progress: Progress) -> None:
    print("printed from Python", flush=True)
    os.write(1, b"written to descriptor 1\n")
    libc = ctypes.CDLL(None)
    libc.puts(b"put by C")
    libc.fflush(None)
    subprocess.run(["echo", "echoed by a child"], check=True)


def user_error(model: Behaviour, progress: Progress) -> None:
    raise DeviceError("There is no device of that name here.")


def private_error(model: Behaviour, progress: Progress) -> None:
    class OwnError(UntrustedCodeError):
        pass

    raise OwnError("An error that the other side has never heard of.")


def defect(model: Behaviour, progress: Progress) -> None:
    raise RuntimeError("unexpected")


def leave_politely(model: Behaviour, progress: Progress) -> None:
    sys.exit(3)


def allocate(model: Behaviour, progress: Progress) -> None:
    np.ones(2**62, dtype=np.uint8)


def warn(model: Behaviour, progress: Progress) -> None:
    progress.warn("The image is smaller than the window.")
    progress.warn("Wrong contrast?")


def torn(model: Behaviour, progress: Progress) -> None:
    for descriptor in range(3, 20):
        try:
            os.write(descriptor, b"garbage in the middle of the stream")
        except OSError:
            continue
    time.sleep(900)


BEHAVIOURS = {
    function.__name__: function
    for function in (
        threshold, holds, greedy, slow, gated, stuck, kernel, children, litter, leave, die, unwell, chatty, user_error,
        private_error, defect,
        leave_politely, allocate, warn, torn,
    )
} | {"blobs": compute}  # fmt: skip


class Opener:
    """Counts how often each model was opened, to tell a warm one from a fresh one."""

    def __init__(self) -> None:
        self.opened = 0

    def __call__(self, source: Path, device: str, trust_code: str) -> Behaviour:
        self.opened += 1
        return Behaviour(source, self.opened)


if __name__ == "__main__":
    BYTES = int(sys.argv[1]) if len(sys.argv) > 1 else 2**30
    main(Library(Opener(), Path, {"auto": "cpu", "cpu": "cpu", "cuda": "cuda:0"}.__getitem__, lambda device: BYTES))
