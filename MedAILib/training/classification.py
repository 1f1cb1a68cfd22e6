"""Training of one classification network: MONAI's trainer, averaged weights, resumable at each epoch.

Which networks there are, and on which images each learns, is `cross_validation`'s business.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from MedAILib.config import Config
from MedAILib.errors import InputError, ModelError
from MedAILib.models.networks import build_network
from MedAILib.models.weights import load_weights, save_checkpoint
from MedAILib.progress import Progress
from MedAILib.training.augment_images import Augmentation
from MedAILib.training.board import on_board
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.decision import Decision
from MedAILib.training.initial import Quiet, freeze_stages, load_initial
from MedAILib.training.lesson_curves import LessonRecord, without_gain, write_lesson
from MedAILib.training.precision import AutocastInferer, training_type
from MedAILib.training.processes import (
    SharedOrder,
    is_first,
    joined,
    mean_over_processes,
    own_seed,
    own_share,
    process_count,
    said_by_first,
    wait_for_all,
)
from MedAILib.training.segmentation import falling

WARM_UP = 0.15  # share of the steps in which the learning rate rises
TEACHERS_AT_ONCE = 2


@dataclass(frozen=True)
class Lesson:
    """What one network is to learn.

    Args:
        name: of its checkpoint, and for people.
        network: its description, `_target_` and arguments.
        images: (N, C, X, Y[, Z]), or sequences (N, T, C, X, Y[, Z]), normalised.
        targets: (N, outputs), as `Decision.targets` has them; for a distilled network only what its teachers say
            counts.
        epochs: how often it sees the images.
        seed: decides its first weights, the order of images and their changes.
        teachers: networks whose mean probabilities it learns; none: it learns the targets.
        judged: images and targets (M, ...) that it does not learn from; where they are given, the weights of the epoch
            that surprised them least are taken, not the last one's.
    """

    name: str
    network: dict[str, Any]
    images: Tensor
    targets: Tensor
    epochs: int
    seed: int
    teachers: tuple[nn.Module, ...] = ()
    judged: tuple[Tensor, Tensor] | None = None


@dataclass(frozen=True)
class Bench:
    """Where networks are trained.

    Args:
        folder: gets a checkpoint for each network.
        device: such as "cpu".
        resume: take what stands there already, and go on.
        stamp: tells one task and its data from another; a checkpoint of another stamp is not taken.
        initial: a classifier whose weights each network starts from, as far as they fit.
    """

    folder: Path
    device: str
    resume: bool
    stamp: str
    initial: Path | None = None


class SeededOrder(Sampler[int]):
    """A shuffled order for each epoch, decided by seed and epoch alone.

    Args:
        length: how many images there are.
        seed: of the order.
        epoch: how many epochs are over.
        shares: (length,), how often each image is drawn, in relation; None: each once.
    """

    def __init__(self, length: int, seed: int, epoch: int, shares: Tensor | None = None) -> None:
        self.length, self.seed, self.epoch, self.shares = length, seed, epoch, shares

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        generator = torch.Generator().manual_seed(self.seed + 1000 * self.epoch)
        self.epoch += 1
        if self.shares is None:
            yield from torch.randperm(self.length, generator=generator).tolist()
        else:
            yield from torch.multinomial(self.shares, self.length, replacement=True, generator=generator).tolist()


def train_network(task: ClassificationTask, lesson: Lesson, bench: Bench, progress: Progress) -> nn.Module:
    """Train one network and return it with its averaged weights, ready to be asked.

    Raises:
        InputError: the checkpoint to resume from is of another task or other data.
        ModelError: the loss is not finite any more; the sentence says in which epoch.
        Cancelled: by `progress`, between two batches.
    """
    set_determinism(lesson.seed)
    network = new_network(lesson.network)
    if bench.initial is not None:
        load_initial(network, bench.initial, Quiet())
    freeze_stages(network, str(lesson.network["_target_"]), task.frozen_stages)
    network.to(bench.device)
    average = AveragedModel(network, multi_avg_fn=get_ema_multi_avg_fn(task.ema_decay), use_buffers=True)
    learning = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.AdamW(learning, lr=task.learning_rate, weight_decay=task.weight_decay)
    batch = min(task.batch, len(lesson.images) // process_count() * process_count())
    share = own_share(batch, least=2 if process_count() > 1 else 1)
    length = len(lesson.images) // batch
    schedule = _schedule(task, optimizer, lesson.epochs * length)
    parts: dict[str, Any] = {"network": network, "average": average, "optimizer": optimizer, "schedule": schedule}
    path = bench.folder / f"{lesson.name.replace(' ', '_')}.pt"
    stamp = f"{bench.stamp} {len(lesson.teachers)} {lesson.epochs}" + (" best" if lesson.judged else "")
    stamp += f" {process_count()} processes" if process_count() > 1 else ""
    done = _resumed(parts, path, stamp) if bench.resume and path.is_file() else _Done(0, [])
    if done.epoch < lesson.epochs and not done.waits(task.patience):
        epoch = done.epoch
        order: Sampler[Any] = SeededOrder(len(lesson.images), lesson.seed, epoch, _shares(task, lesson))
        if process_count() > 1:
            order = SharedOrder(order, batch, drop_last=True)
        loader = DataLoader(
            TensorDataset(lesson.images, lesson.targets), share, sampler=order, drop_last=True, num_workers=0
        )
        _run(task, lesson, bench, parts, _Course(path, epoch, stamp, loader, done.records), progress)
    ready: nn.Module = average.module
    if lesson.judged:
        ready.load_state_dict(load_weights(path)["best"])
    return ready.eval().requires_grad_(False)


def _schedule(
    task: ClassificationTask, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler:
    """How the learning rate goes over so many batches; see `ClassificationTask.schedule`."""
    if task.schedule == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimizer, task.learning_rate, total_steps=steps + 1, pct_start=WARM_UP
        )
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: falling(task.schedule, min(step / steps, 1.0)))


def _shares(task: ClassificationTask, lesson: Lesson) -> Tensor | None:
    """How often each image is drawn, in relation; None where each is shown once in an epoch."""
    if task.sampling == "uniform":
        return None
    return task.decided.draw_shares(lesson.targets)


def new_network(description: dict[str, Any]) -> nn.Module:
    """A network of a task's description, laid out as the processor likes it best."""
    component = Config({"network": description}, Path()).get("network")
    network = build_network(component.target, component.arguments)
    flat = any(isinstance(part, nn.Conv2d) for part in network.modules())
    return network.to(memory_format=torch.channels_last) if flat else network  # type: ignore[call-overload]


