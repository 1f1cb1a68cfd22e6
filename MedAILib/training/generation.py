"""Training of a DCGAN: MONAI's trainer of two networks, the generator's averaged weights, resumable at each epoch."""

from typing import Any

import torch
from ignite.engine import Events
from monai.engines import GanTrainer
from monai.engines.utils import GanKeys
from torch import Tensor
from torch.utils.data import DataLoader, Sampler, TensorDataset

from MedAILib.errors import InputError
from MedAILib.progress import Progress
from MedAILib.training.board import on_board
from MedAILib.training.checkpoint import begin, identity_of, require_room
from MedAILib.training.contest import Contest, build_pair
from MedAILib.training.generation_distance import Distance
from MedAILib.training.generation_task import GenerationTask
from MedAILib.training.processes import SharedOrder, own_share, process_count, wait_for_all
from MedAILib.training.samples import SeededOrder
from MedAILib.training.training_run import TrainingRun


def train_generator(
    task: GenerationTask, pictures: Tensor, run: TrainingRun, progress: Progress, kept: Tensor | None = None
) -> dict[str, Tensor]:
    """Train the two networks against each other; return the generator's averaged weights (float32, on the CPU).

    Where the task stops early, they are those that made the pictures nearest to `kept`. A checkpoint stands in
    `run.folder` after every epoch; `run.resume` goes on from it, to the same bits on a CPU.

    Args:
        task: what to learn.
        pictures: (N, 1, size, size), axes I and J, 0 to 1.
        run: its checkpoints' folder, its length, its device.
        progress: hears of each batch.
        kept: pictures that are not learnt from and decide when to stop; only for a task with patience.

    Raises:
        InputError: too few pictures; the checkpoint to resume from is missing or of another training.
        ModelError: a loss is not finite any more; the sentence says in which epoch.
        OutputError: the disk does not take the checkpoint.
        Cancelled: by `progress`, between two batches.
    """
    require_enough(task, pictures)
    own_share(task.batch, least=2 if process_count() > 1 else 1)  # what can't be divided is told first
    contest = Contest(task, run, None if kept is None else Distance(pictures, kept))
    require_room(run.folder, sum(p.nbytes for n in (contest.generator, contest.discriminator) for p in n.parameters()))
    state = begin(run.folder, identity_of(task, run_epochs=run.epochs, data=run.data_sha256), run.resume)
    if state is not None:
        contest.take_up(state)
    if not contest.over:
        _go_on(contest, pictures, progress)
    return contest.weights


def require_enough(task: GenerationTask, pictures: Tensor) -> None:
    """Raise `InputError` where there are fewer pictures than a task takes at a time."""
    if len(pictures) < task.batch:
        raise InputError(
            f"There are {len(pictures)} pictures to learn from, and the task {task.name} takes {task.batch} at a time; "
            "add some, or give a smaller --set batch=N."
        )


def make_pictures(task: GenerationTask, weights: dict[str, Tensor], latents: Tensor) -> Tensor:
    """Pictures (N, 1, I, J), 0 to 1, of random numbers (N, latent), by a trained generator."""
    generator, _ = build_pair(task)
    generator.load_state_dict(weights)
    generator.eval()
    with torch.inference_mode():
        made: Tensor = generator(latents).sigmoid()
    return made


def _go_on(contest: Contest, pictures: Tensor, progress: Progress) -> None:
    """Run the epochs that are left."""
    task, run, done = contest.task, contest.run, len(contest.losses)
    order: Sampler[Any] = SeededOrder(len(pictures), task.seed, done)
    if process_count() > 1:
        order = SharedOrder(order, task.batch, drop_last=True)
    loader = DataLoader(TensorDataset(pictures), own_share(task.batch), sampler=order, drop_last=True, num_workers=0)
    batches = len(loader)
    trainer = GanTrainer(
        device=torch.device(run.device),
        max_epochs=run.epochs,
        train_data_loader=loader,
        g_network=contest.making,
        g_optimizer=contest.generator_optimizer,
        g_inferer=contest.infer,
        g_loss_function=contest.of_generator,
        d_network=contest.judging,
        d_optimizer=contest.discriminator_optimizer,
        d_loss_function=contest.of_discriminator,
        latent_shape=task.latent,
        d_prepare_batch=contest.real,
        g_prepare_batch=contest.latents,
        decollate=False,
    )
    trainer.state.epoch, trainer.state.epoch_length = done, batches
    trainer.state.iteration = done * batches

    @trainer.on(Events.ITERATION_STARTED)
    def reseed() -> None:
        contest.reseed(trainer.state.iteration)

    @trainer.on(Events.ITERATION_COMPLETED)
    def watch() -> None:
        losses = trainer.state.output
        text = contest.after_step(losses[GanKeys.GLOSS], losses[GanKeys.DLOSS])
        progress.step(trainer.state.iteration, run.epochs * batches, text)

    @trainer.on(Events.EPOCH_COMPLETED)
    def note() -> None:
        contest.after_epoch()
        if contest.over:
            trainer.terminate()

    with on_board(trainer, run.folder, told=_told):
        trainer.run()
        wait_for_all()


def _told(output: dict[str, float]) -> dict[str, float]:
    """What TensorBoard is told of a step."""
    return {"generator_loss": output[GanKeys.GLOSS], "discriminator_loss": output[GanKeys.DLOSS]}
