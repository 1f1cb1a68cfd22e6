"""Decisions for one of several grades in order, by the steps between them.

The network has an output for each step: the log odds that an image is above it. Each is learnt as a question of its own
with all images (Frank and Hall 2001; Niu et al. 2016), so that a wrong grade costs the more the farther it is away.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from MedAILib.training.calibrating import best_threshold, binary_surprise, least_surprising
from MedAILib.training.decide_class import class_weights, require_all, require_classes, shares_of, stratified
from MedAILib.training.decision import Calibration, Folds, LossOptions
from MedAILib.training.independent_outputs import IndependentOutputs, OutputLoss


class OrderedGrades(IndependentOutputs):
    """The last grade for which the probability of it or a higher one reaches its threshold."""

    strange_by = "entropy"  # the energy of steps means nothing

    @property
    def outputs(self) -> int:
        """One for each step between grades."""
        return self.count - 1

    @property
    def output_names(self) -> tuple[str, ...]:
        """What each step says."""
        return tuple(f"above {name}" for name in self.names[:-1])

    @property
    def thresholds_by(self) -> tuple[str, ...]:
        """The most right decisions of each step."""
        return "balanced", "accuracy"

    @property
    def usual_thresholds(self) -> tuple[float, ...]:
        """0.5 for each."""
        return (0.5,) * self.count

    def targets(self, numbers: NDArray[np.int64]) -> Tensor:
        """1 for each step that the image is above (N, classes - 1)."""
        return (torch.from_numpy(numbers)[:, None] > torch.arange(self.outputs)).float()

    def loss(self, options: LossOptions, targets: Tensor) -> nn.Module:
        """Binary cross-entropy or focal loss of each step; images are weighted by their grade."""
        return _StepLoss(options, class_weights(options.weights, grade_shares(targets)))

    def surprise(self, scores: NDArray[np.float64], numbers: NDArray[np.int64]) -> float:
        """Binary cross-entropy, the mean over steps."""
        return binary_surprise(scores, self.targets(numbers).numpy())

    def draw_shares(self, targets: Tensor) -> Tensor:
        """The rarer its grade, the more often an image."""
        return shares_of(targets.sum(dim=1).round().long(), self.count)

    def calibrated(self, scores: NDArray[np.float64], numbers: NDArray[np.int64], by: str) -> Calibration:
        """One temperature; a threshold for each step."""
        temperature = least_surprising(lambda x: self.surprise(scores / x, numbers))
        thresholds = self.usual_thresholds
        if by == "accuracy":
            reached = _reached(self.probabilities(scores, temperature))
            each = [best_threshold(reached[:, n], (numbers >= n).astype(np.int64)) for n in range(1, self.count)]
            thresholds = (0.5, *each)
        return Calibration(round(temperature, 4), thresholds)

    def decide(self, likely: NDArray[np.float64], thresholds: Sequence[float]) -> NDArray[np.int64]:
        """The grade of each row (M,)."""
        enough = _reached(likely) >= np.asarray(thresholds)
        enough[:, 0] = True
        return np.asarray(self.count - 1 - enough[:, ::-1].argmax(axis=1), dtype=np.int64)

    def strangeness(self, scores: NDArray[np.float64], calibration: Calibration) -> NDArray[np.float64]:
        """The entropy of the probabilities, 0 to 1."""
        likely = np.clip(self.probabilities(scores, calibration.temperature), 1e-12, 1)
        return np.asarray(-(likely * np.log(likely)).sum(axis=1) / np.log(self.count))

    def require_examples(self, numbers: NDArray[np.int64], where: str, least: int) -> None:
        """Raise `InputError` unless there are so many images of every grade."""
        require_classes(numbers, self.names, where, least)

    def require_judges(self, numbers: NDArray[np.int64], part: str) -> None:
        """Raise `InputError` where a grade has no image in a part."""
        require_all(numbers, self.names, part)

    def deal(self, numbers: NDArray[np.int64], groups: Sequence[str], folds: int, seed: int) -> Folds:
        """Stratified by grade."""
        return stratified(numbers, self.names, groups, (folds, seed))

    def exported(self, thresholds: Sequence[float]) -> dict[str, float]:
        """Each grade's but the first's, which needs none."""
        return dict(zip(self.names[1:], thresholds[1:], strict=True))

    def in_words(self, thresholds: Sequence[float]) -> str:
        """For a model card."""
        each = ", ".join(f"{value:g}" for value in thresholds[1:])
        return (
            f"the last of the grades {', '.join(f'`{name}`' for name in self.names)}, in this order, for which the "
            f"probability of it or a higher one reaches its threshold ({each} from `{self.names[1]}` on)"
        )


def grade_shares(targets: Tensor) -> Tensor:
    """Each grade's share (N, classes) from the steps' targets (N, classes - 1), blended ones too."""
    ones, zeros = torch.ones_like(targets[:, :1]), torch.zeros_like(targets[:, :1])
    return torch.cat((ones, targets), dim=1) - torch.cat((targets, zeros), dim=1)


def _reached(likely: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability of each grade or a higher one, (M, classes)."""
    return np.asarray(np.cumsum(likely[:, ::-1], axis=1)[:, ::-1])


class _StepLoss(OutputLoss):
    def __init__(self, options: LossOptions, weights: Tensor | None) -> None:
        super().__init__(options)
        self.register_buffer("grades", weights)

    def weights(self, targets: Tensor) -> Tensor:
        grades = self._buffers["grades"]
        return super().weights(targets) if grades is None else (grade_shares(targets) @ grades)[:, None]
