"""`medai batch`: many cases through one model, in a way that can be stopped and gone on with."""

import argparse
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from MedAILib.batch.cases import RECORDS, TABLE, BatchCase, find_batch_cases
from MedAILib.commands.classify import chosen_slices, covariates_for, read_looked_at, write_classified
from MedAILib.commands.detect import write_found
from MedAILib.commands.outputs import Outcome, write_outcome
from MedAILib.commands.targets import (
    ClassificationTargets,
    DetectionTargets,
    Targets,
    classification_targets,
    detection_targets,
    targets_for,
    writable,
)
from MedAILib.detections import Detections
from MedAILib.errors import InputError, SpecError
from MedAILib.estimate import demand_of
from MedAILib.models.lean import import_monai_for_inference
from MedAILib.models.store import find_model
from MedAILib.models.trust import tree_sha256
from MedAILib.output import UNFINISHED
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import ClassifyOptions, DetectOptions, Options, RunOptions
from MedAILib.results import Classification, Segmentation
from MedAILib.spec import ModelSpec
from MedAILib.store.lock import locked
from MedAILib.version import VERSION
from MedAILib.volume import Volume

# What is written of classifications and of findings.
SAID_KINDS = (".json", ".csv", ".mrb", ".dcm")
TASKS = ("segmentation", "classification", "detection")
PICTURES = "pictures"
LOCK = ".batch.lock"


def run_batch_command(options: argparse.Namespace, progress: Progress) -> None:
    """Run a model on every case of a folder or list; the folder gets results, a table and an overview page.

    Raises:
        InputError: the list, an option or the model is at fault; or cases failed (said when all others are done).
        Cancelled: by `progress`; what was done stays.
    """
    if options.workers < 1:
        raise InputError(f"There are at least 1 workers, not {options.workers}.")
    # Absolute, since saving a scene may change the process's working folder for a moment while others read.
    options.source, options.output = options.source.expanduser().absolute(), options.output.expanduser().absolute()
    spec = read_spec(find_model(options.model).absolute())
    if spec.task not in TASKS:
        raise SpecError(
            f"The model {spec.name} is for {spec.task}; a batch runs models for segmentation, classification and "
            "detection."
        )
    cases = find_batch_cases(options.source, _images_of_a_case(spec), options.output)
    _require_other_folder(options.source, options.output)
    run = _options(options, spec)
    own = Targets(table=options.output / TABLE, picture=options.output / PICTURES / "case.png")
    busy = f"Another batch is writing into {options.output}; wait for its end, or choose another folder."
    with writable(own), locked(options.output / LOCK, busy):
        try:
            _clear_away(options.output, cases)
            _run(options, progress, spec, cases, run)
        finally:
            with suppress(OSError):  # Windows keeps it while it is open
                (options.output / LOCK).unlink()


def _images_of_a_case(spec: ModelSpec) -> int | None:
    """How many files a case has; None where it has as many as it has frames."""
    if spec.classes is None:
        return len(spec.channels)
    if spec.classes.sequence:
        return None
    picture = spec.classes.dimensions == 2 and len(spec.channels) == 3  # one file's colours
    return 1 if picture else len(spec.channels)


def _clear_away(folder: Path, cases: Sequence[BatchCase]) -> None:
    """Remove what a killed batch has left half written: files of its cases and its table; no other batch runs here."""
    names = ("index.html", TABLE, *(case.name for case in cases))
    for place in (folder, folder / PICTURES, folder / RECORDS):
        for part in place.glob(f"{UNFINISHED}*"):
            if part.is_dir() and all(path.name.startswith(names) for path in part.iterdir()):
                shutil.rmtree(part, ignore_errors=True)


def _options(options: argparse.Namespace, spec: ModelSpec) -> Callable[[BatchCase], Options]:
    """The options of a case, by the model's task."""
    classes = spec.classes
    if classes is None and (options.slice or options.each_slice or options.covariates):
        what = "segments images" if spec.task == "segmentation" else "finds things"
        raise InputError(
            f"The model {spec.name} {what}; leave out --slice, --each-slice and --covariates, for models that classify."
        )
    if spec.task == "segmentation":
        wrong = sorted({".json", ".csv"} & set(options.kind or ()))
        if wrong:
            raise InputError(
                f"The model {spec.name} segments images; leave out --kind {wrong[0]}, for models that classify."
            )
        run = RunOptions(
            mirror=options.mirror,
            postprocess=not options.no_postprocess,
            overlap=options.overlap,
            precision=options.precision,
            engine=options.engine,
        )
        return lambda case: run
    if options.kind and set(options.kind) - set(SAID_KINDS):
        what = "A classification is" if classes else "Findings are"
        raise InputError(f"{what} written as {', '.join(SAID_KINDS)}; choose these with --kind.")
    if classes is None:
        if options.mirror or options.no_postprocess or options.overlap is not None:
            raise InputError(
                f"The model {spec.name} is a detector, which takes no --mirror, --overlap or --no-postprocess; leave "
                "these out."
            )
        return lambda case: DetectOptions()
    look = ClassifyOptions(slices=chosen_slices(options))
    return lambda case: replace(look, covariates=covariates_for(options.covariates, classes, case.name))


