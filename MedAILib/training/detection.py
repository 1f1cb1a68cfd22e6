"""Training of a RetinaNet: MONAI's detector, losses, matcher and trainer; averaged weights, resumable at each epoch."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.losses import BoxGIoULoss, FocalLoss
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from MedAILib.errors import InputError, ModelError
from MedAILib.models.bundle import bundle_network
from MedAILib.models.detector import build_anchors
from MedAILib.progress import Progress
from MedAILib.training.checkpoint import begin, identity_of, keep, require_room
from MedAILib.training.curves import EpochRecord, write_curves
from MedAILib.training.detection_data import Batches, Sample, plan_of_task
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.segmentation import falling

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


class _Losses(SimpleInferer):
    """Hands the detector its images and what is in them; it answers with its losses."""

    def __call__(self, inputs: Any, network: Any, *args: Any, **kwargs: Any) -> Any:
        return network(inputs, *args, **kwargs)


def train_detector(
    task: DetectionTask, samples: Sequence[Sample], folder: Path, device: torch.device, resume: bool, progress: Progress
) -> dict[str, Tensor]:
    """Train the task's network and return its averaged weights by name (float32, on the CPU).

    A checkpoint stands in the folder after every epoch; with `resume` the training goes on from it.

    Args:
        task: nothing in it is left to be planned.
        samples: see `prepare_image`.
        folder: of the checkpoints and curves.
        device: where it computes.
        resume: whether to go on.
        progress: hears of every step.

    Raises:
        InputError: the checkpoint to resume from is missing or of another training.
        ModelError: the loss is not finite any more, or the network can't be built.
        OutputError: the disk does not take the checkpoint.
        Cancelled: by `progress`, between two batches.
    """
    set_determinism(task.seed)
    plan = plan_of_task(task)
    assert plan.detection is not None, "a task's own config has a detector"
    network = bundle_network(plan)
    detector = _taught(task, network, build_anchors(plan.detection.anchors)).to(device)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(task.ema_decay))
    optimizer = torch.optim.AdamW(network.parameters(), lr=task.learning_rate, weight_decay=task.weight_decay)
    parts = {"network": network, "average": average, "optimizer": optimizer}
    records: list[EpochRecord] = []
    require_room(folder, sum(p.nbytes for p in network.parameters()))
    state = begin(folder, identity_of(task, images=_fingerprint(samples)), resume)
    if state is not None:
        try:
            for name, part in parts.items():
                part.load_state_dict(state[name])
            records = [EpochRecord(*numbers) for numbers in state["records"]]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{folder} is of another training: start anew without --resume.") from error
    if len(records) < task.epochs:
        _go_on(task, detector, parts, records, samples, folder, progress)
    return {key: value.detach().cpu().clone() for key, value in average.module.state_dict().items()}


def _go_on(  # noqa: PLR0917
    task: DetectionTask,
    detector: TaughtDetector,
    parts: dict[str, Any],
    records: list[EpochRecord],
    samples: Sequence[Sample],
    folder: Path,
    progress: Progress,
) -> None:
    """Run the epochs that are left."""
    done, device, optimizer = len(records), next(detector.parameters()).device, parts["optimizer"]
    batches = Batches(samples, task, done)
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=task.epochs,
        train_data_loader=batches,
        epoch_length=len(batches),
        network=detector,
        optimizer=optimizer,
        loss_function=lambda losses, _: (
            losses[detector.cls_key] + task.box_weight * losses[detector.box_reg_key].to(device)
        ),
        prepare_batch=_on_device,
        inferer=_Losses(),
        decollate=False,
    )
    trainer.state.epoch, trainer.state.iteration = done, done * len(batches)
    trainer.state.epoch_length = len(batches)
    steps = task.epochs * len(batches)
    losses: list[float] = []

    @trainer.on(Events.ITERATION_STARTED)
    def before() -> None:
        share = (trainer.state.iteration - 1) / steps
        warm = min(1.0, trainer.state.iteration / max(0.05 * steps, 1))
        for group in optimizer.param_groups:
            group["lr"] = task.learning_rate * warm * falling("cosine", share)
        torch.manual_seed(task.seed + trainer.state.iteration)

    @trainer.on(Events.ITERATION_COMPLETED)
    def after() -> None:
        loss = float(trainer.state.output["loss"].detach())
        if not math.isfinite(loss):
            raise ModelError(
                f"Training stopped: the loss is no finite number in epoch {trainer.state.epoch}; most likely the "
                f"learning rate {task.learning_rate:g} is too high; try a tenth of it."
            )
        losses.append(loss)
        parts["average"].update_parameters(parts["network"])
        mean = sum(losses) / len(losses)
        progress.step(trainer.state.iteration, steps, f"Epoch {trainer.state.epoch} of {task.epochs}, loss {mean:.3f}")

    @trainer.on(Events.EPOCH_COMPLETED)
    def note() -> None:
        records.append(EpochRecord(sum(losses) / len(losses), float(optimizer.param_groups[0]["lr"]), 0.0))
        losses.clear()
        told = {name: part.state_dict() for name, part in parts.items()}
        keep({**told, "records": [[r.loss, r.rate, r.dice] for r in records]}, folder)
        write_curves(records, folder)

    trainer.run()


def _taught(task: DetectionTask, network: nn.Module, anchors: Any) -> TaughtDetector:
    """The detector with the task's losses, matcher and sampler."""
    detector = TaughtDetector(network, anchors)
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


def _on_device(batch: list[Sample], device: Any = None, non_blocking: bool = False, **_: Any) -> Any:
    """Images, boxes and classes of a batch, as the detector takes them."""
    images = [sample["image"].to(device) for sample in batch]
    targets = [{BOX: sample[BOX].to(device), LABEL: sample[LABEL].to(device)} for sample in batch]
    return images, targets, (targets,), {}


def _fingerprint(samples: Sequence[Sample]) -> list[float]:
    """What tells one set of images and boxes from another."""
    return [round(float(s["image"].double().sum() + s[BOX].double().sum()), 6) for s in samples]
