"""What the user asks of a model, as plain data: the same from the window, the console and the command line."""

from dataclasses import dataclass

from MedAILib.errors import InputError
from MedAILib.volume import Roi


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

    Raises:
        InputError: an overlap outside its range.
    """

    roi: Roi | None = None
    probabilities: bool = False
    mirror: bool = False
    postprocess: bool = True
    overlap: float | None = None
    uncertainty: bool = False

    def __post_init__(self) -> None:
        if self.overlap is not None and not 0 <= self.overlap < 1:
            raise InputError(f"The overlap of windows is at least 0 and below 1, not {self.overlap}.")


@dataclass(frozen=True)
class RunRequest:
    """One run: a model by name or path, a device ("auto", "cpu", "cuda", "cuda:1") and the options.

    `trust_code` is the SHA-256 of a model that the user allows, for this run, to execute code of its own; it comes
    from the user alone, never from a scene or a file.
    """

    model: str
    device: str = "auto"
    options: RunOptions = RunOptions()
    trust_code: str = ""
