"""Training of a DCGAN: MONAI's trainer of two networks, the generator's averaged weights, resumable at each epoch."""

import math
from pathlib import Path
from typing import Any

import torch
from ignite.engine import Events
from monai.data import DataLoader
from monai.engines import GanTrainer
from monai.networks.nets import Discriminator, Generator
from monai.utils import set_determinism
from torch import Tensor, nn
from torch.nn.functional import binary_cross_entropy_with_logits, interpolate
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import TensorDataset

from MedAILib.errors import InputError, ModelError
from MedAILib.models.weights import load_weights, save_checkpoint
from MedAILib.progress import Progress
from MedAILib.training.generation_task import GenerationTask
from MedAILib.training.segmentation import TrainingRun

# Standard deviation of the first weights (Radford et al. 2016, section 4).
FIRST_WEIGHTS = 0.02


def pictures_tensor(pictures: list[Tensor], size: int) -> Tensor:
    """Pictures (H, W) of any size and range as one batch (N, 1, size, size), float32, each from 0 to 1."""
    made = []
    for picture in pictures:
        low, high = picture.min(), picture.max()
        scaled = ((picture.float() - low) / (high - low).clamp_min(1e-6))[None, None]
        made.append(interpolate(scaled, size=(size, size), mode="bilinear", align_corners=False, antialias=True))
    return torch.cat(made)


def build_pair(task: GenerationTask) -> tuple[Generator, Discriminator]:
    """The two networks, freshly drawn from the task's seed.

    Raises:
        InputError: arguments that MONAI's networks don't take.
    """
    set_determinism(task.seed)
    try:
        generator = Generator(latent_shape=(task.latent,), **_plain(task.generator))
        discriminator = Discriminator(
            in_shape=(1, task.size, task.size), last_act=None, **_plain(task.discriminator)
        )
    except (TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"The networks of the training task {task.name} can't be built: {error}.") from error
    for network in (generator, discriminator):
        network.apply(_draw_weights)
    return generator, discriminator


def train_generator(task: GenerationTask, pictures: Tensor, run: TrainingRun, progress: Progress) -> dict[str, Tensor]:
    """Train the two networks against each other; return the generator's averaged weights (float32, on the CPU).

    The generator's output goes through a sigmoid to become a picture, as the bundle's post-processing says.

    Args:
        task: what to learn.
        pictures: (N, 1, size, size), 0 to 1.
        run: its checkpoints' folder, its length, its device; `run.resume` goes on from the last whole epoch.
        progress: hears of each batch.

    Raises:
        InputError: too few pictures; the checkpoint to resume from is missing or of another training.
        ModelError: a loss is not finite any more; the sentence says in which epoch.
        Cancelled: by `progress`, between two batches.
    """
    if len(pictures) < task.batch:
        raise InputError(f"There are {len(pictures)} pictures and the task {task.name} takes {task.batch} at a time.")
    generator, discriminator = (network.to(run.device) for network in build_pair(task))
    average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(task.ema_decay), use_buffers=True)
    optimizers = [
        torch.optim.Adam(network.parameters(), task.learning_rate, (task.beta1, 0.999))
        for network in (generator, discriminator)
    ]
    parts: dict[str, Any] = {
        "generator": generator,
        "discriminator": discriminator,
        "average": average,
        "generator_optimizer": optimizers[0],
        "discriminator_optimizer": optimizers[1],
    }
    done = _resume(parts, run) if run.resume else 0
    if done >= run.epochs:
        return _averaged(average)

    draws = torch.Generator()
    losses = _Losses(task.real_target, discriminator)
    loader = DataLoader(
        TensorDataset(pictures), batch_size=task.batch, shuffle=True, drop_last=True, num_workers=0, generator=draws
    )
    trainer = GanTrainer(
        device=torch.device(run.device),
        max_epochs=run.epochs,
        train_data_loader=loader,
        g_network=generator,
        g_optimizer=optimizers[0],
        g_loss_function=losses.of_generator,
        d_network=discriminator,
        d_optimizer=optimizers[1],
        d_loss_function=losses.of_discriminator,
        latent_shape=task.latent,
        d_prepare_batch=lambda batch, device, *_, **__: _mirrored(batch[0], task.mirror, draws).to(device),
        g_prepare_batch=lambda num_latents, latent_size, device, **_: torch.randn(
            num_latents, latent_size, generator=draws
        ).to(device),
        decollate=False,
    )
    trainer.state.epoch, trainer.state.epoch_length = done, len(loader)
    trainer.state.iteration = done * len(loader)
    steps = run.epochs * len(loader)

    @trainer.on(Events.EPOCH_STARTED)
    def reseed() -> None:
        draws.manual_seed(task.seed + 1000 * trainer.state.epoch)

    @trainer.on(Events.ITERATION_COMPLETED)
    def watch() -> None:
        if not all(math.isfinite(value) for value in losses.last):
            raise ModelError(f"Training stopped: a loss is no finite number in epoch {trainer.state.epoch}.")
        average.update_parameters(generator)
        text = "Epoch {} of {}, losses {:.3f} and {:.3f}".format(trainer.state.epoch, run.epochs, *losses.last)
        progress.step(trainer.state.iteration, steps, text)

    @trainer.on(Events.EPOCH_COMPLETED)
    def keep() -> None:
        states = {name: part.state_dict() for name, part in parts.items()}
        save_checkpoint({"epoch": trainer.state.epoch, **states}, run.folder / "checkpoint.pt")

    # The sampler draws its seed when an epoch's loop begins, before EPOCH_STARTED is heard for the first one.
    draws.manual_seed(task.seed + 1000 * (done + 1))
    trainer.run()
    return _averaged(average)


