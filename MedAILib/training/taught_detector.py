"""A RetinaNet that learns: MONAI's detector with a task's losses, matcher and sampler, and the batches it takes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.losses import BoxGIoULoss, FocalLoss
from torch import Tensor, nn

from MedAILib.errors import InputError
from MedAILib.models.bundle import bundle_network
from MedAILib.progress import Progress
from MedAILib.training.detection_data import Sample, plan_of_task
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.initial import first_weights
from MedAILib.training.precision import AutocastMaps, training_type

BOX, LABEL = "box", "label"


class TaughtDetector(RetinaNetDetector):
    """MONAI's detector, whose anchors are matched by ATSS without a look at torchvision's matcher."""

    def compute_anchor_matched_idxs(
        self, anchors: list[Tensor], targets: list[dict[str, Tensor]], num_anchor_locs_per_level: Sequence[int]
    ) -> list[Tensor]:
        """For each image the number of the box that each anchor stands for, or -1 (n,)."""
        matched = []
        for places, target in zip(anchors, targets, strict=True):
            if len(target[BOX]) == 0:
                matched.append(torch.full((len(places),), -1, dtype=torch.int64, device=places.device))
                continue
            boxes = target[BOX].to(places.device)
            _, numbers = self.proposal_matcher(boxes, places, num_anchor_locs_per_level, self.num_anchors_per_loc)
            matched.append(numbers)
        return matched


def first_network(task: DetectionTask, initial: Path | None, progress: Progress) -> nn.Module:
    """The task's network as training begins with it.

    Args:
        task: nothing in it is left to be planned.
        initial: a detector whose weights it starts from, as far as they fit.
        progress: hears what of them does not fit.

    Raises:
        MedAIError: the network can't be built, or the model can't be read.
        InputError: none of the model's weights fits; stages are to be frozen that there are not, or that would be
            random.
    """
    if task.frozen_stages and initial is None:
        raise InputError("frozen_stages keeps the weights of another model; name it with --initial.")
    network = bundle_network(plan_of_task(task))
    frozen = (str(task.backbone["_target_"]), task.frozen_stages)
    first_weights(network, initial, frozen, progress, "feature_extractor.body")
    return network


def taught_detector(task: DetectionTask, network: nn.Module, anchors: Any, device: torch.device) -> TaughtDetector:
    """The detector with the task's losses, matcher and sampler, its network in the task's number type."""
    detector = TaughtDetector(network, anchors).to(device)
    detector.network = AutocastMaps(network, training_type(task.precision, device))
    detector.set_target_keys(box_key=BOX, label_key=LABEL)
    detector.set_atss_matcher(num_candidates=task.candidates, center_in_gt=False)
    if task.hard_negatives:
        try:
            detector.set_hard_negative_sampler(**task.hard_negatives)
        except (TypeError, ValueError) as error:
            raise InputError(f"The training task {task.name} has a wrong 'hard_negatives': {error}.") from error
    if task.class_loss == "focal":
        detector.set_cls_loss(FocalLoss(reduction="mean", gamma=2.0))
    if task.box_loss == "giou":
        detector.set_box_regression_loss(BoxGIoULoss(reduction="mean"), encode_gt=False, decode_pred=True)
    else:
        detector.set_box_regression_loss(nn.SmoothL1Loss(beta=1 / 9, reduction="mean"), True, False)
    return detector


def whole_loss(task: DetectionTask, detector: TaughtDetector, losses: dict[str, Tensor]) -> Tensor:
    """The losses of classes and of boxes as one."""
    return losses[detector.cls_key] + task.box_weight * losses[detector.box_reg_key]


def on_device(batch: list[Sample], device: Any = None, non_blocking: bool = False, **_: Any) -> Any:
    """Images, boxes and classes of a batch, as the detector takes them."""
    images = [sample["image"].to(device) for sample in batch]
    targets = [{BOX: sample[BOX].to(device), LABEL: sample[LABEL].to(device)} for sample in batch]
    return images, targets, (targets,), {}
