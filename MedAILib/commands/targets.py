"""Where a command's results go, and whether they can be written there: known before the work."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, fields
from pathlib import Path

from MedAILib.errors import OutputError
from MedAILib.files.images import SLICE_ENDING, VOLUME_ENDINGS
from MedAILib.output import cannot_write, is_folder
from MedAILib.volume import Volume

_FILES = (".mrb", ".dcm")


class Named:
    """A dataclass of paths, each None where its kind of result was not asked for."""

    def named(self) -> dict[str, Path]:
        """The paths that are set, by kind."""
        pairs = ((entry.name, getattr(self, entry.name)) for entry in fields(self))  # type: ignore[arg-type]
        return {name: path for name, path in pairs if path is not None}


@dataclass(frozen=True)
class Targets(Named):
    """One path for each kind of result that was asked for; `surfaces` is a folder, the others are files."""

    label_map: Path | None = None
    segmentation: Path | None = None
    scene: Path | None = None
    dicom: Path | None = None
    table: Path | None = None
    probabilities: Path | None = None
    uncertainty: Path | None = None
    surfaces: Path | None = None
    picture: Path | None = None


@dataclass(frozen=True)
class ClassificationTargets(Named):
    """One path for each kind of a classification's results that was asked for."""

    record: Path | None = None
    table: Path | None = None
    scene: Path | None = None
    dicom: Path | None = None
    saliency: Path | None = None


@dataclass(frozen=True)
class DetectionTargets(Named):
    """One path for each kind of a detection's results that was asked for."""

    record: Path | None = None
    table: Path | None = None
    scene: Path | None = None
    dicom: Path | None = None


def targets_for(output: Path, volume: Volume | None = None) -> Targets:
    """What an OUTPUT stands for, by its ending; a folder, or a name without an ending, gets all that apply.

    Args:
        output: file or folder.
        volume: the image, once it is read: not every kind of result suits every image.

    Raises:
        OutputError: an ending that stands for nothing; DICOM SEG of what is no DICOM; PNG of several slices.
    """
    from_dicom = volume is None or "files" in volume.provenance
    name = output.name.lower()
    if _for_a_folder(output, (*VOLUME_ENDINGS, SLICE_ENDING, *_FILES)):
        return Targets(
            label_map=output / "labels.nii.gz",
            segmentation=output / "segmentation.seg.nrrd",
            scene=output / "scene.mrb",
            dicom=output / "segmentation.dcm" if from_dicom else None,
            table=output / "volumes.csv",
        )
    if name.endswith(".seg.nrrd"):
        return Targets(segmentation=output)
    if name.endswith(VOLUME_ENDINGS):
        return Targets(label_map=output)
    if name.endswith(SLICE_ENDING):
        if volume is not None and volume.geometry.shape_kji[0] != 1:
            raise OutputError(f"{output}: a PNG holds one slice, {volume.name} has several; use .nii.gz.")
        return Targets(label_map=output)
    if name.endswith(".mrb"):
        return Targets(scene=output)
    if name.endswith(".dcm"):
        if not from_dicom:
            raise OutputError(
                f"{output}: a DICOM SEG refers to DICOM images; give a DICOM series as input, or .nii.gz."
            )
        return Targets(dicom=output)
    raise OutputError(
        f"{output}: this ending stands for no kind of result; use {', '.join(VOLUME_ENDINGS)}, .png, .seg.nrrd, "
        ".mrb, .dcm, or a folder."
    )


def classification_targets(output: Path, volume: Volume | None = None) -> ClassificationTargets:
    """What an OUTPUT stands for, for classifications; as `targets_for`.

    Raises:
        OutputError: an ending that stands for nothing; a DICOM report on what is no DICOM.
    """
    from_dicom = volume is None or "files" in volume.provenance
    name = output.name.lower()
    if _for_a_folder(output, (".json", ".csv", *_FILES)):
        return ClassificationTargets(
            record=output / "classification.json",
            table=output / "classification.csv",
            scene=output / "scene.mrb",
            dicom=output / "classification.dcm" if from_dicom else None,
        )
    kinds = {".json": "record", ".csv": "table", ".mrb": "scene", ".dcm": "dicom"}
    kind = next((kind for ending, kind in kinds.items() if name.endswith(ending)), None)
    if kind is None:
        raise OutputError(
            f"{output}: this ending stands for no result of a classification; use .json, .csv, .mrb, .dcm, or a folder."
        )
    if kind == "dicom" and not from_dicom:
        raise OutputError(f"{output}: a DICOM report refers to DICOM images; give a DICOM series as input, or .json.")
    return ClassificationTargets(**{kind: output})


