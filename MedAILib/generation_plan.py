"""How a model makes images from noise, read from its config as data: its noise, and a sampler if it has one.

Two ways are known: a network that turns noise into an image at once (a GAN's generator), and latent diffusion, in which
a network takes noise away step by step and the decoder of an autoencoder makes the image. Nothing is built here.
"""

import re
from dataclasses import dataclass, field
from math import prod
from pathlib import Path, PurePosixPath
from typing import Any

from MedAILib.config import Config
from MedAILib.config_values import Component, known
from MedAILib.errors import SpecError

# What a config may draw its noise by, and what that is.
NOISE = {"torch.rand": "uniform", "torch.randn": "normal"}
# The Model Zoo's sampler of latent diffusion, read by a person: DDIM steps, then the autoencoder's decoder.
SAMPLERS = ("scripts.ldm_sampler.LDMSampler",)
MOST_NUMBERS = 1 << 26
MOST_STEPS = 10_000

_STEPS = re.compile(r"\$\s*@noise_scheduler\.set_timesteps\(\s*(?:num_inference_steps\s*=\s*)?(\d+)\s*\)")
_LOADS = re.compile(r"\$\s*@(\w+)\.load(_old)?_state_dict\(\s*torch\.load\(\s*@(\w+)\s*(?:,[^()]*)?\)\s*\)")


@dataclass(frozen=True)
class Decoder:
    """An autoencoder whose decoder makes the image: its network and the file of its weights."""

    network: Component
    weights: Path


@dataclass(frozen=True)
class Diffusion:
    """How latent diffusion takes noise away.

    Args:
        decoder: makes the image of what is left.
        scheduler: of the noise.
        steps: how many are done.
        weights: of the network that takes noise away; None for the bundle's usual ones.
    """

    decoder: Decoder
    scheduler: Component
    steps: int
    weights: Path | None = None


@dataclass(frozen=True)
class Generation:
    """How images come about.

    Args:
        noise: "uniform" (0 to 1) or "normal" (mean 0, deviation 1).
        shape: of the noise for one image, without a batch's axis.
        diffusion: None where the network makes the image at once.
    """

    noise: str
    shape: tuple[int, ...]
    diffusion: Diffusion | None = field(default=None)


def read_generation(config: Config, folder: Path) -> Generation | None:
    """How a config makes images from noise; None where it has no noise.

    Raises:
        SpecError: it has noise, and something of it is not understood.
    """
    written = _entry(config, "noise")
    batched = written is not None
    if written is None:
        data = _entry(config, "dataset#data")
        if not isinstance(data, str) or not any(name in data for name in NOISE):
            return None
    value = config.get("noise" if batched else "dataset#data")
    if isinstance(value, list):
        value = value[0] if value else None
    if not isinstance(value, Component) or value.target not in NOISE:
        raise SpecError(f"{config.source}: how the noise is drawn that images are made from is not understood.")
    shape = _shape(value, config)
    if batched:
        if shape[:1] != (1,):
            raise SpecError(f"{config.source}: the noise is of {shape[0]} images at once, where one is wanted.")
        shape = shape[1:]
    return Generation(NOISE[value.target], shape, _diffusion(config, folder))


def sampler_target(config: Config) -> str:
    """The name of a config's sampler, where it is one of `SAMPLERS`; else empty."""
    written = _entry(config, "inferer")
    target = written.get("_target_") if isinstance(written, dict) else None
    return str(target) if target in SAMPLERS else ""


def _entry(config: Config, reference: str) -> Any:
    """An entry as it is written; None where there is none."""
    try:
        return config.raw(reference)
    except SpecError:
        return None


def _shape(noise: Component, config: Config) -> tuple[int, ...]:
    told = [known(value) for value in noise.positional]
    sizes = told[0] if len(told) == 1 and isinstance(told[0], (list, tuple)) else told
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes)
    if noise.arguments or not sizes or not whole or len(sizes) > 6 or prod(sizes) > MOST_NUMBERS:
        raise SpecError(f"{config.source}: noise of the shape {list(sizes)} is not possible.")
    return tuple(sizes)


def _diffusion(config: Config, folder: Path) -> Diffusion | None:
    """Latent diffusion, where the config's sampler is known; None where it has none.

    Raises:
        SpecError: a part of it is absent or not understood.
    """
    if not sampler_target(config):
        return None
    decoder = config.get("autoencoder_def")
    if not isinstance(decoder, Component):
        raise SpecError(f"{config.source}: 'autoencoder_def' describes no network.")
    files = _loaded(config, folder)
    if "autoencoder_def" not in files:
        raise SpecError(f"{config.source}: which weights its autoencoder has is not told.")
    steps = _STEPS.fullmatch(str(_entry(config, "set_timesteps")).strip())
    if steps is None or not 1 <= int(steps[1]) <= MOST_STEPS:
        raise SpecError(f"{config.source}: how many steps its noise scheduler does is not told.")
    weights = files.get("network_def")
    return Diffusion(Decoder(decoder, files["autoencoder_def"]), _scheduler(config), int(steps[1]), weights)


def _loaded(config: Config, folder: Path) -> dict[str, Path]:
    """Files of weights by the network that the config loads them into; in the bundle, and not looked at."""
    found: dict[str, Path] = {}
    for key in ("load_autoencoder", "load_diffusion"):
        match = _LOADS.fullmatch(str(_entry(config, key)).strip())
        if match is None:
            continue
        written = config.get(match[3])
        path = PurePosixPath(str(written))
        if not isinstance(written, (str, PurePosixPath)) or path.is_absolute() or ".." in path.parts:
            raise SpecError(f"{config.source}: the weights '{written}' lie outside the bundle.")
        if "\\" in str(written) or ":" in str(written):
            raise SpecError(f"{config.source}: the weights '{written}' lie outside the bundle.")
        found[match[1]] = folder / path
    return found


def _scheduler(config: Config) -> Component:
    """The noise scheduler; what it wants loaded first (`_requires_`) is loaded in our own way."""
    written = _entry(config, "noise_scheduler")
    target = written.get("_target_") if isinstance(written, dict) else None
    if not isinstance(written, dict) or not isinstance(target, str):
        raise SpecError(f"{config.source}: 'noise_scheduler' describes no scheduler.")
    arguments = {key: config.get(f"noise_scheduler#{key}") for key in written if not key.startswith("_")}
    return Component(target, arguments)
