"""Decisions for several labels of one image, each for itself; an image may have none."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from MedAILib.errors import InputError
from MedAILib.training.calibrating import best_f1_threshold, best_offsets, best_threshold, binary_surprise
from MedAILib.training.decision import Calibration, Folds, LossOptions
from MedAILib.training.independent_outputs import IndependentOutputs, OutputLoss
from MedAILib.training.label_folds import deal_labels

HEAVIEST = 20.0  # that an image with a rare label may count for it, in those without


class SeveralLabels(IndependentOutputs):
    """Each label whose probability reaches its threshold."""

    strange_by = "energy"

    @property
    def thresholds_by(self) -> tuple[str, ...]:
        """The best F1, or the most right decisions, of each label."""
        return "balanced", "f1", "accuracy"

    @property
    def usual_thresholds(self) -> tuple[float, ...]:
        """0.5 for each."""
        return (0.5,) * self.count

    def targets(self, numbers: NDArray[np.int64]) -> Tensor:
        """1 for each label that the image has (N, labels)."""
        return torch.from_numpy(numbers).float()

    def loss(self, options: LossOptions, targets: Tensor) -> nn.Module:
        """Binary cross-entropy or focal loss; images with a label count for it by its weight, those without once."""
        weights = torch.ones(self.count)
        if isinstance(options.weights, list):
            weights = torch.tensor(options.weights, dtype=torch.float32)
        elif options.weights == "balanced":
            having = targets.sum(dim=0)
            weights = ((len(targets) - having) / having.clamp_min(1)).clamp(1 / HEAVIEST, HEAVIEST)
        return _LabelLoss(options, weights)

    def surprise(self, scores: NDArray[np.float64], numbers: NDArray[np.int64]) -> float:
        """Binary cross-entropy, the mean over labels."""
        return binary_surprise(scores, numbers)

    def draw_shares(self, targets: Tensor) -> Tensor:
        """By the rarest label that an image has; those without any are a class of their own."""
        marks = torch.cat((targets > 0.5, ~(targets > 0.5).any(dim=1, keepdim=True)), dim=1).float()
        return (marks / marks.sum(dim=0).clamp_min(1)).amax(dim=1)

    def calibrated(self, scores: NDArray[np.float64], numbers: NDArray[np.int64], by: str) -> Calibration:
        """One temperature, an offset and a threshold for each label."""
        temperature, offsets = best_offsets(scores, numbers)
        likely = self.probabilities(scores, temperature, offsets.tolist())
        thresholds = self.usual_thresholds
        if by != "balanced":
            chosen = best_threshold if by == "accuracy" else best_f1_threshold
            thresholds = tuple(chosen(likely[:, n], numbers[:, n]) for n in range(self.count))
        return Calibration(round(temperature, 4), thresholds, tuple(round(float(x), 4) for x in offsets))

    def decide(self, likely: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.int64]:
        """1 for each label that is decided for (M, labels)."""
        return (likely >= np.asarray(thresholds)).astype(np.int64)

    def strangeness(self, scores: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
        """The labels' energies summed up."""
        return np.asarray(-np.logaddexp(0, scores).sum(axis=1))

    def require_examples(self, numbers: NDArray[np.int64], where: str, least: int) -> None:
        """Raise `InputError` unless each label has two images with and two without it, and images differ in labels."""
        if len(np.unique(numbers, axis=0)) < 2:
            raise InputError(
                f"All images of {where} have the same labels ({self.told(numbers[0])}), so that nothing can be told "
                "apart; add images with others."
            )
        self._require_both(numbers, f"{where} has", "", 2)

    def require_judges(self, numbers: NDArray[np.int64], part: str) -> None:
        """Of the part to learn from, as `require_examples`, one image each; of another, nothing is asked."""
        if part == "train":
            self._require_both(numbers, "The part 'train' of the data has", " there", 1)

    def _require_both(self, numbers: NDArray[np.int64], begin: str, where: str, least: int) -> None:
        for name, having in zip(self.names, numbers.sum(axis=0).tolist(), strict=True):
            for count, what in ((having, "with"), (len(numbers) - having, "without")):
                if count < least:
                    told = "no image" if count == 0 else f"{count} image"
                    raise InputError(
                        f"{begin} {told} {what} the label {name}, and at least {least} {'are' if least > 1 else 'is'} "
                        f"needed{where}; add some, or take the label out of the data."
                    )

    def deal(self, numbers: NDArray[np.int64], groups: Sequence[str], folds: int, seed: int) -> Folds:
        """Each label in like shares, as far as its images go round."""
        dealt = deal_labels(numbers, groups, folds, seed)
        for learn, _ in dealt:
            alone = [
                name
                for name, having in zip(self.names, numbers[learn].sum(axis=0), strict=True)
                if not 0 < having < len(learn)
            ]
            if alone:
                raise InputError(
                    f"The images with the label {alone[0]} or those without it are of one patient or copies of each "
                    "other, so that they can't be learnt from and judged by; add another patient's, or take the label "
                    "out of the data."
                )
        return dealt

    def exported(self, thresholds: Sequence[float]) -> dict[str, float]:
        """Each label's."""
        return dict(zip(self.names, thresholds, strict=True))

    def in_words(self, thresholds: Sequence[float]) -> str:
        """For a model card."""
        each = ", ".join(f"`{name}` from {value:g}" for name, value in self.exported(thresholds).items())
        return f"each label whose probability reaches its threshold ({each}), perhaps none"

    def marks(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """The same as truth values."""
        return numbers.astype(np.bool_)


class _LabelLoss(OutputLoss):
    def __init__(self, options: LossOptions, weights: Tensor) -> None:
        super().__init__(options)
        self.register_buffer("having", weights)

    def weights(self, targets: Tensor) -> Tensor:
        having = self.get_buffer("having")
        return targets * having + (1 - targets)
