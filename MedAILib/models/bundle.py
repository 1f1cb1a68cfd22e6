"""A MONAI bundle as a model that runs, built by our own interpreter from an allow-list; nothing in it is executed."""

from dataclasses import replace
from functools import partial
from pathlib import Path

import monai
import torch

from MedAILib.bundle_needs import code_needs, is_prompted
from MedAILib.bundle_plan import BundlePlan
from MedAILib.bundle_spec import IN_CHANNELS, OUT_CHANNELS, bundle_spec, output_names
from MedAILib.errors import SpecError, UntrustedCodeError
from MedAILib.inference.memory import memory_told
from MedAILib.inference.precision import computed_in, number_format
from MedAILib.inference.restore import Decision
from MedAILib.inference.segment import Ahead, Recipe, Segmented, prepare_ahead, segment
from MedAILib.models.engines import Engines
from MedAILib.models.inferers import laying
from MedAILib.models.networks import (
    Prompted,
    build_network,
    network_axes,
    require_network,
    sketched,
    window_multiple,
)
from MedAILib.models.postprocess import Finish, finish_plan
from MedAILib.models.provenance import provenance
from MedAILib.models.steps import is_resized_by_area, preprocessing_steps
from MedAILib.models.trust import tree_sha256
from MedAILib.models.values import changed, values_plan
from MedAILib.models.weights import held_bytes, load_weights, network_weights, require_fit
from MedAILib.plans import read_any_plan
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.reviewed_steps import NO_CLICKS, click_channels, merged_images
from MedAILib.spec import ModelSpec
from MedAILib.volume import Volume


class BundleModel:
    """A segmentation model from a MONAI bundle, or from weights with a `medai.json`; on a device and ready.

    Args:
        folder: the bundle.
        device: where its network runs.

    Raises:
        SpecError: its description can't be read, or asks for what is not done here.
        UntrustedCodeError: it could only run by executing code of its own.
        ModelError: its network can't be built, or the weights are missing, damaged or don't fit.

    Example::

        model = BundleModel(Path("Resources/Models/hippocampus"), torch.device("cpu"))
        segmentation = model.run(volume, RunOptions(), Progress())
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        sha256 = tree_sha256(folder)
        plan = read_any_plan(folder)
        self._prepare(plan)
        network = weighted_network(plan)
        if is_prompted(plan):
            network = Prompted(network, plan.prompts)
        self._place(network, sha256, device)

    def _prepare(self, plan: BundlePlan) -> None:
        """Take over all that the description says."""
        self.spec = bundle_spec(plan)
        self._recipe = bundle_recipe(plan, self.spec)
        self._names = output_names(plan)

    def _place(self, network: torch.nn.Module, sha256: str, device: torch.device) -> None:
        """Take over the network, and put it onto its device."""
        self._sha256, self._device, self._engines = sha256, device, Engines(sha256)
        self._network = network.eval().requires_grad_(False).to(device)

    @property
    def weights_bytes(self) -> int:
        """What its network's weights hold on their device."""
        return held_bytes(self._network)

    def prepare_ahead(self, volume: Volume, options: RunOptions, progress: Progress) -> Ahead | None:
        """What `run` takes as `ahead`, made while another image is computed; raises as `run` does."""
        return prepare_ahead(volume, self._recipe, options, progress)

    def run(self, volume: Volume, options: RunOptions, progress: Progress, ahead: Ahead | None = None) -> Segmentation:
        """Segment a volume (C, K, J, I); the result stands on the volume's own grid.

        Raises:
            InputError: the volume or an option does not suit the model.
            ModelError: the network fails on it.
            Cancelled: by `progress`.
        """
        if not isinstance(options, RunOptions):
            raise SpecError(f"The model {self.spec.name} segments images; it does not classify them.")
        with memory_told(f"{self.spec.name} ran on {volume.name}"), torch.inference_mode():
            done = segment(volume, self._network, self._recipe, options, progress, self._engines, ahead=ahead)
        return Segmentation(
            done.layers,
            self.spec.labels,
            volume.geometry,
            done.probabilities,
            () if done.probabilities is None else self._names,
            self._provenance(volume, options, done),
            done.uncertainty,
            self._agreement(done),
        )

    def _agreement(self, done: Segmented) -> tuple[float | None, ...]:
        """Of mirrored copies, for each label; empty where there were none."""
        if done.agreement is None:
            return ()
        numbered = bool(self._recipe.values)  # labels of other values than the network's channels
        places = [
            (label.layer, number + 1 if numbered else label.value) for number, label in enumerate(self.spec.labels)
        ]
        return tuple(done.agreement.dice(layer, value) for layer, value in places)

    def _provenance(self, volume: Volume, options: RunOptions, done: Segmented) -> dict[str, str]:
        more = {
            "sha256": self._sha256,
            "memory": "; ".join(done.gave_way) or "enough",
            "precision": computed_in(number_format(done.device, options), done.engine.get("engine", "")),
            "accumulation": done.accumulation,
            "monai": monai.__version__,
        }
        return provenance(self.spec, volume, options, done.device, more | done.engine)


