"""A detector as it learns: what a checkpoint holds, and what is done before and after each step and epoch."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from MedAILib.errors import InputError, ModelError
from MedAILib.models.detector import build_anchors
from MedAILib.progress import Progress
from MedAILib.training.checkpoint import keep
from MedAILib.training.curves import EpochRecord, write_curves
from MedAILib.training.detection_data import Sample, changed_patches, plan_of_task
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.processes import is_first, mean_over_processes, own_seed, said_by_first
from MedAILib.training.samples import seed_of
from MedAILib.training.taught_detector import first_network, on_device, taught_detector, whole_loss
from MedAILib.training.training_run import TrainingRun, falling, moving_average

STEEPEST = 1.0  # norm of the gradients; steeper ones are scaled down to it
WARM_UP = 0.05  # share of the steps in which the learning rate rises
PARTS = ("network", "average", "optimizer")


class DetectionCourse:
    """One detector's training as it goes.

    Args:
        task: how it is learnt.
        run: where.
        progress: hears what of initial weights does not fit.
        samples: what is learnt from; looked at where a loss is no number.
        watched: images that decide when to stop; none: it goes on to the end.
    """

    def __init__(
        self,
        task: DetectionTask,
        run: TrainingRun,
        progress: Progress,
        samples: Sequence[Sample],
        watched: Sequence[Sample],
    ) -> None:
        self.task, self.run, self.samples = task, run, samples
        self.device = torch.device(run.device)
        set_determinism(task.seed)
        plan = plan_of_task(task)
        assert plan.detection is not None, "a task's own config has a detector"
        self.network = first_network(task, run.initial, progress)
        anchors = build_anchors(plan.detection.anchors)
        self.detector = taught_detector(task, self.network, anchors, self.device)
        self.average = AveragedModel(self.network, multi_avg_fn=moving_average(task.ema_decay))
        learning = [parameter for parameter in self.network.parameters() if parameter.requires_grad]
        self.optimizer = torch.optim.AdamW(learning, lr=task.learning_rate, weight_decay=task.weight_decay)
        self.records: list[EpochRecord] = []
        self.losses: list[float] = []
        self._judged = taught_detector(task, self.average.module, anchors, self.device)
        self._patches = _fixed_patches(task, watched)
        self._best: dict[str, Tensor] = {}
        self._best_epoch = 0

    @property
    def weights(self) -> dict[str, Tensor]:
        """The averaged weights on the CPU, or the best epoch's where the task stops early."""
        return self._best or {k: v.detach().cpu().clone() for k, v in self.average.module.state_dict().items()}

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done."""
        done, waited = len(self.records), len(self.records) - self._best_epoch
        return done >= self.task.epochs or (bool(self._patches) and waited >= self.task.patience)

    def take_up(self, state: dict[str, Any]) -> None:
        """Go on from what a checkpoint holds.

        Raises:
            InputError: it is of another training.
        """
        try:
            for name in PARTS:
                getattr(self, name).load_state_dict(state[name])
            self.records = [EpochRecord(*numbers) for numbers in state["records"]]
            self._best_epoch, self._best = state["best"]["epoch"], state["best"]["weights"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{self.run.folder} is of another training: start anew without --resume.") from error

    def before_step(self, number: int, steps: int) -> None:
        """Set learning rate and random state, both functions of the step's number, from 1, alone."""
        warm = min(1.0, number / max(WARM_UP * steps, 1))
        for group in self.optimizer.param_groups:
            group["lr"] = self.task.learning_rate * warm * falling(self.task.schedule, (number - 1) / steps)
        torch.manual_seed(own_seed(seed_of(self.task.seed, number)))

    def limit_gradients(self) -> None:
        """Scale down gradients that are too steep."""
        nn.utils.clip_grad_norm_(self.network.parameters(), STEEPEST)

    def after_step(self, output: dict[str, Tensor], stepped: bool) -> str:
        """Note the loss; tell how it goes.

        Raises:
            ModelError: the loss is no number; with the likely reason.
        """
        loss = mean_over_processes(float(output["loss"].detach()))
        if not math.isfinite(loss):
            raise self.stopped()
        self.losses.append(loss)
        if stepped:
            self.average.update_parameters(self.network)
        mean = sum(self.losses) / len(self.losses)
        return f"Epoch {len(self.records) + 1} of {self.task.epochs}, loss {mean:.3f}"

    def after_epoch(self) -> None:
        """Note the epoch, judge it where the task stops early, and keep all on disk."""
        kept_aside = 0.0
        if self._patches:
            kept_aside = said_by_first(self._judge() if is_first() else 0.0)
            if not self.records or kept_aside < min(record.kept_aside for record in self.records):
                self._best = {}
                self._best_epoch, self._best = len(self.records) + 1, self.weights
        rate = float(self.optimizer.param_groups[0]["lr"])
        self.records.append(EpochRecord(sum(self.losses) / len(self.losses), rate, kept_aside))
        self.losses = []
        states = {name: getattr(self, name).state_dict() for name in PARTS}
        records = [[r.loss, r.rate, r.kept_aside] for r in self.records]
        best = {"epoch": self._best_epoch, "weights": self._best}
        keep({**states, "records": records, "best": best}, self.run.folder)
        write_curves(self.records, self.run.folder, "loss")

    def stopped(self) -> ModelError:
        """Why a training ends with a loss that is no number, most likely."""
        reason = f"most likely the learning rate {self.task.learning_rate:g} is too high; try a tenth of it"
        if not all(bool(torch.isfinite(sample["image"]).all()) for sample in self.samples):
            reason = "the prepared images have values that are no numbers; check their intensity steps"
        epoch = len(self.records) + 1
        return ModelError(f"Training stopped: the loss is no finite number in epoch {epoch}; {reason}.")

    @torch.no_grad()
    def _judge(self) -> float:
        """The averaged network's mean loss on patches that are always the same; layers behave as in use."""
        self._judged.train()  # so that it gives losses
        self._judged.network.eval()
        torch.manual_seed(self.task.seed)  # of what is chosen among the places without findings
        found = []
        for start in range(0, len(self._patches), self.task.batch):
            part = self._patches[start : start + self.task.batch]
            images, targets, _, _ = on_device(part, self.device)
            losses = self._judged(images, targets)
            found.append(float(whole_loss(self.task, self._judged, losses)) * len(part))
        return sum(found) / len(self._patches)


def _fixed_patches(task: DetectionTask, watched: Sequence[Sample]) -> list[Sample]:
    """Patches of the images that decide when to stop, as they are."""
    plain = replace(task, augmentation={})
    return [
        patch for number, x in enumerate(watched) for patch in changed_patches(x, plain, seed_of(task.seed, number))
    ]
