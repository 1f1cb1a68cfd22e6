"""`medai segment`: an image, a model, and the results as files."""

import argparse
import json
from dataclasses import replace
from typing import Any

from MedAILib.checks import concerns_before_run
from MedAILib.commands.outputs import Outcome, write_outcome
from MedAILib.commands.targets import Targets, files_of, targets_for, writable
from MedAILib.errors import InputError, SpecError
from MedAILib.files.images import read_channels
from MedAILib.models.lean import import_monai_for_inference
from MedAILib.models.store import find_model
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.statistics import segment_statistics
from MedAILib.volume import Roi, Volume


def run_segment(options: argparse.Namespace, progress: Progress) -> None:
    """Segment an image as the command line asks.

    What can be known to be wrong is found before PyTorch is loaded.

    Raises:
        MedAIError: the input, an option or the model is at fault.
        Cancelled: by `progress`.
    """
    run = RunOptions(
        roi=Roi(tuple(options.roi[:3]), tuple(options.roi[3:])) if options.roi else None,
        probabilities=options.probabilities is not None,
        mirror=options.mirror,
        postprocess=not options.no_postprocess,
        overlap=options.overlap,
        precision=options.precision,
        engine=options.engine,
        uncertainty=options.uncertainty is not None,
    )
    targets_for(options.output)  # an ending that means nothing is said before the image is read
    spec = read_spec(find_model(options.model))
    if spec.classes is not None:
        raise SpecError(f"The model {spec.name} classifies images, it segments nothing; use medai classify.")
    if spec.task in ("generation", "image-to-image"):
        raise SpecError(f"The model {spec.name} makes images, it segments nothing; use medai generate.")
    volume = read_channels(options.inputs, options.series, progress)
    targets = targets_for(options.output, volume)
    targets = replace(
        targets,
        probabilities=options.probabilities,
        uncertainty=options.uncertainty,
        surfaces=options.surfaces,
        table=options.table or targets.table,
    )
    if volume.channels != len(spec.channels):
        plural = "" if volume.channels == 1 else "s"
        raise InputError(
            f"{volume.name} has {volume.channels} channel{plural}, the model {spec.name} takes {len(spec.channels)}: "
            f"{', '.join(spec.channels)}; give one image for each, in this order."
        )
    for concern in concerns_before_run(volume, spec, run):
        if concern.severity == "warning":  # what else there is, the run itself refuses
            progress.warn(concern.text)
    with writable(targets, files_of(options.inputs, volume)):
        _segment_to(targets, volume, run, options, progress)


def _segment_to(
    targets: Targets, volume: Volume, run: RunOptions, options: argparse.Namespace, progress: Progress
) -> None:
    if options.own_process:
        import_monai_for_inference()
    from MedAILib.models.open import open_model  # PyTorch and MONAI: seconds that a wrong call need not wait for

    model = open_model(find_model(options.model), options.device, options.trust_code)
    segmentation = model.run(volume, run, progress)
    if not segmentation.layers.any() and targets.dicom is not None and targets.dicom != options.output:
        progress.warn(f"{targets.dicom} was not written: a DICOM SEG can't be without segments.")
        targets = replace(targets, dicom=None)
    write_outcome(Outcome(volume, segmentation, f"{volume.name}, {model.spec.title}"), targets, progress)
    if options.json:
        print(json.dumps(_summary(volume, segmentation, targets)))


def _summary(volume: Volume, segmentation: Segmentation, targets: Targets) -> dict[str, Any]:
    provenance = segmentation.provenance
    return {
        "model": provenance["model"],
        "version": provenance["version"],
        "sha256": provenance["sha256"],
        "input": volume.name,
        "outputs": {kind: str(path) for kind, path in targets.named().items()},
        "segments": [
            {
                "name": row.name,
                "label": row.value,
                "voxels": row.voxels,
                "volume_ml": row.volume_ml,
                "mean": row.mean,
                "sd": row.sd,
                "min": row.minimum,
                "max": row.maximum,
                **({} if row.agreement is None else {"agreement": row.agreement}),
            }
            for row in segment_statistics(segmentation, volume)
        ],
        "provenance": provenance,
    }
