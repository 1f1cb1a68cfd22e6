"""Images made by a model, of noise or of another image: the way for the console and for scripts, in one process."""

from pathlib import Path
from typing import Any

from MedAILib.errors import SpecError
from MedAILib.models.generator import GeneratorModel
from MedAILib.models.images import ImageModel
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.request import GenerateOptions, RunOptions
from MedAILib.results import Generated
from MedAILib.volume import Volume


def generate(
    source: Path, options: GenerateOptions | None = None, device: str = "auto", progress: Progress | None = None
) -> Generated:
    """Make images of noise.

    Args:
        source: the model's folder (`find_model` gives that of a name).
        options: how many, and from which seed on; None makes one.
        device: "auto", "cpu", "cuda", "cuda:1".
        progress: hears each step; may cancel.

    Raises:
        MedAIError: the model is none that makes images of noise, or can't be run.
        Cancelled: by `progress`.

    Example::

        hands = generate(find_model("mednist_gan"), GenerateOptions(count=10, seed=1))
        nodes = write_generated(hands, slicer.mrmlScene)
    """
    return made_of_noise(open_model(source, device), options or GenerateOptions(), progress or Progress())


def translate(
    source: Path,
    volume: Volume,
    options: RunOptions | None = None,
    device: str = "auto",
    progress: Progress | None = None,
) -> Generated:
    """Make an image of an image, on its own grid; as `generate` otherwise.

    Raises:
        MedAIError: the model is none that makes images of images, can't be run, or does not suit the volume.
        Cancelled: by `progress`.
    """
    return made_of_image(open_model(source, device), volume, options or RunOptions(), progress or Progress())


def made_of_noise(model: Any, options: GenerateOptions, progress: Progress) -> Generated:
    """What `generate` does, with a model that is open."""
    if not isinstance(model, GeneratorModel):
        raise SpecError(f"The model {model.spec.name} is for {model.spec.task}; it makes no images of noise.")
    return model.generate(options, progress)


def made_of_image(model: Any, volume: Volume, options: RunOptions, progress: Progress) -> Generated:
    """What `translate` does, with a model that is open."""
    if not isinstance(model, ImageModel):
        raise SpecError(f"The model {model.spec.name} is for {model.spec.task}; it makes no images of images.")
    return model.translate(volume, options, progress)
