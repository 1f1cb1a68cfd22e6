"""Several models as one: each runs by itself, their probabilities are averaged, and how far they agree is told."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError, ModelError
from MedAILib.models.trust import tree_sha256
from MedAILib.models.uncertainty import is_exclusive, with_uncertainty
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.spec import ModelSpec
from MedAILib.system_memory import available_memory
from MedAILib.volume import Volume

FLOAT = 4
THRESHOLD = 0.5


class Member(Protocol):
    """A model that is part of an ensemble."""

    spec: ModelSpec

    def run(self, volume: Volume, options: RunOptions, progress: Progress) -> Segmentation: ...


class EnsembleModel:
    """A segmentation model that is several.

    Each member prepares the image in its own way and gives its own probabilities on the image's grid; those are
    averaged. The largest average wins; structures that may overlap are there where their average reaches one half.

    Args:
        source: the ensemble's folder.
        spec: what it is.
        members: opened, in order.
    """

    def __init__(self, source: Path, spec: ModelSpec, members: Sequence[Member]) -> None:
        self.spec, self._members = spec, tuple(members)
        self._sha256 = tree_sha256(source)

    @property
    def weights_bytes(self) -> int:
        """What its networks' weights hold on their device."""
        return sum(int(getattr(member, "weights_bytes", 0)) for member in self._members)

    def run(self, volume: Volume, options: RunOptions, progress: Progress) -> Segmentation:
        """Segment a volume (C, K, J, I); the result stands on the volume's own grid.

        Raises:
            InputError: the volume or an option does not suit the models, or there is too little memory.
            ModelError: a member fails on it, or its probabilities can't be averaged.
            Cancelled: by `progress`.
        """
        self._require_memory(volume)
        each = replace(options, probabilities=True, uncertainty=False)
        total: NDArray[np.float32] | None = None
        layers: list[NDArray[np.unsignedinteger]] = []
        first: Segmentation | None = None
        for number, member in enumerate(self._members):
            found = member.run(volume, each, _Part(progress, number, len(self._members)))
            if found.probabilities is None or (first and found.probability_names != first.probability_names):
                raise ModelError(f"The probabilities of {member.spec.name} can't be averaged with the other members'.")
            if total is None:
                total = found.probabilities
            else:
                total += found.probabilities
            layers.append(found.layers)
            first = first or replace(found, probabilities=None, probability_names=found.probability_names)
        assert total is not None and first is not None, "an ensemble has members"
        total /= len(self._members)
        decided = self._decided(total, first)
        said = first.provenance | {
            "model": self.spec.name,
            "version": self.spec.version,
            "sha256": self._sha256,
            "members": ", ".join(member.spec.name for member in self._members),
            "option.probabilities": str(options.probabilities),
            "option.uncertainty": str(options.uncertainty),
        }
        whole = replace(
            first,
            layers=decided,
            labels=self.spec.labels,
            probabilities=total,
            agreement=tuple(_agreement(layers, decided, label.layer, label.value) for label in self.spec.labels),
            provenance=said,
        )
        if not decided.any():
            progress.warn(f"The models found nothing in {volume.name}: everything is background.")
        if options.uncertainty:
            return with_uncertainty(whole, options)
        return whole if options.probabilities else replace(whole, probabilities=None, probability_names=())

    def _require_memory(self, volume: Volume) -> None:
        """Raise `InputError` where the averages, and one member's probabilities beside them, would not fit."""
        classes = len(self.spec.labels) + 1
        needed = (2 * FLOAT * classes + len(self._members)) * prod(volume.geometry.shape_kji)
        there = available_memory()
        if there is not None and needed > there:
            raise InputError(
                f"The average of {len(self._members)} models on {volume.name} needs {needed / 2**30:.1f} GiB of "
                f"memory, {there / 2**30:.1f} GiB are free; crop the image, or run one model of the ensemble."
            )

    def _decided(self, likely: NDArray[np.float32], first: Segmentation) -> NDArray[np.unsignedinteger]:
        """Labels (L, K, J, I) from averages (N, K, J, I), slice by slice."""
        decided = np.zeros_like(first.layers)
        if is_exclusive(first):
            values = np.array([0, *(label.value for label in self.spec.labels)], decided.dtype)
            for k in range(decided.shape[1]):
                decided[0, k] = values[likely[:, k].argmax(axis=0)]
        elif len(first.probability_names) == len(decided) and all(label.value == 1 for label in self.spec.labels):
            for k in range(decided.shape[1]):
                decided[:, k] = likely[:, k] >= THRESHOLD
        else:
            raise ModelError(
                f"The members of {self.spec.name} find regions that write over each other, which can't be averaged; "
                "run them one by one."
            )
        return decided


class _Part(Progress):
    """A member's progress, with its number in front."""

    def __init__(self, whole: Progress, number: int, count: int) -> None:
        self._whole, self._before = whole, f"Model {number + 1} of {count}: "

    def step(self, done: int, total: int, text: str = "") -> None:
        self._whole.step(done, total, self._before + text)

    def warn(self, text: str) -> None:
        self._whole.warn(self._before + text)


def _agreement(
    layers: Sequence[NDArray[np.unsignedinteger]], decided: NDArray[np.unsignedinteger], layer: int, value: int
) -> float | None:
    """The members' mean Dice with what was decided for one label; None where nobody found it."""
    whole = decided[layer] == value
    scores = []
    for member in layers:
        own = member[layer] == value
        size = int(own.sum()) + int(whole.sum())
        if size:
            scores.append(2 * int((own & whole).sum()) / size)
    return float(np.mean(scores)) if scores else None
