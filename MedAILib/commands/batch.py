"""`medai batch`: many cases through one model, in a way that can be stopped and gone on with."""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from pathlib import Path

from MedAILib.batch.cases import BatchCase, find_batch_cases
from MedAILib.commands.outputs import Outcome, write_outcome
from MedAILib.commands.targets import Targets, targets_for, writable
from MedAILib.errors import InputError
from MedAILib.estimate import demand
from MedAILib.models.lean import import_monai_for_inference
from MedAILib.models.store import find_model
from MedAILib.models.trust import tree_sha256
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.spec import ModelSpec
from MedAILib.version import VERSION
from MedAILib.volume import Volume

TABLE = "cases.csv"


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
    cases = find_batch_cases(options.source, len(spec.channels))
    _require_other_folder(options.source, options.output)
    run = RunOptions(
        mirror=options.mirror,
        postprocess=not options.no_postprocess,
        overlap=options.overlap,
        precision=options.precision,
        engine=options.engine,
    )
    own = Targets(table=options.output / TABLE, picture=options.output / "pictures" / "case.png")
    with writable(own):
        _run(options, progress, spec, cases, run)


def _run(
    options: argparse.Namespace, progress: Progress, spec: ModelSpec, cases: Sequence[BatchCase], run: RunOptions
) -> None:
    if options.own_process:
        import_monai_for_inference()
    from MedAILib.batch.overview import write_overview
    from MedAILib.batch.records import Row
    from MedAILib.batch.run import Batch, run_batch
    from MedAILib.models.device import find_device
    from MedAILib.models.open import open_model  # PyTorch and MONAI: seconds that a wrong call need not wait for

    model = open_model(spec.source, options.device, options.trust_code)
    kinds = tuple(options.kind or [".nii.gz"])
    identity = {"model": tree_sha256(spec.source), "options": asdict(run), "kinds": kinds, "medai": VERSION}
    writer = _CaseWriter(options.output, kinds, spec)
    on_gpu = find_device(options.device).type != "cpu"

    def wanted(volume: Volume) -> int:
        parts = demand(spec, volume.geometry, volume.data.dtype, run)
        return (parts.beside_gpu(False) if on_gpu else parts.on_cpu() - parts.weights) - parts.input

    batch = Batch(options.output, model, run, writer.write, identity, options.resume, options.workers, wanted)
    facts = {"Model": f"{spec.title} {spec.version}", "Started": f"{datetime.now().astimezone():%Y-%m-%d %H:%M %Z}"}
    done: dict[str, Row] = {}

    def told(row: Row) -> None:
        done[row.case] = row
        pictures = {name: f"pictures/{name}.png" for name, row in done.items() if row.state != "failed"}
        names = [label.name for label in spec.labels]
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

    def write(self, case: BatchCase, volume: Volume, segmentation: Segmentation) -> tuple[str, ...]:
        """Write every kind of file that was asked for, and the case's picture.

        Returns:
            Their paths relative to the folder.

        Raises:
            OutputError: one can't be written, or does not suit the image.
        """
        from MedAILib.batch.thumbnail import write_thumbnail

        wanted: dict[str, Path] = {}
        for kind in self._kinds:
            wanted |= targets_for(self._folder / f"{case.name}{kind}", volume).named()
        outcome = Outcome(volume, segmentation, f"{case.name}, {self._spec.title}")
        write_outcome(outcome, Targets(**wanted), Progress())
        picture = self._folder / "pictures" / f"{case.name}.png"
        write_thumbnail(volume, segmentation, picture)
        return tuple(path.relative_to(self._folder).as_posix() for path in (*wanted.values(), picture))


def _require_other_folder(source: Path, output: Path) -> None:
    if source.is_dir() and output.resolve() == source.resolve():
        raise InputError(f"{output} holds the images; choose another folder for the results.")