def weighted_network(plan: BundlePlan) -> torch.nn.Module:
    """A bundle's network with its weights, on the CPU.

    Raises:
        SpecError: the network is none that MedAI builds.
        ModelError: it can't be built, or the weights are missing, damaged or don't fit.
    """
    weights = network_weights(load_weights(plan.weights), plan.weights)
    with sketched():  # without memory: a network of another size than its weights is never made
        require_fit(bundle_network(plan), weights, plan.weights)
    network = bundle_network(plan)
    network.load_state_dict(weights)
    return network


def bundle_recipe(plan: BundlePlan, spec: ModelSpec) -> Recipe:
    """What a bundle does around its network, translated.

    Raises:
        SpecError, UntrustedCodeError: it can't be run; the sentence says why.
    """
    if code_needs(plan):
        raise UntrustedCodeError(spec.obstacle)
    if spec.obstacle:
        raise SpecError(spec.obstacle)
    if plan.script is None:
        require_network(plan.network.target)
    if plan.network.positional:
        raise SpecError(f"The network '{plan.network.target}' has arguments without names, which MedAI does not read.")
    if (plan.network.name == "vista3d132") != is_prompted(plan):
        raise SpecError(f"The network '{plan.network.target}' is not asked for its classes in a way that MedAI knows.")
    axes = network_axes(plan.network)
    laid = laying(plan.inferer, axes, is_prompted(plan))
    image_values, finish = None, Finish(Decision("identity"))
    if spec.task == "image-to-image":
        image_values = partial(changed, changes=values_plan(plan.postprocessing).before)
    else:
        finish = finish_plan(plan.postprocessing, merged_images(plan.preprocessing))
    classes = len(output_names(plan))
    clicks = click_channels(plan.preprocessing)
    _require_channels(plan, len(spec.channels) + clicks, classes)
    steps = preprocessing_steps(plan.preprocessing, 2 if laid.by_slice else 3)
    return Recipe(
        steps,
        laid.windows,
        replace(finish.decision, covering=is_resized_by_area(steps)),
        finish.after,
        len(spec.channels),
        classes,
        spec.mirror_axes,
        finish.before,
        laid.slice_axis,
        laid.by_slice,
        (*finish.notes, *((NO_CLICKS,) if clicks else ())),
        plan.prompts if is_prompted(plan) else (),
        spec,
        window_multiple(plan.network),
        image_values,
    )


def bundle_network(plan: BundlePlan) -> torch.nn.Module:
    """The network that a bundle names, without its weights.

    Raises:
        SpecError, ModelError: it can't be built; the sentence says why.
    """
    return build_network(plan.network.target, plan.network.arguments, plan.folder)


def _require_channels(plan: BundlePlan, channels: int, classes: int) -> None:
    """Raise `SpecError` where the bundle's metadata and its network disagree on what goes in and comes out."""
    for what, keys, promised in (("input", IN_CHANNELS, channels), ("output", OUT_CHANNELS, classes)):
        built = next((plan.network.arguments[key] for key in keys if key in plan.network.arguments), promised)
        if built != promised:
            raise SpecError(
                f"The model {plan.folder.name} contradicts itself: its metadata speaks of {promised} {what} channels, "
                f"its network has {built}."
            )
