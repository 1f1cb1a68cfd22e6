"""Networks converted for other engines and what came of trying those, in the user's store, by the models' hashes."""

import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

from MedAILib.errors import OutputError
from MedAILib.output import cannot_write
from MedAILib.store.content import size_bytes
from MedAILib.store.folders import work_folder

MOST_BYTES = 4_000_000_000
# What was used so recently may be in use by another run.
IN_USE_S = 600.0
RECORD = "tried.json"


def engine_folder(sha256: str) -> Path:
    """The folder of a model's conversions and record, made where it is not there; others' give way to the size limit.

    Raises:
        OutputError: it can't be made.
    """
    folder = _folder(sha256)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
    except OSError as error:
        raise cannot_write(folder, error) from error
    _forget_unused(folder)
    return folder


def read_trials(sha256: str) -> dict[str, Any]:
    """What is on record of a model's trials, by machine and window; nothing where there is none or it is damaged."""
    try:
        content = json.loads((_folder(sha256) / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def keep_trials(sha256: str, key: str, trials: dict[str, Any]) -> None:
    """Add to what is on record; where it can't be written, it is tried again another time."""
    try:
        place = engine_folder(sha256) / RECORD
        part = place.with_name(f"{RECORD}.{os.getpid()}")
        part.write_text(json.dumps(read_trials(sha256) | {key: trials}, indent=1), encoding="utf-8")
        part.replace(place)
    except (OSError, OutputError):
        return


def engines_size() -> int:
    """The bytes that conversions take."""
    return size_bytes(work_folder() / "engines")


def forget_engines(staging: Path) -> None:
    """Move all conversions and records into a folder that will be removed.

    Raises:
        OutputError: they can't be moved.
    """
    place = work_folder() / "engines"
    try:
        if place.is_dir():
            place.rename(staging / "engines")
    except OSError as error:
        raise cannot_write(place, error) from error


def _folder(sha256: str) -> Path:
    return work_folder() / "engines" / sha256


def _forget_unused(keep: Path) -> None:
    """Remove what was used longest ago until the rest takes at most `MOST_BYTES`."""
    total = size_bytes(keep.parent)
    if total <= MOST_BYTES:
        return
    others = sorted((path for path in keep.parent.iterdir() if path != keep), key=lambda path: path.stat().st_mtime)
    for path in others:
        if total <= MOST_BYTES or path.stat().st_mtime > time.time() - IN_USE_S:
            return
        total -= size_bytes(path)
        shutil.rmtree(path, ignore_errors=True)
