"""The networks that a model's description may name, and nothing else."""

import math
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from monai.networks import nets
from torch import nn
from torch.nn.modules.module import register_module_module_registration_hook
from torch.overrides import TorchFunctionMode

from MedAILib.bundle_needs import REVIEWED_NETWORKS
from MedAILib.config_values import Component, Lambda, Name, Stored, known, parts
from MedAILib.detection_plan import FASTER_RCNN, is_faster_rcnn
from MedAILib.errors import MedAIError, ModelError, SpecError
from MedAILib.models.covariates import CovariateClassifier
from MedAILib.models.efficientnet_lite import EfficientNetLite
from MedAILib.models.fcn import FCN
from MedAILib.models.kernel_classifier import KernelClassifier
from MedAILib.models.mean_classifier import MeanClassifier
from MedAILib.models.retinanet import retinanet
from MedAILib.models.sequence import SequenceClassifier
from MedAILib.models.textbook import TextbookCNN
from MedAILib.models.torchvision_networks import faster_rcnn_network, torchvision_network
from MedAILib.models.unest import UNesT
from MedAILib.models.weights import load_arrays

# Of `monai.networks.nets`; other spellings that MONAI has for them count too.
SEGMENTATION = (
    "AHNet",
    "AttentionUnet",
    "BasicUNet",
    "BasicUNetPlusPlus",
    "DAF3D",
    "DiNTS",
    "DynUNet",
    "FlexibleUNet",
    "HighResNet",
    "HoVerNet",
    "MedNeXt",
    "SegResNet",
    "SegResNetDS",
    "SegResNetDS2",
    "SegResNetVAE",
    "SwinUNETR",
    "UNETR",
    "UNet",
    "VNet",
)
CLASSIFICATION = (
    *(f"resnet{depth}" for depth in (10, 18, 34, 50, 101, 152, 200)),
    "Classifier",
    "ResNet",
    "TorchVisionFCModel",
    *(f"DenseNet{depth}" for depth in (121, 169, 201, 264)),
    *(f"SEResNet{depth}" for depth in (50, 101, 152)),
    *(f"SEResNeXt{depth}" for depth in (50, 101)),
    "DenseNet",
    "EfficientNetBN",
    "SENet154",
    "ViT",
)
# Of `monai.apps.detection`.
DETECTION = ("RetinaNet",)
GENERATION = ("AutoEncoder", "AutoencoderKL", "DiffusionModelUNet", "Generator", "VarAutoEncoder")
# What a network takes as an argument that is itself built.
PARTS = ("TopologyInstance",)
NETWORKS: dict[str, Callable[..., nn.Module]] = {
    name: getattr(nets, name) for name in (*SEGMENTATION, *CLASSIFICATION, *GENERATION, "vista3d132")
}
# MedAI's own; some take other networks as "backbone" or "members".
OWN: dict[str, type[nn.Module]] = {
    "CovariateClassifier": CovariateClassifier,
    "EfficientNetLite": EfficientNetLite,
    "FCN": FCN,
    "KernelClassifier": KernelClassifier,
    "MeanClassifier": MeanClassifier,
    "SequenceClassifier": SequenceClassifier,
    "TextbookCNN": TextbookCNN,
    "UNesT": UNesT,
}
# Which of these would fetch something from the net, and the value that keeps them from it: all weights are the model's.
NOT_FETCHED = {"pretrained": False, "pretrained_url": None, "progress": False, "weights": None}
# Arguments that newer MONAI dropped since they no longer mattered.
DROPPED = {"SwinUNETR": ("img_size",)}
# How many spatial axes a network has that isn't told.
DEFAULT_AXES = {"FlexibleUNet": 2, "HoVerNet": 2, "EfficientNetBN": 2, "TorchVisionFCModel": 2}
DEFAULT_AXES |= dict.fromkeys(FASTER_RCNN, 2)
LARGEST_NUMBER = 1_000_000
# The most parts that a network is put together of; the largest of the list (DiNTS) has 3,200.
MOST_PARTS = 5_000
# Tensors that hold no weights (grids of indices) are made for real while a network is only sketched.
LARGEST_GRID = 1 << 26


