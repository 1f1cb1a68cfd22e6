"""One image through one classification network: choose what to look at, prepare, run, calibrate."""

from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from MedAILib.errors import InputError, ModelError
from MedAILib.inference.frame import Frame
from MedAILib.inference.ladder import Preparing
from MedAILib.inference.looks import Look, looks_at
from MedAILib.inference.memory import is_out_of_memory
from MedAILib.inference.place import CPU
from MedAILib.inference.prepare import Step, prepare
from MedAILib.progress import Progress
from MedAILib.request import ClassifyOptions
from MedAILib.results import Place
from MedAILib.spec import Classes, OutOfDistribution
from MedAILib.volume import Volume


@dataclass(frozen=True)
class ClassifyRecipe:
    """What a classifier does around its network.

    Args:
        steps: preprocessing.
        classes: what it decides between.
        channels: of the network's input (of one frame, for a sequence).
        outputs: numbers that come out of the network.
        activation: "softmax" or "sigmoid", from the network's output to probabilities.
        colour: its three channels are red, green and blue, or a grey picture three times.
    """

    steps: tuple[Step, ...]
    classes: Classes
    channels: int
    outputs: int
    activation: str
    colour: bool = False


@dataclass(frozen=True)
class Prepared:
    """One look as the network sees it: a batch of one, and how its grid lies in the look's volume."""

    image: Tensor
    frame: Frame
    look: Look


@dataclass(frozen=True)
class Classified:
    """Rows of numbers: the network's scores (R, S), calibrated probabilities (R, C), and strangeness (R,) if known.

    What the network saw, its covariates (1, n) too, is kept where an explanation is asked for. `gave_way` is what did
    where memory was short.
    """

    places: tuple[Place, ...]
    scores: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    strangeness: NDArray[np.float64] | None
    prepared: tuple[Prepared, ...]
    covariates: Tensor | None
    gave_way: tuple[str, ...]


def classify(
    volume: Volume, network: nn.Module, recipe: ClassifyRecipe, options: ClassifyOptions, progress: Progress
) -> Classified:
    """Classify one image, or its slices or frames one after another, on the device that the network is on.

    Raises:
        InputError: the image or an option does not suit the model.
        ModelError: the network's output is not what its description says, or not finite.
        Cancelled: by `progress`, between two looks.
    """
    covariates = covariate_row(recipe.classes, options)
    looks = looks_at(volume, recipe.classes, recipe.channels, recipe.colour, options, progress)
    places, prepared, rows = [], [], []
    device, preparing = next(network.parameters()).device, Preparing(progress)
    for done, look in enumerate(looks):
        progress.step(done, len(looks), "Classifying")
        told = progress if len(looks) == 1 else _WarningsOf(progress)
        ready = preparing(device, partial(prepare_look, look, recipe, told))
        output = run_network(network, ready.image, covariates, recipe.outputs)
        rows.append(output[0].double().cpu())
        places.append(look.place)
        if options.explain is not None:
            prepared.append(ready)
    progress.step(len(looks), len(looks), "Classifying")
    scores = torch.stack(rows)
    probabilities = probabilities_of(scores, recipe)
    strange = recipe.classes.out_of_distribution
    return Classified(
        tuple(places),
        scores.numpy(),
        probabilities.numpy(),
        None if strange is None else _strangeness(scores, probabilities, recipe, strange),
        tuple(prepared),
        covariates,
        preparing.gave_way,
    )


def prepare_look(look: Look, recipe: ClassifyRecipe, progress: Progress, device: torch.device = CPU) -> Prepared:
    """Take one look through preprocessing; a sequence frame by frame, stacked as (1, T, C, X, Y[, Z]).

    Raises:
        InputError: as `prepare`.
        ModelError: the frames differ in size after preprocessing.
    """
    images, frame = [], None
    flat: tuple[Step, ...] = (_flat_axis_last,) if recipe.classes.dimensions == 2 else ()
    for part in look.parts:
        image, frame = prepare(part, (*flat, *recipe.steps), progress, device)
        if recipe.classes.dimensions == 2:
            if image.shape[-1] != 1:
                raise ModelError(
                    "The model's preprocessing makes a volume of a single slice; it can't be for pictures."
                )
            image = image[..., 0]
        images.append(image.contiguous())
    assert frame is not None, "a look has at least one part"
    if any(image.shape != images[0].shape for image in images):
        raise ModelError("The model's preprocessing cuts the frames to different sizes, which a sequence can't have.")
    return Prepared(torch.stack(images)[None] if recipe.classes.sequence else images[0][None], frame, look)


