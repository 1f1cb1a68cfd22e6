"""Whole patients as what is drawn and tossed: images of one patient are alike, and no observations of their own."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class PatientDraws:
    """Images by patient, for intervals (cluster bootstrap: Field and Welsh, J R Stat Soc B 69 (2007) 369) and tests.

    Args:
        members: of each patient the places (n,) of the images; an image of no known patient is a patient by itself.
    """

    members: tuple[NDArray[np.int64], ...]

    @classmethod
    def of(cls, patients: Sequence[str]) -> "PatientDraws":
        """Group images by their patients, in order; empty texts: not known."""
        found: dict[tuple[str, int], list[int]] = {}
        for place, patient in enumerate(patients):
            found.setdefault((patient, -1 if patient else place), []).append(place)
        return cls(tuple(np.array(places) for places in found.values()))

    @property
    def count(self) -> int:
        """How many patients there are."""
        return len(self.members)

    @property
    def shared(self) -> bool:
        """Whether any patient has several images."""
        return any(len(places) > 1 for places in self.members)

    def images(self, drawn: NDArray[np.int64]) -> NDArray[np.int64]:
        """The places of all images of the patients that were drawn, by their numbers."""
        return np.concatenate([self.members[number] for number in drawn.tolist()])

    def spread(self, tossed: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """For each image what was tossed for its patient (patients,)."""
        found = np.empty(sum(len(places) for places in self.members), dtype=np.bool_)
        for places, value in zip(self.members, tossed, strict=True):
            found[places] = value
        return found

    def sums(self, values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """For each patient that has a finite value (of n, one an image) their sum, and how many they are."""
        finite = [values[places][np.isfinite(values[places])] for places in self.members]
        told = [found for found in finite if found.size]
        return np.array([found.sum() for found in told]), np.array([found.size for found in told], dtype=np.int64)

    def means(self, values: NDArray[np.float64], times: int, seed: int) -> NDArray[np.float64]:
        """The mean of the finite values (n,) in each of so many resamples of the patients; empty for less than two."""
        sums, sizes = self.sums(values)
        if len(sums) < 2:
            return np.empty(0)
        drawn = np.random.default_rng(seed).integers(len(sums), size=(times, len(sums)))
        return np.asarray(sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1))

    def told(self, images: str) -> str:
        """What is drawn, in words; `images` is what the report calls them."""
        return f"{self.count} patients, each with all {images}" if self.shared else images