def require_network(target: str) -> str:
    """The allow-list's own name of a network.

    Raises:
        SpecError: the network is not on the list.
    """
    name = target.rpartition(".")[2]
    if target in REVIEWED_NETWORKS or (
        name in DETECTION and target in (name, f"monai.apps.detection.networks.retinanet_network.{name}")
    ):
        return name
    if name in OWN and target in (name, f"{OWN[name].__module__}.{name}"):
        return name
    if is_faster_rcnn(Component(target)):
        return name
    found = getattr(nets, name, None) if re.fullmatch(r"\w+", name) else None
    for own, network in NETWORKS.items():
        module = getattr(network, "__module__", "")
        if found is network and target in (name, f"monai.networks.nets.{name}", f"{module}.{name}"):
            return own
    every = ", ".join(sorted((*DETECTION, *NETWORKS)))
    raise SpecError(f"The network '{target}' is not one that MedAI builds; it knows {every}.")


def network_axes(network: Component) -> int:
    """How many spatial axes a network has: 2 for slices, 3 for volumes."""
    axes = network.arguments.get("spatial_dims", DEFAULT_AXES.get(network.name, 3))
    return axes if isinstance(axes, int) else 3


def build_network(target: str, arguments: dict[str, Any], folder: Path | None = None) -> nn.Module:
    """Construct a network of the allow-list by its MONAI class name (a dotted path counts by its last part).

    Args:
        target: the name.
        arguments: what its constructor is given: plain values, parts on the list, and arrays stored in the model.
        folder: the model's, where stored arrays are read from.

    Raises:
        SpecError: the network is not on the list, or an argument is nothing to build one from.
        ModelError: MONAI refuses the arguments.
    """
    name = require_network(target)
    if name in DETECTION:
        return _detection_network(name, arguments, folder)
    if name in FASTER_RCNN:
        told = {key: _argument(name, key, known(value), folder) for key, value in arguments.items()}
        picked: nn.Module = _constructed(name, faster_rcnn_network, {"name": name, **told})
        return picked
    dropped = DROPPED.get(name, ())
    plain = {key: _argument(name, key, known(value), folder) for key, value in arguments.items() if key not in dropped}
    kept = {key: NOT_FETCHED.get(key, value) for key, value in plain.items()}
    if name == "EfficientNetBN":  # would fetch by default
        kept["pretrained"] = False
    network: nn.Module = (
        _constructed(name, torchvision_network, plain)
        if name == "TorchVisionFCModel"
        else _constructed(name, OWN.get(name) or NETWORKS[name], kept)
    )
    return network


def _detection_network(name: str, arguments: dict[str, Any], folder: Path | None) -> nn.Module:
    """A RetinaNet; its residual network is built from the list of all."""

    def backbone(component: Component) -> nn.Module:
        if component.positional:
            raise SpecError(f"The network '{component.target}' has arguments without names, which MedAI does not read.")
        return build_network(component.target, component.arguments, folder)

    plain = {
        key: value if key == "feature_extractor" else _argument(name, key, known(value), folder)
        for key, value in arguments.items()
    }
    network: nn.Module = _constructed(name, retinanet, {"build_backbone": backbone, **plain})
    return network