def make_pictures(generator: nn.Module, latents: Tensor) -> Tensor:
    """Pictures (N, 1, H, W), 0 to 1, of random numbers (N, latent), by a generator as it is trained here."""
    generator.eval()
    with torch.inference_mode():
        made: Tensor = generator(latents).sigmoid()
    return made


class _Losses:
    """What each of the two networks is told of its work: binary cross-entropy of the discriminator's opinion."""

    def __init__(self, real_target: float, discriminator: nn.Module) -> None:
        self._real, self._discriminator = real_target, discriminator
        self.last = [0.0, 0.0]

    def of_generator(self, made: Tensor) -> Tensor:
        opinion = self._discriminator(made.sigmoid())
        loss = binary_cross_entropy_with_logits(opinion, torch.ones_like(opinion))
        self.last[0] = float(loss.detach())
        return loss

    def of_discriminator(self, made: Tensor, real: Tensor) -> Tensor:
        of_real, of_made = self._discriminator(real), self._discriminator(made.detach().sigmoid())
        loss = binary_cross_entropy_with_logits(of_real, torch.full_like(of_real, self._real))
        loss = (loss + binary_cross_entropy_with_logits(of_made, torch.zeros_like(of_made))) / 2
        self.last[1] = float(loss.detach())
        return loss


def _mirrored(pictures: Tensor, mirror: bool, draws: torch.Generator) -> Tensor:
    """Half of the pictures (N, 1, I, J), their first axis reversed, where the task allows it."""
    if not mirror:
        return pictures
    turned = torch.rand(len(pictures), generator=draws) < 0.5
    return torch.where(turned[:, None, None, None], pictures.flip(2), pictures)


def _draw_weights(part: nn.Module) -> None:
    if isinstance(part, (nn.Conv2d, nn.ConvTranspose2d)):
        nn.init.normal_(part.weight, 0.0, FIRST_WEIGHTS)


def _plain(described: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in described.items() if key != "_target_"}


def _averaged(average: AveragedModel) -> dict[str, Tensor]:
    return {key: value.detach().cpu() for key, value in average.module.state_dict().items()}


def _resume(parts: dict[str, Any], run: TrainingRun) -> int:
    path: Path = run.folder / "checkpoint.pt"
    if not path.is_file():
        raise InputError(f"There is nothing to resume: {path} does not exist.")
    checkpoint = load_weights(path)
    try:
        for name, part in parts.items():
            part.load_state_dict(checkpoint[name])
        return int(checkpoint["epoch"])
    except (KeyError, RuntimeError, ValueError) as error:
        raise InputError(f"{path} is of another training: resume with the task it was started with.") from error
