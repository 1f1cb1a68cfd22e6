"""What a classifier's kind of decision asks of its training: targets, loss, probabilities, thresholds, folds.

Each kind has a file of its own (`decide_class`, `decide_labels`, `decide_grades`); `decisions.decision_of` gives one.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from MedAILib.inference.classify import ClassifyRecipe, probabilities_of
from MedAILib.spec import Classes

Folds = list[tuple[NDArray[np.int64], NDArray[np.int64]]]  # for each, places to learn from and to judge by


@dataclass(frozen=True)
class Calibration:
    """What was chosen on judged images.

    Args:
        temperature: scores are divided by it.
        thresholds: one for each class.
        offsets: added to the scores after that, one for each output; empty where there are none.
        strange_above: an image whose score by `Decision.strangeness` is above it is "not sure"; None for no such.
    """

    temperature: float
    thresholds: tuple[float, ...]
    offsets: tuple[float, ...] = ()
    strange_above: float | None = None


@dataclass(frozen=True)
class LossOptions:
    """How a task wants its loss: "cross-entropy" or "focal", how far targets are smoothed, weights of classes.

    `weights` are "balanced" (the rarer, the heavier), "none", or a number for each class.
    """

    loss: str
    smoothing: float
    weights: str | list[float]


class Decision(ABC):
    """One kind of decision between named classes.

    True classes are numbers (N,), or, where an image may have several labels, ones and zeros (N, classes). Targets are
    what the network's outputs are compared with, (N, outputs), and may be blended.

    Args:
        kind: one of `results.CLASSIFICATION_KINDS`.
        names: of the classes, in order.

    Example::

        decision = decision_of("ordinal", ("none", "mild", "severe"))
        loss = decision.loss(LossOptions("cross-entropy", 0.0, "balanced"), targets)
        loss(network(images), targets)
    """

    activation: str  # of the network's outputs: "softmax" or "sigmoid"
    strange_by: str  # how unlike the training data an image is: one of spec.OUT_OF_DISTRIBUTION_METHODS

    def __init__(self, kind: str, names: Sequence[str]) -> None:
        self.kind, self.names = kind, tuple(names)

    @property
    def count(self) -> int:
        """How many classes there are."""
        return len(self.names)

    @property
    def outputs(self) -> int:
        """How many numbers the network gives for an image."""
        return self.count

    @property
    def output_names(self) -> tuple[str, ...]:
        """What each output stands for."""
        return self.names

    @property
    @abstractmethod
    def thresholds_by(self) -> tuple[str, ...]:
        """What a task's `threshold` may be; "balanced" is without any choice."""

    @property
    @abstractmethod
    def usual_thresholds(self) -> tuple[float, ...]:
        """A threshold for each class where none was chosen."""

    @abstractmethod
    def targets(self, numbers: NDArray[np.int64]) -> Tensor:
        """What the network is to say of images, (N, outputs) float32."""

    @abstractmethod
    def loss(self, options: LossOptions, targets: Tensor) -> nn.Module:
        """The loss of scores (B, outputs) against targets, classes weighted by how often all targets have them."""

    @abstractmethod
    def taught_loss(self) -> nn.Module:
        """The loss of scores against what teachers say of the same images."""

    @abstractmethod
    def likely(self, scores: Tensor) -> Tensor:
        """What is averaged over networks: scores (B, outputs) as probabilities of the outputs."""

    @abstractmethod
    def raw(self, likely: Tensor) -> Tensor:
        """The scores whose `likely` that is."""

    @abstractmethod
    def surprise(self, scores: NDArray[np.float64], numbers: NDArray[np.int64]) -> float:
        """Mean log loss of scores (M, outputs)."""

    @abstractmethod
    def draw_shares(self, targets: Tensor) -> Tensor:
        """How often each image (N,) is drawn, in relation, so that classes are seen alike often."""

    @abstractmethod
    def calibrated(self, scores: NDArray[np.float64], numbers: NDArray[np.int64], by: str) -> Calibration:
        """Temperature, offsets and thresholds for scores (M, outputs) of images that were not learnt from.

        `by` is one of `thresholds_by`.
        """

    @abstractmethod
    def decide(self, likely: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.int64]:
        """What is decided for probabilities (M, classes), in the shape of true classes."""

    @abstractmethod
    def strangeness(self, scores: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
        """How unlike the training data images (M,) look, by `strange_by`."""

    @abstractmethod
    def require_examples(self, numbers: NDArray[np.int64], where: str, least: int) -> None:
        """Raise `InputError` where a class has fewer than `least` images, or nothing can be told apart."""

    @abstractmethod
    def require_judges(self, numbers: NDArray[np.int64], part: str) -> None:
        """Raise `InputError` where the images of a part can't be judged by."""

    @abstractmethod
    def deal(self, numbers: NDArray[np.int64], groups: Sequence[str], folds: int, seed: int) -> Folds:
        """Folds of all images with classes in like shares; images of one group stay together.

        Raises:
            InputError: classes don't go round.
        """

    @abstractmethod
    def exported(self, thresholds: Sequence[float]) -> dict[str, float]:
        """The thresholds that a bundle tells of, by class."""

    @abstractmethod
    def in_words(self, thresholds: Sequence[float]) -> str:
        """How it decides, for a model card: "the class of the largest probability"."""

    def marks(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Whether each image has each class, (N, classes)."""
        return np.asarray(numbers[:, None] == np.arange(self.count))

    def told(self, number: NDArray[np.int64]) -> str:
        """One image's true class, or what labels it has, in words."""
        return ", ".join(name for name, has in zip(self.names, self.marks(number[None])[0], strict=True) if has) or (
            "none"
        )

    def probabilities(
        self, scores: NDArray[np.float64], temperature: float = 1.0, offsets: Sequence[float] = ()
    ) -> NDArray[np.float64]:
        """Probabilities (M, classes) of scores (M, outputs), as the finished model works them out."""
        classes = Classes(
            *(self.names, self.kind, 2, (0.5,) * self.count), temperature=temperature, offsets=tuple(offsets)
        )
        recipe = ClassifyRecipe((), classes, 1, self.outputs, self.activation)
        return probabilities_of(torch.from_numpy(np.asarray(scores, np.float64)), recipe).numpy()
