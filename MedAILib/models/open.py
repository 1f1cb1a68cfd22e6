"""From a folder or file to a model that runs, whatever format it has."""

from pathlib import Path
from typing import Protocol, cast, overload

import torch

from MedAILib.bundle_plan import is_bundle
from MedAILib.errors import ModelError
from MedAILib.models.bundle import BundleModel
from MedAILib.models.classifier import ClassifierModel
from MedAILib.models.device import find_device
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec, require_model
from MedAILib.request import ClassifyOptions, RunOptions
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


def open_model(source: Path, device: str) -> OpenedModel:
    """Open the model in a folder or file, its network on a device ("auto", "cpu", "cuda", "cuda:1").

    Raises:
        DeviceError: no such device here.
        SpecError: no model, or its description can't be read or asks for what is not done here.
        ModelError: its network or weights can't be used.
    """
    place = find_device(device)
    require_model(source)
    if read_spec(source).classes is not None:
        return cast(OpenedModel, ClassifierModel(source, place))
    return cast(OpenedModel, BundleModel(source, place) if is_bundle(source) else _open_nnunet(source, place))


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
