"""`medai detect`: an image, a model, and a box around each thing that it finds, as files."""

import argparse
import json
from pathlib import Path

from MedAILib.commands.targets import DetectionTargets, detection_targets, files_of, writable
from MedAILib.detections import Detections, record
from MedAILib.errors import InputError, SpecError
from MedAILib.files.images import read_channels
from MedAILib.files.tables import write_detections
from MedAILib.models.lean import import_monai_for_inference
from MedAILib.models.store import find_model
from MedAILib.output import whole_files
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import DetectOptions, RunOptions
from MedAILib.volume import Roi, Volume


def run_detect(options: argparse.Namespace, progress: Progress) -> None:
    """Find things in an image as the command line asks; what can be known to be wrong is found before the work.

    Raises:
        MedAIError: the input, an option or the model is at fault.
        Cancelled: by `progress`.
    """
    asked = DetectOptions(
        roi=Roi(tuple(options.roi[:3]), tuple(options.roi[3:])) if options.roi else None,
        smallest_ml=options.smallest,
        score_threshold=options.min_score,
        overlap_limit=options.max_overlap,
    )
    detection_targets(options.output)  # an ending that means nothing is said before the image is read
    segments = _segments(options)
    run = None
    if segments:
        run = RunOptions(
            roi=asked.roi,
            probabilities=True,
            mirror=options.mirror,
            postprocess=not options.no_postprocess,
            overlap=options.overlap,
            precision=options.precision,
            engine=options.engine,
        )
    volume = read_channels(options.inputs, options.series, progress)
    targets = detection_targets(options.output, volume)
    with writable(targets, files_of(options.inputs, volume)):
        if options.own_process:
            import_monai_for_inference()
        from MedAILib.models.detect import detect  # PyTorch and MONAI: seconds that a wrong call need not wait for
        from MedAILib.models.open import open_model

        model = open_model(find_model(options.model), options.device, options.trust_code)
        found = detect(model, volume, asked, run, progress)
        write_found(found, volume, targets)
    if options.json:
        print(json.dumps(record(found)))


def _segments(options: argparse.Namespace) -> bool:
    """Whether the model segments, so that findings are the parts of what it finds.

    Raises:
        SpecError: it neither segments nor detects.
        InputError: options that a detector does not have.
    """
    spec = read_spec(find_model(options.model))
    if spec.task == "segmentation":
        return True
    if spec.task != "detection":
        raise SpecError(
            f"The model {spec.name} is for {spec.task}; things are found by models for detection or segmentation."
        )
    if options.mirror or options.no_postprocess or options.overlap is not None:
        raise InputError(
            f"The model {spec.name} is a detector, which takes no --mirror, --overlap or --no-postprocess; leave these "
            "out."
        )
    return False


def write_found(found: Detections, volume: Volume, targets: DetectionTargets) -> None:
    """Write every target; only when all are whole do they take their places."""
    with whole_files() as files:
        for kind, target in targets.named().items():
            with files.writing(target) as part:
                _write_one(kind, part, found, volume)


def _write_one(kind: str, path: Path, found: Detections, volume: Volume) -> None:
    match kind:
        case "record":
            path.write_text(json.dumps(record(found), indent=2) + "\n", encoding="utf-8")
        case "table":
            write_detections(found, path)
        case "scene":
            from MedAILib.commands.scene_outputs import write_detection_scene  # MRML takes a while to load

            write_detection_scene(volume, found, path)
        case "dicom":
            from MedAILib.files.dicom_findings import write_findings_sr  # as highdicom does

            write_findings_sr(found, volume, path)
