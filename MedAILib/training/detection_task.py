"""What a training task of the kind "detection" says: the findings, the network and its anchors, how it is taught."""

from dataclasses import dataclass, field
from typing import Any

from MedAILib.errors import InputError
from MedAILib.training.classification_task import PRECISIONS
from MedAILib.training.described import Described
from MedAILib.training.recipe import Z_SCORE

CLASS_LOSSES = ("bce", "focal")
BOX_LOSSES = ("giou", "smooth_l1")
SCHEDULES = ("poly", "cosine", "constant")
SAMPLINGS = ("findings", "classes")
POOLED = 2  # by the first layers of a residual network, after its first convolution


def _backbone() -> dict[str, Any]:
    group = ["group", {"num_groups": 8}]
    return {"_target_": "resnet18", "conv1_t_size": [7, 7, 7], "conv1_t_stride": [2, 2, 2], "norm": group}


def former_recipe(noise: float = 0.1) -> dict[str, dict[str, Any]]:
    """How images are changed for a task that does not say it, as all were before tasks could.

    Args:
        noise: its largest standard deviation.
    """
    recipe: dict[str, dict[str, Any]] = {"flip": {"prob": 0.5}}
    recipe |= {"noise": {"prob": 0.5, "std": noise}} if noise else {}
    return recipe | {"brightness": {"prob": 0.5, "factor": 0.1}, "offset": {"prob": 0.5, "amount": 0.1}}


def told_now(content: dict[str, Any]) -> dict[str, Any]:
    """A task as a file has it, in the keys of now: before there was an augmentation, a task said `noise` alone."""
    noise = content.get("noise")
    if noise is None or "augmentation" in content:
        return content
    kept = {key: value for key, value in content.items() if key != "noise"}
    return {**kept, "augmentation": former_recipe(noise)}


