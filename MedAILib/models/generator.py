"""A MONAI bundle that makes images of noise, as a model that runs; nothing in it is executed."""

from collections.abc import Iterator
from typing import Any, NoReturn

import numpy as np
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler
from torch import Tensor, nn

from MedAILib.bundle_needs import code_needs
from MedAILib.bundle_plan import BundlePlan
from MedAILib.bundle_spec import bundle_spec, output_names
from MedAILib.config_values import Component, known
from MedAILib.errors import ModelError, SpecError, UntrustedCodeError
from MedAILib.generation_plan import Generation
from MedAILib.inference.memory import is_out_of_memory, memory_told
from MedAILib.models.networks import build_network, sketched
from MedAILib.models.provenance import made_by
from MedAILib.models.trust import tree_sha256
from MedAILib.models.values import Values, changed, values_plan
from MedAILib.models.weights import held_bytes, load_weights, network_weights, renamed, require_fit
from MedAILib.progress import Progress
from MedAILib.request import GenerateOptions
from MedAILib.results import Generated
from MedAILib.volume import Geometry, Volume

SCHEDULERS: dict[str, Any] = {"DDIMScheduler": DDIMScheduler, "DDPMScheduler": DDPMScheduler}
MODULES = ("", "monai.networks.schedulers", "monai.networks.schedulers.ddim", "monai.networks.schedulers.ddpm")
OTHER_MODULE = "generative.networks.schedulers"  # where they were before MONAI took them over
SCHEDULER_NUMBERS = ("beta_end", "beta_start", "clip_sample_max", "clip_sample_min", "num_train_timesteps")
SCHEDULER_SWITCHES = ("clip_sample", "set_alpha_to_one")
SCHEDULES = ("cosine", "linear_beta", "scaled_linear_beta", "sigmoid_beta")
PREDICTIONS = ("epsilon", "sample", "v_prediction")
LARGEST_COUNT = 10_000
NO_ROOM = "close other programs, or run it on the CPU with --device cpu"


