"""A batch at work: while one case is computed the next is read and prepared, and the one before is written."""

import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, cast

from MedAILib.batch.cases import BatchCase
from MedAILib.batch.records import Row, content_sha256, forget_record, keep_record, kept_row
from MedAILib.batch.room import MemoryRoom
from MedAILib.detections import Detections
from MedAILib.errors import InputError, MedAIError
from MedAILib.models.device import share_cores
from MedAILib.models.open import OpenedModel
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.request import Options
from MedAILib.results import Classification, Segmentation
from MedAILib.statistics import segment_statistics
from MedAILib.system_memory import available_memory
from MedAILib.volume import Volume

Result = Segmentation | Classification | Detections
# Reads one case's images.
Read = Callable[[BatchCase, Progress], Volume]
# Writes one case's files into the batch's folder and says which, relative to it.
Write = Callable[[BatchCase, Volume, Result], tuple[str, ...]]


@dataclass(frozen=True)
class Batch:
    """What is to be done to every case.

    Args:
        folder: where results and records go.
        model: the model, open.
        options: of a case; a classifier's covariates differ from case to case.
        read: reads a case's images.
        write: writes a case's files.
        identity: what, beside image and options, decides a result (model's SHA-256, version, kinds of files); plain
            JSON values.
        resume: leave out the cases that an earlier run did with the same image and identity.
        workers: how many cases are computed at a time, where memory allows.
        demand: the bytes that computing an image takes; None where they can't be foretold.
    """

    folder: Path
    model: OpenedModel
    options: Callable[[BatchCase], Options]
    read: Read
    write: Write
    identity: Mapping[str, Any]
    resume: bool = False
    workers: int = 1
    demand: Callable[[Volume], int] | None = None


def run_batch(batch: Batch, cases: Sequence[BatchCase], progress: Progress, told: Callable[[Row], None]) -> list[Row]:
    """Run every case; one that fails does not stop the others.

    Args:
        batch: what is to be done.
        cases: the images.
        progress: hears of every case that ends, and may cancel between two.
        told: is called with each case's row as it ends, in no certain order.

    Returns:
        A row for each case, in the order of `cases`.

    Raises:
        Cancelled: by `progress`; what was done stays, and `resume` goes on from there.
    """
    run = _Run(batch, progress)
    rows: dict[str, Row] = {}
    with ThreadPoolExecutor(batch.workers + 2, thread_name_prefix="batch") as pool:
        try:
            futures: list[Future[Row]] = [pool.submit(run.case, case) for case in cases]
            progress.step(0, len(cases), f"Case 1 of {len(cases)}")
            for done, future in enumerate(as_completed(futures), start=1):
                row = future.result()
                rows[row.case] = row
                told(row)
                if row.state == "failed":
                    progress.warn(f"{row.case} failed: {row.reason}")
                for text in row.warnings:
                    progress.warn(f"{row.case}: {text}")
                progress.step(done, len(cases), f"Case {min(done + 1, len(cases))} of {len(cases)}")
        except BaseException:
            run.stop.cancel()
            pool.shutdown(wait=True, cancel_futures=True)
            raise
    return [rows[case.name] for case in cases]


