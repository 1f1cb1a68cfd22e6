"""A training task: the short readable description of what is to be learnt and how."""

import json
from dataclasses import MISSING, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from MedAILib.errors import InputError
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.described import Described
from MedAILib.training.detection_task import DetectionTask, told_now
from MedAILib.training.generation_task import GenerationTask
from MedAILib.training.recipe import Z_SCORE, usual_recipe

TASKS = Path(__file__).parent / "tasks"


@dataclass(frozen=True, kw_only=True)
class SegmentationTask(Described):
    """Everything that decides a training run, read from `tasks/<name>.json`.

    Axes of `spacing_mm`, `patch` and `mirror_axes` are those of the network: first, second, third axis of
    `orientation` (for "RAS": left to right, posterior to anterior, inferior to superior). A patch of two axes makes a
    network for pictures, which are taken as they lie: columns, then rows (I, J).

    Args:
        orientation: what volumes are turned to; empty for pictures.
        spacing_mm: what images are resampled to; empty for pictures that are taken pixel by pixel.
        crop_foreground: cut the box of what is above zero before anything else.
        intensity: MONAI's transforms of values in order, without their keys; see `intensities`.
        loss: one of `losses.LOSSES`.
        class_weights: of the loss, background first; none: all alike.
        sampling: where a patch lies: "uniform", "foreground" or "classes"; see `prepare_cases`.
        sampling_ratios: with "foreground" how often a patch's centre is inside and outside of structures; with
            "classes" how often it is in each class, background first.
        samples: patches of each case in an epoch.
        augmentation: parameters by name; see `augmentations`.
        schedule: how the learning rate falls: "poly" (power 0.9), "cosine" or "constant".
        accumulate: batches whose gradients are summed up for one step.
        patience: epochs without gain after which training ends, judged on a tenth of the training cases; 0: never.
        precision: "auto", "float32" or "bfloat16".
        frozen_stages: how many of the encoder's first stages keep their initial weights.
        shipped: how many of the folds' networks go on, after cross-validation, to learn from all cases, and are the
            model; 0: the folds' own networks are it, as an ensemble. Without folds, how many networks learn from all
            cases at once, with seeds from `seed` on; 0: one.
        final_epochs: how long these go on, at half the learning rate; 0: a quarter of `epochs`.
    """

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
    crop_foreground: bool = False
    intensity: list[dict[str, Any]] = field(default_factory=lambda: [dict(Z_SCORE)])
    loss: str = "dice_ce"
    class_weights: list[float] = field(default_factory=list)
    sampling: str = "uniform"
    sampling_ratios: list[float] = field(default_factory=list)
    samples: int = 1
    augmentation: dict[str, dict[str, Any]] = field(default_factory=usual_recipe)
    schedule: str = "poly"
    accumulate: int = 1
    patience: int = 0
    precision: str = "auto"
    frozen_stages: int = 0
    shipped: int = 0
    final_epochs: int = 0

    @property
    def axes(self) -> int:
        """How many axes an image has for the network: 2 or 3."""
        return len(self.patch)

    @property
    def grid_mm(self) -> list[float]:
        """The spacing that the network sees; 1 for pictures that are taken pixel by pixel."""
        return self.spacing_mm or [1.0] * self.axes

    @property
    def final(self) -> "SegmentationTask":
        """How a fold's network goes on to learn from all cases."""
        epochs = self.final_epochs or max(self.epochs // 4, 1)
        return replace(self, epochs=epochs, learning_rate=self.learning_rate / 2, patience=0)

    @property
    def classes(self) -> int:
        """Number of the network's output channels, background included."""
        return int(self.network["out_channels"])


Task = SegmentationTask | ClassificationTask | DetectionTask | GenerationTask
# What a task's "kind" may be.
KINDS: dict[str, type[Task]] = {
    "segmentation": SegmentationTask,
    "classification": ClassificationTask,
    "detection": DetectionTask,
    "generation": GenerationTask,
}


def read_task(name: str) -> Task:
    """Read a task that ships with MedAI, or one from a JSON file of the same shape.

    Raises:
        InputError: no task of that name; unreadable file; keys missing or unknown; a value that makes no sense.
    """
    path = Path(name) if name.endswith(".json") else TASKS / f"{name}.json"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in TASKS.glob("*.json")))
        raise InputError(f"There is no training task '{name}'; known are {known}, or give a path to a .json file.")
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"The training task {path} can't be read as JSON: {error}.") from error
    kind = KINDS.get(content.pop("kind", None)) if isinstance(content, dict) else None
    if kind is None:
        raise InputError(f"The training task {path} is of no kind that MedAI trains; 'kind' is {' or '.join(KINDS)}.")
    expected = {field.name for field in fields(kind)}
    content = told_now(content) if kind is DetectionTask else content
    content = defaults(kind) | content
    if content.keys() != expected:
        raise InputError(
            f"The training task {path} lacks {sorted(expected - content.keys())} and has unknown "
            f"{sorted(content.keys() - expected)}; mend these keys."
        )
    try:
        return kind(**content)
    except (TypeError, KeyError, AttributeError) as error:
        raise InputError(f"The training task {path} has a value of a wrong type: {error}.") from error


def is_task(name: str) -> bool:
    """Whether a task is there to be read: one that ships, or a JSON file; any other name is for one to be planned."""
    return name.endswith(".json") or (TASKS / f"{name}.json").is_file()


def defaults(kind: type) -> dict[str, Any]:
    """The values of those fields of a task that a file may leave out."""
    return {f.name: f.default_factory() for f in fields(kind) if f.default_factory is not MISSING} | {
        f.name: f.default for f in fields(kind) if f.default is not MISSING
    }
