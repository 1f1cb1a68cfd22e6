"""Training of a segmentation network: MONAI's trainer, deep supervision, averaged weights, resumable at each epoch."""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.data import CacheDataset, DataLoader, Dataset
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.losses import DeepSupervisionLoss, DiceCELoss
from monai.transforms import Compose
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Sampler

from MedAILib.errors import InputError, ModelError
from MedAILib.models.networks import build_network
from MedAILib.models.weights import load_weights, save_checkpoint
from MedAILib.progress import Progress
from MedAILib.training.augment import fixed_steps, random_steps
from MedAILib.training.cases import Case, Split
from MedAILib.training.task import SegmentationTask


@dataclass(frozen=True)
class TrainingRun:
    """Where and how one training goes: its checkpoints' folder, its length, its device."""

    folder: Path
    epochs: int
    device: str = "cpu"
    resume: bool = False


class SeededSampler(Sampler[int]):
    """Shuffles the cases and reseeds the augmentation by seed and epoch, so that a resumed run repeats nothing."""

    def __init__(self, length: int, steps: Compose, seed: int, epoch: int) -> None:
        self.length, self.steps, self.seed, self.epoch = length, steps, seed, epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        seed = self.seed + 1000 * self.epoch
        self.epoch += 1
        self.steps.set_random_state(seed)
        yield from torch.randperm(self.length, generator=torch.Generator().manual_seed(seed)).tolist()


class AutocastInferer(SimpleInferer):
    """Runs the network under bfloat16 autocast on any device; the loss sees float32."""

    def __call__(self, inputs: Tensor, network: Callable[..., Tensor], *args: Any, **kwargs: Any) -> Tensor:
        with torch.autocast(inputs.device.type, torch.bfloat16):
            output = network(inputs, *args, **kwargs)
        return output.float()


class SupervisedHeads(nn.Module):
    """Dice plus cross-entropy over the heads that DynUNet stacks along axis 1 while it trains."""

    def __init__(self, weights: list[float]) -> None:
        super().__init__()
        loss = DiceCELoss(include_background=False, to_onehot_y=True, softmax=True, batch=True)
        self.loss = DeepSupervisionLoss(loss, weights=[weight / sum(weights) for weight in weights])

    def forward(self, heads: Tensor, label: Tensor) -> Tensor:
        result: Tensor = self.loss(list(heads.unbind(1)), label)
        return result


def train_segmentation(task: SegmentationTask, split: Split, run: TrainingRun, progress: Progress) -> dict[str, Tensor]:
    """Train the task's network and return its averaged weights by name (float32, on the CPU).

    A checkpoint stands in `run.folder` after every epoch; `run.resume` goes on from it.

    Raises:
        InputError: the checkpoint to resume from is missing or of another network.
        ModelError: the loss is not finite any more; the sentence says in which epoch.
        Cancelled: by `progress`, between two batches.
    """
    set_determinism(task.seed)
    network = build_network(task.network["_target_"], _arguments(task.network)).to(run.device)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(task.ema_decay))
    optimizer = torch.optim.AdamW(network.parameters(), lr=task.learning_rate, weight_decay=task.weight_decay)
    parts: dict[str, Any] = {"network": network, "average": average, "optimizer": optimizer}
    epoch = _resume(parts, run) if run.resume else 0
    if epoch >= run.epochs:
        return _averaged(average)

    loader = _loader(task, split.training, epoch, progress)
    trainer = SupervisedTrainer(
        device=torch.device(run.device),
        max_epochs=run.epochs,
        train_data_loader=loader,
        network=network,
        optimizer=optimizer,
        loss_function=SupervisedHeads(task.deep_supervision_weights),
        inferer=AutocastInferer(),
        decollate=False,
    )
    trainer.state.epoch, trainer.state.epoch_length = epoch, len(loader)
    trainer.state.iteration = epoch * len(loader)
    steps = run.epochs * len(loader)
    losses: list[float] = []

    @trainer.on(Events.ITERATION_STARTED)
    def anneal() -> None:
        rate = task.learning_rate * (1 - (trainer.state.iteration - 1) / steps) ** 0.9
        optimizer.param_groups[0]["lr"] = rate

    @trainer.on(Events.ITERATION_COMPLETED)
    def watch() -> None:
        loss = float(trainer.state.output["loss"].detach())
        if not math.isfinite(loss):
            raise ModelError(f"Training stopped: the loss is no finite number in epoch {trainer.state.epoch}.")
        losses.append(loss)
        average.update_parameters(network)
        mean = sum(losses[-len(loader) :]) / len(losses[-len(loader) :])
        progress.step(trainer.state.iteration, steps, f"Epoch {trainer.state.epoch} of {run.epochs}, loss {mean:.3f}")

    @trainer.on(Events.EPOCH_COMPLETED)
    def keep() -> None:
        states = {name: part.state_dict() for name, part in parts.items()}
        save_checkpoint({"epoch": trainer.state.epoch, **states}, run.folder / "checkpoint.pt")

    trainer.run()
    return _averaged(average)


def _arguments(network: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in network.items() if key != "_target_"}


def _averaged(average: AveragedModel) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in average.module.state_dict().items()}


def _resume(parts: dict[str, Any], run: TrainingRun) -> int:
    path = run.folder / "checkpoint.pt"
    if not path.is_file():
        raise InputError(f"There is nothing to resume: {path} does not exist.")
    checkpoint = load_weights(path)
    try:
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
        return int(checkpoint["epoch"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is of another training: resume with the task it was started with.") from error


def _loader(task: SegmentationTask, cases: tuple[Case, ...], epoch: int, progress: Progress) -> DataLoader:
    files = [{"image": [str(file) for file in case.images], "label": str(case.label)} for case in cases]
    fixed = CacheDataset(files, fixed_steps(task), progress=False)
    progress.step(0, 1, f"{len(cases)} cases read")
    steps = random_steps(task)
    sampler = SeededSampler(len(files), steps, task.seed, epoch)
    augmented = Dataset(fixed, steps)  # type: ignore[arg-type]  # MONAI asks for a list, and takes any data set
    return DataLoader(augmented, batch_size=task.batch, sampler=sampler, num_workers=0)