class Prompted(nn.Module):
    """VISTA3D asked for a fixed list of classes: an output channel for each, after one of zeros for the background.

    Args:
        network: takes an image (1, 1, X, Y, Z) and class numbers (N, 1).
        classes: the numbers.
    """

    def __init__(self, network: nn.Module, classes: tuple[int, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("classes", torch.tensor(classes)[:, None], persistent=False)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """Logits (1, 1 + N, X, Y, Z)."""
        found = self.network(image, class_vector=self.classes, transpose=True)
        return torch.cat([torch.zeros_like(found[:, :1]), found], dim=1)


@contextmanager
def sketched() -> Iterator[None]:
    """Within this, tensors that hold weights take no memory, so that a network of any size can be looked at."""
    with _Sketch():
        yield


class _Sketch(TorchFunctionMode):
    """Sends what makes parameters to the device "meta"; small grids of indices are computed as ever."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        if func in _MAKERS and kwargs.get("device") is None:
            kwargs["device"] = "meta"
        made = func(*args, **kwargs)
        if isinstance(made, torch.Tensor) and made.device.type == "cpu" and made.numel() > LARGEST_GRID:
            raise ValueError(f"a grid of {made.numel()} indices is too large")
        return made


_MAKERS = (torch.empty, torch.zeros, torch.ones, torch.full, torch.rand, torch.randn, torch.normal)


@contextmanager
def _bounded() -> Iterator[None]:
    """Stops with `ValueError` what puts a network together of more parts than any has, before it takes hours."""
    count = 0

    def one_more(*_: object) -> None:
        nonlocal count
        count += 1
        if count > MOST_PARTS:
            raise ValueError(f"it would have more than {MOST_PARTS} parts")

    hook = register_module_module_registration_hook(one_more)
    try:
        yield
    finally:
        hook.remove()


def _constructed(name: str, network: Callable[..., Any], arguments: dict[str, Any]) -> Any:
    try:
        with _bounded():
            return network(**arguments)
    except MedAIError:
        raise
    except ImportError as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ModelError(f"The network {name} needs a Python package that can't be used here: {reason}.") from error
    except (
        TypeError,
        ValueError,
        AssertionError,
        NotImplementedError,
        ArithmeticError,
        LookupError,
        RuntimeError,
        AttributeError,
    ) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise ModelError(f"The network {name} can't be built from the model's description: {reason}.") from error


def _argument(name: str, key: str, value: Any, folder: Path | None) -> Any:
    """One argument: plain values as they are, stored arrays read, parts built."""
    if isinstance(value, Stored):
        return _stored(value, folder)
    if isinstance(value, list) and any(isinstance(part, Stored) for part in value):
        return [_argument(name, key, part, folder) for part in value]
    if isinstance(value, Component) and name in OWN and key == "backbone":
        return build_network(value.target, value.arguments, folder)
    if name == "MeanClassifier" and key == "members":
        if not isinstance(value, list) or not all(isinstance(part, Component) for part in value):
            raise SpecError(f"The network {name} has members that are no networks.")
        return [build_network(part.target, part.arguments, folder) for part in value]
    if isinstance(value, Component):
        part = value.name
        if part not in PARTS or value.positional or value.target not in (part, f"monai.networks.nets.{part}"):
            raise SpecError(f"The network {name} has '{key}' = '{value.target}', which MedAI does not build.")
        # Where it runs is the user's choice; MONAI has no other argument of the name "device".
        inner = {k: _argument(part, k, known(v), folder) for k, v in value.arguments.items() if k != "device"}
        inner = {k: [_array(item) for item in v] if k == "arch_code" else v for k, v in inner.items()}
        return _constructed(part, getattr(nets, part), inner)
    for part in parts(value):
        if isinstance(part, (Component, Name, Lambda, Stored)):
            raise SpecError(f"The network {name} has '{key}' = {part!r}, which is nothing to build it from.")
        if isinstance(part, (int, float)) and not abs(part) <= LARGEST_NUMBER and key not in NOT_FETCHED:
            raise ModelError(f"The network {name} can't be built from the model's description: '{key}' is {part:g}.")
    return str(value) if isinstance(value, PurePosixPath) else value


def _array(value: Any) -> Any:
    """MONAI's search spaces take NumPy arrays."""
    return value.numpy() if isinstance(value, torch.Tensor) else value


def _stored(stored: Stored, folder: Path | None) -> torch.Tensor:
    """Read an array that a config takes from a file of the model.

    Raises:
        SpecError: the file lies elsewhere, or holds no such array.
    """
    path = PurePosixPath(stored.file)
    if folder is None or path.is_absolute() or ".." in path.parts or "\\" in stored.file or ":" in stored.file:
        raise SpecError(f"The model takes numbers from '{stored.file}', which lies outside of it.")
    value: Any = load_arrays(folder / path)
    for key in stored.keys:
        value = value.get(key) if isinstance(value, dict) else None
    if not isinstance(value, torch.Tensor):
        raise SpecError(f"The file {folder / path} holds no array under {' / '.join(stored.keys) or 'its top'}.")
    return value


def window_multiple(network: Component) -> tuple[int, ...] | None:
    """Along each axis, what the size of a window must be a multiple of for a network to take it; None: not known."""
    arguments = network.arguments
    try:
        if network.name in ("DynUNet", "FCN", "UNet"):
            strides = [(n,) * 3 if isinstance(n, int) else tuple(n) for n in arguments["strides"]]
            return tuple(math.prod(stride[axis] for stride in strides) for axis in range(3))
        if network.name == "BasicUNet":
            return (16, 16, 16)
        if network.name == "SegResNet":
            return (2 ** (len(arguments.get("blocks_down", (1, 2, 2, 4))) - 1),) * 3
    except (KeyError, TypeError, IndexError):
        return None
    return None
