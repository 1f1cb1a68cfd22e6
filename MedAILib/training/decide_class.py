"""Decisions for one of several classes that exclude each other."""

from collections import Counter
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import torch
from monai.losses import FocalLoss
from numpy.typing import NDArray
from scipy.special import logsumexp
from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold
from torch import Tensor, nn

from MedAILib.errors import InputError
from MedAILib.training.calibrating import best_f1_threshold, best_temperature, best_threshold, class_surprise
from MedAILib.training.decision import Calibration, Decision, Folds, LossOptions


class OneClass(Decision):
    """The one class that an image is of: "binary" by the second one's threshold, "multiclass" by the likeliest."""

    activation, strange_by = "softmax", "energy"

    @property
    def thresholds_by(self) -> tuple[str, ...]:
        """Of more than two classes the likeliest is taken, whatever it says."""
        return ("balanced", "accuracy", "f1") if self.kind == "binary" else ("balanced", "accuracy")

    @property
    def usual_thresholds(self) -> tuple[float, ...]:
        """0.5 of two classes; of more the likeliest needs none."""
        return (0.5, 0.5) if self.kind == "binary" else (0.0,) * self.count

    def targets(self, numbers: NDArray[np.int64]) -> Tensor:
        """1 for the image's class (N, classes)."""
        return nn.functional.one_hot(torch.from_numpy(numbers), self.count).float()

    def loss(self, options: LossOptions, targets: Tensor) -> nn.Module:
        """Cross-entropy or focal loss over all classes."""
        return SmoothedLoss(options, class_weights(options.weights, targets))

    def taught_loss(self) -> nn.Module:
        """Cross-entropy with the teachers' probabilities."""
        return nn.CrossEntropyLoss()

    def likely(self, scores: Tensor) -> Tensor:
        """The softmax."""
        return scores.softmax(dim=1)

    def raw(self, likely: Tensor) -> Tensor:
        """The logarithm."""
        return likely.clamp_min(1e-12).log()

    def surprise(self, scores: NDArray[np.float64], numbers: NDArray[np.int64]) -> float:
        """Cross-entropy."""
        return class_surprise(scores, numbers)

    def draw_shares(self, targets: Tensor) -> Tensor:
        """The rarer its class, the more often an image."""
        return shares_of(targets.argmax(dim=1), self.count)

    def calibrated(self, scores: NDArray[np.float64], numbers: NDArray[np.int64], by: str) -> Calibration:
        """Temperature, and of two classes the threshold of the second."""
        temperature = best_temperature(scores, numbers)
        thresholds = self.usual_thresholds
        if self.kind == "binary" and by != "balanced":
            chosen = best_threshold if by == "accuracy" else best_f1_threshold
            second = chosen(self.probabilities(scores, temperature)[:, 1], numbers)
            if by == "accuracy":  # which is the most accurate is chance for a good part
                second = round((0.5 + second) / 2, 3)
            thresholds = (1 - second, second)
        return Calibration(round(temperature, 4), thresholds)

    def decide(self, likely: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.int64]:
        """The class of each row (M,)."""
        if self.kind == "binary":
            return (likely[:, 1] >= thresholds[1]).astype(np.int64)
        return np.asarray(likely.argmax(axis=1), dtype=np.int64)

    def strangeness(self, scores: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
        """The energy of the scores."""
        return np.asarray(-logsumexp(scores, axis=1))

    def require_examples(self, numbers: NDArray[np.int64], where: str, least: int) -> None:
        """Raise `InputError` unless there are so many images of every class."""
        require_classes(numbers, self.names, where, least)

    def require_judges(self, numbers: NDArray[np.int64], part: str) -> None:
        """Raise `InputError` where a class has no image in a part."""
        require_all(numbers, self.names, part)

    def deal(self, numbers: NDArray[np.int64], groups: Sequence[str], folds: int, seed: int) -> Folds:
        """Stratified by class."""
        return stratified(numbers, self.names, groups, (folds, seed))

    def exported(self, thresholds: Sequence[float]) -> dict[str, float]:
        """Of two classes, the second's."""
        return {self.names[1]: thresholds[1]} if self.kind == "binary" else {}

    def in_words(self, thresholds: Sequence[float]) -> str:
        """For a model card."""
        if self.kind == "binary":
            return f"`{self.names[1]}` from a probability of {thresholds[1]:g} on, else `{self.names[0]}`"
        return "the class of the largest probability"


class SmoothedLoss(nn.Module):
    """Cross-entropy or focal loss of scores (B, N) against shares of classes (B, N)."""

    def __init__(self, options: LossOptions, weights: Tensor | None) -> None:
        super().__init__()
        self.smoothing = options.smoothing
        self.loss: nn.Module = (
            FocalLoss(use_softmax=True, weight=weights)
            if options.loss == "focal"
            else nn.CrossEntropyLoss(weight=weights)
        )

    def forward(self, scores: Tensor, targets: Tensor) -> Tensor:
        smooth = targets * (1 - self.smoothing) + self.smoothing / targets.shape[1]
        found: Tensor = self.loss(scores, smooth)
        return found


def class_weights(wanted: str | list[float], shares: Tensor) -> Tensor | None:
    """A weight for each class, of mean 1 over images (N, classes); None where all count alike."""
    if wanted == "none":
        return None
    if isinstance(wanted, list):
        return torch.tensor(wanted, dtype=torch.float32)
    return len(shares) / (shares.shape[1] * shares.sum(dim=0).clamp_min(1))


def shares_of(numbers: Tensor, count: int) -> Tensor:
    """How often images (N,) of so many classes are drawn, in relation, for all classes to be drawn alike often."""
    return 1.0 / torch.bincount(numbers, minlength=count).clamp_min(1)[numbers]


def require_classes(numbers: NDArray[np.int64], names: Sequence[str], where: str, least: int = 1) -> None:
    """Raise `InputError` unless there are at least `least` images of every class."""
    counts = Counter(numbers.tolist())
    few = [name for number, name in enumerate(names) if counts[number] < least]
    if len(counts) < 2:
        raise InputError(f"{where} has images of one class only; there must be some of {', '.join(names)}.")
    if few:
        raise InputError(
            f"{where} has {counts[list(names).index(few[0])]} images of {few[0]}, and at least {least} are needed."
        )


def require_all(numbers: NDArray[np.int64], names: Sequence[str], part: str) -> None:
    """Raise `InputError` where one of the classes has no image in a part."""
    if absent := sorted(set(range(len(names))) - set(numbers.tolist())):
        raise InputError(
            f"The part '{part}' of the data has no images of {', '.join(names[number] for number in absent)}; the task "
            "needs some of each class there."
        )


def stratified(numbers: NDArray[np.int64], names: Sequence[str], groups: Sequence[str], how: tuple[int, int]) -> Folds:
    """Folds with classes in like shares; `how` has their number and the seed.

    Raises:
        InputError: too few images of a class, or all of them in one fold, so that nobody could learn it there.
    """
    folds, seed = how
    least = min(int((numbers == number).sum()) for number in range(len(names)))
    if least < folds:
        raise InputError(f"{least} images of the rarest class are too few for {folds} folds.")
    together = len(set(groups)) < len(groups)
    kind = StratifiedGroupKFold if together else StratifiedKFold
    dealt = kind(folds, shuffle=True, random_state=seed)
    found = [(learn, judge) for learn, judge in dealt.split(numbers, numbers, groups if together else None)]
    for learn, _ in found:
        if absent := sorted(set(range(len(names))) - set(numbers[learn].tolist())):
            own = {group for group, number in zip(groups, numbers.tolist(), strict=True) if number == absent[0]}
            _refuse_absent(names[absent[0]], len(own), seed)
    return found


def _refuse_absent(name: str, groups: int, seed: int) -> NoReturn:
    """Raise `InputError`: all images of a class, of so many patients, are in the part that one fold judges."""
    if groups == 1:
        raise InputError(
            f"The images of {name} are all of one patient or copies of each other, so that they can't be learnt from "
            "and judged by; add another patient's, or take the class out of the data."
        )
    raise InputError(
        f"The images of {name}, of {groups} patients, came into one fold together, so that they can't be learnt from "
        f"there; give another seed (--set seed={seed + 1}), or add another patient's."
    )
