"""`medai batch`: many cases through one model, in a way that can be stopped and gone on with."""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path

from MedAILib.batch.cases import BatchCase, find_batch_cases
from MedAILib.commands.classify import chosen_slices, covariates_for, write_classified
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
from MedAILib.errors import InputError
from MedAILib.estimate import demand_of
from MedAILib.models.lean import import_monai_for_inference
from MedAILib.models.store import find_model
from MedAILib.models.trust import tree_sha256
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import ClassifyOptions, DetectOptions, RunOptions
from MedAILib.results import Classification, Segmentation
from MedAILib.spec import ModelSpec
from MedAILib.version import VERSION
from MedAILib.volume import Volume

AnyOptions = RunOptions | ClassifyOptions | DetectOptions
AnyResult = Segmentation | Classification | Detections
SEGMENTATION, DETECTION = "segmentation", "detection"
TABLE = "cases.csv"
LOOKING_KINDS = (".json", ".csv", ".mrb", ".dcm")  # of models that classify or look for findings


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
    picture = (
        spec.classes is not None and spec.classes.dimensions == 2 and len(spec.channels) == 3
    )  # one file's colours
    cases = find_batch_cases(options.source, 1 if picture else len(spec.channels))
    _require_other_folder(options.source, options.output)
    run = _options(options, spec)
    own = Targets(table=options.output / TABLE, picture=options.output / "pictures" / "case.png")
    with writable(own):
        _run(options, progress, spec, cases, run)


def _options(options: argparse.Namespace, spec: ModelSpec) -> Callable[[BatchCase], AnyOptions]:
    """The options of a case, by the model's task."""
    classes = spec.classes
    if spec.task == DETECTION:
        _require_looking_kinds(options)
        if options.slice or options.each_slice or options.covariates or options.mirror or options.overlap is not None:
            raise InputError(
                f"The model {spec.name} is a detector, which takes no --slice, --each-slice, --covariates, --mirror or "
                "--overlap; leave these out."
            )
        found = DetectOptions()
        return lambda case: found
    if classes is None:
        wrong = sorted({".json", ".csv"} & set(options.kind or ()))
        if wrong or options.slice or options.each_slice or options.covariates:
            what = f"--kind {wrong[0]}" if wrong else "--slice, --each-slice and --covariates"
            raise InputError(f"The model {spec.name} segments images; leave out {what}, for models that classify.")
        run = RunOptions(
            mirror=options.mirror,
            postprocess=not options.no_postprocess,
            overlap=options.overlap,
            precision=options.precision,
            engine=options.engine,
        )
        return lambda case: run
    _require_looking_kinds(options)
    look = ClassifyOptions(slices=chosen_slices(options))
    return lambda case: replace(look, covariates=covariates_for(options.covariates, classes, case.name))


def _require_looking_kinds(options: argparse.Namespace) -> None:
    if options.kind and set(options.kind) - set(LOOKING_KINDS):
        known = ", ".join(LOOKING_KINDS)
        raise InputError(f"A classification, or findings, are written as {known}; choose these with --kind.")


def _run(
    options: argparse.Namespace,
    progress: Progress,
    spec: ModelSpec,
    cases: Sequence[BatchCase],
    run: Callable[[BatchCase], AnyOptions],
) -> None:
    if options.own_process:
        import_monai_for_inference()
    from MedAILib.batch.overview import write_overview
    from MedAILib.batch.records import Row
    from MedAILib.batch.run import Batch, run_batch
    from MedAILib.models.device import find_device
    from MedAILib.models.open import open_model  # PyTorch and MONAI: seconds that a wrong call need not wait for

    model = open_model(spec.source, options.device, options.trust_code)
    kinds = tuple(options.kind or [".nii.gz" if spec.task == SEGMENTATION else ".json"])
    identity = {"model": tree_sha256(spec.source), "kinds": kinds, "medai": VERSION}
    writer = _CaseWriter(options.output, kinds, spec)
    on_gpu = find_device(options.device).type != "cpu"

    def wanted(volume: Volume) -> int:
        parts = demand_of(spec, volume, run(cases[0]))
        if parts is None:
            return 0
        return (parts.beside_gpu(False) if on_gpu else parts.on_cpu() - parts.weights) - parts.input

    batch = Batch(options.output, model, run, writer.write, identity, options.resume, options.workers, wanted)
    facts = {"Model": f"{spec.title} {spec.version}", "Started": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"}
    done: dict[str, Row] = {}

    def told(row: Row) -> None:
        done[row.case] = row
        pictures = {name: f"pictures/{name}.png" for name, row in done.items() if row.state != "failed"}
        names = [label.name for label in spec.labels] if spec.classes is None else list(spec.classes.names)
        names = list(spec.findings) if spec.task == DETECTION else names
        write_overview([done[case.name] for case in cases if case.name in done], pictures, facts, names, options.output)

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


class _CaseWriter:
    """Writes one case's results under the case's name into the batch's folder."""

    def __init__(self, folder: Path, kinds: tuple[str, ...], spec: ModelSpec) -> None:
        self._folder, self._kinds, self._spec = folder, kinds, spec

    def write(self, case: BatchCase, volume: Volume, result: AnyResult) -> tuple[str, ...]:
        """Write every kind of file that was asked for, and the case's picture.

        Returns:
            Their paths relative to the folder.

        Raises:
            OutputError: one can't be written, or does not suit the image.
        """
        from MedAILib.batch.run import decision_of, findings_told
        from MedAILib.batch.thumbnail import write_decision, write_thumbnail

        wanted: dict[str, Path] = {}
        picture = self._folder / "pictures" / f"{case.name}.png"
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
            write_decision(volume, findings_told(result), picture)
        else:
            for place in places:
                wanted |= targets_for(place, volume).named()
            write_outcome(Outcome(volume, result, f"{case.name}, {self._spec.title}"), Targets(**wanted), Progress())
            write_thumbnail(volume, result, picture)
        return tuple(path.relative_to(self._folder).as_posix() for path in (*wanted.values(), picture))


def _require_other_folder(source: Path, output: Path) -> None:
    if source.is_dir() and output.resolve() == source.resolve():
        raise InputError(f"{output} holds the images; choose another folder for the results.")