class GeneratorModel:
    """A model that makes images of noise, its networks on a device and ready.

    Args:
        plan: of a bundle that has noise.
        device: where its networks run.

    Raises:
        SpecError: its description asks for what is not done here.
        UntrustedCodeError: it could only run by executing code of its own.
        ModelError: a network can't be built, or weights are missing, damaged or don't fit.

    Example::

        model = GeneratorModel(read_plan(Path("mednist_gan")), torch.device("cpu"))
        hands = model.generate(GenerateOptions(count=10, seed=1), Progress())
    """

    def __init__(self, plan: BundlePlan, device: torch.device) -> None:
        self._sha256 = tree_sha256(plan.folder)
        self.spec = bundle_spec(plan)
        self._values = generator_values(plan)
        assert isinstance(plan.generation, Generation), "looked at above"
        self._way, self._device = plan.generation, device
        diffusion = plan.generation.diffusion
        weights = (diffusion.weights if diffusion else None) or plan.weights
        self._network = _network(plan, plan.network, weights).to(device)
        self._decoder: Any = (
            _network(plan, diffusion.decoder.network, diffusion.decoder.weights).to(device) if diffusion else None
        )
        self._names = output_names(plan) if diffusion is None else ()
        self._spacing = _spacing(plan)

    @property
    def weights_bytes(self) -> int:
        """What its networks' weights hold on their device."""
        networks = [network for network in (self._network, self._decoder) if network is not None]
        return held_bytes(*networks)

    def run(self, volume: Volume, options: object, progress: Progress) -> NoReturn:
        """A generator takes no image: raises `SpecError`."""
        raise SpecError(f"The model {self.spec.name} makes images of noise and takes none; use `medai generate`.")

    def generate(self, options: GenerateOptions, progress: Progress) -> Generated:
        """Make images; the same seed gives the same image on the same device.

        Raises:
            InputError: there is too little memory.
            ModelError: a network fails, or its output is no image.
            Cancelled: by `progress`.
        """
        volumes = []
        for number in range(options.count):
            progress.step(number, options.count, "Generating")
            part = _OfImage(progress, number, options.count)
            with memory_told(f"{self.spec.name} made an image", NO_ROOM), torch.inference_mode():
                image = self._image(options.seed + number, part)
            volumes.append(self._volume(image, options.seed + number))
        progress.step(options.count, options.count, "Generating")
        seeds = tuple(options.seed + number for number in range(options.count))
        more = {
            "sha256": self._sha256,
            "synthetic": "yes",
            "option.count": str(options.count),
            "option.seed": str(options.seed),
        }
        return Generated(tuple(volumes), seeds, self._names, made_by(self.spec, self._device) | more)

    def _image(self, seed: int, progress: Progress) -> Tensor:
        """The image (C, X, Y[, Z]) of a seed, on the CPU."""
        random = torch.Generator().manual_seed(seed)  # of the CPU, whatever the device: the same noise everywhere
        draw = torch.rand if self._way.noise == "uniform" else torch.randn
        noise = draw((1, *self._way.shape), generator=random).to(self._device)
        try:
            made = self._network(noise) if self._way.diffusion is None else self._diffused(noise, random, progress)
        except (ValueError, TypeError, LookupError, AttributeError, AssertionError, ArithmeticError) as error:
            raise self._failed(str(error)) from error
        except RuntimeError as error:
            if is_out_of_memory(error):
                raise
            raise self._failed(str(error)) from error
        if isinstance(made, (list, tuple)):
            made = made[0]
        if not isinstance(made, Tensor) or made.ndim not in (4, 5) or made.shape[0] != 1:
            raise self._failed("its output is no image of two or three axes")
        image = changed(made[0].float().cpu(), self._values.before)
        if not bool(torch.isfinite(image).all()):
            raise ModelError(f"The images of {self.spec.name} are not finite; its weights don't suit.")
        return image

    def _diffused(self, image: Tensor, random: torch.Generator, progress: Progress) -> Tensor:
        diffusion = self._way.diffusion
        assert diffusion is not None and self._decoder is not None, "the caller has looked"
        scheduler = build_scheduler(diffusion.scheduler, diffusion.steps)
        steps = [int(step) for step in scheduler.timesteps]
        for done, step in enumerate(steps):
            progress.step(done, len(steps), "Taking noise away")
            output = self._network(image, timesteps=torch.tensor([step], device=image.device))
            more = {"generator": random} if isinstance(scheduler, DDPMScheduler) else {}
            image, _ = scheduler.step(output, step, image, **more)
        return torch.as_tensor(self._decoder.decode(image))

    def _failed(self, reason: str) -> ModelError:
        short = reason.partition("\n")[0].rstrip(".")
        return ModelError(f"The network of {self.spec.name} can't make an image of its noise: {short}.")

    def _volume(self, image: Tensor, seed: int) -> Volume:
        """An image as a volume: a picture lies as one that is read from a file, a volume along R, A and S."""
        picture = image.ndim == 3
        whole = image[..., None] if picture else image
        data = np.ascontiguousarray(whole.numpy().transpose(0, 3, 2, 1))
        matrix = np.diag([*self._spacing, 1.0])
        if picture:
            matrix[0, 0], matrix[1, 1] = -matrix[0, 0], -matrix[1, 1]
        return Volume(data, Geometry(data.shape[1:], matrix), f"{self.spec.name} {seed}", {})


def generator_values(plan: BundlePlan) -> Values:
    """What becomes of a generator's output.

    Raises:
        SpecError, UntrustedCodeError: the model can't be run; the sentence says why.
    """
    spec = bundle_spec(plan)
    if code_needs(plan):
        raise UntrustedCodeError(spec.obstacle)
    if spec.obstacle:
        raise SpecError(spec.obstacle)
    if plan.script is not None:
        raise SpecError(f"The model {spec.name} is TorchScript that makes images, which MedAI does not run.")
    if not isinstance(plan.generation, Generation):
        raise SpecError(f"The model {spec.name} does not say what noise it makes images of.")
    if plan.preprocessing:
        raise SpecError(f"The model {spec.name} prepares its noise in a way of its own, which MedAI does not do.")
    if plan.generation.diffusion is None and plan.inferer.name != "SimpleInferer":
        raise SpecError(f"The model's inferer '{plan.inferer.target}' is not one that MedAI does for noise.")
    if plan.generation.diffusion is not None:
        build_scheduler(plan.generation.diffusion.scheduler, plan.generation.diffusion.steps)
    _spacing(plan)
    values = values_plan(plan.postprocessing)
    if values.after:
        raise SpecError(f"The model {spec.name} brings its image back to one that it was made of, but has none.")
    return values