def _flat_axis_last(image: Tensor, frame: Frame, ijk_to_ras: NDArray[np.float64]) -> tuple[Tensor, Frame]:
    """Bring the axis of a single voxel to the end, where networks of pictures have none."""
    axis = 2 if frame.shape[2] == 1 else frame.shape.index(1)
    order = (*(other for other in range(3) if other != axis), axis)
    return image.permute(0, *(axis + 1 for axis in order)), frame.permuted(order)


def run_network(network: nn.Module, image: Tensor, covariates: Tensor | None, outputs: int) -> Tensor:
    """The network's output (B, outputs) for a batch.

    Raises:
        ModelError: it fails on an image of this size, or its output is not as described or not finite.
    """
    device = next(network.parameters()).device
    extra = () if covariates is None else (covariates.to(device).expand(len(image), -1),)
    try:
        output = network(image.to(device), *extra)
    except (RuntimeError, ValueError, IndexError) as error:
        if is_out_of_memory(error):
            raise
        raise ModelError(
            f"The network can't take an image of {list(image.shape[2:])} ({str(error).splitlines()[0]}); the model's "
            "preprocessing or the image does not suit it."
        ) from error
    if isinstance(output, (list, tuple)):
        output = output[0]
    if output.shape != (len(image), outputs):
        raise ModelError(
            f"The network gave an output of shape {list(output.shape[1:])}, where the model's description promises "
            f"{outputs} numbers."
        )
    if not bool(torch.isfinite(output).all()):
        raise ModelError("The network's output is not finite; its weights or the intensities don't suit.")
    return torch.as_tensor(output)


def probabilities_of(scores: Tensor, recipe: ClassifyRecipe) -> Tensor:
    """Calibrated probabilities (R, C) of a network's output (R, S)."""
    scores = scores / recipe.classes.temperature
    if recipe.classes.offsets:
        scores = scores + torch.tensor(recipe.classes.offsets, dtype=scores.dtype, device=scores.device)
    if recipe.classes.kind == "ordinal":  # the probability of being above each step, which never rises
        above = torch.cummin(scores.sigmoid(), dim=1).values
        ones, zeros = torch.ones_like(above[:, :1]), torch.zeros_like(above[:, :1])
        return torch.cat((ones, above), dim=1) - torch.cat((above, zeros), dim=1)
    if recipe.outputs < len(recipe.classes.names):  # one output of two classes
        return torch.cat((scores, -scores), dim=1).sigmoid().flip(1)
    return scores.softmax(dim=1) if recipe.activation == "softmax" else scores.sigmoid()


def covariate_row(classes: Classes, options: ClassifyOptions) -> Tensor | None:
    """The covariates as the network wants them, (1, n); None for a model that takes none.

    Raises:
        InputError: one is missing, or given to a model that does not ask for it.
    """
    wanted = [covariate.name for covariate in classes.covariates]
    missing = [name for name in wanted if name not in options.covariates]
    if missing:
        raise InputError(f"The model also wants {', '.join(wanted)} as covariates; {', '.join(missing)} is missing.")
    unknown = sorted(set(options.covariates) - set(wanted))
    if unknown:
        what = f"only {', '.join(wanted)}" if wanted else "none"
        raise InputError(f"The model does not know the covariate {unknown[0]}; it takes {what}.")
    if not wanted:
        return None
    return torch.tensor([[(options.covariates[c.name] - c.mean) / c.sd for c in classes.covariates]])


def _strangeness(
    scores: Tensor, probabilities: Tensor, recipe: ClassifyRecipe, told: OutOfDistribution
) -> NDArray[np.float64]:
    """How unlike the training data each row looks, (R,), higher is stranger."""
    if told.method == "entropy":
        p = probabilities.clamp(1e-12, 1)
        if recipe.activation == "sigmoid" and recipe.classes.kind == "multilabel":
            both = torch.stack((p, (1 - p).clamp(1e-12, 1)))
            strange = -(both * both.log()).sum(dim=0).mean(dim=1) / np.log(2)
        else:
            strange = -(p * p.log()).sum(dim=1) / np.log(probabilities.shape[1])
    elif recipe.classes.kind == "multilabel":
        strange = -nn.functional.softplus(scores).sum(dim=1)
    else:
        alone = scores.shape[1] == 1  # of two classes: the other's score is 0
        strange = -(torch.cat((torch.zeros_like(scores), scores), dim=1) if alone else scores).logsumexp(dim=1)
    return np.asarray(strange, dtype=np.float64)


class _WarningsOf(Progress):
    """Hands warnings on, and keeps steps within one of many looks to itself; cancelling waits for its end."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def warn(self, text: str) -> None:
        self._progress.warn(text)
