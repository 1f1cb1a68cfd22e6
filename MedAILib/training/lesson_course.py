"""One classification network as it learns: what a checkpoint holds, and what is done after each step and epoch."""

import math
from typing import Any

import torch
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from MedAILib.errors import InputError, ModelError
from MedAILib.models.weights import load_weights, save_checkpoint
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.initial import Quiet, first_weights
from MedAILib.training.lesson import Bench, Lesson, new_network, scores_of
from MedAILib.training.lesson_curves import LessonRecord, without_gain, write_lesson
from MedAILib.training.processes import is_first, mean_over_processes, process_count, said_by_first
from MedAILib.training.training_run import falling

WARM_UP = 0.15  # share of the steps in which the learning rate rises
PARTS = ("network", "average", "optimizer", "schedule")


class LessonCourse:
    """One lesson as it goes.

    Args:
        task: how it is learnt.
        lesson: what is learnt.
        bench: where.
        batch: images in a step, of all processes together.
    """

    def __init__(self, task: ClassificationTask, lesson: Lesson, bench: Bench, batch: int) -> None:
        self.task, self.lesson, self.bench = task, lesson, bench
        set_determinism(lesson.seed)
        self.network = new_network(lesson.network)
        frozen = (str(lesson.network["_target_"]), task.frozen_stages)
        first_weights(self.network, bench.initial, frozen, Quiet())
        self.network.to(bench.device)
        self.average = AveragedModel(self.network, multi_avg_fn=get_ema_multi_avg_fn(task.ema_decay), use_buffers=True)
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=task.learning_rate, weight_decay=task.weight_decay)
        self.batches = len(lesson.images) // batch
        self.schedule = _schedule(task, self.optimizer, lesson.epochs * self.batches)
        self.name = lesson.name.replace(" ", "_")
        self.path = bench.folder / f"{self.name}.pt"
        self.records: list[LessonRecord] = []
        self.losses: list[float] = []
        self._rate = 0.0
        self._best: dict[str, Any] = {}

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done."""
        patience = self.task.patience if self.lesson.judged else 0
        waited = patience > 0 and without_gain(self.records) >= patience
        return len(self.records) >= self.lesson.epochs or waited

    @property
    def stamp(self) -> str:
        """Tells this lesson from another; a checkpoint of another stamp is not taken."""
        text = f"{self.bench.stamp} {len(self.lesson.teachers)} {self.lesson.epochs}"
        text += " best" if self.lesson.judged else ""
        return text + (f" {process_count()} processes" if process_count() > 1 else "")

    def take_up(self) -> None:
        """Go on from the checkpoint.

        Raises:
            InputError: it is of another training.
        """
        try:
            checkpoint = load_weights(self.path)
        except ModelError as error:
            raise InputError(f"{self.path} can't be read; start the training anew, without --resume.") from error
        if checkpoint.get("stamp") != self.stamp:
            raise InputError(
                f"{self.path} is of another training: resume with the task and the data it was started with."
            )
        try:
            for name in PARTS:
                getattr(self, name).load_state_dict(checkpoint[name])
            self.records = [LessonRecord(*numbers) for numbers in checkpoint["records"]]
            self._best = {key: checkpoint[key] for key in ("surprise", "best")} if self.lesson.judged else {}
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(
                f"{self.path} is of another training: resume with the task it was started with."
            ) from error

    def taught(self) -> nn.Module:
        """The network with its averaged weights, or the best epoch's where some images choose that."""
        ready: nn.Module = self.average.module
        if self.lesson.judged:
            ready.load_state_dict(load_weights(self.path)["best"])  # which the first of several processes wrote
        return ready.eval().requires_grad_(False)

    def after_step(self, output: dict[str, Tensor], place: int) -> str:
        """Note the loss of an epoch's batch number `place`, from 1, and go on with rate and averages; tell how it goes.

        Raises:
            ModelError: the loss is no number; with the likely reason.
        """
        loss = mean_over_processes(float(output["loss"].detach()))
        if not math.isfinite(loss):
            raise self._stopped(output["image"])
        self.losses.append(loss)
        self._rate = float(self.optimizer.param_groups[0]["lr"])
        if place % self.task.accumulate == 0 or place == self.batches:
            for _ in range((place - 1) % self.task.accumulate + 1):  # as many batches as this step was made of
                self.schedule.step()
            self.average.update_parameters(self.network)
        name = self.lesson.name[0].upper() + self.lesson.name[1:]
        mean = sum(self.losses) / len(self.losses)
        return f"{name}, epoch {len(self.records) + 1} of {self.lesson.epochs}, loss {mean:.3f}"

    def after_epoch(self) -> None:
        """Note the epoch, judge it where some images choose the best one, and keep all on disk."""
        surprise = said_by_first(self._judge() if is_first() else 0.0) if self.lesson.judged else 0.0
        self.records.append(LessonRecord(sum(self.losses) / len(self.losses), self._rate, surprise))
        self.losses = []
        if not is_first():
            return
        told = [[record.loss, record.rate, record.surprise] for record in self.records]
        states = {name: getattr(self, name).state_dict() for name in PARTS}
        save_checkpoint({"stamp": self.stamp, "records": told, **self._best, **states}, self.path)
        write_lesson(self.lesson.name, self.records, self.bench.folder, drawn=self.over or len(self.records) == 1)

    def _judge(self) -> float:
        """The loss on the images that choose the best epoch, whose weights are kept."""
        assert self.lesson.judged is not None, "asked only where there are such images"
        network: nn.Module = self.average.module
        images, targets = self.lesson.judged
        surprise = float(self.task.decided.taught_loss()(scores_of(network, images, self.bench.device), targets))
        if surprise < self._best.get("surprise", math.inf):
            best = {key: value.clone() for key, value in network.state_dict().items()}
            self._best = {"surprise": surprise, "best": best}
        return surprise

    def _stopped(self, images: Tensor) -> ModelError:
        """Why a training ends with a loss that is no number, most likely."""
        reason = f"most likely the learning rate {self.task.learning_rate:g} is too high; try a tenth of it"
        if not bool(torch.isfinite(images).all()):
            reason = "the prepared images have values that are no numbers; check their intensity steps"
        return ModelError(
            f"Training stopped: the loss of {self.lesson.name} is no finite number in epoch "
            f"{len(self.records) + 1}; {reason}."
        )


def _schedule(
    task: ClassificationTask, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """How the learning rate goes over so many batches; see `ClassificationTask.schedule`."""
    if task.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, task.learning_rate, total_steps=steps + 1, pct_start=WARM_UP
        )
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: falling(task.schedule, min(step / steps, 1.0)))