def generator_networks(plan: BundlePlan) -> Iterator[Component]:
    """Every network that a generator builds."""
    yield plan.network
    if isinstance(plan.generation, Generation) and plan.generation.diffusion is not None:
        yield plan.generation.diffusion.decoder.network


def build_scheduler(told: Component, steps: int) -> Any:
    """A noise scheduler of the list, set to a number of steps.

    Raises:
        SpecError: it is not on the list, or an argument is none that it takes.
    """
    module, name = told.target.rpartition(".")[0], told.name
    if name not in SCHEDULERS or module not in (*MODULES, OTHER_MODULE):
        raise SpecError(
            f"The noise scheduler '{told.target}' is not one that MedAI does; it knows {', '.join(sorted(SCHEDULERS))}."
        )
    given: dict[str, Any] = {}
    for key, written in told.arguments.items():
        value = known(written)
        plain = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST_COUNT
        fits = (
            (key in SCHEDULER_NUMBERS and plain)
            or (key in SCHEDULER_SWITCHES and isinstance(value, bool))
            or (key == "schedule" and value in SCHEDULES)
            or (key == "prediction_type" and value in PREDICTIONS)
            or (key == "steps_offset" and value == 0)
        )
        if not fits:
            raise SpecError(f"The noise scheduler '{told.target}' has '{key}' = {value!r}, which MedAI does not do.")
        given[key] = value
    try:
        scheduler = SCHEDULERS[name](**given)
        scheduler.set_timesteps(num_inference_steps=steps)
    except (TypeError, ValueError, ArithmeticError, RuntimeError, LookupError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise SpecError(f"The noise scheduler '{told.target}' has arguments that make no sense: {reason}.") from error
    return scheduler


def _network(plan: BundlePlan, told: Component, path: Any) -> nn.Module:
    """A network with its weights, under today's names or those of MONAI's former generative package."""
    if told.positional:
        raise SpecError(f"The network '{told.target}' has arguments without names, which MedAI does not read.")
    weights = network_weights(load_weights(path), path)
    with sketched():
        sketch = build_network(told.target, told.arguments, plan.folder)
        weights = renamed(weights, sketch)
        require_fit(sketch, weights, path)
    network = build_network(told.target, told.arguments, plan.folder)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False)


def _spacing(plan: BundlePlan) -> tuple[float, float, float]:
    """The size of a voxel in mm along I, J, K: as the description's own entry says, else 1 mm."""
    told = (plan.metadata.get("medai") or {}).get("spacing_mm", (1.0, 1.0, 1.0))
    try:
        i, j, k = (float(mm) for mm in told)
    except (TypeError, ValueError) as error:
        raise SpecError(f"{plan.told_in}: 'spacing_mm' is {told!r}, where three numbers of mm are wanted.") from error
    if not all(1e-6 < mm < 1e6 for mm in (i, j, k)):
        raise SpecError(f"{plan.told_in}: 'spacing_mm' is {told!r}, where three numbers of mm are wanted.")
    return i, j, k


class _OfImage(Progress):
    """One image's steps, told as those of all."""

    def __init__(self, whole: Progress, number: int, count: int) -> None:
        self.whole, self.number, self.count = whole, number, count

    def step(self, done: int, total: int, text: str = "") -> None:
        more = f", image {self.number + 1} of {self.count}" if self.count > 1 else ""
        self.whole.step(done, total, text + more)

    def warn(self, text: str) -> None:
        self.whole.warn(text)