@torch.inference_mode()
def scores_of(network: nn.Module, images: Tensor, device: str) -> Tensor:
    """The network's output (N, outputs) for images (N, ...), in full precision."""
    network.eval()
    return torch.cat([network(part.to(device)).float().cpu() for part in images.split(64)])


@dataclass(frozen=True)
class _Course:
    path: Path
    epoch: int
    stamp: str
    loader: DataLoader[tuple[Tensor, ...]]
    records: list[LessonRecord]


@dataclass(frozen=True)
class _Done:
    """What a checkpoint has of an earlier run: how many epochs, and what was noted of each."""

    epoch: int
    records: list[LessonRecord]

    def waits(self, patience: int) -> bool:
        """Whether so many epochs were without gain."""
        return bool(patience) and without_gain(self.records) >= patience


def _run(
    task: ClassificationTask,
    lesson: Lesson,
    bench: Bench,
    parts: dict[str, Any],
    course: _Course,
    progress: Progress,
) -> None:
    change = Augmentation(task.augmentation, task.frames > 0)
    device = torch.device(bench.device)
    choice = torch.Generator()
    flip, kind = task.mirrored_axes, training_type(task.precision, device)

    def prepared(batch: Sequence[Tensor], where: Any, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        images, targets = change.mixed(change(batch[0].to(where)), batch[1].to(where))
        if lesson.teachers:
            targets = _taught(lesson.teachers, images, (flip, kind, task.decided), choice)
        return images, targets

    trainer = SupervisedTrainer(
        device=device,
        max_epochs=lesson.epochs,
        train_data_loader=course.loader,
        network=joined(parts["network"], device),
        optimizer=parts["optimizer"],
        loss_function=_loss_of(task, lesson, device),
        inferer=AutocastInferer(kind),
        prepare_batch=prepared,
        decollate=False,
        accumulation_steps=task.accumulate,
    )
    length = len(course.loader)
    trainer.state.epoch, trainer.state.epoch_length = course.epoch, length
    trainer.state.iteration = course.epoch * length
    losses: list[float] = []
    rates: list[float] = []
    records = list(course.records)
    best: dict[str, Any] = _best_so_far(course) if lesson.judged else {}

    @trainer.on(Events.EPOCH_STARTED)
    def reseed() -> None:
        seed = own_seed(lesson.seed + 1000 * trainer.state.epoch)
        change.reseed(seed)
        choice.manual_seed(seed)
        torch.manual_seed(seed)  # of dropout

    @trainer.on(Events.ITERATION_COMPLETED)
    def watch() -> None:
        found = mean_over_processes(float(trainer.state.output["loss"].detach()))
        _require_finite(found, trainer.state.output["image"], (task, lesson, trainer.state.epoch))
        losses.append(found)
        rates.append(float(parts["optimizer"].param_groups[0]["lr"]))
        place = (trainer.state.iteration - 1) % length + 1
        if place % task.accumulate == 0 or place == length:
            for _ in range((place - 1) % task.accumulate + 1):  # as many batches as this step was made of
                parts["schedule"].step()
            parts["average"].update_parameters(parts["network"])
        mean = sum(losses[-length:]) / len(losses[-length:])
        text = f"{lesson.name}, epoch {trainer.state.epoch} of {lesson.epochs}, loss {mean:.3f}"
        progress.step(trainer.state.iteration, lesson.epochs * length, text[0].upper() + text[1:])

    @trainer.on(Events.EPOCH_COMPLETED)
    def keep() -> None:
        surprise = _judge(task, lesson, parts["average"].module, bench.device, best) if is_first() else 0.0
        surprise = said_by_first(surprise) if lesson.judged else surprise
        records.append(LessonRecord(sum(losses[-length:]) / length, rates[-1], surprise))
        over = _Done(trainer.state.epoch, records).waits(task.patience if lesson.judged else 0)
        if is_first():
            told = [[record.loss, record.rate, record.surprise] for record in records]
            states = {name: part.state_dict() for name, part in parts.items()}
            content = {"epoch": trainer.state.epoch, "stamp": course.stamp, "records": told, **best, **states}
            save_checkpoint(content, course.path)
            write_lesson(lesson.name, records, bench.folder, drawn=over or trainer.state.epoch in (1, lesson.epochs))
        if over:
            trainer.terminate()

    with on_board(trainer, bench.folder, lesson.name.replace(" ", "_")):
        trainer.run()
        wait_for_all()  # for the first one's last checkpoint


def _loss_of(task: ClassificationTask, lesson: Lesson, device: torch.device) -> nn.Module:
    """What is minimised: the distance to what teachers say, or the task's own loss."""
    if lesson.teachers:
        return task.decided.taught_loss()
    return task.decided.loss(task.loss_options, lesson.targets).to(device)


def _require_finite(loss: float, images: Tensor, where: tuple[ClassificationTask, Lesson, int]) -> None:
    """Raise `ModelError`, with the likely reason, where a loss is no number; `where` has the epoch, too."""
    if math.isfinite(loss):
        return
    task, lesson, epoch = where
    reason = f"most likely the learning rate {task.learning_rate:g} is too high; try a tenth of it"
    if not bool(torch.isfinite(images).all()):
        reason = "the prepared images have values that are no numbers; check their intensity steps"
    raise ModelError(f"Training stopped: the loss of {lesson.name} is no finite number in epoch {epoch}; {reason}.")


def _judge(task: ClassificationTask, lesson: Lesson, network: nn.Module, device: str, best: dict[str, Any]) -> float:
    """The loss on the images that choose the best epoch, whose weights `best` takes; 0 without such images."""
    if not lesson.judged:
        return 0.0
    surprise = float(task.decided.taught_loss()(scores_of(network, lesson.judged[0], device), lesson.judged[1]))
    if surprise < best.get("surprise", math.inf):
        best.update(surprise=surprise, best={key: value.clone() for key, value in network.state_dict().items()})
    return surprise


@torch.no_grad()
def _taught(
    teachers: Sequence[nn.Module],
    images: Tensor,
    how: tuple[Sequence[int], torch.dtype, Decision],
    choice: torch.Generator,
) -> Tensor:
    """Mean probabilities (B, outputs) of some teachers, each of which sees the images as they are or mirrored.

    `how` are the axes along which they may be mirrored, the number type that teachers compute in, and the decision.
    Over the epochs that amounts to the mean of all teachers over all mirrored copies.
    """
    flip, kind, decision = how
    chosen = torch.randperm(len(teachers), generator=choice)[:TEACHERS_AT_ONCE].tolist()
    total = torch.zeros(1, device=images.device)
    for number in chosen:
        axes = [axis for axis in flip if float(torch.rand(1, generator=choice)) < 0.5]
        with torch.autocast(images.device.type, kind, enabled=kind != torch.float32):
            found = teachers[number](images.flip(axes) if axes else images)
        total = total + decision.likely(found.float())
    return total / len(chosen)


def _best_so_far(course: _Course) -> dict[str, Any]:
    """Surprise and weights of the best epoch before this run; nothing where it starts anew."""
    if not course.epoch:
        return {}
    checkpoint = load_weights(course.path)
    return {key: checkpoint[key] for key in ("surprise", "best")}


def _resumed(parts: dict[str, Any], path: Path, stamp: str) -> _Done:
    checkpoint = load_weights(path)
    if checkpoint.get("stamp") != stamp:
        raise InputError(f"{path} is of another training: resume with the task and the data it was started with.")
    try:
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
        return _Done(int(checkpoint["epoch"]), [LessonRecord(*numbers) for numbers in checkpoint["records"]])
    except (KeyError, RuntimeError, ValueError, TypeError) as error:
        raise InputError(f"{path} is of another training: resume with the task it was started with.") from error