def _run(
    options: argparse.Namespace,
    progress: Progress,
    spec: ModelSpec,
    cases: Sequence[BatchCase],
    run: Callable[[BatchCase], Options],
) -> None:
    if options.own_process:
        import_monai_for_inference()
    from MedAILib.batch.overview import write_overview
    from MedAILib.batch.records import Row
    from MedAILib.batch.run import Batch, run_batch
    from MedAILib.models.device import find_device
    from MedAILib.models.open import open_model  # PyTorch and MONAI: seconds that a wrong call need not wait for

    model = open_model(spec.source, options.device, options.trust_code)
    kinds = tuple(options.kind or [".nii.gz" if spec.task == "segmentation" else ".json"])
    identity = {"model": tree_sha256(spec.source), "kinds": kinds, "medai": VERSION}
    writer = _CaseWriter(options.output, kinds, spec)
    reader = partial(_read, spec)
    on_gpu = find_device(options.device).type != "cpu"

    def wanted(volume: Volume) -> int:
        parts = demand_of(spec, volume, run(cases[0]))
        if parts is None:
            return 0
        return (parts.beside_gpu(False) if on_gpu else parts.on_cpu() - parts.weights) - parts.input

    batch = Batch(options.output, model, run, reader, writer.write, identity, options.resume, options.workers, wanted)
    facts = {"Model": f"{spec.title} {spec.version}", "Started": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"}
    done: dict[str, Row] = {}

    def told(row: Row) -> None:
        done[row.case] = row
        pictures = {name: f"{PICTURES}/{name}.png" for name, row in done.items() if row.state != "failed"}
        rows = [done[case.name] for case in cases if case.name in done]
        write_overview(rows, pictures, facts, (spec.task, _columns(spec)), options.output)

    rows = run_batch(batch, cases, progress, told)
    failed = [row.case for row in rows if row.state == "failed"]
    if not options.quiet:
        kept = sum(row.state == "kept" for row in rows)
        print(f"{len(rows) - len(failed)} of {len(rows)} cases done ({kept} before); see {options.output}/index.html")
    if failed:
        some = ", ".join(failed[:3]) + (" and others" if len(failed) > 3 else "")
        raise InputError(
            f"{len(failed)} of {len(rows)} cases failed ({some}); the reasons are in {options.output / TABLE}."
        )


def _columns(spec: ModelSpec) -> list[str]:
    """What a case's figures are of: structures or classes."""
    if spec.classes is not None:
        return list(spec.classes.names)
    return list(spec.findings) if spec.task == "detection" else [label.name for label in spec.labels]


def _read(spec: ModelSpec, case: BatchCase, progress: Progress) -> Volume:
    return read_looked_at(case.images, None, spec, progress)


class _CaseWriter:
    """Writes one case's results under the case's name into the batch's folder."""

    def __init__(self, folder: Path, kinds: tuple[str, ...], spec: ModelSpec) -> None:
        self._folder, self._kinds, self._spec = folder, kinds, spec

    def write(
        self, case: BatchCase, volume: Volume, result: Segmentation | Classification | Detections
    ) -> tuple[str, ...]:
        """Write every kind of file that was asked for, and the case's picture.

        Returns:
            Their paths relative to the folder.

        Raises:
            OutputError: one can't be written, or does not suit the image.
        """
        from MedAILib.batch.run import decision_of
        from MedAILib.batch.thumbnail import write_decision, write_findings, write_thumbnail

        wanted: dict[str, Path] = {}
        picture = self._folder / PICTURES / f"{case.name}.png"
        places = [self._folder / f"{case.name}{kind}" for kind in self._kinds]
        if isinstance(result, Classification):
            for place in places:
                wanted |= classification_targets(place, volume).named()
            write_classified(result, volume, ClassificationTargets(**wanted), Progress())
            write_decision(volume, decision_of(result), picture)
        elif isinstance(result, Detections):
            for place in places:
                wanted |= detection_targets(place, volume).named()
            write_found(result, volume, DetectionTargets(**wanted))
            write_findings(volume, result, picture)
        else:
            for place in places:
                wanted |= targets_for(place, volume).named()
            write_outcome(Outcome(volume, result, f"{case.name}, {self._spec.title}"), Targets(**wanted), Progress())
            write_thumbnail(volume, result, picture)
        return tuple(path.relative_to(self._folder).as_posix() for path in (*wanted.values(), picture))


def _require_other_folder(source: Path, output: Path) -> None:
    if source.is_dir() and output.resolve() == source.resolve():
        raise InputError(f"{output} holds the images; choose another folder for the results.")
