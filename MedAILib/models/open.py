"""From a folder or file to a model that runs, whatever format it has."""

from pathlib import Path
from typing import Protocol

from MedAILib.bundle_plan import is_bundle
from MedAILib.models.bundle import BundleModel
from MedAILib.models.device import find_device
from MedAILib.models.nnunet import NnunetModel
from MedAILib.progress import Progress
from MedAILib.read_spec import require_model
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.spec import ModelSpec
from MedAILib.volume import Volume


class Model(Protocol):
    """A model in memory: what it is, and how to run it on a volume."""

    spec: ModelSpec

    def run(self, volume: Volume, options: RunOptions, progress: Progress) -> Segmentation: ...


def open_model(source: Path, device: str) -> Model:
    """Open the model in a folder or file, its network on a device ("auto", "cpu", "cuda", "cuda:1").

    Raises:
        DeviceError: no such device here.
        SpecError: no model, or its description can't be read or asks for what is not done here.
        ModelError: its network or weights can't be used.
    """
    place = find_device(device)
    require_model(source)
    return BundleModel(source, place) if is_bundle(source) else NnunetModel(source, place)
