"""Torchvision's Faster R-CNN detectors of pictures, where torchvision works; they never download weights.

Ren et al., Faster R-CNN, NeurIPS 2015. Their boxes are brought to the form that MONAI's detector has.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from MedAILib.bundle_plan import BundlePlan
from MedAILib.bundle_spec import bundle_spec
from MedAILib.detections import Detections
from MedAILib.errors import SpecError
from MedAILib.inference.detect import BOXES, LABELS, SCORES, DetectRecipe, find_boxes
from MedAILib.inference.memory import memory_told
from MedAILib.models.bundle import weighted_network
from MedAILib.models.detector import require_known_ends
from MedAILib.models.provenance import provenance
from MedAILib.models.steps import preprocessing_steps
from MedAILib.models.trust import tree_sha256
from MedAILib.models.weights import held_bytes
from MedAILib.plans import read_any_plan
from MedAILib.progress import Progress
from MedAILib.request import DetectOptions
from MedAILib.spec import ModelSpec
from MedAILib.volume import Volume


class TorchvisionDetector(nn.Module):
    """A detector of torchvision's, called and answering as MONAI's `RetinaNetDetector`.

    Torchvision's pictures are (C, rows, columns), a pixel reaches from its number to the next, a box is (column, row,
    column, row), and class 0 is the background. Here pictures are (C, I, J) and a pixel's centre has its number.

    Args:
        network: takes a list of pictures and gives a dictionary of "boxes", "labels" and "scores" for each.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network: nn.Module = _Rows(network)

    def forward(self, images: list[Tensor], use_inferer: bool = False) -> list[dict[str, Tensor]]:
        """Boxes (N, 4), classes (N,) from 0 on and scores (N,) of each picture (C, I, J)."""
        every = [self.network(image) for image in images]
        return [{key: values[0] for key, values in found.items()} for found in every]


class _Rows(nn.Module):
    """The network itself, between the two ways of writing pictures and boxes."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> dict[str, list[Tensor]]:
        (found,) = self.network([image.transpose(1, 2).contiguous()])
        return {BOXES: [found["boxes"] - 0.5], LABELS: [found["labels"] - 1], SCORES: [found["scores"]]}


class FasterRcnnModel:
    """A detection model whose network is torchvision's Faster R-CNN, on a device and ready.

    Args:
        folder: the bundle, or the folder of weights with a `medai.json`.
        device: where its network runs.

    Raises:
        SpecError: its description can't be read, or asks for what is not done here.
        ModelError: torchvision is not there; the weights are missing, damaged or don't fit.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._sha256 = tree_sha256(folder)
        plan = read_any_plan(folder)
        self.spec = bundle_spec(plan)
        self._recipe = faster_rcnn_recipe(plan, self.spec)
        self._network = weighted_network(plan).eval().requires_grad_(False).to(device)
        heads: Any = self._network.roi_heads
        self._usual = (float(heads.score_thresh), float(heads.nms_thresh))
        self._device = device

    @property
    def weights_bytes(self) -> int:
        """What its network's weights hold on their device."""
        return held_bytes(self._network)

    def run(self, volume: Volume, options: DetectOptions, progress: Progress) -> Detections:
        """Look for findings in a picture (C, 1, J, I), or in each slice of a volume.

        Raises:
            InputError: the volume or an option does not suit the model.
            ModelError: the network fails on it.
            Cancelled: by `progress`, between two slices.
        """
        if not isinstance(options, DetectOptions):
            raise SpecError(f"The model {self.spec.name} looks for findings; it neither segments nor classifies.")
        asked = (options.score_threshold, options.overlap_limit)
        least, limit = (usual if value is None else value for value, usual in zip(asked, self._usual, strict=True))
        heads: Any = self._network.roi_heads
        heads.score_thresh, heads.nms_thresh = least, limit
        with memory_told(f"{self.spec.name} ran on {volume.name}"), torch.inference_mode():
            boxes = find_boxes(volume, TorchvisionDetector(self._network), self._recipe, options, progress)
        if not boxes:
            progress.warn(f"The model found nothing in {volume.name}.")
        said = provenance(self.spec, volume, options, self._device, {"sha256": self._sha256})
        return Detections(boxes, self.spec.findings, volume.geometry, least, said, self.spec.finding_codes)


def faster_rcnn_recipe(plan: BundlePlan, spec: ModelSpec) -> DetectRecipe:
    """What a model does around a network of torchvision's, translated.

    Raises:
        SpecError: it asks for what is not done here.
    """
    if spec.obstacle:
        raise SpecError(spec.obstacle)
    if len(spec.channels) != 3:
        raise SpecError(f"The model {spec.name} has {len(spec.channels)} channels; torchvision's detectors take three.")
    require_known_ends(plan, spec)
    steps = preprocessing_steps(plan.preprocessing, 2)
    return DetectRecipe(steps, spec.findings, 3, None, 0.0, False, (1, 1), True)
