"""What a batch remembers of each case: enough to know, another day, whether it need not be done again."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from MedAILib.errors import InputError
from MedAILib.output import cannot_write, whole_file

CHUNK = 1 << 20
# Files that hold no voxels, or need not.
HEADERS = (".mhd", ".nhdr", ".hdr")


@dataclass(frozen=True)
class Row:
    """One case's line in the table.

    Args:
        case: its name.
        state: "done", "failed" or "kept" (done by an earlier run of the same batch).
        reason: why it failed, for people.
        read_s, run_s, write_s: seconds of each part.
        volumes_ml: each structure's volume in mL, by name; of a segmentation.
        probabilities: each class's probability, by name, the mean over slices; of a classification.
        decision: what was decided or found, for people; of a classification or detection.
        findings: how many there are of each class, by name; of a detection.
        files: what was written, relative to the batch's folder.
        warnings: what was said on the way.
    """

    case: str
    state: str
    reason: str = ""
    read_s: float = 0.0
    run_s: float = 0.0
    write_s: float = 0.0
    volumes_ml: Mapping[str, float] = field(default_factory=dict)
    files: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    probabilities: Mapping[str, float] = field(default_factory=dict)
    decision: str = ""
    findings: Mapping[str, int] = field(default_factory=dict)


def content_sha256(images: Sequence[Path]) -> str:
    """SHA-256 over the content of a case's files, in order; of a folder, its files by name.

    Files that a header names, or that share its name (`a.mhd` and `a.raw`), count as its own.

    Raises:
        InputError: a file can't be read.
    """
    total = hashlib.sha256()
    try:
        for image in images:
            folder = image.is_dir()
            for path in sorted(path for path in image.rglob("*") if path.is_file()) if folder else _with_data(image):
                digest = hashlib.sha256()
                with path.open("rb") as stream:
                    while chunk := stream.read(CHUNK):
                        digest.update(chunk)
                total.update(digest.digest())
    except OSError as error:
        raise InputError(f"{error.filename or images[0]} can't be read: {error.strerror or error}.") from error
    return total.hexdigest()


def _with_data(image: Path) -> list[Path]:
    """An image's file, and those with its voxels where that is a header alone."""
    if image.suffix.lower() not in HEADERS:
        return [image]
    with image.open("rb") as stream:
        words = {word.strip() for line in stream.read(CHUNK).splitlines() for word in (line, *line.split(maxsplit=2))}
    named = {Path(word.decode("utf-8", "replace")).name for word in words}
    beside = [path for path in image.parent.iterdir() if path != image and path.is_file()]
    return [image, *sorted(path for path in beside if path.name in named or path.stem == image.stem)]


def keep_record(place: Path, key: Mapping[str, Any], row: Row) -> None:
    """Write down that the case with this key (content, model, options) is done.

    Raises:
        OutputError: the file can't be written.
    """
    with whole_file(place) as part:
        part.write_text(json.dumps({"key": key, "row": asdict(row)}, indent=1), encoding="utf-8")


def forget_record(place: Path) -> None:
    """Take back what is on record of a case, whose files are about to be replaced.

    Raises:
        OutputError: the file can't be removed.
    """
    try:
        place.unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(place, error) from error


def kept_row(place: Path, key: Mapping[str, Any], folder: Path) -> Row | None:
    """The line of a case that an earlier run did with the same key, if all its files are still there."""
    try:
        found = json.loads(place.read_text(encoding="utf-8"))
        if found["key"] != json.loads(json.dumps(key)):
            return None
        values = found["row"] | {"state": "kept", "files": tuple(found["row"]["files"])}
        row = Row(**values | {"warnings": tuple(found["row"]["warnings"])})
        if not (isinstance(row.case, str) and row.files and all(isinstance(name, str) for name in row.files)):
            return None
    except (OSError, ValueError, KeyError, TypeError):
        return None  # absent or damaged: the case is done again
    return row if all((folder / name).is_file() for name in row.files) else None
