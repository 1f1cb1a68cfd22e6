"""What a model is and wants, read from its description without its weights and without PyTorch."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from MedAILib.errors import SpecError
from MedAILib.results import Label


@dataclass(frozen=True)
class ModelSpec:
    """A model's interface and papers; what happens between input and output is the model's own business.

    Args:
        name: what the user calls it: the name of its folder.
        version: the author's version of it.
        task: "segmentation", "classification", "detection" and others; MedAI runs the first.
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
        licence, authors, data_source, intended_use, references, warnings: what its author wrote.
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
    weights_bytes: int = 0
    window_values: float | None = None

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
