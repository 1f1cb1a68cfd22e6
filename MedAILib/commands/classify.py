"""`medai classify`: an image, a model, and what it shows as files."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from MedAILib.classification_record import record, summary
from MedAILib.commands.targets import ClassificationTargets, classification_targets, files_of, writable
from MedAILib.errors import InputError, OutputError, SpecError
from MedAILib.files.clips import read_clip, read_frames
from MedAILib.files.images import read_channels, write_scalar_volume
from MedAILib.files.tables import read_covariates, write_classification
from MedAILib.models.store import find_model
from MedAILib.output import whole_files
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import ClassifyOptions, Explain, Slices
from MedAILib.results import Classification
from MedAILib.spec import Classes, ModelSpec
from MedAILib.volume import Roi, Volume


def run_classify(options: argparse.Namespace, progress: Progress) -> None:
    """Classify an image as the command line asks.

    What can be known to be wrong is found before PyTorch is loaded.

    Raises:
        MedAIError: the input, an option or the model is at fault.
        Cancelled: by `progress`.
    """
    run = ClassifyOptions(
        roi=Roi(tuple(options.roi[:3]), tuple(options.roi[3:])) if options.roi else None,
        slices=chosen_slices(options),
        each_frame=options.each_frame,
        explain=_explain(options),
    )
    classification_targets(options.output)  # an ending that means nothing is said before the image is read
    spec = read_spec(find_model(options.model))
    if spec.classes is None:
        raise SpecError(f"The model {spec.name} is for {spec.task}, it does not classify; use another command.")
    volume = read_looked_at(options.inputs, options.series, spec, progress)
    run = replace(run, covariates=covariates_for(options.covariates, spec.classes, options.inputs[0].name))
    targets = _targets(options, volume, run)
    with writable(targets, files_of(options.inputs, volume)):
        from MedAILib.models.open import open_model  # PyTorch and MONAI: seconds that a wrong call need not wait for

        model = open_model(find_model(options.model), options.device, options.trust_code)
        result = model.run(volume, run, progress)
        write_classified(result, volume, targets, progress)
    if options.json:
        print(json.dumps(summary(result)))


def chosen_slices(options: argparse.Namespace) -> Slices | None:
    """What --slice or --each-slice ask for; raises InputError where that makes no sense."""
    if options.slice and options.each_slice:
        raise InputError("Choose one slice or each slice, not both.")
    if options.each_slice:
        return Slices(options.each_slice.upper())
    if not options.slice:
        return None
    axis, index = options.slice
    if not index.isdigit():
        raise InputError(f"A slice is an axis and a number, such as K 12, not {axis} {index}.")
    return Slices(axis.upper(), int(index))


def _explain(options: argparse.Namespace) -> Explain | None:
    if options.explain is None and options.method is None and options.explain_class is None:
        return None
    return Explain(options.method or "grad-cam", options.explain_class)


def read_looked_at(inputs: Sequence[Path], series: str | None, spec: ModelSpec, progress: Progress) -> Volume:
    """The image; for a model of sequences one input is a clip and several are its frames, for others its channels."""
    sequence = spec.classes is not None and spec.classes.sequence
    if sequence and len(inputs) == 1:
        return read_clip(inputs[0], series, progress)
    if sequence and len(spec.channels) == 1:
        return read_frames(inputs, progress)
    return read_channels(inputs, series, progress)


def covariates_for(path: Path | None, classes: Classes, case: str) -> dict[str, float]:
    """A case's numbers from the file, where the model wants some; raises InputError where they are missing."""
    wanted = [covariate.name for covariate in classes.covariates]
    if path is None:
        if wanted:
            raise InputError(f"The model also wants {', '.join(wanted)}; give them as --covariates FILE.csv.")
        return {}
    if not wanted:
        raise InputError("The model takes no covariates; leave --covariates out.")
    return read_covariates(path, wanted, case)


def _targets(options: argparse.Namespace, volume: Volume, run: ClassifyOptions) -> ClassificationTargets:
    targets = classification_targets(options.output, volume)
    if run.explain is None:
        return targets
    several = len(targets.named()) > 1
    saliency = options.explain or (options.output / "saliency.nii.gz" if several else None)
    if saliency is None and targets.scene is None:
        raise OutputError("An explanation was asked for, but nothing to write it to; give --explain FILE.nii.gz.")
    return replace(targets, saliency=saliency)


def write_classified(
    result: Classification, volume: Volume, targets: ClassificationTargets, progress: Progress
) -> None:
    """Write every target; only when all are whole do they take their places."""
    with whole_files() as files:
        for done, (kind, target) in enumerate(targets.named().items()):
            progress.step(done, len(targets.named()), "Writing")
            with files.writing(target) as part:
                _write_one(kind, part, result, volume)


def _write_one(kind: str, path: Path, result: Classification, volume: Volume) -> None:
    match kind:
        case "record":
            path.write_text(json.dumps(record(result), indent=2) + "\n", encoding="utf-8")
        case "table":
            write_classification(result, path)
        case "saliency":
            assert result.saliency is not None, "it was asked for"
            write_scalar_volume(Volume(result.saliency.values[None], result.geometry, "saliency"), path)
        case "dicom":
            from MedAILib.files.dicom_sr import write_dicom_sr  # highdicom takes a while to load

            write_dicom_sr(result, volume, path)
        case "scene":
            from MedAILib.commands.scene_outputs import write_classification_scene  # as MRML does

            write_classification_scene(volume, result, path)
