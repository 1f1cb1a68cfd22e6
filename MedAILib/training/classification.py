"""Training of one classification network: MONAI's trainer, averaged weights, resumable at each epoch.

Which networks there are, and on which images each learns, is `cross_validation`'s business.
"""

from typing import Any

import torch
from ignite.engine import Events
from monai.engines import SupervisedTrainer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Sampler, TensorDataset

from MedAILib.progress import Progress
from MedAILib.training.board import on_board
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.lesson import Bench, Lesson
from MedAILib.training.lesson_course import LessonCourse
from MedAILib.training.precision import AutocastInferer, training_type
from MedAILib.training.processes import SharedOrder, joined, own_seed, own_share, process_count, wait_for_all
from MedAILib.training.samples import SeededOrder
from MedAILib.training.shown_images import ShownImages


def train_network(task: ClassificationTask, lesson: Lesson, bench: Bench, progress: Progress) -> nn.Module:
    """Train one network and return it with its averaged weights, ready to be asked.

    Raises:
        InputError: the checkpoint to resume from is of another task or other data.
        ModelError: the loss is not finite any more; the sentence says in which epoch.
        Cancelled: by `progress`, between two batches.
    """
    batch = min(task.batch, len(lesson.images) // process_count() * process_count())
    share = own_share(batch, least=2 if process_count() > 1 else 1)
    course = LessonCourse(task, lesson, bench, batch)
    if bench.resume and course.path.is_file():
        course.take_up()
    if not course.over:
        order: Sampler[Any] = SeededOrder(len(lesson.images), lesson.seed, len(course.records), _shares(task, lesson))
        if process_count() > 1:
            order = SharedOrder(order, batch, drop_last=True)
        images = TensorDataset(lesson.images, lesson.targets)
        _go_on(course, DataLoader(images, share, sampler=order, drop_last=True, num_workers=0), progress)
    return course.taught()


def _shares(task: ClassificationTask, lesson: Lesson) -> Tensor | None:
    """How often each image is drawn, in relation; None where each is shown once in an epoch."""
    if task.sampling == "uniform":
        return None
    return task.decided.draw_shares(lesson.targets)


def _go_on(course: LessonCourse, loader: DataLoader[tuple[Tensor, ...]], progress: Progress) -> None:
    """Run the epochs that are left."""
    task, lesson, device = course.task, course.lesson, torch.device(course.bench.device)
    shown = ShownImages(task, lesson, device)
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=lesson.epochs,
        train_data_loader=loader,
        network=joined(course.network, device),
        optimizer=course.optimizer,
        loss_function=_loss_of(task, lesson, device),
        inferer=AutocastInferer(training_type(task.precision, device)),
        prepare_batch=shown.prepare,
        decollate=False,
        accumulation_steps=task.accumulate,
    )
    batches, epoch = course.batches, len(course.records)
    trainer.state.epoch, trainer.state.epoch_length = epoch, batches
    trainer.state.iteration = epoch * batches

    @trainer.on(Events.EPOCH_STARTED)
    def reseed() -> None:
        shown.reseed(own_seed(lesson.seed + 1000 * trainer.state.epoch))

    @trainer.on(Events.ITERATION_COMPLETED)
    def watch() -> None:
        text = course.after_step(trainer.state.output, (trainer.state.iteration - 1) % batches + 1)
        progress.step(trainer.state.iteration, lesson.epochs * batches, text)

    @trainer.on(Events.EPOCH_COMPLETED)
    def note() -> None:
        course.after_epoch()
        if course.over:
            trainer.terminate()

    with on_board(trainer, course.bench.folder, course.name):
        trainer.run()
        wait_for_all()  # for the first one's last checkpoint


def _loss_of(task: ClassificationTask, lesson: Lesson, device: torch.device) -> nn.Module:
    """What is minimised: the distance to what teachers say, or the task's own loss."""
    if lesson.teachers:
        return task.decided.taught_loss()
    return task.decided.loss(task.loss_options, lesson.targets).to(device)
