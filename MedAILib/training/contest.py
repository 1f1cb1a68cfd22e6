"""A generator and a discriminator as they learn from each other: what a checkpoint holds, losses, epochs."""

import math
from typing import Any

import torch
from monai.networks.nets import Discriminator, Generator
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits
from torch.optim.swa_utils import AveragedModel

from MedAILib.errors import InputError, ModelError
from MedAILib.training.checkpoint import keep
from MedAILib.training.generation_curves import write_pair_curves
from MedAILib.training.generation_distance import Distance
from MedAILib.training.generation_task import GenerationTask
from MedAILib.training.precision import AutocastInferer, training_type
from MedAILib.training.processes import is_first, joined, mean_over_processes, own_seed, said_by_first
from MedAILib.training.samples import seed_of
from MedAILib.training.training_run import TrainingRun, moving_average

# Standard deviation of the first weights (Radford et al. 2016, section 4).
FIRST_WEIGHTS = 0.02
JUDGED_EVERY = 10  # epochs; to judge takes as long as to learn from two hundred small pictures
DRAWN_EVERY = 10  # epochs; to draw the curves takes as long as to learn from a hundred small pictures
PARTS = ("generator", "discriminator", "average", "generator_optimizer", "discriminator_optimizer")


class Contest:
    """One training as it goes: the two networks against each other, and all that a checkpoint holds.

    Generator and discriminator speak in scores: a sigmoid of the generator's is the picture, one of the
    discriminator's how likely a picture is real.
    """

    def __init__(self, task: GenerationTask, run: TrainingRun, distance: Distance | None = None) -> None:
        self.task, self.run, self.distance = task, run, distance
        self.generator, self.discriminator = (network.to(run.device) for network in build_pair(task))
        where = torch.device(run.device)
        self.infer = AutocastInferer(training_type(task.precision, where))
        self.making, self.judging = (
            joined(x, where, several_passes=True) for x in (self.generator, self.discriminator)
        )
        self.average = AveragedModel(self.generator, multi_avg_fn=moving_average(task.ema_decay), use_buffers=True)
        self.generator_optimizer, self.discriminator_optimizer = (
            torch.optim.Adam(network.parameters(), task.learning_rate, (task.beta1, 0.999))
            for network in (self.generator, self.discriminator)
        )
        self.losses: list[tuple[float, float]] = []  # of each epoch, generator and discriminator
        self.steps: list[tuple[float, float]] = []  # of the epoch that goes on
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

    def take_up(self, state: dict[str, Any]) -> None:
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
            raise InputError(f"{self.run.folder} is of another training: start anew without --resume.") from error

    @property
    def over(self) -> bool:
        """Whether nothing is left to be done."""
        if len(self.losses) >= self.run.epochs or not self.distances:
            return len(self.losses) >= self.run.epochs
        best = min(self.distances, key=lambda number: self.distances[number])
        return max(self.distances) - best >= self.task.patience

    def after_step(self, generator: float, discriminator: float) -> str:
        """Note the losses; tell how it goes.

        Raises:
            ModelError: one is no number.
        """
        epoch, pair = len(self.losses) + 1, (mean_over_processes(generator), mean_over_processes(discriminator))
        if not all(math.isfinite(loss) for loss in pair):
            who = "discriminator" if math.isfinite(pair[0]) else "generator"
            raise ModelError(
                f"Training stopped: the loss of the {who} is no finite number in epoch {epoch}; most likely the "
                f"learning rate {self.task.learning_rate:g} is too high; try a tenth of it."
            )
        self.steps.append(pair)
        self.average.update_parameters(self.generator)
        return "Epoch {} of {}, losses {:.3f} and {:.3f}".format(epoch, self.run.epochs, *_mean(self.steps))

    def after_epoch(self) -> None:
        """Note the epoch, judge some, and keep all on disk."""
        self.losses.append(_mean(self.steps))
        self.steps = []
        number = len(self.losses)
        if self.distance is not None and (number % JUDGED_EVERY == 0 or number == self.run.epochs):
            self._judge(self.distance)
        keep(self.state(), self.run.folder)
        if number % DRAWN_EVERY == 0 or self.over:
            write_pair_curves(self.losses, self.run.folder, self.distances)

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

    def _judge(self, distance: Distance) -> None:
        """Compare what the averaged generator makes of the same numbers each time with the pictures kept aside."""
        found = 0.0
        if is_first():
            network: nn.Module = self.average.module
            draws = torch.Generator().manual_seed(self.task.seed)
            latents = torch.randn(distance.wanted, self.task.latent, generator=draws)
            network.eval()
            with torch.inference_mode():
                made = network(latents.to(next(network.parameters()).device)).sigmoid().cpu()
            found = distance(made)
        found = said_by_first(found)
        if found < min(self.distances.values(), default=math.inf):
            self.best = {}
            self.best = self.weights
        self.distances[len(self.losses)] = found


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


def _mean(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    first, second = (sum(values) / len(pairs) for values in zip(*pairs, strict=True))
    return first, second


def _draw_weights(part: nn.Module) -> None:
    if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(part.weight, 0.0, FIRST_WEIGHTS)


def _plain(described: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key != "_target_"}
