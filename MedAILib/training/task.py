"""A training task: the short readable description of what is to be learnt and how."""

import json
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from MedAILib.errors import InputError
from MedAILib.training.classification_task import ClassificationTask

TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True)
class SegmentationTask:
    """Everything that decides a training run, read from `tasks/<name>.json`.

    Axes of `spacing_mm`, `patch` and `mirror_axes` are those of the network: first, second, third axis of
    `orientation` (for "RAS": left to right, posterior to anterior, inferior to superior).
    """

    name: str
    version: str
    title: str
    description: str
    authors: str
    copyright: str
    licence: str
    data_source: str
    intended_use: str
    references: list[str]
    warnings: list[str]
    modality: str
    channels: list[str]
    labels: list[dict[str, Any]]
    orientation: str
    spacing_mm: list[float]
    patch: list[int]
    network: dict[str, Any]
    seed: int
    folds: int
    epochs: int
    batch: int
    learning_rate: float
    weight_decay: float
    ema_decay: float
    mirror_axes: list[int]
    deep_supervision_weights: list[float]

    @property
    def classes(self) -> int:
        """Number of the network's output channels, background included."""
        return int(self.network["out_channels"])


# What a task's "kind" may be.
KINDS: dict[str, type[SegmentationTask] | type[ClassificationTask]] = {
    "segmentation": SegmentationTask,
    "classification": ClassificationTask,
}


def read_task(name: str) -> SegmentationTask | ClassificationTask:
    """Read a task that ships with MedAI, or one from a JSON file of the same shape.

    Raises:
        InputError: no task of that name; unreadable file; keys missing or unknown; a value that makes no sense.
    """
    path = Path(name) if name.endswith(".json") else TASKS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in TASKS.glob("*.json")))
        raise InputError(f"There is no training task '{name}'; known are {known}, or give a path to a .json file.")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(f"The training task {path} can't be read as JSON: {error}.") from error
    kind = KINDS.get(content.pop("kind", None)) if isinstance(content, dict) else None
    if kind is None:
        raise InputError(f"The training task {path} is of no kind that MedAI trains; 'kind' is {' or '.join(KINDS)}.")
    expected = {field.name for field in fields(kind)}
    if content.keys() != expected:
        raise InputError(
            f"The training task {path} lacks {sorted(expected - content.keys())} and has unknown "
            f"{sorted(content.keys() - expected)}; mend these keys."
        )
    try:
        return kind(**content)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"The training task {path} has a value of a wrong type: {error}.") from error
