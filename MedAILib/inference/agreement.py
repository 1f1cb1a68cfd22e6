"""How far several passes over one image agree: mirrored copies, or networks of several folds, label by label.

Each pass is decided as their mean is, on the network's grid, as the outputs come: only counts are kept.
"""

from collections.abc import Callable

import torch
from torch import Tensor


class Agreement:
    """Counts of what passes have in common with their mean.

    Args:
        decide: labels (L, ...) of an output (C, ...); L is 1, or one for each structure where they may overlap.

    Example::

        for output in outputs:
            agreement.hear(output)
        agreement.settle(sum(outputs) / len(outputs))
        agreement.dice(0, 1)    # of label 1
    """

    def __init__(self, decide: Callable[[Tensor], Tensor]) -> None:
        self._decide = decide
        self._waiting: list[Tensor] = []
        # For each pass (P, L, N): voxels of each label, and those that the mean has, too; the mean's own (1, L, N).
        self._own = self._common = self._mean = torch.zeros((1, 1, 1), dtype=torch.int64)

    def hear(self, output: Tensor) -> None:
        """One pass's output (C, ...) for a place."""
        self._waiting.append(self._decide(output))

    def settle(self, mean: Tensor) -> None:
        """The mean (C, ...) of the outputs that were heard since the last time."""
        decided = self._decide(mean)
        size = 1 + max(int(labels.max()) for labels in (decided, *self._waiting))
        whole = _counts(decided, size)
        own = torch.stack([_counts(labels, size) for labels in self._waiting])
        common = torch.stack([_counts(labels, size, labels == decided) for labels in self._waiting])
        self._waiting = []
        self._mean = _sum(self._mean, whole[None])
        self._own, self._common = _sum(self._own, own), _sum(self._common, common)

    def dice(self, layer: int, value: int) -> float | None:
        """The passes' mean Dice with what their mean decides, for one label; None where nobody found it."""
        if layer >= self._own.shape[1] or value >= self._own.shape[2]:
            return None
        whole = int(self._mean[0, layer, value])
        pairs = zip(self._own[:, layer, value].tolist(), self._common[:, layer, value].tolist(), strict=True)
        scores = [2 * common / (own + whole) for own, common in pairs if own + whole]
        return sum(scores) / len(scores) if scores else None


def _counts(labels: Tensor, size: int, where: Tensor | None = None) -> Tensor:
    """Voxels (L, `size`) of each value in each layer, on the CPU; of those `where` it is true, if given."""
    layers = []
    for number, layer in enumerate(labels):
        chosen = layer.flatten() if where is None else layer[where[number]]
        layers.append(torch.bincount(chosen.to(torch.int64), minlength=size))
    return torch.stack(layers).cpu()


def _sum(one: Tensor, other: Tensor) -> Tensor:
    """The sum of counts (P, L, N) of different sizes; what is missing is 0."""
    shape = [max(sizes) for sizes in zip(one.shape, other.shape, strict=True)]
    total = torch.zeros(shape, dtype=torch.int64)
    for part in (one, other):
        total[tuple(slice(n) for n in part.shape)] += part
    return total
