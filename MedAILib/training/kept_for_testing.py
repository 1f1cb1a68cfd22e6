"""Images that a data folder keeps for testing (`imagesTs`): none of them, and of their patients, may be learnt from."""

from collections.abc import Sequence
from pathlib import Path

from MedAILib.errors import MedAIError
from MedAILib.files.images import read_channels
from MedAILib.progress import Progress
from MedAILib.training.cases import KEPT_FOR_TESTING, NUMBERED, Case, Fault, image_paths, stem_of
from MedAILib.training.examine import CaseFacts, sha256_of
from MedAILib.training.patients import patients_in_both

((KEPT, _),) = KEPT_FOR_TESTING


def faults_of_test_part(folder: Path, facts: Sequence[CaseFacts], progress: Progress) -> list[Fault]:
    """Images, and patients, that are both for training and kept for testing, whether these have labels or not.

    Args:
        folder: the data.
        facts: of each case for training.
        progress: hears each image that is kept for testing.

    Raises:
        InputError: `patients.csv` can't be read.
        Cancelled: by `progress`.
    """
    images, trained = folder / KEPT, [fact.case for fact in facts]
    if not images.is_dir() or not facts:
        return []
    cases = _cases_in(images, trained)
    same_patient = patients_in_both(folder, trained, cases)
    known = {fact.image_sha256: fact.case.name for fact in facts}
    faults = []
    for number, case in enumerate(cases):
        progress.step(number, len(cases), f"Checking {case.name}, which is kept for testing")
        what, other = "the same image as", known.get(_digest_of(case))
        if other is None:
            what, other = "of the same patient as", same_patient.get(case.name)
        if other is not None:
            text = f"{case.images[0]} is {what} {other}, which is for training; remove one of them."
            faults.append(Fault(case.name, text))
    return faults


def _cases_in(images: Path, trained: Sequence[Case]) -> list[Case]:
    """The images of a folder, each with all its channels, named as those for training are."""
    numbered = all(stem_of(case.images[0]) != case.name for case in trained)
    files: dict[str, list[Path]] = {}
    for path in image_paths(images):
        stem = stem_of(path)
        files.setdefault(NUMBERED.sub("", stem) if numbered else stem, []).append(path)
    return [Case(name, tuple(channels), channels[0]) for name, channels in files.items()]


def _digest_of(case: Case) -> str:
    try:
        return sha256_of(read_channels(case.images).data)
    except MedAIError:
        return ""  # a test image that can't be read is no concern of the training
