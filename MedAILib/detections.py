"""Boxes around findings: where they lie, how alike two of them are, and which of several alike ones to keep."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from MedAILib.errors import InputError
from MedAILib.volume import Geometry

if TYPE_CHECKING:  # results stand on these
    from MedAILib.results import Code


@dataclass(frozen=True)
class Box:
    """One finding.

    Args:
        label: the class's name.
        score: how sure the model is, 0 to 1.
        low_ijk, high_ijk: its faces along I, J, K, in continuous voxel indices of the image; voxel n reaches from
            n - 0.5 to n + 0.5.

    Raises:
        InputError: a score outside its range, or faces that enclose nothing.
    """

    label: str
    score: float
    low_ijk: tuple[float, float, float]
    high_ijk: tuple[float, float, float]

    def __post_init__(self) -> None:
        low, high = np.array(self.low_ijk, float), np.array(self.high_ijk, float)
        if low.shape != (3,) or high.shape != (3,) or not np.isfinite((low, high)).all() or (high <= low).any():
            raise InputError(f"A box from {self.low_ijk} to {self.high_ijk} encloses nothing.")
        if not 0 <= self.score <= 1:
            raise InputError(f"A finding's score is 0 to 1, not {self.score}.")


@dataclass(frozen=True, eq=False)
class Detections:
    """Boxes around findings in one image, their edges along the image's own axes.

    Args:
        boxes: the surest first.
        classes: every class that the model knows, found or not.
        geometry: the image's grid.
        threshold: scores below it were left out.
        provenance: model, version, SHA-256, device, parameters, library versions, time; plain strings.
        codes: a terminology's code of each class, None for those that have none; empty where no class has one.

    Raises:
        InputError: a box of a class that is not named, or not one code for each class.
    """

    boxes: tuple[Box, ...]
    classes: tuple[str, ...]
    geometry: Geometry
    threshold: float = 0.0
    provenance: dict[str, str] = field(default_factory=dict)
    codes: "tuple[Code | None, ...]" = ()

    def __post_init__(self) -> None:
        if self.codes and len(self.codes) != len(self.classes):
            raise InputError(f"There are {len(self.codes)} codes for {len(self.classes)} classes of findings.")
        unknown = {box.label for box in self.boxes} - set(self.classes)
        if unknown:
            raise InputError(f"Findings of the class {sorted(unknown)[0]}, which is not among {list(self.classes)}.")
        object.__setattr__(self, "boxes", tuple(sorted(self.boxes, key=lambda box: -box.score)))

    def center_ras(self, box: Box) -> NDArray[np.float64]:
        """A box's centre (3,) in the world, mm."""
        middle = (np.array(box.low_ijk) + np.array(box.high_ijk)) / 2
        return np.asarray(self.geometry.ras_of(middle[None])[0], dtype=np.float64)

    def size_mm(self, box: Box) -> NDArray[np.float64]:
        """A box's full edge lengths (3,) along I, J, K in mm."""
        voxels = np.array(box.high_ijk) - np.array(box.low_ijk)
        return np.asarray(voxels * np.array(self.geometry.spacing_kji_mm[::-1]), dtype=np.float64)

    def directions_ras(self) -> NDArray[np.float64]:
        """Unit vectors (3, 3) in the world, a column for each of the edges along I, J, K."""
        return np.asarray(self.geometry.ijk_to_ras[:3, :3] / np.array(self.geometry.spacing_kji_mm[::-1]))

    def corners_ras(self, box: Box) -> NDArray[np.float64]:
        """A box's eight corners (8, 3) in the world, mm."""
        ends = zip(box.low_ijk, box.high_ijk, strict=True)
        return self.geometry.ras_of(np.array(np.meshgrid(*ends)).reshape(3, -1).T)


def record(detections: Detections) -> dict[str, Any]:
    """All there is to say, as JSON has it: the model, and each finding's class, score and place in the world."""
    provenance = detections.provenance
    directions = detections.directions_ras()
    return {
        "model": provenance.get("model"),
        "version": provenance.get("version"),
        "sha256": provenance.get("sha256"),
        "input": provenance.get("input"),
        "classes": list(detections.classes),
        "threshold": detections.threshold,
        "findings": [
            {
                "label": box.label,
                "score": round(box.score, 6),
                "center_ras": [round(float(x), 4) for x in detections.center_ras(box)],
                "size_mm": [round(float(x), 4) for x in detections.size_mm(box)],
                "directions_ras": [[round(float(x), 6) for x in column] for column in directions.T],
            }
            for box in detections.boxes
        ],
        "provenance": provenance,
    }


def overlaps(low: ArrayLike, high: ArrayLike) -> NDArray[np.float64]:
    """Intersection over union (n, n) of boxes whose faces (n, 3) lie along common axes, in common units."""
    first, last = np.asarray(low, dtype=np.float64), np.asarray(high, dtype=np.float64)
    shared = np.minimum(last[:, None], last[None]) - np.maximum(first[:, None], first[None])
    intersection = np.clip(shared, 0, None).prod(axis=2)
    volumes = (last - first).prod(axis=1)
    return np.asarray(intersection / (volumes[:, None] + volumes[None] - intersection), dtype=np.float64)


def suppressed(boxes: Sequence[Box], geometry: Geometry, limit: float) -> tuple[Box, ...]:
    """Of boxes of one class that overlap by more than `limit` (intersection over union in world mm), the surest alone.

    Classes do not suppress each other. Greedy, from the surest on (Felzenszwalb et al., PAMI 32, 2010).

    Raises:
        InputError: a limit outside of 0 to 1.
    """
    if not 0 <= limit <= 1:
        raise InputError(f"The overlap from which findings count as one is 0 to 1, not {limit}.")
    order = sorted(boxes, key=lambda box: -box.score)
    if not order:
        return ()
    spacing = np.array(geometry.spacing_kji_mm[::-1])
    alike = overlaps([np.array(b.low_ijk) * spacing for b in order], [np.array(b.high_ijk) * spacing for b in order])
    kept: list[int] = []
    for number, box in enumerate(order):
        if not any(order[k].label == box.label and alike[k, number] > limit for k in kept):
            kept.append(number)
    return tuple(order[k] for k in kept)
