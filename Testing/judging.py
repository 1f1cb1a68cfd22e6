"""Takes a model through every way by which one gets in, watched: the library, the command line and the worker."""

import contextlib
import io
import os
import re
import sys
import traceback
import unicodedata
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import nibabel
import numpy as np
from legitimate import LEGITIMATE, random_volume
from watch import Watch

from MedAILib.cli import main
from MedAILib.errors import MedAIError
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.request import RunOptions, RunRequest
from MedAILib.store.find import find_model
from MedAILib.worker.client import WorkerClient

SERVER = Path(__file__).parent / "worker_models" / "watched.py"
LIMIT_S = 120
# A file of this name makes the watched worker do what it listens for.
CONTROL = "control"


@dataclass
class Verdict:
    """What became of a model.

    Args:
        executed: what it executed, wrote or changed, on whatever way.
        told: the sentence that each way refused it with; none where it ran.
        wrong: what else is not as it should be, such as a traceback.
    """

    executed: list[str] = field(default_factory=list)
    told: dict[str, str] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)


class Judge:
    """Judges one model after another; `close` it.

    Args:
        folder: where the models are made; others may be there too.
        work: where results and the worker's log go.
    """

    def __init__(self, folder: Path, work: Path) -> None:
        self.folder, self.out = folder, work / "out"
        self.out.mkdir(parents=True)
        self.heard: list[str] = []
        store = Path(os.environ["MEDAI_MODELS"])
        self.watch = Watch(self.heard.append, folder, (self.out, store, store.parent / "config"))
        self.scan = work / "scan.nii.gz"
        nibabel.save(nibabel.Nifti1Image(random_volume().data[0].T.astype(np.int16), np.eye(4)), self.scan)
        self.log = work / "worker.log"
        self.log.touch()
        self.client = WorkerClient([sys.executable, str(SERVER), str(self.log), str(folder)])
        self.volume = random_volume()
        # What the libraries do when they are first used is none of a model's doing.
        for name in ("UNet", "DynUNet", "nnU-Net", "zip archive"):
            self._all_ways(LEGITIMATE[name](folder / f"first {name}"), Verdict())
        self.heard.clear()

    def close(self) -> None:
        self.client.close()

    def judge(self, make: Callable[[Path, Path], Path], place: Path) -> Verdict:
        """Make a model in a folder of its own, and take it every way."""
        place.mkdir(parents=True)
        mark = place / "mark"
        source = make(place / "model", mark)
        verdict, before, logged = Verdict(), _snapshot(place), self.log.stat().st_size
        self.heard.clear()
        self._all_ways(source, verdict)
        verdict.executed += self.heard
        verdict.executed += self.log.read_text(encoding="utf-8")[logged:].splitlines()
        if mark.exists():
            verdict.executed.append("it left its mark")
        if _snapshot(place) != before:
            verdict.executed.append("its folder has changed")
        return verdict

    def _all_ways(self, source: Path, verdict: Verdict) -> None:
        self._try("library", lambda: self._library(source), verdict)
        for name, *words in (
            ("info", "models", "info", str(source)),
            ("verify", "models", "verify", str(source)),
            ("segment", "segment", str(self.scan), "-m", str(source), "-o", str(self.out / "labels.nii.gz"), "--quiet"),
        ):
            self._try(name, lambda words=tuple(words): self._command_line(words), verdict)  # type: ignore[misc]
        self._try("worker", lambda: self._worker(source), verdict)

    def _try(self, way: str, call: Callable[[], str], verdict: Verdict) -> None:
        """Go one way; it ends well, or with a sentence."""
        try:
            told = call()
        except Exception:  # noqa: BLE001  whatever it is, it is a defect to be told
            verdict.wrong.append(f"{way}: {traceback.format_exc(limit=-3)}")
            return
        if told:
            verdict.told[way] = told
        if "\n" in told or any(unicodedata.category(sign) in ("Cc", "Cf") for sign in told):
            verdict.wrong.append(f"{way}: what it says is not one plain line: {told!r}")

    def _library(self, source: Path) -> str:
        try:
            with self.watch.watching():
                open_model(find_model(str(source)), "cpu").run(self.volume, RunOptions(), Progress())
        except MedAIError as error:
            return str(error)
        return ""

    def _command_line(self, words: tuple[str, ...]) -> str:
        said, told = io.StringIO(), io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(told), self.watch.watching():
            code = main(words)
        lines = told.getvalue().splitlines()
        shown = [sign for sign in said.getvalue() if sign != "\n" and unicodedata.category(sign) in ("Cc", "Cf")]
        if shown:
            raise AssertionError(f"signs that steer a terminal were printed: {shown!r}")
        if code == 0:
            answer = re.search(r"^Runs +no: (.*)$", said.getvalue(), re.MULTILINE)
            return answer[1] if answer else ""
        if code != 2 or not lines or not all(line.startswith("medai: ") for line in lines):
            raise AssertionError(f"it ended with {code} and {lines!r}")
        return lines[-1].removeprefix("medai: ")  # before it stand warnings

    def _worker(self, source: Path) -> str:
        try:
            self.client.submit(RunRequest(str(source), "cpu"), self.volume).result(LIMIT_S)
        except MedAIError as error:
            return str(error)
        return ""


def _snapshot(folder: Path) -> list[tuple[str, int, int]]:
    found = []
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found.append((str(path), status.st_size, status.st_mtime_ns))
    return found
