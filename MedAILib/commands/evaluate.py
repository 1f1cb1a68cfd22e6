"""`medai evaluate`: a model against reference labels, as a report."""

import argparse
import shlex
from collections.abc import Sequence

from MedAILib.errors import InputError
from MedAILib.models.classifier import ClassifierModel
from MedAILib.models.open import OpenedModel, open_model
from MedAILib.models.store import find_model
from MedAILib.output import require_writable
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.training.boxed_images import as_case, find_boxed_cases, label_names
from MedAILib.training.cases import KEPT_FOR_TESTING, LAYOUTS, Case, case_names, read_labels
from MedAILib.training.classification_report import write_classifier_evaluation
from MedAILib.training.compare_classifiers import compare_classifiers, require_alike
from MedAILib.training.compare_detectors import compare_detectors
from MedAILib.training.compare_models import Comparison, compare_models
from MedAILib.training.data_folder import find_cases
from MedAILib.training.detection_report import write_detector_evaluation
from MedAILib.training.evaluate import Evaluation, evaluate_segmentation
from MedAILib.training.evaluate_classifier import evaluate_classifier
from MedAILib.training.evaluate_detector import evaluate_detector
from MedAILib.training.labelled_images import LabelledImage, find_labelled_images, part_of
from MedAILib.training.patients import known_patients
from MedAILib.training.report import write_evaluation


def run_evaluate(options: argparse.Namespace, progress: Progress) -> None:
    """Run a model on labelled images and write how well it did.

    Raises:
        MedAIError: the model, the data or the report's folder is at fault.
        Cancelled: by `progress`; an older report stays as it was.
    """
    require_writable(options.output)
    model = open_model(find_model(options.model), options.device, options.trust_code)
    if isinstance(model, ClassifierModel):
        _classifier(model, options, progress)
        return
    if model.spec.task == "detection":
        _detector(model, options, progress)
        return
    _require_segmentation(model)
    if options.split == "val":
        raise InputError("Label maps have no part val; give --split test for imagesTs, or --only with a list of cases.")
    layouts = KEPT_FOR_TESTING if options.split == "test" else LAYOUTS
    own = {label.value: label.name for label in model.spec.labels}
    every = find_cases(options.data, len(model.spec.channels), layouts, own)
    cases, patients = _chosen(options, every), _patients(options, every)
    labels = read_labels(options.data) if (options.data / "dataset.json").exists() else own
    evaluation = evaluate_segmentation(model, cases, labels, progress, RunOptions(mirror=options.mirror), patients)
    comparison = _comparison(evaluation, cases, labels, options, progress)
    write_evaluation(evaluation, options.output, _command(options), comparison)


def _patients(options: argparse.Namespace, cases: Sequence[Case]) -> dict[str, str]:
    """Whose the cases are, as far as the data tells; names that the part for training has, too, are that part's."""
    training = options.data / LAYOUTS[0][0]
    others = case_names(training) if options.split == "test" and training.is_dir() else set()
    return known_patients(options.data, cases, others)


def _require_segmentation(model: OpenedModel) -> None:
    """Raise `InputError` for a model whose answers no label map judges."""
    name, task = model.spec.name, model.spec.task
    if task in ("generation", "image-to-image"):
        raise InputError(
            f"The model {name} makes images (its task is {task}), which have no labels to be evaluated by; look at "
            "them with medai generate, or compare classifiers that learnt with and without them."
        )
    if task != "segmentation":
        raise InputError(f"The model {name} is for {task}, not for segmentation; compare models of one task.")


def _comparison(
    evaluation: Evaluation,
    cases: tuple[Case, ...],
    labels: dict[int, str],
    options: argparse.Namespace,
    progress: Progress,
) -> Comparison | None:
    """The model that `--compare` names, on the same cases; None without it."""
    if options.compare is None:
        return None
    other = open_model(find_model(options.compare), options.device, options.trust_code)
    _require_segmentation(other)
    run = RunOptions(mirror=options.mirror)
    return compare_models(evaluation, evaluate_segmentation(other, cases, labels, progress, run))


