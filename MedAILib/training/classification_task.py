"""What a training task of the kind "classification" says: the classes, the network, and how it is taught."""

from dataclasses import dataclass, field
from typing import Any

from MedAILib.errors import InputError

LOSSES = ("cross-entropy", "focal")
DECISIONS = ("binary", "multiclass")
# Every random change of a training image, and what its number means; 0 leaves it out.
AUGMENTATIONS = {
    "flip": "list of the axes along which an image may be mirrored",
    "rotate": "largest angle, degrees",
    "scale": "largest enlargement or reduction, as a share",
    "translate": "largest shift, as a share of the image's size",
    "gamma": "largest change of the logarithm of gamma",
    "noise": "largest standard deviation, in those of the image",
    "blur": "largest standard deviation, voxels",
    "mixup": "parameter of the beta distribution",
}


@dataclass(frozen=True)
class ClassificationTask:
    """Everything that decides the training of a classifier, read from `tasks/<name>.json`.

    Axes are those of the picture (I, J) or, after `orientation`, of the volume.

    Args:
        classes: for each class its `name`, the `labels` that data may have for it (numbers of a MedMNIST file, names
            of folders, texts of a CSV), and perhaps `code`, a terminology's; of two classes the second is the one to
            be found.
        decision: one of `DECISIONS`.
        size: what an image is resampled to, along each axis; two sizes for pictures, three for volumes.
        orientation: of volumes, three letters such as "RAS"; empty for pictures, which are taken as they lie.
        pool: the parts of the data that are learnt from (of "train", "val"), where the data has parts.
        folds: cross-validation inside of the pool; 1 trains on the training part and validates on the validation part.
        networks: how many are trained for each fold, with seeds of their own. Several are averaged, and one network
            of the same shape then learns from the average of all ("distilled"), so that one is all that is shipped.
        student: changes of the network's arguments for the distilled one.
        shipped: how many of the networks are shipped, as the mean of what they say of an image and its mirror images;
            0 ships the distilled one alone.
        loss: one of `LOSSES`.
        class_weights: "balanced" (the rarer, the heavier), "none", or a number for each class.
        augmentation: see `AUGMENTATIONS`.
        choice: "last" takes each network's weights as they are in the end, "best" those of the epoch that the images
            kept from it (of the fold, or the validation part) surprised least.
        distil_epochs: how long the distilled network learns.
        threshold: "balanced" for 0.5, "accuracy" for what was most accurate in cross-validation.
        synthetic: generators (names or folders of bundles), each of one class, whose pictures are learnt from too.
        synthetic_share: how many pictures each of them makes, as a share of its class's real ones.
        strange_quantile: images of a higher energy than this share of the pool's (of the validation part's, where
            there are no folds) are "not sure"; 0 for no such score.
        strange_validated_on: what that was tried on, in words.
        comparison: other figures for the card's table: `who`, `accuracy`, `auc`.

    Raises:
        InputError: a value that makes no sense; the sentence names it.
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
    classes: list[dict[str, Any]]
    decision: str
    size: list[int]
    orientation: str
    network: dict[str, Any]
    student: dict[str, Any]
    pool: list[str]
    folds: int
    networks: int
    seed: int
    epochs: int
    distil_epochs: int
    choice: str
    batch: int
    learning_rate: float
    weight_decay: float
    ema_decay: float
    loss: str
    class_weights: str | list[float]
    label_smoothing: float
    augmentation: dict[str, Any]
    threshold: str
    strange_quantile: float
    strange_validated_on: str
    comparison: list[dict[str, Any]]
    shipped: int = 0
    synthetic: list[str] = field(default_factory=list)
    synthetic_share: float = 1.0

    def __post_init__(self) -> None:
        weights = self.class_weights
        wrong = {
            "classes": len(self.classes) < 2 or len(set(self.names)) < len(self.classes) or self._shared_label(),
            "decision": self.decision not in DECISIONS or (self.decision == "binary") != (len(self.classes) == 2),
            "size": len(self.size) not in (2, 3) or min(self.size) < 1,
            "orientation": (len(self.size) == 2) != (self.orientation == ""),
            "pool": not self.pool or not set(self.pool) <= {"train", "val"},
            "folds": self.folds < 1,
            "networks": self.networks < 1,
            "shipped": not 0 <= self.shipped <= self.networks * self.folds,
            "epochs": self.epochs < 1 or self.distil_epochs < 1,
            "choice": self.choice not in ("last", "best"),
            "batch": self.batch < 2,
            "ema_decay": not 0 <= self.ema_decay < 1,
            "loss": self.loss not in LOSSES,
            "class_weights": weights not in ("balanced", "none")
            and (isinstance(weights, str) or len(weights) != len(self.classes) or min(weights) <= 0),
            "label_smoothing": not 0 <= self.label_smoothing < 1,
            "augmentation": not set(self.augmentation) <= set(AUGMENTATIONS),
            "synthetic_share": not 0 <= self.synthetic_share <= 100,
            "threshold": self.threshold not in ("balanced", "accuracy"),
            "strange_quantile": not 0 <= self.strange_quantile <= 1,
        }
        if bad := [key for key, is_wrong in wrong.items() if is_wrong]:
            raise InputError(f"The training task {self.name} has '{bad[0]}' = {getattr(self, bad[0])}; mend it.")

    def _shared_label(self) -> bool:
        told = [label for entry in self.classes for label in {str(x) for x in entry["labels"]}]
        return len(set(told)) < len(told)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, in the order of the network's output."""
        return tuple(str(entry["name"]) for entry in self.classes)

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """What data may call each class."""
        return {str(entry["name"]): tuple(str(x) for x in entry["labels"]) for entry in self.classes}