class _Run:
    """Takes cases through reading, computing and writing, each of which has room for so many at a time."""

    def __init__(self, batch: Batch, progress: Progress) -> None:
        self.stop = Cancellable()
        self._records = batch.folder / "records"
        self._records.mkdir(exist_ok=True)
        self._batch = batch
        self._reading, self._preparing, self._writing = (threading.Semaphore() for _ in range(3))
        self._computing = threading.Semaphore(batch.workers)
        self._room = MemoryRoom(available_memory(), progress.warn)

    def case(self, case: BatchCase) -> Row:
        """Do one case from its files to its files.

        Raises:
            Cancelled: the batch was stopped.
        """
        try:
            return self._done(case)
        except Cancelled:
            raise
        except MedAIError as error:
            return Row(case.name, "failed", str(error))
        except Exception as error:  # noqa: BLE001  # one case's defect must not end a night's work
            place = self._records / f"{case.name}.log"
            place.write_text(traceback.format_exc(), encoding="utf-8")
            return Row(case.name, "failed", f"a defect of MedAI's ({type(error).__name__}: {error}); see {place}.")

    def _done(self, case: BatchCase) -> Row:
        batch, notes = self._batch, _Notes(self.stop)
        if case.problem:
            raise InputError(case.problem)
        place = self._records / f"{case.name}.json"
        with self._reading:
            self.stop.step(0, 1)
            start = time.perf_counter()
            options = batch.options(case)
            key = dict(batch.identity) | {"options": asdict(options), "content": content_sha256(case.images)}
            if batch.resume and (row := kept_row(place, key, batch.folder)) is not None:
                return row
            volume = batch.read(case, notes)
            read = time.perf_counter() - start
        wanted = batch.demand(volume) if batch.demand is not None else 0
        with ExitStack() as turn:
            with self._preparing:  # one case waits prepared
                start = time.perf_counter()
                ahead = self._ahead(volume, options, wanted, notes)
                run = time.perf_counter() - start
                turn.enter_context(self._computing)
            turn.enter_context(self._room.taken(wanted, self.stop))
            share_cores(batch.workers)
            start = time.perf_counter()
            result = cast(Result, cast(Any, batch.model).run(volume, options, notes, **ahead))
            run += time.perf_counter() - start
        del ahead
        with self._writing:
            self.stop.step(0, 1)
            start = time.perf_counter()
            # From here until its new record is there nothing is on record of the case, wherever the batch is stopped.
            forget_record(place)
            files = batch.write(case, volume, result)
            row = Row(case.name, "done", "", read, run, files=files, warnings=tuple(notes.warnings))
            row = replace(row, **_figures(result, volume), write_s=time.perf_counter() - start)
            keep_record(place, key, row)
        return row

    def _ahead(self, volume: Volume, options: Options, wanted: int, notes: Progress) -> dict[str, Any]:
        """The prepared image for `run`, where the model prepares by itself and memory has room beside what runs."""
        prepare, there = getattr(self._batch.model, "prepare_ahead", None), available_memory()
        if prepare is None or not wanted or there is None or there < 2 * wanted:
            return {}
        return {"ahead": prepare(volume, options, notes)}


def _figures(result: Result, volume: Volume) -> dict[str, Any]:
    """What a case's row says of its result."""
    if isinstance(result, Segmentation):
        return {"volumes_ml": {row.name: row.volume_ml for row in segment_statistics(result, volume)}}
    if isinstance(result, Detections):
        return {"findings": dict(Counter(box.label for box in result.boxes)), "decision": findings_of(result)}
    means = result.probabilities.mean(axis=0).tolist()
    return {"probabilities": dict(zip(result.classes, means, strict=True)), "decision": decision_of(result)}


def findings_of(result: Detections) -> str:
    """What was found, for people."""
    if not result.boxes:
        return "no finding"
    count = len(result.boxes)
    return f"{count} finding{'s'[: count != 1]}, the surest {result.boxes[0].label}, {result.boxes[0].score:.0%}"


def decision_of(result: Classification) -> str:
    """What was decided, for people: of several slices how many of them were decided how, the most frequent first."""
    verdicts = Counter(result.verdict(row).text for row in range(len(result.places)))
    if len(result.places) == 1:
        return next(iter(verdicts))
    return ", ".join(f"{text} {count}x" for text, count in verdicts.most_common())


class _Notes(Progress):
    """Keeps a case's warnings for its row, and stops with the batch."""

    def __init__(self, stop: Cancellable) -> None:
        self.warnings: list[str] = []
        self._stop = stop

    def step(self, done: int, total: int, text: str = "") -> None:
        self._stop.step(done, total, text)

    def warn(self, text: str) -> None:
        self.warnings.append(text)
