"""What one classification network is to learn, and where; the network itself and what it says."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from MedAILib.config import Config
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


@torch.inference_mode()
def scores_of(network: nn.Module, images: Tensor, device: str) -> Tensor:
    """The network's output (N, outputs) for images (N, ...), in full precision."""
    network.eval()
    return torch.cat([network(part.to(device)).float().cpu() for part in images.split(64)])
