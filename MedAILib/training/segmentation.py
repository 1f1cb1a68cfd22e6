"""Training of a segmentation network: MONAI's trainer, deep supervision, averaged weights, resumable at each epoch."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from ignite.engine import Events
from monai.data import CacheDataset
from monai.engines import SupervisedTrainer
from monai.inferers import sliding_window_inference
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from MedAILib.errors import InputError, ModelError
from MedAILib.models.networks import build_network
from MedAILib.progress import Progress
from MedAILib.training.augmentations import filled
from MedAILib.training.board import on_board
from MedAILib.training.cases import Case, Split, kept_for_stopping
from MedAILib.training.checkpoint import begin, digest_of_weights, identity_of, keep, require_room
from MedAILib.training.curves import EpochRecord, write_curves
from MedAILib.training.initial import first_weights
from MedAILib.training.losses import build_loss
from MedAILib.training.mixup import Mixup
from MedAILib.training.precision import AutocastInferer, training_type
from MedAILib.training.processes import (
    is_first,
    joined,
    mean_over_processes,
    own_seed,
    own_share,
    said_by_first,
    wait_for_all,
)
from MedAILib.training.samples import loader_of, prepared_cases, seed_of
from MedAILib.training.task import SegmentationTask
from MedAILib.training.training_run import TrainingRun, falling, moving_average

AFTER_FOLDS = ("shipped", "final_epochs")  # keys of a task that decide nothing of a network that is being trained


class Course:
    """One training as it goes: all that a checkpoint holds, and what is done after each step and epoch."""

    def __init__(self, task: SegmentationTask, run: TrainingRun, progress: Progress) -> None:
        self.task, self.run, self.progress = task, run, progress
        self.device = torch.device(run.device)
        set_determinism(task.seed)
        self.network = build_network(task.network["_target_"], _arguments(task.network))
        first_weights(self.network, run.initial, (str(task.network["_target_"]), task.frozen_stages), progress)
        if run.start is not None:
            self.network.load_state_dict(run.start)
        self.network.to(self.device)
        self.average = AveragedModel(self.network, multi_avg_fn=moving_average(task.ema_decay))
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=task.learning_rate, weight_decay=task.weight_decay)
        self.records: list[EpochRecord] = []
        self.best: dict[str, Tensor] = {}
        self.best_epoch, self.best_dice = 0, -1.0
        self.losses: list[float] = []

    @property
    def weights(self) -> dict[str, Tensor]:
        """The averaged weights on the CPU, or the best epoch's where the task stops early."""
        return self.best or _copied(self.average.module.state_dict())

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done."""
        waited = len(self.records) - self.best_epoch
        return len(self.records) >= self.run.epochs or bool(self.task.patience and waited >= self.task.patience)

    def state(self) -> dict[str, Any]:
        return {
            "network": self.network.state_dict(),
            "average": self.average.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "records": [[r.loss, r.rate, r.kept_aside] for r in self.records],
            "best": {"epoch": self.best_epoch, "dice": self.best_dice, "weights": self.best},
        }

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint holds.

        Raises:
            InputError: it is of another training.
        """
        try:
            for name in ("network", "average", "optimizer"):
                getattr(self, name).load_state_dict(state[name])
            self.records = [EpochRecord(*numbers) for numbers in state["records"]]
            best = state["best"]
            self.best_epoch, self.best_dice, self.best = best["epoch"], best["dice"], best["weights"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{self.run.folder} is of another training: start anew without --resume.") from error

    def before_step(self, iteration: int, steps: int) -> None:
        """Set learning rate and random state, both functions of the step's number alone."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.task.learning_rate * falling(self.task.schedule, (iteration - 1) / steps)
        torch.manual_seed(own_seed(seed_of(self.task.seed, iteration)))

    def after_step(self, output: dict[str, Tensor], epoch: int, stepped: bool) -> None:
        """Note the loss; stop where it is no number.

        Raises:
            ModelError: with the likely reason.
        """
        loss = mean_over_processes(float(output["loss"].detach()))
        if not math.isfinite(loss):
            reason = "the prepared images have values that are no numbers; check their intensity steps"
            if bool(torch.isfinite(output["image"]).all()):
                reason = f"most likely the learning rate {self.task.learning_rate:g} is too high; try a tenth of it"
            raise ModelError(f"Training stopped: the loss is no finite number in epoch {epoch}; {reason}.")
        self.losses.append(loss)
        if stepped:
            self.average.update_parameters(self.network)

    def after_epoch(self, watched: CacheDataset | None) -> None:
        """Note the epoch, judge it where the task stops early, and keep all on disk."""
        dice = _mean_dice(self, watched) if watched is not None and is_first() else 0.0
        dice = said_by_first(dice) if watched is not None else dice
        rate = float(self.optimizer.param_groups[0]["lr"])
        self.records.append(EpochRecord(sum(self.losses) / max(len(self.losses), 1), rate, dice))
        self.losses = []
        if watched is not None and dice > self.best_dice:
            self.best = {}
            self.best_epoch, self.best_dice, self.best = len(self.records), dice, self.weights
        keep(self.state(), self.run.folder)
        write_curves(self.records, self.run.folder)


def train_segmentation(task: SegmentationTask, split: Split, run: TrainingRun, progress: Progress) -> dict[str, Tensor]:
    """Train the task's network and return its averaged weights by name (float32, on the CPU).

    A checkpoint stands in `run.folder` after every epoch; `run.resume` goes on from it, to the same bits on a CPU.

    Raises:
        InputError: the checkpoint to resume from is missing or of another training.
        ModelError: the loss is not finite any more; the sentence says in which epoch and why.
        OutputError: the disk does not take the checkpoint.
        Cancelled: by `progress`, between two batches.
    """
    own_share(task.batch)  # a batch that can't be divided is told before anything is prepared
    course = Course(task, run, progress)
    learnt: tuple[Case, ...] = split.training
    watched: tuple[Case, ...] = ()
    if task.patience:
        learnt, watched = kept_for_stopping(learnt, task.seed, run.groups)
    names = [case.name for case in learnt]
    initial = str(run.initial.resolve()) if run.initial else ""
    identity = identity_of(task, run_epochs=run.epochs, cases=names, initial=initial, data=run.data_sha256)
    identity = {key: value for key, value in identity.items() if key not in AFTER_FOLDS}
    if run.start is not None:
        identity["start"] = digest_of_weights(run.start)
    require_room(run.folder, sum(p.nbytes for p in course.network.parameters()))
    state = begin(run.folder, identity, run.resume)
    if state is not None:
        course.take_up(state)
    if not course.over:
        _go_on(course, learnt, watched)
    return course.weights


def _go_on(course: Course, learnt: tuple[Case, ...], watched: tuple[Case, ...]) -> None:
    """Run the epochs that are left."""
    task, run, progress, epoch = course.task, course.run, course.progress, len(course.records)
    judged = prepared_cases(replace(task, sampling="uniform"), watched, progress) if watched else None
    loader = loader_of(task, prepared_cases(task, learnt, progress), epoch)
    batches = len(loader)
    loss: nn.Module = build_loss(task, course.device)
    blended: dict[str, Any] = {}
    if found := filled(task).get("mixup"):
        loss = Mixup(loss, **found)
        blended["prepare_batch"] = loss.prepare
    trainer = SupervisedTrainer(
        device=course.device,
        max_epochs=run.epochs,
        train_data_loader=loader,
        network=joined(course.network, course.device),
        optimizer=course.optimizer,
        loss_function=loss,
        inferer=AutocastInferer(training_type(task.precision, course.device)),
        decollate=False,
        accumulation_steps=task.accumulate,
        **blended,
    )
    trainer.state.epoch, trainer.state.epoch_length = epoch, batches
    trainer.state.iteration = epoch * batches
    steps = run.epochs * batches

    @trainer.on(Events.ITERATION_STARTED)
    def before() -> None:
        course.before_step(trainer.state.iteration, steps)

    @trainer.on(Events.ITERATION_COMPLETED)
    def after() -> None:
        place = (trainer.state.iteration - 1) % batches + 1
        stepped = place % task.accumulate == 0 or place == batches
        course.after_step(trainer.state.output, trainer.state.epoch, stepped)
        mean = sum(course.losses) / len(course.losses)
        progress.step(trainer.state.iteration, steps, f"Epoch {trainer.state.epoch} of {run.epochs}, loss {mean:.3f}")

    @trainer.on(Events.EPOCH_COMPLETED)
    def note() -> None:
        course.after_epoch(judged)
        if course.over:
            trainer.terminate()

    with on_board(trainer, run.folder):
        trainer.run()
        wait_for_all()


def _copied(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights on the CPU as they are now; names that share one tensor (DynUNet has such) go on sharing it."""
    copies = {value.data_ptr(): value.detach().cpu().clone() for value in weights.values()}
    return {key: copies[value.data_ptr()] for key, value in weights.items()}


def _arguments(network: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in network.items() if key != "_target_"}


@torch.no_grad()
def _mean_dice(course: Course, prepared: CacheDataset) -> float:
    """Mean Dice of all structures over the cases kept for stopping, by the averaged weights."""
    network: nn.Module = course.average.module
    network.eval()
    infer = AutocastInferer(training_type(course.task.precision, course.device))
    found = []
    for number in range(len(prepared)):
        sample = prepared[number]
        image, label = sample["image"][None].to(course.device), sample["label"][0].to(course.device)
        scores = sliding_window_inference(image, course.task.patch, 1, lambda x: infer(x, network), overlap=0.25)
        predicted = torch.as_tensor(scores)[0].argmax(0)
        for value in range(1, course.task.classes):
            a, b = predicted == value, label == value
            if a.any() or b.any():
                found.append(2 * float((a & b).sum()) / float(a.sum() + b.sum()))
    return sum(found) / max(len(found), 1)
