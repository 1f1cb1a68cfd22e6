"""What a model's run gives back: plain data on the input's own grid, and how it came about."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError
from MedAILib.volume import Geometry


@dataclass(frozen=True)
class Code:
    """A coded concept of a terminology, as DICOM writes it: scheme ("SCT"), value ("5366008"), meaning."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Terminology:
    """What a segment is, in codes: category, type and, where it applies, the type's modifier ("Right")."""

    category: Code
    type: Code
    modifier: Code | None = None


@dataclass(frozen=True)
class Label:
    """One structure that a model can find.

    Args:
        value: its voxel value in label maps, at least 1.
        name: for people, unique among the labels of a model.
        color: red, green, blue, each 0 to 1; None leaves the choice to the scene.
        terminology: its codes, if the model's description has them.
        layer: index into `Segmentation.layers`; above 0 only where structures overlap.
    """

    value: int
    name: str
    color: tuple[float, float, float] | None = None
    terminology: Terminology | None = None
    layer: int = 0


@dataclass(frozen=True, eq=False)
class Segmentation:
    """Labelled voxels on the input's grid.

    Args:
        layers: (L, K, J, I), uint8 or uint16, 0 is background; one layer unless structures overlap.
        labels: every structure that the model knows, found or not.
        geometry: the input's grid.
        probabilities: (N, K, J, I) float32, 0 to 1, one per name in `probability_names`; None unless asked for.
        provenance: model, version, SHA-256, device, parameters, library versions, time; plain strings.
        uncertainty: (K, J, I) float32, the entropy at each voxel, 0 sure to 1 not at all; None unless asked for.
        agreement: of an ensemble, for each label the members' mean Dice with the result (None where nobody found it).

    Raises:
        InputError: arrays and geometry of different shapes; float labels.
    """

    layers: NDArray[Any]
    labels: tuple[Label, ...]
    geometry: Geometry
    probabilities: NDArray[np.float32] | None = None
    probability_names: tuple[str, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)
    uncertainty: NDArray[np.float32] | None = None
    agreement: tuple[float | None, ...] = ()

    def __post_init__(self) -> None:
        if self.layers.dtype not in (np.uint8, np.uint16):
            raise InputError(f"Labels are uint8 or uint16, not {self.layers.dtype}.")
        if self.layers.ndim != 4 or self.layers.shape[1:] != self.geometry.shape_kji:
            raise InputError(f"Labels of shape {self.layers.shape} don't fit the grid {self.geometry.shape_kji}.")
        expected = (len(self.probability_names), *self.geometry.shape_kji)
        if self.probabilities is not None and self.probabilities.shape != expected:
            raise InputError(f"Probabilities of shape {self.probabilities.shape} don't fit {expected}.")
        if self.uncertainty is not None and self.uncertainty.shape != self.geometry.shape_kji:
            raise InputError(f"An uncertainty of shape {self.uncertainty.shape} doesn't fit {expected[1:]}.")
        if self.agreement and len(self.agreement) != len(self.labels):
            raise InputError(f"There are {len(self.agreement)} agreements for {len(self.labels)} labels.")

    def mask(self, label: Label) -> NDArray[np.bool_]:
        """The voxels (K, J, I) of one structure."""
        return np.asarray(self.layers[label.layer] == label.value)
