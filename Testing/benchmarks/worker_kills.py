"""Kills and cancels of the worker at random moments of whole runs: `python Testing/benchmarks/worker_kills.py`.

After each: the run ended as it should, no process and no temporary file is left of the killed worker, and the next run
gives the right labels. `--model` runs the stand-in's models instead of the built-in one: faster, on small images.
"""

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil

from MedAILib.progress import Cancelled
from MedAILib.request import RunRequest
from MedAILib.volume import Geometry, Volume
from MedAILib.worker.client import Job, WorkerClient, WorkerDied

ROOT = Path(__file__).parents[2]
STANDIN = (sys.executable, str(ROOT / "Testing" / "worker_models" / "standin.py"))
LIMIT_S = 240


@dataclass
class Tally:
    """What came of it: kills and cancels, ends of runs that were hit or done before, and seconds to each answer."""

    kills: int = 0
    cancels: int = 0
    failed: int = 0
    cancelled: int = 0
    done: int = 0
    deaths_s: list[float] = field(default_factory=list)
    cancels_s: list[float] = field(default_factory=list)


@dataclass(frozen=True)
class Ordeal:
    """A model and an image whose right answer is known, in a client whose temporary files go to `folder`."""

    client: WorkerClient
    request: RunRequest
    volume: Volume
    right: np.ndarray
    seconds: float
    folder: Path

    def kill(self, chance: random.Random, tally: Tally) -> None:
        """Kill the worker at a random moment of a run, its start included where it has to start."""
        job = self.client.submit(self.request, self.volume)
        time.sleep(chance.uniform(0, 1.2 * self.seconds))
        there = workers()
        members = [process for worker in there for process in family(worker)]
        for worker in there:
            os.kill(worker.pid, signal.SIGKILL)
        asked = time.monotonic()
        tally.kills += 1
        try:
            self.check(job)
            tally.done += 1
        except WorkerDied:
            tally.failed += 1
            tally.deaths_s.append(time.monotonic() - asked)
        self.afterwards(members)

    def cancel(self, chance: random.Random, tally: Tally) -> None:
        """Cancel a run at a random moment."""
        job = self.client.submit(self.request, self.volume)
        time.sleep(chance.uniform(0, 1.2 * self.seconds))
        asked = time.monotonic()
        job.cancel()
        tally.cancels += 1
        try:
            self.check(job)
            tally.done += 1
        except Cancelled:
            tally.cancelled += 1
            tally.cancels_s.append(time.monotonic() - asked)
        self.afterwards([])

    def afterwards(self, members: list[psutil.Process]) -> None:
        """Nothing is left of what was killed, and the next run is right."""
        until(lambda: not any(alive(process) for process in members), "a process was left")
        # A living worker has one folder of its own.
        until(lambda: len(list(self.folder.iterdir())) <= len(workers()), "temporary files were left")
        self.check(self.client.submit(self.request, self.volume))

    def check(self, job: Job) -> None:
        """The run's labels are the right ones."""
        layers = job.result(LIMIT_S).layers
        assert np.array_equal(layers, self.right), "other labels than before"


def workers() -> list[psutil.Process]:
    """Living processes that this one started."""
    return [child for child in psutil.Process().children() if alive(child)]


def family(worker: psutil.Process) -> list[psutil.Process]:
    """A worker with its guard and its children."""
    try:
        return [worker, *worker.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []


def alive(process: psutil.Process) -> bool:
    """Whether it runs; a dead one that nobody has buried yet does not."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def until(condition: Callable[[], bool], text: str) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + LIMIT_S
    while not condition():
        assert time.monotonic() < deadline, text
        time.sleep(0.005)


def ordeal(model: str, kills: int, cancels: int, seed: int) -> Tally:
    """Kill and cancel, in random order, and check after each.

    Args:
        model: "hippocampus" is the built-in one on an image made here; others are the stand-in's.
        kills, cancels: how often.
        seed: of the order and of the moments.
    """
    chance, tally = random.Random(seed), Tally()
    shape = (35, 51, 35) if model == "hippocampus" else (2, 3, 4)
    data = np.random.default_rng(0).normal(size=(1, *shape)).astype(np.float32)
    volume = Volume(data, Geometry(shape, np.diag([-1.0, 1.0, 1.0, 1.0])), "noise")
    request = RunRequest(model, "cpu")
    before = os.environ.get("TMPDIR")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TMPDIR"] = folder  # the worker's and its children's
        tempfile.tempdir = None  # so that it is looked up again
        try:
            with WorkerClient(None if model == "hippocampus" else STANDIN) as client:
                right = client.submit(request, volume).result(LIMIT_S).layers
                started = time.monotonic()
                client.submit(request, volume).result(LIMIT_S)
                trial = Ordeal(client, request, volume, right, time.monotonic() - started, Path(folder))
                acts = [trial.kill] * kills + [trial.cancel] * cancels
                chance.shuffle(acts)
                for act in acts:
                    act(chance, tally)
                last = [process for worker in workers() for process in family(worker)]
            until(lambda: not any(alive(process) for process in last), "a process was left after closing")
            assert list(Path(folder).iterdir()) == [], "temporary files were left after closing"
        finally:
            os.environ.pop("TMPDIR") if before is None else os.environ.update(TMPDIR=before)
            tempfile.tempdir = None
    return tally


def main() -> None:
    """Print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="hippocampus", help='"hippocampus", or a stand-in\'s such as "children:25"')
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--cancels", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    tally = ordeal(options.model, options.kills, options.cancels, options.seed)
    print(f"{tally.kills} kills, {tally.cancels} cancels: {tally.failed} failed, {tally.cancelled} cancelled")
    print(f"{tally.done} were done before")
    slowest = [max(seconds, default=0.0) for seconds in (tally.deaths_s, tally.cancels_s)]
    print(f"slowest death noticed {slowest[0]:.2f} s, slowest cancel {slowest[1]:.2f} s")


if __name__ == "__main__":
    main()
