"""Torchvision's Faster R-CNN detectors of pictures, where torchvision works; they never download weights.

Ren et al., Faster R-CNN, NeurIPS 2015. Their boxes are brought to the form that MONAI's detector has.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from MedAILib.bundle_plan import BundlePlan
from MedAILib.errors import SpecError
from MedAILib.inference.detect import BOXES, LABELS, SCORES, DetectRecipe, find_boxes
from MedAILib.models.box_model import BoxModel, Found, described
from MedAILib.models.detector import require_known_ends
from MedAILib.models.steps import preprocessing_steps
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


class FasterRcnnModel(BoxModel):
    """A detection model whose network is torchvision's Faster R-CNN, on a device and ready; see `BoxModel`.

    Its folder may be a bundle, or weights beside a `medai.json`.
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        plan, spec = described(folder)
        self._recipe = faster_rcnn_recipe(plan, spec)
        super().__init__(folder, plan, spec, device)
        heads: Any = self.network.roi_heads
        self._usual = (float(heads.score_thresh), float(heads.nms_thresh))

    def least_score(self, options: DetectOptions) -> float:
        return self._usual[0] if options.score_threshold is None else options.score_threshold

    def find(self, volume: Volume, options: DetectOptions, progress: Progress) -> Found:
        heads: Any = self.network.roi_heads
        heads.score_thresh = self.least_score(options)
        heads.nms_thresh = self._usual[1] if options.overlap_limit is None else options.overlap_limit
        return find_boxes(volume, TorchvisionDetector(self.network), self._recipe, options, progress)


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
