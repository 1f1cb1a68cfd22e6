"""What a model is and wants, read from its description without its weights and without PyTorch."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from MedAILib.errors import SpecError
from MedAILib.results import CLASSIFICATION_KINDS, Code, Label

# Scores that say how unlike its training data an image looks to a classifier, both from its output alone.
OUT_OF_DISTRIBUTION_METHODS = ("energy", "entropy")


@dataclass(frozen=True)
class OutOfDistribution:
    """A score of how unlike the training data an image looks, higher is stranger; above the threshold: "not sure".

    Args:
        method: "energy" (minus the log of the sum of exponentials of the scores), or "entropy" (of the probabilities,
            as a share of the largest possible).
        threshold: above it the model does not decide.
        validated_on: the data on which the threshold was chosen, in the author's words.
    """

    method: str
    threshold: float
    validated_on: str = ""


@dataclass(frozen=True)
class Covariate:
    """A number beside the image, such as an age; the network sees (value - mean) / sd."""

    name: str
    mean: float = 0.0
    sd: float = 1.0


@dataclass(frozen=True)
class Classes:
    """What a classifier decides between, and how its numbers become decisions.

    Args:
        names: in the order of its probabilities.
        kind: "binary" (the second of two is the positive one), "multiclass", "multilabel" or "ordinal" (in order).
        dimensions: 2 for a network of single pictures, 3 for one of volumes.
        thresholds: per class; see `Classification`.
        temperature: scores are divided by it before they become probabilities.
        unsure_below: the least probability of a decision.
        out_of_distribution: None where the model brings no such score.
        covariates: numbers that it takes beside the image, in order.
        sequence: it takes the frames of a sequence together.
        frames: of a sequence, how many it was taught with: so many are taken from one, evenly spaced; 0: all.
        codes: a terminology's code of each class, None for those that have none; empty where no class has one.
        labels: what labelled data may call each class; empty where it has the classes' own names or numbers.
        offsets: added to the scores after the division by the temperature, one for each label of a "multilabel" model;
            empty where there are none.

    Raises:
        SpecError: numbers or texts that make no sense, or not one threshold for each class.
    """

    names: tuple[str, ...]
    kind: str
    dimensions: int
    thresholds: tuple[float, ...]
    temperature: float = 1.0
    unsure_below: float = 0.0
    out_of_distribution: OutOfDistribution | None = None
    covariates: tuple[Covariate, ...] = ()
    sequence: bool = False
    frames: int = 0
    codes: tuple[Code | None, ...] = ()
    labels: tuple[tuple[str, ...], ...] = ()
    offsets: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in CLASSIFICATION_KINDS or (self.kind == "binary" and len(self.names) != 2):
            raise SpecError(f"{len(self.names)} classes can't be decided by '{self.kind}'.")
        if len(self.names) < 1 + (self.kind != "multilabel") or len(set(self.names)) != len(self.names):
            raise SpecError(f"The classes {', '.join(self.names)} are too few or not all different.")
        if len(self.thresholds) != len(self.names) or not all(0 <= value <= 1 for value in self.thresholds):
            raise SpecError(f"{list(self.thresholds)} are no thresholds of 0 to 1 for {len(self.names)} classes.")
        if self.codes and len(self.codes) != len(self.names):
            raise SpecError(f"There are {len(self.codes)} codes for {len(self.names)} classes.")
        if self.dimensions not in (2, 3) or not 0 <= self.unsure_below <= 1:
            raise SpecError("A classifier takes images of 2 or 3 dimensions, and is unsure below 0 to 1.")
        if self.frames < 0 or self.frames == 1 or (self.frames and not self.sequence):
            raise SpecError(f"A model that takes {self.frames} frames is none of sequences, which have 2 at least.")
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise SpecError(f"A temperature is a number above 0, not {self.temperature}.")
        if self.offsets and (self.kind != "multilabel" or len(self.offsets) != len(self.names)):
            raise SpecError("Offsets of scores are for several labels ('multilabel'), one for each.")
        if not all(math.isfinite(value) for value in self.offsets):
            raise SpecError(f"{list(self.offsets)} are no offsets of scores, which are finite.")
        strange = self.out_of_distribution
        if strange and (strange.method not in OUT_OF_DISTRIBUTION_METHODS or not math.isfinite(strange.threshold)):
            raise SpecError(f"The out-of-distribution score '{strange.method}' is none that MedAI works out.")
        if strange and strange.method == "energy" and self.kind == "ordinal":
            raise SpecError("The energy of steps between ordered classes means nothing; use 'entropy'.")
        if not all(math.isfinite(x.mean) and math.isfinite(x.sd) and x.sd > 0 for x in self.covariates):
            raise SpecError("A covariate has a mean or a standard deviation that is none.")


@dataclass(frozen=True)
class ModelSpec:
    """A model's interface and papers; what happens between input and output is the model's own business.

    Args:
        name: what the user calls it: the name of its folder.
        version: the author's version of it.
        task: "segmentation", "classification", "detection" and others.
        source: its folder or file.
        title: its full name for people.
        description: a sentence or more.
        channels: one name per input channel, in order.
        labels: the structures it finds, background left out.
        modality: such as "MR" or "CT"; empty when unknown.
        orientation: three letters of the network's axes, such as "RAS"; None when it takes images as they lie.
        spacing_mm: voxel spacing along these axes in mm, 0 or less for the image's own; None when it takes images as
            they are.
        patch: size of its window along these axes in voxels, 0 or less for the image's own; None when it takes images
            whole.
        mirror_axes: network axes along which its author says it may be mirrored.
        steps: its preprocessing, inference and post-processing in words, in order.
        weights_bytes: size of its weights; 0 when not known.
        window_values: numbers (float32) that its network holds at its peak for each voxel of its window; None when not
            known.
        gradient_values: likewise with the gradients of all its layers, which some explanations want.
        overlap: share of a window that overlaps the next, as its author has it.
        licence, authors, data_source, intended_use, references, warnings: what its author wrote.
        classes: what a classifier decides between; None for other tasks.
        findings: the classes of what a detector finds; empty for other tasks.
        finding_codes: a terminology's code of each of them, None for those that have none; empty where none has one.
        finding_labels: what data may call each of them, beside its name; empty where that is not told.
        obstacle: why it can't be run, in a sentence, as far as its description tells; empty where nothing is known.

    Raises:
        SpecError: no channels; label values or names that are not unique; sizes that are none.
    """

    name: str
    version: str
    task: str
    source: Path
    title: str
    description: str
    channels: tuple[str, ...]
    labels: tuple[Label, ...]
    modality: str = ""
    orientation: str | None = None
    spacing_mm: tuple[float, ...] | None = None
    patch: tuple[int, ...] | None = None
    mirror_axes: tuple[int, ...] = ()
    steps: tuple[str, ...] = ()
    licence: str = ""
    authors: str = ""
    data_source: str = ""
    intended_use: str = ""
    references: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())
    obstacle: str = ""
    classes: Classes | None = None
    weights_bytes: int = 0
    window_values: float | None = None
    gradient_values: float | None = None
    overlap: float = 0.0
    findings: tuple[str, ...] = ()
    finding_codes: tuple[Code | None, ...] = ()
    finding_labels: tuple[tuple[str, ...], ...] = ()

    def __post_init__(self) -> None:
        if not self.channels:
            raise SpecError(f"The model {self.name} names no input channel.")
        for what, keys in (
            ("values", [(x.layer, x.value) for x in self.labels]),
            ("names", [x.name for x in self.labels]),
        ):
            if len(set(keys)) != len(keys):
                raise SpecError(f"The model {self.name} has labels of equal {what}.")
        for what, sizes in (("voxel spacing", self.spacing_mm), ("window", self.patch)):
            if sizes is not None and not all(math.isfinite(size) for size in sizes):
                raise SpecError(f"The model {self.name} has a {what} of {list(sizes)}, which is not finite.")
        if not set(self.mirror_axes) <= {0, 1, 2} or len(set(self.mirror_axes)) != len(self.mirror_axes):
            raise SpecError(f"The model {self.name} may be mirrored along the axes {self.mirror_axes}, which are none.")
        for label in self.labels:
            if label.color is not None and not all(0 <= part <= 1 for part in label.color):
                raise SpecError(f"The model {self.name} has a colour for {label.name} outside of 0 to 1.")
