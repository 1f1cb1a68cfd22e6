"""Start the programs of `nnunet_training.py` on cores of their own, and note what they take until they are trained."""

import os
import shutil
import subprocess
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

PAUSE_S, MEMORY_EVERY_S = 1.0, 5.0


@dataclass(frozen=True)
class Program:
    """A training about to start.

    Args:
        name: for people.
        words: its command line.
        environment: its variables.
        cores: on which it runs.
        epochs: a file with a head line and one more line after each epoch.
        final: a file that is there as soon as the training is done; what the process does then does not count.
        checkpoint: a file with the weights of the last whole epoch, to be copied; None where the program does so.
        snapshots: seconds from its start at which that is copied.
        whole: how many epochs it does; for a program that others follow.
        follower: a file to tell another program in when this one will end, seconds from the start; or None.
    """

    name: str
    words: list[str]
    environment: dict[str, str]
    cores: list[int]
    epochs: Path
    final: Path
    checkpoint: Path | None
    snapshots: tuple[float, ...]
    whole: int = 0
    follower: Path | None = None


@dataclass
class Trained:
    """What a training took.

    Args:
        wall: seconds from its start to its final weights.
        cpu: CPU-seconds until then, of the process and its children.
        peak: the most memory of these, bytes (proportional set size).
        load: mean number of processes that wanted a core of the machine.
        cores: on which it ran.
        ends: (number of whole epochs, seconds from the start) as they were seen.
        epochs: how many it was to do.
    """

    wall: float
    cpu: float
    peak: int
    load: float
    cores: list[int]
    ends: list[tuple[int, float]]
    epochs: int = 0

    @property
    def pace(self) -> dict[str, float]:
        """Seconds of an epoch after the first, and before the first."""
        (first, begin), (last, end) = self.ends[0], self.ends[-1]
        epoch = (end - begin) / (last - first) if last > first else begin / first
        return {"epoch": epoch, "prepare": max(begin - first * epoch, 0.0)}

    @property
    def recent(self) -> float:
        """Seconds of an epoch, of the last three."""
        if len(self.ends) < 2:
            return self.ends[0][1] / self.ends[0][0]
        (first, begin), (last, end) = self.ends[max(-4, -len(self.ends))], self.ends[-1]
        return (end - begin) / (last - first)


class Watched:
    """A running program: what it has taken so far, until it is trained."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program, self.folder = program, folder / program.name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.began = time.time()
        with (self.folder / "log.txt").open("w") as log:
            # Each is a session of its own: Linux deals out processor time by session before it does so by process.
            self.process = subprocess.Popen(
                program.words,
                env=program.environment | {"BEGAN": str(self.began)},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.seen = psutil.Process(self.process.pid)
        self.seen.cpu_affinity(program.cores)
        self.loads: list[float] = []
        self.trained, self._remembered = Trained(0, 0, 0, 0, program.cores, []), 0.0
        self._due = list(program.snapshots)

    @property
    def over(self) -> bool:
        return self.process.poll() is not None

    @property
    def done(self) -> bool:
        return self.trained.wall > 0

    def look(self) -> None:
        """Note what changed.

        Raises:
            SystemExit: the program ended without final weights; its log says why.
        """
        if self.done:
            return
        now, over, final = time.time() - self.began, self.over, self.program.final.is_file()
        self._count_epochs()
        self._measure(now)
        self._keep(now)
        if final:
            self.trained.wall = self.program.final.stat().st_mtime - self.began
            if self.program.follower is not None:
                _tell(self.program.follower, self.trained.wall)
            self.trained.load = sum(self.loads) / max(len(self.loads), 1)
        elif over:
            log = (self.folder / "log.txt").read_text()
            raise SystemExit(f"{self.program.name} ended without final weights:\n{log[-3000:]}")

    def stop(self) -> None:
        """End the process and its children."""
        for process in [*self.seen.children(recursive=True), self.seen] if not self.over else []:
            process.kill()
        self.process.wait()

    def _count_epochs(self) -> None:
        if not self.program.epochs.is_file():
            return
        changed = self.program.epochs.stat().st_mtime - self.began
        count = len(self.program.epochs.read_text().splitlines()) - 1
        if changed > 0 and count > (self.trained.ends[-1][0] if self.trained.ends else 0):
            self.trained.ends.append((count, changed))
            if self.program.follower is not None:
                _tell(self.program.follower, changed + (self.program.whole - count) * self.trained.recent)

    def _measure(self, now: float) -> None:
        try:
            tree = [self.seen, *self.seen.children(recursive=True)]
            self.trained.cpu = max(self.trained.cpu, sum(sum(process.cpu_times()[:4]) for process in tree))
            if now - self._remembered >= MEMORY_EVERY_S or not self._remembered:
                self._remembered = now
                self.loads.append(os.getloadavg()[0])
                held = sum(process.memory_full_info().pss for process in tree)
                self.trained.peak = max(self.trained.peak, int(held))
        except psutil.Error:
            return  # a process ended just now

    def _keep(self, now: float) -> None:
        """Copy the weights where that is due."""
        source = self.program.checkpoint
        if source is None or not self._due or now < self._due[0] or not source.is_file():
            return
        self._due.pop(0)
        (self.folder / "snapshots").mkdir(exist_ok=True)
        shutil.copy(source, self.folder / "snapshots" / f"{source.stat().st_mtime - self.began:.0f}.pt")


def _tell(path: Path, seconds: float) -> None:
    """Write it whole, since the other reads at any moment."""
    part = path.with_suffix(".part")
    part.write_text(f"{seconds:.2f}\n")
    part.replace(path)


def run_programs(programs: Sequence[Program], folder: Path, in_turns: bool, pilot: int = 0) -> dict[str, Trained]:
    """Run programs at the same time, or in turns, until all are through; a pilot until all have done so many epochs.

    Raises:
        SystemExit: one of them failed.
    """
    if in_turns and len(programs) > 1:
        found = [run_programs([program], folder, False, pilot) for program in programs]
        return {name: trained for one in found for name, trained in one.items()}
    watched = [Watched(program, folder) for program in programs]
    try:
        while not all(one.over and one.done for one in watched):
            for one in watched:
                one.look()
            if pilot and all(one.trained.ends and one.trained.ends[-1][0] >= pilot for one in watched):
                break
            time.sleep(PAUSE_S)
    finally:
        for one in watched:
            one.stop()
    return {one.program.name: one.trained for one in watched}
