"""Training of a DCGAN: MONAI's trainer of two networks, the generator's averaged weights, resumable at each epoch."""

import math
from typing import Any

import torch
from ignite.engine import Events
from monai.engines import GanTrainer
from monai.engines.utils import GanKeys
from monai.networks.nets import Discriminator, Generator
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel
from torch.utils.data import DataLoader, Sampler, TensorDataset

from MedAILib.errors import InputError, ModelError
from MedAILib.progress import Progress
from MedAILib.training.board import on_board
from MedAILib.training.checkpoint import begin, identity_of, keep, require_room
from MedAILib.training.classification import SeededOrder
from MedAILib.training.generation_curves import write_pair_curves
from MedAILib.training.generation_distance import Distance
from MedAILib.training.generation_task import GenerationTask
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
from MedAILib.training.samples import seed_of
from MedAILib.training.segmentation import TrainingRun, moving_average

# Standard deviation of the first weights (Radford et al. 2016, section 4).
FIRST_WEIGHTS = 0.02
JUDGED_EVERY = 10  # epochs; to judge takes as long as to learn from two hundred small pictures
DRAWN_EVERY = 10  # epochs; to draw the curves takes as long as to learn from a hundred small pictures


class Contest:
    """One training as it goes: the two networks against each other, and all that a checkpoint holds.

    Generator and discriminator speak in scores: a sigmoid of the generator's is the picture, one of the
    discriminator's how likely a picture is real.
    """

    def __init__(self, task: GenerationTask, device: str, distance: Distance | None = None) -> None:
        self.task, self.distance = task, distance
        self.generator, self.discriminator = (network.to(device) for network in build_pair(task))
        where = torch.device(device)
        self.infer = AutocastInferer(training_type(task.precision, where))
        self.making, self.judging = (
            joined(x, where, several_passes=True) for x in (self.generator, self.discriminator)
        )
        self.average = AveragedModel(self.generator, multi_avg_fn=moving_average(task.ema_decay), use_buffers=True)
        self.generator_optimizer, self.discriminator_optimizer = (
            torch.optim.Adam(network.parameters(), task.learning_rate, (task.beta1, 0.999))
            for network in (self.generator, self.discriminator)
        )
        self.losses: list[tuple[float, float]] = []
        self.distances: dict[int, float] = {}  # by epoch, of those that were judged
        self.best: dict[str, Tensor] = {}
        self.draws = torch.Generator()  # on the CPU, so that every device sees the same

    @property
    def weights(self) -> dict[str, Tensor]:
        """The generator's averaged weights on the CPU, or the best epoch's where the task stops early."""
        return self.best or {
            key: value.detach().cpu().clone() for key, value in self.average.module.state_dict().items()
        }

    def state(self) -> dict[str, Any]:
        judged = {"distances": [[float(n), x] for n, x in self.distances.items()], "best": self.best}
        parts = {name: getattr(self, name).state_dict() for name in PARTS}
        return {**parts, "losses": [list(x) for x in self.losses], "judged": judged}

    def take_up(self, state: dict[str, Any], run: TrainingRun) -> None:
        """Go on from what a checkpoint holds.

        Raises:
            InputError: it is of another training.
        """
        try:
            for name in PARTS:
                getattr(self, name).load_state_dict(state[name])
            self.losses = [(float(g), float(d)) for g, d in state["losses"]]
            if "judged" in state:
                self.distances = {int(number): float(x) for number, x in state["judged"]["distances"]}
                self.best = state["judged"]["best"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            raise InputError(f"{run.folder} is of another training: start anew without --resume.") from error

    def is_over(self, epochs: int) -> bool:
        """Whether nothing of so many epochs is left to be done."""
        if len(self.losses) >= epochs or not self.distances:
            return len(self.losses) >= epochs
        best = min(self.distances, key=lambda number: self.distances[number])
        return max(self.distances) - best >= self.task.patience

    def judge(self) -> None:
        """Compare what the averaged generator makes of the same numbers each time with the pictures kept aside."""
        if self.distance is None:
            return
        found = 0.0
        if is_first():
            network: nn.Module = self.average.module
            draws = torch.Generator().manual_seed(self.task.seed)
            latents = torch.randn(self.distance.wanted, self.task.latent, generator=draws)
            network.eval()
            with torch.inference_mode():
                made = network(latents.to(next(network.parameters()).device)).sigmoid().cpu()
            found = self.distance(made)
        found = said_by_first(found)
        if found < min(self.distances.values(), default=math.inf):
            self.best = {}
            self.best = self.weights
        self.distances[len(self.losses)] = found

    def reseed(self, iteration: int) -> None:
        """Make all that is random in a step a function of its number alone."""
        seed = own_seed(seed_of(self.task.seed, iteration))
        self.draws.manual_seed(seed)
        torch.manual_seed(seed)  # of the discriminator's dropout

    def real(self, batch: list[Tensor], device: torch.device, *_: Any, **__: Any) -> Tensor:
        """Pictures (B, 1, I, J) for the discriminator, half of them mirrored left to right where the task allows it."""
        (pictures,) = batch
        if self.task.mirror:
            turned = torch.rand(len(pictures), generator=self.draws) < 0.5
            pictures = torch.where(turned[:, None, None, None], pictures.flip(2), pictures)
        return pictures.to(device)

    def latents(self, num_latents: int, latent_size: int, device: torch.device, **_: Any) -> Tensor:
        """Random numbers (num_latents, latent_size) to make pictures of; the names are those MONAI calls it by."""
        return torch.randn(num_latents, latent_size, generator=self.draws).to(device)

    def of_generator(self, made: Tensor) -> Tensor:
        """The generator's loss: how little its pictures are taken for real ones."""
        opinion = self.infer(made.sigmoid(), self.judging)
        return binary_cross_entropy_with_logits(opinion, torch.ones_like(opinion))

    def of_discriminator(self, made: Tensor, real: Tensor) -> Tensor:
        """The discriminator's loss: how badly it tells pictures made from real ones."""
        of_real, of_made = (self.infer(x, self.judging) for x in (real, made.detach().sigmoid()))
        loss = binary_cross_entropy_with_logits(of_real, torch.full_like(of_real, self.task.real_target))
        return (loss + binary_cross_entropy_with_logits(of_made, torch.zeros_like(of_made))) / 2


PARTS = ("generator", "discriminator", "average", "generator_optimizer", "discriminator_optimizer")


def build_pair(task: GenerationTask) -> tuple[Generator, Discriminator]:
    """The two networks, freshly drawn from the task's seed.

    Raises:
        InputError: arguments that MONAI's networks don't take.
    """
    set_determinism(task.seed)
    try:
        generator = Generator(latent_shape=(task.latent,), **_plain(task.generator))
        discriminator = Discriminator(in_shape=(1, task.size, task.size), last_act=None, **_plain(task.discriminator))
    except (TypeError, ValueError, RuntimeError, KeyError) as error:
        raise InputError(f"The networks of the training task {task.name} can't be built: {error}.") from error
    for network in (generator, discriminator):
        network.apply(_draw_weights)
    return generator, discriminator


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
    if len(pictures) < task.batch:
        raise InputError(
            f"There are {len(pictures)} pictures to learn from, and the task {task.name} takes {task.batch} at a time; "
            "add some, or give a smaller --set batch=N."
        )
    own_share(task.batch, least=2 if process_count() > 1 else 1)  # what can't be divided is told first
    contest = Contest(task, run.device, None if kept is None else Distance(pictures, kept))
    require_room(run.folder, sum(p.nbytes for n in (contest.generator, contest.discriminator) for p in n.parameters()))
    state = begin(run.folder, identity_of(task, run_epochs=run.epochs, data=run.data_sha256), run.resume)
    if state is not None:
        contest.take_up(state, run)
    if not contest.is_over(run.epochs):
        _go_on(contest, pictures, run, progress)
    return contest.weights


def make_pictures(task: GenerationTask, weights: dict[str, Tensor], latents: Tensor) -> Tensor:
    """Pictures (N, 1, I, J), 0 to 1, of random numbers (N, latent), by a trained generator."""
    generator, _ = build_pair(task)
    generator.load_state_dict(weights)
    generator.eval()
    with torch.inference_mode():
        made: Tensor = generator(latents).sigmoid()
    return made


def _go_on(contest: Contest, pictures: Tensor, run: TrainingRun, progress: Progress) -> None:
    """Run the epochs that are left."""
    task, done = contest.task, len(contest.losses)
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
    found: list[tuple[float, float]] = []

    @trainer.on(Events.ITERATION_STARTED)
    def reseed() -> None:
        contest.reseed(trainer.state.iteration)

    @trainer.on(Events.ITERATION_COMPLETED)
    def watch() -> None:
        losses = trainer.state.output
        pair = mean_over_processes(losses[GanKeys.GLOSS]), mean_over_processes(losses[GanKeys.DLOSS])
        if not all(math.isfinite(loss) for loss in pair):
            who = "discriminator" if math.isfinite(pair[0]) else "generator"
            raise ModelError(
                f"Training stopped: the loss of the {who} is no finite number in epoch {trainer.state.epoch}; most "
                f"likely the learning rate {task.learning_rate:g} is too high; try a tenth of it."
            )
        found.append(pair)
        contest.average.update_parameters(contest.generator)
        text = "Epoch {} of {}, losses {:.3f} and {:.3f}".format(trainer.state.epoch, run.epochs, *_mean(found))
        progress.step(trainer.state.iteration, run.epochs * batches, text)

    @trainer.on(Events.EPOCH_COMPLETED)
    def note() -> None:
        contest.losses.append(_mean(found))
        found.clear()
        if len(contest.losses) % JUDGED_EVERY == 0 or len(contest.losses) == run.epochs:
            contest.judge()
        keep(contest.state(), run.folder)
        if len(contest.losses) % DRAWN_EVERY == 0 or contest.is_over(run.epochs):
            write_pair_curves(contest.losses, run.folder, contest.distances)
        if contest.is_over(run.epochs):
            trainer.terminate()

    written = on_board(
        trainer,
        run.folder,
        told=lambda output: {
            "generator_loss": output[GanKeys.GLOSS],
            "discriminator_loss": output[GanKeys.DLOSS],
        },
    )
    with written:
        trainer.run()
        wait_for_all()


def _mean(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    first, second = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return first, second


def _draw_weights(part: nn.Module) -> None:
    if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(part.weight, 0.0, FIRST_WEIGHTS)


def _plain(described: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key != "_target_"}