def _classifier(model: ClassifierModel, options: argparse.Namespace, progress: Progress) -> None:
    if options.mirror:
        raise InputError("--mirror is for segmentation; leave it out.")
    other = None if options.compare is None else _other_classifier(options)
    if other is not None:
        require_alike(model.spec, other.spec)
    classes = model.spec.classes
    several = classes is not None and classes.kind == "multilabel"
    images = find_labelled_images(options.data, classes is not None and classes.sequence, several)
    split = options.split or _part_to_judge_by(images)
    part = part_of(images, (split,)) if split else images
    if not part:
        raise InputError(f"{options.data} has no images for {split}; choose another --split, or leave it out.")
    names = _named(options, [image.name for image in part])
    chosen = tuple(image for image in part if image.name in names)
    evaluation = evaluate_classifier(model, chosen, progress, split)
    comparison = None
    if other is not None:
        comparison = compare_classifiers(evaluation, evaluate_classifier(other, chosen, progress, split))
    write_classifier_evaluation(evaluation, options.output, _command(options), comparison)


def _other_classifier(options: argparse.Namespace) -> ClassifierModel:
    other = open_model(find_model(options.compare), options.device, options.trust_code)
    if not isinstance(other, ClassifierModel):
        raise InputError(f"The model {other.spec.name} is no classifier; compare with one.")
    return other


def _detector(model: OpenedModel, options: argparse.Namespace, progress: Progress) -> None:
    if options.mirror or options.split:
        raise InputError("--mirror and --split are not for detectors; leave them out.")
    other = None
    if options.compare is not None:
        other = open_model(find_model(options.compare), options.device, options.trust_code)
        if other.spec.task != "detection":
            raise InputError(f"The model {other.spec.name} is no detector; compare with one.")
    spec = model.spec
    every = find_boxed_cases(options.data, len(spec.channels))
    told = spec.finding_labels or tuple((str(number),) for number in range(1, len(spec.findings) + 1))
    names = label_names(options.data, dict(zip(spec.findings, told, strict=True)))
    chosen = _named(options, [case.name for case in every])
    cases = [case for case in every if case.name in chosen]
    patients = known_patients(options.data, [as_case(case) for case in every])
    evaluation = evaluate_detector(model, cases, names, progress, patients)
    comparison = None
    if other is not None:
        comparison = compare_detectors(evaluation, evaluate_detector(other, cases, names, progress))
    write_detector_evaluation(evaluation, options.output, _command(options), comparison)


def _part_to_judge_by(images: tuple[LabelledImage, ...]) -> str:
    """The part kept for the last measurement where the data has one, else that for validation, else all."""
    there = {image.split for image in images}
    return next((split for split in ("test", "val") if split in there), "")


def _command(options: argparse.Namespace) -> str:
    """The command line that repeats this evaluation."""
    words = ["medai", "evaluate", "-m", options.model, "--data", options.data, "-o", options.output]
    words += ["--device", options.device, *(["--only", options.only] if options.only else [])]
    words += ["--split", options.split] if options.split else []
    words += ["--compare", options.compare] if options.compare else []
    return shlex.join(str(word) for word in [*words, *(["--mirror"] if options.mirror else [])])


def _chosen(options: argparse.Namespace, cases: tuple[Case, ...]) -> tuple[Case, ...]:
    """The cases that the file given by `--only` names; all without it."""
    names = _named(options, [case.name for case in cases])
    return tuple(case for case in cases if case.name in names)


def _named(options: argparse.Namespace, there: list[str]) -> set[str]:
    """Those of the names that are there that `--only` asks for, one a line in its file; all without it."""
    if options.only is None:
        return set(there)
    try:
        names = set(options.only.read_text(encoding="utf-8-sig").split())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"The list of cases {options.only} can't be read: {error}.") from error
    missing = sorted(names - set(there))
    if missing or not names:
        raise InputError(f"The list of cases {options.only} names {missing or 'none'}, which {options.data} has not.")
    return names
