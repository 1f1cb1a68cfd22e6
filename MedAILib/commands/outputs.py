"""What a command found becomes files: every one that was asked for, or none."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from MedAILib.commands.targets import Targets
from MedAILib.files.images import write_label_map, write_probabilities, write_uncertainty
from MedAILib.files.tables import write_statistics
from MedAILib.output import whole_files
from MedAILib.progress import Progress
from MedAILib.results import Segmentation
from MedAILib.statistics import segment_statistics
from MedAILib.volume import Volume


@dataclass(frozen=True)
class Outcome:
    """What a command found: the image, the segmentation on its grid, and a title for people."""

    volume: Volume
    segmentation: Segmentation
    title: str


def write_outcome(outcome: Outcome, targets: Targets, progress: Progress) -> None:
    """Write every target; only when all are whole do they take their places.

    Raises:
        OutputError: one can't be written; none of the files is, then, and older ones stay as they were.
        Cancelled: by `progress`, likewise.
    """
    writers = _writers(outcome)
    wanted = targets.named()
    with whole_files() as files:
        for done, (kind, target) in enumerate((kind, path) for kind, path in wanted.items() if kind in writers):
            progress.step(done, len(wanted), "Writing")
            with files.writing(target) as part:
                writers[kind](part)
        if targets.segmentation or targets.scene or targets.surfaces:
            # Only these need MRML, which takes a while to load.
            from MedAILib.commands.scene_outputs import write_scene_outputs

            write_scene_outputs(outcome.volume, outcome.segmentation, targets, files)
        if targets.picture:
            from MedAILib.scene.picture import write_picture

            with files.writing(targets.picture) as part:
                write_picture(outcome.segmentation, outcome.volume, part, outcome.title)
        progress.step(len(wanted), len(wanted), "Writing")


def _writers(outcome: Outcome) -> dict[str, Callable[[Path], None]]:
    volume, segmentation = outcome.volume, outcome.segmentation
    return {
        "label_map": lambda path: write_label_map(segmentation, path),
        "probabilities": lambda path: write_probabilities(segmentation, path),
        "uncertainty": lambda path: write_uncertainty(segmentation, path),
        "table": lambda path: write_statistics(segment_statistics(segmentation, volume), path),
        "dicom": lambda path: _write_dicom(segmentation, volume, path),
    }


def _write_dicom(segmentation: Segmentation, volume: Volume, path: Path) -> None:
    from MedAILib.files.dicom_seg import write_dicom_seg  # highdicom takes a while to load

    write_dicom_seg(segmentation, volume, path)