def detection_targets(output: Path, volume: Volume | None = None) -> DetectionTargets:
    """What an OUTPUT stands for, for findings; as `targets_for`.

    Raises:
        OutputError: an ending that stands for nothing; a DICOM report on what is no DICOM.
    """
    from_dicom = volume is None or "files" in volume.provenance
    name = output.name.lower()
    if _for_a_folder(output, (".json", ".csv", *_FILES)):
        return DetectionTargets(
            output / "findings.json",
            output / "findings.csv",
            output / "scene.mrb",
            output / "findings.dcm" if from_dicom else None,
        )
    kinds = {".json": "record", ".csv": "table", ".mrb": "scene", ".dcm": "dicom"}
    kind = next((kind for ending, kind in kinds.items() if name.endswith(ending)), None)
    if kind is None:
        raise OutputError(
            f"{output}: this ending stands for no kind of findings; use .json, .csv, .mrb, .dcm, or a folder."
        )
    if kind == "dicom" and not from_dicom:
        raise OutputError(f"{output}: a DICOM report refers to DICOM images; give a DICOM series as input, or .json.")
    return DetectionTargets(**{kind: output})


def _for_a_folder(output: Path, endings: tuple[str, ...]) -> bool:
    """Whether OUTPUT stands for a folder: one that is there, unless it is named like a file, or one to be made.

    Raises:
        OutputError: nothing can be written there.
    """
    there, name = is_folder(output), output.name.lower()
    return (there and not name.endswith(endings)) or "." not in name


def files_of(inputs: Sequence[Path], volume: Volume) -> list[Path]:
    """Every file that an image was read from."""
    return [*inputs, *(Path(name) for name in volume.provenance.get("files", "").splitlines())]


@contextmanager
def writable(targets: Named, inputs: Sequence[Path] = ()) -> Iterator[None]:
    """Find out before the work whether its results can be written; folders are made, and taken back if it fails.

    Args:
        targets: what is to be written.
        inputs: files that must not be written over.

    Raises:
        OutputError: no permission, a file where a folder should be, a folder where a file should be, a wrong ending,
            one path for two results, or a result in the place of an input.
    """
    made: list[Path] = []
    try:
        _require_own_places(targets, inputs)
        for kind, path in targets.named().items():
            _require_ending(kind, path)
            folder = path if kind == "surfaces" else path.parent
            try:
                absent = [parent for parent in (folder, *folder.parents) if not parent.exists()]
                folder.mkdir(parents=True, exist_ok=True)
                made += reversed(absent)
                with tempfile.TemporaryFile(dir=folder):
                    pass  # permissions, read-only disks: nothing tells as surely as trying
            except OSError as error:
                raise cannot_write(path, error) from error
            if kind != "surfaces" and path.is_dir():
                raise OutputError(f"{path} can't be written: it is a folder; name a file instead.")
        yield
    except BaseException:
        for folder in reversed(made):
            with suppress(OSError):  # not empty: something is in there that is not ours
                folder.rmdir()
        raise


def _require_own_places(targets: Named, inputs: Sequence[Path]) -> None:
    taken = {path.resolve(): f"it is an input, {path}" for path in inputs}
    for kind, path in targets.named().items():
        place = path.resolve()
        if place in taken:
            raise OutputError(f"{path} can't be written: {taken[place]}; choose another name.")
        taken[place] = f"the {kind.replace('_', ' ')} is to be written there"


def _require_ending(kind: str, path: Path) -> None:
    endings = {
        "table": (".csv",),
        "probabilities": VOLUME_ENDINGS,
        "saliency": VOLUME_ENDINGS,
        "uncertainty": VOLUME_ENDINGS,
        "picture": (".png",),
    }.get(kind)
    if endings and not path.name.lower().endswith(endings):
        raise OutputError(f"{path}: this ending is none that the {kind} can have; use {', '.join(endings)}.")