@dataclass(frozen=True, kw_only=True)
class DetectionTask(Described):
    """Everything that decides the training of a detector, read from `tasks/<name>.json`.

    Axes of `spacing_mm`, `patch`, `anchors` and `mirror_axes` are those of the network: first, second, third axis of
    `orientation`. What is left empty is planned from the data.

    Args:
        classes: for each class its `name`, the `labels` that data may have for it (values of a label map, texts of a
            list of boxes; without them its name and its number, from 1 on), and perhaps `code`, a terminology's. Empty:
            every label that the data has.
        spacing_mm: empty: the median of the data's.
        patch: the size of what is learnt from at a time, and of the windows that are laid over an image; voxels.
        intensity: MONAI's transforms of values in order, without their keys.
        backbone: MONAI's residual network.
        returned_layers: which of its layers 1 to 4 give a map of features each; a coarser one is added.
        width: channels of each map, a multiple of 8.
        anchors: sizes of boxes that the finest map starts from, voxels; empty: three sizes that the data's boxes have.
        class_loss: one of `CLASS_LOSSES`.
        box_loss: one of `BOX_LOSSES`.
        box_weight: of the loss of boxes, against that of classes.
        candidates: anchors of each level that ATSS chooses from for a box.
        hard_negatives: of MONAI's sampler: `batch_size_per_image`, `positive_fraction`, `min_neg`, `pool_size`; empty:
            all anchors count alike.
        samples: patches of each image in an epoch; half of them, on average, lie around a finding.
        sampling: around which: "findings", any of the image's, or "classes", any of a class that is drawn first from
            those that the image has, so that beside others a rare one is seen as often.
        mirror_axes: axes along which images are mirrored while they are learnt from.
        schedule: how the learning rate falls after its first rise: "poly" (power 0.9), "cosine" or "constant".
        accumulate: batches whose gradients are summed up for one step.
        augmentation: parameters by name; see `augmentations`. The axes that "flip" mirrors along are `mirror_axes`.
        precision: of the network: "auto" (bfloat16 where the device computes in it, else float32), "float32" or
            "bfloat16"; losses are in float32.
        patience: epochs without gain after which training ends, judged by the loss on a tenth of the images that are
            to be learnt from; the best epoch's weights are taken. 0: never.
        frozen_stages: with `--initial`, how many of the backbone's first stages keep that model's weights.
        score_threshold, overlap_limit, most: of the detector: see `DetectionPlan`.

    Raises:
        InputError: a value that makes no sense; the sentence names it.
    """

    channels: list[str]
    classes: list[dict[str, Any]]
    patch: list[int]
    epochs: int
    orientation: str = "RAS"
    spacing_mm: list[float] = field(default_factory=list)
    intensity: list[dict[str, Any]] = field(default_factory=lambda: [dict(Z_SCORE)])
    backbone: dict[str, Any] = field(default_factory=_backbone)
    returned_layers: list[int] = field(default_factory=lambda: [1, 2])
    width: int = 128
    anchors: list[list[float]] = field(default_factory=list)
    class_loss: str = "bce"
    box_loss: str = "giou"
    box_weight: float = 1.0
    candidates: int = 4
    hard_negatives: dict[str, Any] = field(
        default_factory=lambda: {"batch_size_per_image": 64, "positive_fraction": 0.3, "min_neg": 16, "pool_size": 20}
    )
    samples: int = 2
    mirror_axes: list[int] = field(default_factory=list)
    augmentation: dict[str, dict[str, Any]] = field(default_factory=former_recipe)
    seed: int = 12345
    folds: int = 5
    batch: int = 2
    learning_rate: float = 0.001
    weight_decay: float = 0.0001
    ema_decay: float = 0.99
    schedule: str = "cosine"
    accumulate: int = 1
    score_threshold: float = 0.05
    overlap_limit: float = 0.2
    most: int = 100
    precision: str = "float32"
    patience: int = 0
    sampling: str = "findings"
    frozen_stages: int = 0

    def __post_init__(self) -> None:
        names = self.names
        wrong = {
            "channels": not self.channels,
            "classes": len(set(names)) < len(names) or self._shared_label(),
            "patch": len(self.patch) != 3 or min(self.patch) < 1,
            "epochs": self.epochs < 1,
            "spacing_mm": bool(self.spacing_mm) and (len(self.spacing_mm) != 3 or min(self.spacing_mm) <= 0),
            "returned_layers": not self.returned_layers
            or not set(self.returned_layers) <= {1, 2, 3, 4}
            or sorted(self.returned_layers) != self.returned_layers,
            "width": self.width < 8 or self.width % 8 != 0,
            "anchors": any(len(shape) != 3 or min(shape) <= 0 for shape in self.anchors),
            "class_loss": self.class_loss not in CLASS_LOSSES,
            "box_loss": self.box_loss not in BOX_LOSSES,
            "box_weight": self.box_weight <= 0,
            "candidates": self.candidates < 1,
            "samples": self.samples < 1,
            "mirror_axes": not set(self.mirror_axes) <= {0, 1, 2},
            "folds": self.folds < 1,
            "batch": self.batch < 1,
            "learning_rate": self.learning_rate <= 0,
            "schedule": self.schedule not in SCHEDULES,
            "accumulate": self.accumulate < 1,
            "ema_decay": not 0 <= self.ema_decay < 1,
            "score_threshold": not 0 <= self.score_threshold <= 1,
            "overlap_limit": not 0 <= self.overlap_limit <= 1,
            "most": self.most < 1,
            "precision": self.precision not in PRECISIONS,
            "patience": self.patience < 0,
            "sampling": self.sampling not in SAMPLINGS,
            "frozen_stages": self.frozen_stages < 0,
        }
        if bad := [key for key, is_wrong in wrong.items() if is_wrong]:
            raise InputError(f"The training task {self.name} has '{bad[0]}' = {getattr(self, bad[0])}; mend it.")
        if uneven := [n for n, k in zip(self.patch, self.size_divisible, strict=True) if n % k]:
            raise InputError(
                f"The training task {self.name} has a 'patch' of {self.patch}, and {uneven[0]} is no multiple of its "
                f"network's {self.size_divisible}; mend it."
            )

    @property
    def axes(self) -> int:
        """How many axes an image has for the network."""
        return 3

    def _shared_label(self) -> bool:
        told = [label for labels in self.labels.values() for label in labels]
        return len(set(told)) < len(told)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, in the order of the network's output."""
        return tuple(str(entry["name"]) for entry in self.classes)

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """What data may call each class."""
        return {
            str(entry["name"]): tuple(str(x) for x in entry.get("labels", (entry["name"], number)))
            for number, entry in enumerate(self.classes, start=1)
        }

    @property
    def size_divisible(self) -> list[int]:
        """Images are padded to multiples of this, along each axis, so that the coarsest map has whole voxels."""
        return [POOLED * stride * 2 ** max(self.returned_layers) for stride in strides_of(self.backbone)]

    @property
    def scales(self) -> list[int]:
        """How many times larger anchors are on each map, the finest first."""
        first = min(self.returned_layers)
        return [2 ** (layer - first) for layer in (*self.returned_layers, max(self.returned_layers) + 1)]


def strides_of(backbone: dict[str, Any]) -> list[int]:
    """The strides of a residual network's first convolution, along each axis."""
    told = backbone.get("conv1_t_stride", 1)
    return [int(n) for n in told] if isinstance(told, (list, tuple)) else [int(told)] * 3
