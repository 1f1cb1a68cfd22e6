"""From a folder or file to a model that runs, whatever format it has."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol, cast, overload

import torch

from MedAILib.bundle_spec import bundle_spec
from MedAILib.detection_plan import is_faster_rcnn
from MedAILib.detections import Detections
from MedAILib.ensemble_plan import read_members
from MedAILib.errors import ModelError
from MedAILib.formats import Format, find_format
from MedAILib.models.bundle import BundleModel
from MedAILib.models.device import find_device
from MedAILib.models.ensemble import EnsembleModel
from MedAILib.models.generator import GeneratorModel
from MedAILib.models.images import ImageModel
from MedAILib.models.torchscript import TorchScriptModel
from MedAILib.plans import read_any_plan
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import ClassifyOptions, DetectOptions, RunOptions
from MedAILib.results import Classification, Segmentation
from MedAILib.spec import ModelSpec
from MedAILib.volume import Volume


class Model(Protocol):
    """A model in memory: what it is, and how to run it on a volume."""

    spec: ModelSpec

    def run(self, volume: Volume, options: RunOptions, progress: Progress) -> Segmentation: ...


class OpenedModel(Protocol):
    """A model of any task; the options are those of its task, and it refuses others with a `SpecError`."""

    spec: ModelSpec

    @overload
    def run(self, volume: Volume, options: RunOptions, progress: Progress) -> Segmentation: ...
    @overload
    def run(self, volume: Volume, options: ClassifyOptions, progress: Progress) -> Classification: ...
    @overload
    def run(self, volume: Volume, options: DetectOptions, progress: Progress) -> Detections: ...


def open_model(source: Path, device: str, trust_code: str = "") -> OpenedModel:
    """Open the model in a folder or file, its network on a device ("auto", "cpu", "cuda", "cuda:1").

    Args:
        source: the folder or file.
        device: the device.
        trust_code: the SHA-256 of a model that the user allows to execute code of its own, for this time.

    Raises:
        DeviceError: no such device here.
        SpecError: no model, or its description can't be read or asks for what is not done here.
        UntrustedCodeError: it could only run by executing code that the user has not allowed.
        ModelError: its network or weights can't be used.
    """
    place, kind = find_device(device), find_format(source)
    if kind is Format.ENSEMBLE:
        members = [open_model(part, device, trust_code) for part in read_members(source)]
        return cast(OpenedModel, EnsembleModel(source, read_spec(source), members))
    if kind is Format.NNUNET:
        return cast(OpenedModel, _open_nnunet(source, place))
    plan = read_any_plan(source)
    task = bundle_spec(plan).task
    if task in ("generation", "image-to-image"):
        return cast(OpenedModel, (GeneratorModel if task == "generation" else ImageModel)(plan, place))
    if plan.script is not None:
        return cast(OpenedModel, TorchScriptModel(plan, place, trust_code))
    openers: dict[str, Callable[[Path, torch.device], Any]] = {
        "classification": _open_classifier,
        "detection": _open_faster_rcnn if is_faster_rcnn(plan.network) else _open_detector,
    }
    return cast(OpenedModel, openers.get(task, BundleModel)(source, place))


def _open_classifier(source: Path, place: torch.device) -> Any:
    """A classifier; all other models do without what it loads."""
    from MedAILib.models.classifier import ClassifierModel  # noqa: PLC0415

    return ClassifierModel(source, place)


def _open_detector(source: Path, place: torch.device) -> Any:
    """A detector; MONAI's boxes take a while to load, too."""
    from MedAILib.models.detector import DetectorModel  # noqa: PLC0415

    return DetectorModel(source, place)


def _open_faster_rcnn(source: Path, place: torch.device) -> Any:
    """A detector of torchvision's, likewise."""
    from MedAILib.models.faster_rcnn import FasterRcnnModel  # noqa: PLC0415

    return FasterRcnnModel(source, place)


def _open_nnunet(source: Path, place: torch.device) -> Model:
    """An nnU-Net model; its networks are in a package that all other formats do without."""
    try:
        from MedAILib.models.nnunet import NnunetModel  # noqa: PLC0415
    except ModuleNotFoundError as error:
        if error.name != "dynamic_network_architectures":
            raise
        raise ModelError(
            "nnU-Net models need the Python package dynamic-network-architectures, which is not installed; install it "
            "with pip (in Slicer: slicer.util.pip_install)."
        ) from error
    return NnunetModel(source, place)
