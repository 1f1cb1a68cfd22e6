"""What the user asks of a model, as plain data: the same from the window, the console and the command line."""

import math
from dataclasses import dataclass, field

from MedAILib.errors import InputError
from MedAILib.volume import Roi

PRECISIONS = ("auto", "float32", "half")
ENGINES = ("auto", "torch", "openvino")


@dataclass(frozen=True)
class RunOptions:
    """How one image is to be run.

    Args:
        roi: run inside this box alone; everything outside is background.
        probabilities: also return each class's probability.
        mirror: average over mirrored copies, along the axes that the model's description allows.
        postprocess: apply the clean-up that the model's description asks for (largest component and the like).
        uncertainty: also return each voxel's entropy.
        overlap: share of a window that overlaps the next, 0 to below 1; None takes the model's own.
        precision: the network's number format, one of `PRECISIONS`: "half" allows nearly the same labels, faster.
        engine: what computes the network on a CPU, one of `ENGINES`; "auto" takes what was seen to be faster with the
            same labels.

    Raises:
        InputError: an overlap outside its range, or a word that means nothing.
    """

    roi: Roi | None = None
    probabilities: bool = False
    mirror: bool = False
    postprocess: bool = True
    overlap: float | None = None
    uncertainty: bool = False
    precision: str = "auto"
    engine: str = "auto"

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise InputError(f"There is no precision '{self.precision}'; choose one of {', '.join(PRECISIONS)}.")
        if self.engine not in ENGINES:
            raise InputError(f"There is no engine '{self.engine}'; choose one of {', '.join(ENGINES)}.")
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise InputError(f"The overlap of windows is at least 0 and below 1, not {self.overlap}.")


# Ways to say which voxels speak for a class.
EXPLANATIONS = ("grad-cam", "grad-cam++", "occlusion", "integrated-gradients", "lime", "shap")


@dataclass(frozen=True)
class Slices:
    """Which slices of a volume a model of single pictures looks at.

    Args:
        axis: the voxel axis that the slices lie across: "I", "J" or "K".
        index: one slice, counted from 0; None for each of them.
    """

    axis: str = "K"
    index: int | None = None

    def __post_init__(self) -> None:
        if self.axis not in ("I", "J", "K"):
            raise InputError(f"Slices lie across a voxel axis, I, J or K, not '{self.axis}'.")
        if self.index is not None and self.index < 0:
            raise InputError(f"Slices are counted from 0; there is no slice {self.index}.")


@dataclass(frozen=True)
class Explain:
    """A question for the voxels that speak for a class.

    Args:
        method: one of `EXPLANATIONS`.
        class_name: the class; None for the one that is predicted, or is most likely where none is.
    """

    method: str = "grad-cam"
    class_name: str | None = None

    def __post_init__(self) -> None:
        if self.method not in EXPLANATIONS:
            raise InputError(f"'{self.method}' is no way to explain; choose one of {', '.join(EXPLANATIONS)}.")


@dataclass(frozen=True)
class ClassifyOptions:
    """How one image is to be classified.

    Args:
        roi: look at the voxels inside this box alone.
        box_kji: the same in voxels, (first, last + 1) along K, J and I, such as a segment's; not both.
        slices: for a model of single pictures: which slices of a volume; None for an image that is one slice.
        each_frame: take the volume's channels as frames of a sequence and classify each by itself.
        covariates: the numbers that the model asks for, by name.
        explain: also work out which voxels speak for a class; None leaves it out.

    Raises:
        InputError: both boxes, or covariates that are no finite numbers.
    """

    roi: Roi | None = None
    box_kji: tuple[tuple[int, int], ...] | None = None
    slices: Slices | None = None
    each_frame: bool = False
    covariates: dict[str, float] = field(default_factory=dict)
    explain: Explain | None = None

    def __post_init__(self) -> None:
        if self.roi is not None and self.box_kji is not None:
            raise InputError("A region is a box in millimetres or one in voxels, not both.")
        for name, value in self.covariates.items():
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
                raise InputError(f"The covariate {name} is {value!r}, which is no finite number.")


MOST_IMAGES = 10_000


@dataclass(frozen=True)
class GenerateOptions:
    """Which images are to be made: of noise, or one of an image.

    Args:
        count: how many.
        seed: where the first one's noise begins; image number n of seed s is image 0 of seed s + n.

    Raises:
        InputError: no such count or seed.
    """

    count: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        if isinstance(self.count, bool) or not isinstance(self.count, int) or not 1 <= self.count <= MOST_IMAGES:
            raise InputError(f"1 to {MOST_IMAGES} images can be made at a time, not {self.count}.")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or not 0 <= self.seed < 2**63 - MOST_IMAGES:
            raise InputError(f"A seed is a whole number of at least 0, not {self.seed}.")


@dataclass(frozen=True)
class DetectOptions:
    """How findings are looked for in one image.

    Args:
        roi: look inside this box alone.
        smallest_ml: findings below this volume are left out.
        score_threshold: findings that are less sure are left out, 0 to 1; None takes the model's own.
        overlap_limit: of findings of one class that overlap by more than this (intersection over union in world mm)
            the surest stays alone, 0 to 1; None takes the model's own.

    Raises:
        InputError: a number outside its range.
    """

    roi: Roi | None = None
    smallest_ml: float = 0.0
    score_threshold: float | None = None
    overlap_limit: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.smallest_ml) and self.smallest_ml >= 0):
            raise InputError(f"The smallest finding's volume is at least 0 mL, not {self.smallest_ml}.")
        for what, value in (("score of a finding", self.score_threshold), ("overlap", self.overlap_limit)):
            if value is not None and not 0 <= value <= 1:
                raise InputError(f"The limit of the {what} is 0 to 1, not {value}.")


# What a run may be asked to do, each for models of its own task; boxes also from models that segment, and images of
# an image or, without one, of noise.
Options = RunOptions | ClassifyOptions | DetectOptions | GenerateOptions


@dataclass(frozen=True)
class RunRequest:
    """One run.

    Args:
        model: its name or path.
        device: "auto", "cpu", "cuda", "cuda:1".
        options: those of the task: segmentation, classification, detection or the making of images.
        trust_code: the SHA-256 of a model that the user allows, for this run, to execute code of its own; it comes from
            the user alone, never from a scene or a file.
        statistics: also count the segments of a segmentation and sum up the image in them, where the run is done.
    """

    model: str
    device: str = "auto"
    options: Options = RunOptions()
    trust_code: str = ""
    statistics: bool = False
