"""What a model's run gives back: plain data on the input's own grid, and how it came about."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.detections import Detections
from MedAILib.errors import InputError
from MedAILib.volume import Geometry, Volume

CLASSIFICATION_KINDS = ("binary", "multiclass", "multilabel", "ordinal")


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


@dataclass(frozen=True, eq=False)
class Generated:
    """Images that a model made, of noise or of another image. They show no patient.

    Args:
        volumes: each (C, K, J, I) float32 on a grid of its own.
        seeds: of each one's noise; empty for those that were made of an image.
        names: of the channels, in order.
        provenance: as `Segmentation`'s.

    Raises:
        InputError: no image at all, voxels that are no finite float32, or lists of different lengths.
    """

    volumes: tuple[Volume, ...]
    seeds: tuple[int, ...] = ()
    names: tuple[str, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.volumes or (self.seeds and len(self.seeds) != len(self.volumes)):
            raise InputError(f"There are {len(self.volumes)} images with {len(self.seeds)} seeds.")
        for volume in self.volumes:
            if volume.data.dtype != np.float32 or not np.isfinite(volume.data).all():
                raise InputError(f"The voxels of {volume.name} are {volume.data.dtype}, and not all finite float32.")
            if self.names and len(self.names) != volume.channels:
                raise InputError(f"{volume.name} has {volume.channels} channels for {len(self.names)} names.")


@dataclass(frozen=True)
class Place:
    """What one row of a classification looks at.

    Args:
        what: "image" (all of it, or of its region), "slice" or "frame".
        index: the slice's or frame's number, counted from 0 on the input's own grid; None for "image".
        axis: the voxel axis that a slice lies across, "I", "J" or "K"; empty for others.
        position_mm: where a slice lies along that axis, from the first slice's centre; None for others.
        box_kji: (first, last + 1) voxel along K, J and I of the part that was looked at.
    """

    what: str
    box_kji: tuple[tuple[int, int], ...]
    index: int | None = None
    axis: str = ""
    position_mm: float | None = None

    @property
    def text(self) -> str:
        """For people: "image", "slice K 12", "frame 3"."""
        return " ".join(str(part) for part in (self.what, self.axis, self.index) if part not in ("", None))


@dataclass(frozen=True)
class Verdict:
    """What was decided: the classes (none, or with several labels more than one), or why it is not sure."""

    classes: tuple[str, ...]
    unsure: str = ""

    @property
    def text(self) -> str:
        """For people: "malignant", "edema, effusion", "none", "not sure"."""
        return "not sure" if self.unsure else ", ".join(self.classes) or "none"


@dataclass(frozen=True, eq=False)
class Saliency:
    """Which voxels speak for a class, on the input's own grid.

    Args:
        values: (K, J, I) float32; the largest magnitude is 1, 0 where nothing was looked at. Below 0, where the method
            tells that, speaks against the class.
        geometry: the input's grid.
        class_name: the class that is explained.
        method: one of `request.EXPLANATIONS`.
        scale: the magnitude, in the method's own unit, that became 1; 0 where nothing speaks for or against.
        description: how the values came about, for people.

    Raises:
        InputError: values of another shape or type, not finite or beyond -1 to 1.
    """

    values: NDArray[np.float32]
    geometry: Geometry
    class_name: str
    method: str
    scale: float
    description: str = ""

    def __post_init__(self) -> None:
        if self.values.shape != self.geometry.shape_kji or self.values.dtype != np.float32:
            raise InputError(f"A saliency of {self.values.dtype} {self.values.shape} is not float32 on the grid.")
        if not np.isfinite(self.values).all() or np.abs(self.values).max() > 1 + 1e-5:
            raise InputError("A saliency has values from -1 to 1.")


@dataclass(frozen=True, eq=False)
class Classification:
    """What an image, or each of its slices or frames, shows.

    How rows are decided, by `kind`: "binary" takes the second class where its probability reaches its threshold, else
    the first; "multiclass" the largest, if it reaches its threshold; "multilabel" every class that reaches its own;
    "ordinal" the last class k for which the probabilities of k and all above it together reach k's threshold.

    Args:
        classes: names, in order.
        kind: one of `CLASSIFICATION_KINDS`.
        probabilities: (R, C), 0 to 1, calibrated where the model is; one row for each place.
        scores: (R, S), the network's own output.
        thresholds: one for each class, 0 to 1.
        places: what each row looks at.
        geometry: the input's grid.
        unsure_below: a decision needs at least this probability.
        strangeness: (R,), how unlike the training data each row looks; None where the model has no such score.
        strange_above: above this no decision is made; None with `strangeness`.
        saliency: which voxels speak for a class, if that was asked for.
        codes: a terminology's code of each class, None for those that have none; empty where no class has one.
        provenance: as `Segmentation`'s.

    Raises:
        InputError: lists of different lengths, probabilities outside of 0 to 1.
    """

    classes: tuple[str, ...]
    kind: str
    probabilities: NDArray[np.float64]
    scores: NDArray[np.float64]
    thresholds: tuple[float, ...]
    places: tuple[Place, ...]
    geometry: Geometry
    unsure_below: float = 0.0
    strangeness: NDArray[np.float64] | None = None
    strange_above: float | None = None
    saliency: Saliency | None = None
    codes: tuple[Code | None, ...] = ()
    provenance: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        rows, count = len(self.places), len(self.classes)
        if self.kind not in CLASSIFICATION_KINDS:
            raise InputError(
                f"'{self.kind}' is no kind of classification; there are {', '.join(CLASSIFICATION_KINDS)}."
            )
        if not rows or not count or len(set(self.classes)) != count:
            raise InputError("A classification needs at least one row, and classes with names of their own.")
        if self.probabilities.shape != (rows, count) or len(self.scores) != rows or len(self.thresholds) != count:
            raise InputError(
                f"Probabilities {self.probabilities.shape}, scores {self.scores.shape} and {len(self.thresholds)} "
                f"thresholds don't fit {rows} rows of {count} classes."
            )
        if not ((self.probabilities >= 0) & (self.probabilities <= 1)).all() or not np.isfinite(self.scores).all():
            raise InputError("Probabilities are numbers from 0 to 1, and scores are finite.")
        if self.codes and len(self.codes) != count:
            raise InputError(f"There are {len(self.codes)} codes for {count} classes.")
        if (self.strangeness is None) != (self.strange_above is None):
            raise InputError("An out-of-distribution score comes with its threshold.")
        if self.strangeness is not None and self.strangeness.shape != (rows,):
            raise InputError(f"There are {self.strangeness.shape} out-of-distribution scores for {rows} rows.")
        if self.saliency is not None and not self.saliency.geometry.same_grid_as(self.geometry):
            raise InputError("The saliency is not on the grid of the image.")

    def verdict(self, row: int = 0) -> Verdict:
        """What is decided for one row."""
        p = self.probabilities[row]
        if self.strangeness is not None and self.strange_above is not None:
            strange = float(self.strangeness[row])
            if strange > self.strange_above:
                return Verdict(
                    (), f"the image is unlike the training data: score {strange:.3g} > {self.strange_above:g}"
                )
        if self.kind == "multilabel":
            chosen = tuple(name for name, v, t in zip(self.classes, p, self.thresholds, strict=True) if v >= t)
            sure, least = float(np.maximum(p, 1 - p).min()), self.classes[int(np.argmin(np.abs(p - 0.5)))]
        else:
            place = self._single(row)
            chosen, sure, least = (self.classes[place],), float(p[place]), self.classes[place]
            if self.kind == "multiclass" and sure < self.thresholds[place]:
                return Verdict((), f"the largest probability, {sure:.3f} of {least}, is below its threshold")
        if sure < self.unsure_below:
            return Verdict((), f"the probability of {least} leaves too much doubt: {sure:.3f} < {self.unsure_below:g}")
        return Verdict(chosen)

    @property
    def likeliest(self) -> str:
        """The class decided for where there is one row and one class; else that of the largest probability."""
        chosen = self.verdict().classes if len(self.places) == 1 else ()
        return chosen[0] if len(chosen) == 1 else self.classes[int(self.probabilities.max(axis=0).argmax())]

    def _single(self, row: int) -> int:
        """The class that a row is decided for, where there is one."""
        p = self.probabilities[row]
        if self.kind == "binary":
            return int(p[1] >= self.thresholds[1])
        if self.kind == "ordinal":
            at_least = np.cumsum(p[::-1])[::-1]
            return max((k for k in range(1, len(p)) if at_least[k] >= self.thresholds[k]), default=0)
        return int(p.argmax())


# What a run may give, by its task.
Result = Segmentation | Classification | Detections | Generated
