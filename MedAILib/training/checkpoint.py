"""A training's state on disk: whole after each epoch, and only ever taken up by the training that wrote it."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from MedAILib.errors import InputError, ModelError, OutputError
from MedAILib.models.weights import load_weights, save_checkpoint
from MedAILib.output import whole_file
from MedAILib.training.processes import is_first, process_count, said_by_first

CHECKPOINT = "checkpoint.pt"
STARTED = "started.json"
BEFORE = {"processes": 1, "patience": 0, "frozen_stages": 0, "sampling": "findings"}  # as it was without these keys


class OtherTrainingError(InputError):
    """What is to be resumed is not there, can't be read, or is another training's; nothing was changed."""


def begin(folder: Path, identity: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """Take up a training's state, or note that one begins here; of several processes the first does, the others follow.

    Raises:
        OtherTrainingError, OutputError: as `begin_alone`.
    """
    state = begin_alone(folder, identity, resume) if is_first() else None
    if process_count() == 1:
        return state
    there = said_by_first(float(state is not None))
    return load_weights(folder / CHECKPOINT) if there and not is_first() else state


def begin_alone(folder: Path, identity: dict[str, Any], resume: bool) -> dict[str, Any] | None:
    """Take up a training's state, or note that one begins here.

    Args:
        folder: of the checkpoints.
        identity: all that decides the result, as plain values.
        resume: whether to go on; a training that was stopped before its first epoch's end begins again.

    Returns:
        the last whole epoch's state; None where there is none yet.

    Raises:
        OtherTrainingError: there is nothing to resume, or it is another training's; the sentence says what differs.
        OutputError: the folder can't be written.
    """
    state, started = folder / CHECKPOINT, folder / STARTED
    if not resume:
        state.unlink(missing_ok=True)
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(f"The checkpoints can't be written to {folder}: {error.strerror}.") from error
        with whole_file(started) as part:
            part.write_text(json.dumps(identity, indent=2) + "\n", encoding="utf-8")
        return None
    if not started.is_file() and not state.is_file():
        raise OtherTrainingError(f"There is nothing to resume: {state} does not exist.")
    try:
        before = json.loads(started.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise OtherTrainingError(f"{started} can't be read; start the training anew, without --resume.") from error
    if differing := _differing(before, json.loads(json.dumps(identity))):
        raise OtherTrainingError(
            f"{folder} is of another training: {', '.join(differing[:6])} differ(s); resume with the task, data and "
            "options it was started with, or start anew without --resume (of --fold all a part alone begins anew where "
            "its folder is removed)."
        )
    if not state.is_file():
        return None
    try:
        return load_weights(state)
    except ModelError as error:
        raise OtherTrainingError(f"{state} can't be read; start the training anew, without --resume.") from error


def keep(content: dict[str, Any], folder: Path) -> None:
    """Write a state, of several processes the first's; a kill at any moment leaves the old one or the new one.

    Raises:
        OutputError: the disk is full, or does not take it for another reason; the last state stays.
    """
    if is_first():
        save_checkpoint(content, folder / CHECKPOINT)


def require_room(folder: Path, weights_bytes: int) -> None:
    """Raise `OutputError` where the disk has no room for checkpoints: two, each of weights, averages and moments."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free, needed = shutil.disk_usage(there).free, 2 * 5 * weights_bytes
    if free < needed:
        raise OutputError(
            f"The disk of {folder} has {free / 1e6:.0f} MB left, and checkpoints take {needed / 1e6:.0f} MB; free some "
            "space or choose another folder."
        )


def identity_of(task: Any, **more: Any) -> dict[str, Any]:
    """All that decides a training's result, as plain values: the task's keys, how many train, what else is given."""
    return {**asdict(task), "processes": process_count(), **more}


def digest_of_weights(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 of weights by name."""
    told = hashlib.sha256()
    for name in sorted(weights):
        told.update(name.encode() + weights[name].detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
    return told.hexdigest()


def forget(folder: Path) -> None:
    """Remove a training's state, so that no later one takes it up."""
    for name in (CHECKPOINT, STARTED):
        (folder / name).unlink(missing_ok=True)


def _differing(before: Any, now: dict[str, Any]) -> list[str]:
    if not isinstance(before, dict):
        return ["all"]
    before = BEFORE | before
    return [key for key in now if before.get(key) != now[key]]
