"""What detection models of every kind do alike: refuse, run where memory suffices, and say how boxes came about."""

from abc import ABC, abstractmethod
from pathlib import Path

import torch

from MedAILib.bundle_plan import BundlePlan
from MedAILib.bundle_spec import bundle_spec
from MedAILib.detections import Box, Detections
from MedAILib.errors import SpecError
from MedAILib.estimate import demand_of
from MedAILib.inference.ladder import ON_CPU, or_on_cpu
from MedAILib.inference.memory import memory_told
from MedAILib.inference.place import CPU
from MedAILib.models.bundle import weighted_network
from MedAILib.models.provenance import provenance
from MedAILib.models.trust import tree_sha256
from MedAILib.models.weights import held_bytes
from MedAILib.plans import read_any_plan
from MedAILib.progress import Progress
from MedAILib.request import DetectOptions
from MedAILib.spec import ModelSpec
from MedAILib.volume import Volume

# Boxes, the surest first, and what gave way in preparing the image.
Found = tuple[tuple[Box, ...], tuple[str, ...]]


def described(folder: Path) -> tuple[BundlePlan, ModelSpec]:
    """A model's plan and what it is; raises `SpecError` where its description can't be read."""
    plan = read_any_plan(folder)
    return plan, bundle_spec(plan)


class BoxModel(ABC):
    """A model that puts boxes around findings, its network on a device and ready.

    A kind of detectors says how a network finds boxes and what score it wants at least.

    Args:
        folder: the bundle.
        plan, spec: what `described` reads there.
        device: where its network runs.

    Raises:
        SpecError: its description can't be read, or asks for what is not done here.
        ModelError: its network can't be built, or the weights are missing, damaged or don't fit.
    """

    def __init__(self, folder: Path, plan: BundlePlan, spec: ModelSpec, device: torch.device) -> None:
        self._sha256 = tree_sha256(folder)
        self.spec = spec
        self.network = weighted_network(plan).eval().requires_grad_(False).to(device)
        self._device = device

    @abstractmethod
    def least_score(self, options: DetectOptions) -> float:
        """The score from which on a box counts."""

    @abstractmethod
    def find(self, volume: Volume, options: DetectOptions, progress: Progress) -> Found:
        """Boxes by the network where it is now; raises as `run` does."""

    @property
    def weights_bytes(self) -> int:
        """What its network's weights hold on their device."""
        return held_bytes(self.network)

    def run(self, volume: Volume, options: DetectOptions, progress: Progress) -> Detections:
        """Look for findings in a volume (C, K, J, I); by a detector of pictures in each of its slices.

        Raises:
            InputError: the volume or an option does not suit the model.
            ModelError: the network fails on it.
            Cancelled: by `progress`.
        """
        if not isinstance(options, DetectOptions):
            raise SpecError(f"The model {self.spec.name} looks for findings; it neither segments nor classifies.")
        with memory_told(f"{self.spec.name} ran on {volume.name}"):
            (boxes, prepared), gave_way = or_on_cpu(
                self._device,
                lambda device: self._find_on(device, volume, options, progress),
                progress,
                demand_of(self.spec, volume, options),
            )
        if not boxes:
            progress.warn(f"The model found nothing in {volume.name}.")
        said = {"sha256": self._sha256, "memory": "; ".join((*prepared, *gave_way)) or "enough"}
        place = CPU if ON_CPU in gave_way else self._device
        return Detections(
            boxes,
            self.spec.findings,
            volume.geometry,
            self.least_score(options),
            provenance(self.spec, volume, options, place, said),
            self.spec.finding_codes,
        )

    def _find_on(self, device: torch.device, volume: Volume, options: DetectOptions, progress: Progress) -> Found:
        self.network.to(device)
        try:
            with torch.inference_mode():
                return self.find(volume, options, progress)
        finally:
            self.network.to(self._device)
