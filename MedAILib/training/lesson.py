"""What one classification network is to learn, and where; the network itself and what it says."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from MedAILib.config import Config
from MedAILib.errors import InputError
from MedAILib.models.networks import build_network


@dataclass(frozen=True)
class Lesson:
    """What one network is to learn.

    Args:
        name: of its checkpoint, and for people.
        network: its description, `_target_` and arguments.
        images: (N, C, X, Y[, Z]), or sequences (N, T, C, X, Y[, Z]), normalised.
        targets: (N, outputs), as `Decision.targets` has them; for a distilled network only what its teachers say
            counts.
        epochs: how often it sees the images.
        seed: decides its first weights, the order of images and their changes.
        teachers: networks whose mean probabilities it learns; none: it learns the targets.
        judged: images and targets (M, ...) that it does not learn from; where they are given, the weights of the epoch
            that surprised them least are taken, not the last one's.
    """

    name: str
    network: dict[str, Any]
    images: Tensor
    targets: Tensor
    epochs: int
    seed: int
    teachers: tuple[nn.Module, ...] = ()
    judged: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Bench:
    """Where networks are trained.

    Args:
        folder: gets a checkpoint for each network.
        device: such as "cpu".
        resume: take what stands there already, and go on.
        stamp: tells one task and its data from another; a checkpoint of another stamp is not taken.
        initial: a classifier whose weights each network starts from, as far as they fit.
    """

    folder: Path
    device: str
    resume: bool
    stamp: str
    initial: Path | None = None


def new_network(description: dict[str, Any]) -> nn.Module:
    """A network of a task's description, laid out as the processor likes it best."""
    component = Config({"network": description}, Path()).get("network")
    network = build_network(component.target, component.arguments)
    flat = any(isinstance(part, nn.Conv2d) for part in network.modules())
    return network.to(memory_format=torch.channels_last) if flat else network  # type: ignore[call-overload]


def tried_network(description: dict[str, Any], shape: Sequence[int], outputs: int) -> nn.Module:
    """A network of a task's description that has been seen to take an image of a shape ([T,] C, X, Y[, Z]).

    Raises:
        MedAIError: it can't be built.
        InputError: it fails on such an image, or gives something else than so many numbers.
    """
    network = new_network(description).eval()
    name, told = _named(description), " x ".join(str(n) for n in shape)
    try:
        with torch.no_grad():
            found = network(torch.zeros(1, *shape))
    except (RuntimeError, ValueError, IndexError, TypeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise InputError(
            f"The task's network {name} can't take images of {told} ([frames,] channels, then axes): {reason}; change "
            "the network's arguments, the channels or the size."
        ) from error
    if not isinstance(found, Tensor) or found.shape != (1, outputs):
        given = f"an output of {list(found.shape[1:])}" if isinstance(found, Tensor) else "several outputs"
        raise InputError(
            f"The task's network {name} gives {given} for an image, and the task needs {outputs} "
            f"{'number' if outputs == 1 else 'numbers'}; take a network that classifies."
        )
    return network


def _named(description: dict[str, Any]) -> str:
    """What a network is called, and what is inside of it."""
    inner = description.get("backbone")
    return str(description["_target_"]) + (f" of {inner['_target_']}" if isinstance(inner, dict) else "")


@torch.inference_mode()
def scores_of(network: nn.Module, images: Tensor, device: str) -> Tensor:
    """The network's output (N, outputs) for images (N, ...), in full precision."""
    network.eval()
    return torch.cat([network(part.to(device)).float().cpu() for part in images.split(64)])
