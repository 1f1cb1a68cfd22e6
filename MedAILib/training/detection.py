"""Training of a RetinaNet: MONAI's detector, losses, matcher and trainer; averaged weights, resumable at each epoch."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.engines import SupervisedTrainer
from monai.engines.utils import IterationEvents
from monai.inferers import SimpleInferer
from monai.losses import BoxGIoULoss, FocalLoss
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from MedAILib.errors import InputError, ModelError
from MedAILib.models.bundle import bundle_network
from MedAILib.models.detector import build_anchors
from MedAILib.progress import Progress
from MedAILib.training.board import on_board
from MedAILib.training.checkpoint import begin, identity_of, keep, require_room
from MedAILib.training.curves import EpochRecord, write_curves
from MedAILib.training.detection_data import Batches, Sample, changed_patches, plan_of_task
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.initial import load_initial
from MedAILib.training.precision import AutocastMaps, training_type
from MedAILib.training.processes import (
    is_first,
    joined,
    mean_over_processes,
    own_seed,
    own_share,
    said_by_first,
    wait_for_all,
)
from MedAILib.training.samples import seed_of
from MedAILib.training.segmentation import TrainingRun, falling, moving_average

BOX, LABEL = "box", "label"
STEEPEST = 1.0  # norm of the gradients; steeper ones are scaled down to it
WARM_UP = 0.05  # share of the steps in which the learning rate rises


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
    task: DetectionTask,
    samples: Sequence[Sample],
    run: TrainingRun,
    progress: Progress,
    watched: Sequence[Sample] = (),
) -> dict[str, Tensor]:
    """Train the task's network and return its averaged weights by name (float32, on the CPU).

    Where the task stops early, they are those of the epoch in which the loss on `watched` was lowest. A checkpoint
    stands in `run.folder` after every epoch; `run.resume` goes on from it, to the same bits on a CPU.

    Args:
        task: nothing in it is left to be planned; its number of epochs holds.
        samples: see `prepare_image`.
        run: where and how.
        progress: hears of every step.
        watched: images that are not learnt from and decide when to stop; only for a task with patience.

    Raises:
        InputError: the checkpoint to resume from is missing or of another training.
        ModelError: the loss is not finite any more, or the network can't be built.
        OutputError: the disk does not take the checkpoint.
        Cancelled: by `progress`, between two batches.
    """
    own_share(task.batch)  # a batch that can't be divided is told first
    set_determinism(task.seed)
    plan = plan_of_task(task)
    assert plan.detection is not None, "a task's own config has a detector"
    network = bundle_network(plan)
    if run.initial is not None:
        load_initial(network, run.initial, progress)
    device = torch.device(run.device)
    anchors = build_anchors(plan.detection.anchors)
    detector = _taught(task, network, anchors, device)
    average = AveragedModel(network, multi_avg_fn=moving_average(task.ema_decay))
    optimizer = torch.optim.AdamW(network.parameters(), lr=task.learning_rate, weight_decay=task.weight_decay)
    parts: dict[str, Any] = {"network": network, "average": average, "optimizer": optimizer}
    judged = _Judged(
        task, _taught(task, average.module, anchors, device), _fixed_patches(task, watched if task.patience else ())
    )
    course = _Course(task, detector, parts, run.folder, judged)
    require_room(run.folder, sum(p.nbytes for p in network.parameters()))
    initial = str(run.initial.resolve()) if run.initial else ""
    state = begin(run.folder, identity_of(task, initial=initial, data=run.data_sha256), run.resume)
    if state is not None:
        course.take_up(state)
    if not course.over:
        _go_on(course, samples, progress)
    return course.weights


@dataclass(frozen=True, eq=False)
class _Judged:
    """The averaged network as it is judged on patches that are always the same."""

    task: DetectionTask
    detector: TaughtDetector
    patches: list[Sample]

    @torch.no_grad()
    def loss(self) -> float:
        """The mean loss of all patches; layers behave as in use."""
        self.detector.train()  # so that it gives losses
        self.detector.network.eval()
        torch.manual_seed(self.task.seed)  # of what is chosen among the places without findings
        device, batch = next(self.detector.parameters()).device, self.task.batch
        found = []
        for start in range(0, len(self.patches), batch):
            part = self.patches[start : start + batch]
            images, targets, _, _ = _on_device(part, device)
            losses = self.detector(images, targets)
            found.append(float(_loss(self.task, self.detector, losses)) * len(part))
        return sum(found) / len(self.patches)


def _fixed_patches(task: DetectionTask, watched: Sequence[Sample]) -> list[Sample]:
    """Patches of the images that decide when to stop, as they are."""
    plain = replace(task, augmentation={})
    return [
        patch for number, x in enumerate(watched) for patch in changed_patches(x, plain, seed_of(task.seed, number))
    ]


@dataclass(eq=False)
class _Course:
    """One training as it goes: all that a checkpoint holds, and where it is kept."""

    task: DetectionTask
    detector: TaughtDetector
    parts: dict[str, Any]
    folder: Path
    judged: _Judged
    records: list[EpochRecord] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = 0

    @property
    def weights(self) -> dict[str, Tensor]:
        """The averaged weights on the CPU, or the best epoch's where the task stops early."""
        now = self.parts["average"].module.state_dict()
        return self.best or {key: value.detach().cpu().clone() for key, value in now.items()}

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done."""
        done, waited = len(self.records), len(self.records) - self.best_epoch
        return done >= self.task.epochs or (bool(self.judged.patches) and waited >= self.task.patience)

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint holds.

        Raises:
            InputError: it is of another training.
        """
        try:
            for name, part in self.parts.items():
                part.load_state_dict(state[name])
            self.records = [EpochRecord(*numbers) for numbers in state["records"]]
            self.best_epoch, self.best = state["best"]["epoch"], state["best"]["weights"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{self.folder} is of another training: start anew without --resume.") from error

    def after_epoch(self, loss: float) -> None:
        """Note an epoch, judge it where the task stops early, and keep all on disk."""
        kept_aside = 0.0
        if self.judged.patches:
            kept_aside = said_by_first(self.judged.loss() if is_first() else 0.0)
            if not self.records or kept_aside < min(record.kept_aside for record in self.records):
                self.best = {}
                self.best_epoch, self.best = len(self.records) + 1, self.weights
        rate = float(self.parts["optimizer"].param_groups[0]["lr"])
        self.records.append(EpochRecord(loss, rate, kept_aside))
        states = {name: part.state_dict() for name, part in self.parts.items()}
        records = [[r.loss, r.rate, r.kept_aside] for r in self.records]
        best = {"epoch": self.best_epoch, "weights": self.best}
        keep({**states, "records": records, "best": best}, self.folder)
        write_curves(self.records, self.folder, "loss")


def _go_on(course: _Course, samples: Sequence[Sample], progress: Progress) -> None:
    """Run the epochs that are left."""
    task, detector, parts, done = course.task, course.detector, course.parts, len(course.records)
    device = next(detector.parameters()).device
    batches = Batches(samples, task, done)
    length = len(batches)
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=task.epochs,
        train_data_loader=batches,
        epoch_length=length,
        network=joined(detector, device, some_unused=True),  # without findings no box is learnt from
        optimizer=parts["optimizer"],
        loss_function=lambda losses, _: _loss(task, detector, losses),
        prepare_batch=_on_device,
        inferer=_Losses(),
        decollate=False,
        accumulation_steps=task.accumulate,
    )
    trainer.state.epoch, trainer.state.iteration, trainer.state.epoch_length = done, done * length, length
    steps = task.epochs * length
    losses: list[float] = []

    @trainer.on(Events.ITERATION_STARTED)
    def before() -> None:
        number = trainer.state.iteration
        warm = min(1.0, number / max(WARM_UP * steps, 1))
        for group in parts["optimizer"].param_groups:
            group["lr"] = task.learning_rate * warm * falling(task.schedule, (number - 1) / steps)
        torch.manual_seed(own_seed(seed_of(task.seed, number)))

    def steps_now() -> bool:
        place = (trainer.state.iteration - 1) % length + 1
        return place % task.accumulate == 0 or place == length

    @trainer.on(IterationEvents.BACKWARD_COMPLETED)
    def limit() -> None:
        if steps_now():
            nn.utils.clip_grad_norm_(parts["network"].parameters(), STEEPEST)

    @trainer.on(Events.ITERATION_COMPLETED)
    def after() -> None:
        loss = mean_over_processes(float(trainer.state.output["loss"].detach()))
        if not math.isfinite(loss):
            raise _stopped(trainer.state.epoch, task, samples)
        losses.append(loss)
        if steps_now():
            parts["average"].update_parameters(parts["network"])
        mean = sum(losses) / len(losses)
        progress.step(trainer.state.iteration, steps, f"Epoch {trainer.state.epoch} of {task.epochs}, loss {mean:.3f}")

    @trainer.on(Events.EPOCH_COMPLETED)
    def note() -> None:
        course.after_epoch(sum(losses) / len(losses))
        losses.clear()
        if course.over:
            trainer.terminate()

    with on_board(trainer, course.folder):
        try:
            trainer.run()
            wait_for_all()
        except ValueError as error:
            if "NaN or Inf" not in str(error):  # MONAI's network looks at its own output
                raise
            raise _stopped(trainer.state.epoch, task, samples) from error


def _stopped(epoch: int, task: DetectionTask, samples: Sequence[Sample]) -> ModelError:
    """Why a training ends with a loss that is no number, most likely."""
    reason = f"most likely the learning rate {task.learning_rate:g} is too high; try a tenth of it"
    if not all(bool(torch.isfinite(sample["image"]).all()) for sample in samples):
        reason = "the prepared images have values that are no numbers; check their intensity steps"
    return ModelError(f"Training stopped: the loss is no finite number in epoch {epoch}; {reason}.")


def _loss(task: DetectionTask, detector: TaughtDetector, losses: dict[str, Tensor]) -> Tensor:
    return losses[detector.cls_key] + task.box_weight * losses[detector.box_reg_key]


def _taught(task: DetectionTask, network: nn.Module, anchors: Any, device: torch.device) -> TaughtDetector:
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


def _on_device(batch: list[Sample], device: Any = None, non_blocking: bool = False, **_: Any) -> Any:
    """Images, boxes and classes of a batch, as the detector takes them."""
    images = [sample["image"].to(device) for sample in batch]
    targets = [{BOX: sample[BOX].to(device), LABEL: sample[LABEL].to(device)} for sample in batch]
    return images, targets, (targets,), {}
