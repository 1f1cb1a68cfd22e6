"""What a training task of the kind "classification" says: the classes, the network, and how it is taught."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from MedAILib.errors import InputError
from MedAILib.models.efficientnet_lite import BLOCKS
from MedAILib.training.classification_augmentations import require_augmentation
from MedAILib.training.classification_networks import fitted
from MedAILib.training.decision import Decision, LossOptions
from MedAILib.training.decisions import KINDS, decision_of
from MedAILib.training.described import Described
from MedAILib.training.intensities import intensity_entries

WITHOUT_MONAI = "Stock MONAI has no network of sequences and takes no clips apart: MedAI alone runs this model."
NOT_MONAIS = "Stock MONAI has no such network and can't build it: MedAI runs this model, MONAI alone does not."
LOSSES = ("cross-entropy", "focal")
DECISIONS = tuple(KINDS)
SCHEDULES = ("one_cycle", "poly", "cosine", "constant")
SAMPLINGS = ("uniform", "balanced")
PRECISIONS = ("auto", "float32", "bfloat16")


@dataclass(frozen=True, kw_only=True)
class ClassificationTask(Described):
    """Everything that decides the training of a classifier, read from `tasks/<name>.json`.

    Axes are those of the picture (I, J) or, after `orientation`, of the volume.

    Args:
        classes: for each class its `name`, the `labels` that data may have for it (numbers of a MedMNIST file, names
            of folders, texts of a CSV), and perhaps `code`, a terminology's; of two classes the second is the one to
            be found.
        decision: one of `DECISIONS`; empty: by the number of classes, which exclude each other then. With "multilabel"
            an image may have several of the classes, or none; with "ordinal" they are grades, in their order.
        size: what an image is resampled to, along each axis; two sizes for pictures, three for volumes.
        frames: 0 for single images; else they are sequences, and so many frames are taken of each, evenly spaced from
            the first to the last (of a shorter one some twice or more).
        crop_foreground: images are cut to the box of what is above zero first; not for sequences.
        intensity: what is done to values after that, in order, before each channel is brought to mean 0 and standard
            deviation 1: words (`intensities.WORDS`, "window:-160:240") or MONAI's transforms without their keys.
        orientation: of volumes, three letters such as "RAS"; empty for pictures, which are taken as they lie.
        pool: the parts of the data that are learnt from (of "train", "val"), where the data has parts.
        folds: cross-validation inside of the pool; 1 trains on the training part and validates on the validation part.
        networks: how many are trained for each fold, with seeds of their own. Several are averaged, and one network
            of the same shape then learns from the average of all ("distilled"), so that one is all that is shipped.
        student: changes of the network's arguments for the distilled one.
        shipped: how many of the networks are shipped, as the mean of what they say of an image and its mirror images;
            0 ships the distilled one alone.
        kernel: a classifier that compares a picture with all that it knows, by features of a network of photographs;
            with it half of the answer is its, half the mean of the `shipped` networks. Needs one or three channels,
            two sizes, and classes that exclude each other. `weights`: a model that has such a network, or a file of
            EfficientNet-Lite0's; `size`: what pictures are enlarged to for it, a multiple of 32; `taps`: the blocks
            whose maps are looked at; `gamma`: how fast likeness falls with the difference; `noise`: of the labels, the
            more the smoother. Empty: none.
        loss: one of `LOSSES`.
        class_weights: "balanced" (the rarer, the heavier), "none", or a number for each class. Of several labels it is
            what an image with the label counts for it, in images without: "balanced" is how many of these there are
            for one with it, at most 20.
        sampling: one of `SAMPLINGS`: an epoch shows each image once, or draws as many, all classes alike often.
        network: its `_target_` and arguments; numbers of channels, axes and outputs are made to fit the images.
        augmentation: see `classification_augmentations.AUGMENTATIONS`.
        schedule: one of `SCHEDULES`, of the learning rate: a rise and a fall, or falls as for segmentation.
        accumulate: batches whose gradients are summed up for one step.
        patience: epochs without gain after which a network's training ends; 0: never. Needs the choice "best".
        choice: "last" takes each network's weights as they are in the end, "best" those of the epoch that the images
            kept from it (of the fold, or the validation part) surprised least.
        distil_epochs: how long the distilled network learns.
        threshold: "balanced" for 0.5, "accuracy" for what was most accurate in cross-validation (of two classes half
            way from 0.5 to that), "f1" for what had the best F1 there (of two classes, or of each label).
        synthetic: generators (names or folders of bundles), each of one class, whose pictures are learnt from too; not
            for sequences.
        synthetic_share: how many pictures each of them makes, as a share of its class's real ones.
        precision: of the network while it is taught: "auto" (bfloat16 where the device computes in it, else float32),
            "float32" or "bfloat16" (anywhere, as slow as it may be); the loss, and all after training, is in float32.
        frozen_stages: with `--initial`, how many of a network's first stages keep that model's weights.
        strange_quantile: images of a higher energy than this share of the pool's (of the validation part's, where
            there are no folds) are "not sure"; 0 for no such score.
        strange_validated_on: what that was tried on, in words.
        comparison: other figures for the card's table: `who`, `accuracy`, `auc`.

    Raises:
        InputError: a value that makes no sense; the sentence names it.
    """

    classes: list[dict[str, Any]]
    channels: list[str]
    size: list[int]
    network: dict[str, Any]
    decision: str = ""
    frames: int = 0
    orientation: str = ""
    crop_foreground: bool = False
    intensity: list[Any] = field(default_factory=list)
    student: dict[str, Any] = field(default_factory=dict)
    pool: list[str] = field(default_factory=lambda: ["train", "val"])
    folds: int = 5
    networks: int = 1
    shipped: int = 0
    kernel: dict[str, Any] = field(default_factory=dict)
    seed: int = 12345
    epochs: int = 40
    distil_epochs: int = 40
    choice: str = "last"
    batch: int = 16
    learning_rate: float = 0.003
    weight_decay: float = 0.0001
    ema_decay: float = 0.9
    loss: str = "cross-entropy"
    class_weights: str | list[float] = "balanced"
    sampling: str = "uniform"
    schedule: str = "one_cycle"
    accumulate: int = 1
    patience: int = 0
    precision: str = "auto"
    label_smoothing: float = 0.0
    augmentation: dict[str, Any] = field(default_factory=dict)
    threshold: str = "balanced"
    strange_quantile: float = 0.0
    strange_validated_on: str = ""
    comparison: list[dict[str, Any]] = field(default_factory=list)
    synthetic: list[str] = field(default_factory=list)
    synthetic_share: float = 1.0
    frozen_stages: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "intensity", intensity_entries(self.intensity))
        usual = {
            "title": self.name.replace("_", " ").capitalize(),
            "description": (", " if self.decision == "multilabel" else " or ").join(self.names),
            "decision": "binary" if len(self.classes) == 2 else "multiclass",
        }
        for key, value in usual.items():
            if not getattr(self, key):
                object.__setattr__(self, key, value)
        if self.decision in KINDS and len(self.classes) > 1:
            shaped = fitted(self.network, len(self.channels), self.size, self.decided.outputs)
            object.__setattr__(self, "network", shaped)
        require_augmentation(self.name, self.augmentation, len(self.size))
        self._require_kernel()
        weights = self.class_weights
        wrong = {
            "classes": len(self.classes) < 2 or len(set(self.names)) < len(self.classes) or self._shared_label(),
            "decision": self.decision not in DECISIONS or self._wrong_count(),
            "size": len(self.size) not in (2, 3) or min(self.size) < 1,
            "orientation": (len(self.size) == 2) != (self.orientation == ""),
            "pool": not self.pool or not set(self.pool) <= {"train", "val"},
            "frames": self.frames < 0 or self.frames == 1,
            "crop_foreground": self.crop_foreground and self.frames > 0,
            "folds": self.folds < 1,
            "frozen_stages": self.frozen_stages < 0,
            "networks": self.networks < 1,
            "shipped": not 0 <= self.shipped <= self.networks * self.folds,
            "epochs": self.epochs < 1 or self.distil_epochs < 1,
            "choice": self.choice not in ("last", "best"),
            "batch": self.batch < 2,
            "ema_decay": not 0 <= self.ema_decay < 1,
            "loss": self.loss not in LOSSES,
            "learning_rate": not self.learning_rate > 0,
            "weight_decay": self.weight_decay < 0,
            "sampling": self.sampling not in SAMPLINGS,
            "schedule": self.schedule not in SCHEDULES,
            "accumulate": self.accumulate < 1,
            "patience": self.patience < 0,
            "precision": self.precision not in PRECISIONS,
            "class_weights": weights not in ("balanced", "none")
            and (isinstance(weights, str) or len(weights) != len(self.classes) or min(weights) <= 0),
            "label_smoothing": not 0 <= self.label_smoothing < 1,
            "synthetic": bool(self.synthetic) and self.frames > 0,
            "synthetic_share": not 0 <= self.synthetic_share <= 100,
            "threshold": self.decision in KINDS and self.threshold not in self.decided.thresholds_by,
            "strange_quantile": not 0 <= self.strange_quantile <= 1,
        }
        if bad := [key for key, is_wrong in wrong.items() if is_wrong]:
            raise InputError(f"The training task {self.name} has '{bad[0]}' = {getattr(self, bad[0])}; mend it.")
        if self.patience and self.choice != "best":
            raise InputError(
                f"The training task {self.name} has 'patience' = {self.patience}, which needs the choice of the best "
                "epoch; give --set choice=best, too."
            )

    def _require_kernel(self) -> None:
        told = self.kernel
        if not told:
            return
        taps, size = told.get("taps"), told.get("size")
        fits = set(told) == {"weights", "size", "taps", "gamma", "noise"} and (
            isinstance(told["weights"], str)
            and isinstance(size, int)
            and (size > 0 and size % 32 == 0)
            and isinstance(taps, list)
            and all(isinstance(tap, int) for tap in taps)
            and (taps == sorted(set(taps)) and set(taps) <= set(range(BLOCKS)) and bool(taps))
            and all(isinstance(told[key], (int, float)) and told[key] > 0 for key in ("gamma", "noise"))
        )
        if not fits:
            raise InputError(
                f"The training task {self.name} has 'kernel' = {told}; it has to have weights (a model or a file), "
                f"size (a multiple of 32), taps (rising numbers in a list, 0 to {BLOCKS - 1}), gamma and noise above 0."
            )
        pictures = len(self.size) == 2 and len(self.channels) in (1, 3) and self.frames == 0
        if not pictures or self.decision not in ("binary", "multiclass") or self.shipped == 0:
            raise InputError(
                f"The training task {self.name} has 'kernel' = {told}, which needs pictures of one or three channels, "
                "classes that exclude each other, and networks that are shipped as their mean; give --set 'kernel={}'."
            )

    def _wrong_count(self) -> bool:
        """Whether there are too many classes for the decision, or two that exclude each other are not "binary"."""
        return self.decision in ("binary", "multiclass") and (self.decision == "binary") != (len(self.classes) == 2)

    def _shared_label(self) -> bool:
        told = [label for entry in self.classes for label in {str(x) for x in entry["labels"]}]
        return len(set(told)) < len(told)

    @property
    def names(self) -> tuple[str, ...]:
        """The classes' names, in the order of the network's output."""
        return tuple(str(entry["name"]) for entry in self.classes)

    @property
    def several(self) -> bool:
        """Whether an image may have several of the classes."""
        return self.decision == "multilabel"

    @cached_property
    def decided(self) -> Decision:
        """How it is decided between the classes."""
        return decision_of(self.decision, self.names)

    @property
    def loss_options(self) -> LossOptions:
        """What the decision's loss asks for."""
        return LossOptions(self.loss, self.label_smoothing, self.class_weights)

    @property
    def limits(self) -> list[str]:
        """The task's warnings, and what follows from its kind."""
        own = not self.frames and self.network["_target_"] == "TextbookCNN" and NOT_MONAIS not in self.warnings
        return [*self.warnings, *([WITHOUT_MONAI] if self.frames else []), *([NOT_MONAIS] if own else [])]

    @property
    def mirrored_axes(self) -> list[int]:
        """The axes of a batch, counted from its end, along which images may be mirrored."""
        return [axis - len(self.size) for axis in self.augmentation.get("flip", ())]

    @property
    def labels(self) -> dict[str, tuple[str, ...]]:
        """What data may call each class."""
        return {str(entry["name"]): tuple(str(x) for x in entry["labels"]) for entry in self.classes}
