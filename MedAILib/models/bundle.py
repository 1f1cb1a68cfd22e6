"""A MONAI bundle as a model that runs, built by our own interpreter from an allow-list; nothing in it is executed."""

from dataclasses import asdict
from pathlib import Path

import torch
from torch import nn

from MedAILib.bundle_plan import BundlePlan, read_plan
from MedAILib.errors import InputError, SpecError
from MedAILib.inference.memory import is_out_of_memory
from MedAILib.inference.segment import Recipe, Segmented, segment
from MedAILib.models.networks import build_network
from MedAILib.models.provenance import run_provenance
from MedAILib.models.steps import postprocessing_plan, preprocessing_steps, window_plan
from MedAILib.models.trust import tree_sha256
from MedAILib.models.weights import load_weights, network_weights, require_fit
from MedAILib.progress import Progress
from MedAILib.read_spec import bundle_spec
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.volume import Volume


class BundleModel:
    """A segmentation model from a MONAI bundle, its network on a device and ready.

    Args:
        folder: the bundle.
        device: where its network runs.

    Raises:
        SpecError: its description can't be read, or asks for what is not done here.
        ModelError: its network can't be built, or the weights are missing, damaged or don't fit.

    Example::

        model = BundleModel(Path("Resources/Models/hippocampus"), torch.device("cpu"))
        segmentation = model.run(volume, RunOptions(), Progress())
    """

    def __init__(self, folder: Path, device: torch.device) -> None:
        self._sha256 = tree_sha256(folder)
        plan = read_plan(folder)
        self.spec = bundle_spec(plan)
        if self.spec.task != "segmentation":
            raise SpecError(f"The model {self.spec.name} is for {self.spec.task}, which MedAI does not run yet.")
        decision, cleanups = postprocessing_plan(plan.postprocessing)
        classes = len(self.spec.labels) + (decision.threshold is None)
        _require_channels(plan, len(self.spec.channels), classes)
        self._recipe = Recipe(
            preprocessing_steps(plan.preprocessing),
            window_plan(plan.inferer),
            decision,
            cleanups,
            len(self.spec.channels),
            classes,
            self.spec.mirror_axes,
        )
        self._device = device
        self._network = open_network(plan, device)

    def run(self, volume: Volume, options: RunOptions, progress: Progress) -> Segmentation:
        """Segment a volume (C, K, J, I); the result stands on the volume's own grid.

        Raises:
            InputError: the volume or an option does not suit the model.
            ModelError: the network fails on it.
            Cancelled: by `progress`.
        """
        if not isinstance(options, RunOptions):
            raise SpecError(f"The model {self.spec.name} segments images; it does not classify them.")
        try:
            with torch.inference_mode():
                done = segment(volume, self._network, self._recipe, options, progress)
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            raise InputError(
                f"Memory ran out while {self.spec.name} ran on {volume.name}; give a region of interest, or close "
                "other programs."
            ) from error
        names = tuple(label.name for label in self.spec.labels)
        return Segmentation(
            done.layers,
            self.spec.labels,
            volume.geometry,
            done.probabilities,
            ()
            if done.probabilities is None
            else names
            if self._recipe.decision.threshold is not None
            else ("background", *names),
            self._provenance(volume, options, done),
        )

    def _provenance(self, volume: Volume, options: RunOptions, done: Segmented) -> dict[str, str]:
        said = {f"option.{key}": str(value) for key, value in asdict(options).items()}
        return run_provenance(self.spec, self._sha256, self._device, volume, said | {"accumulation": done.accumulation})


def open_network(plan: BundlePlan, device: torch.device) -> nn.Module:
    """A bundle's network with its weights, on a device, ready to run.

    Raises:
        SpecError: the network is none that MedAI builds.
        ModelError: it can't be built, or the weights are missing, damaged or don't fit.
    """
    weights = network_weights(load_weights(plan.weights), plan.weights)
    with torch.device("meta"):  # without memory: a network of another size than its weights is never made
        require_fit(build_network(plan.network.target, plan.network.arguments), weights, plan.weights)
    network = build_network(plan.network.target, plan.network.arguments)
    network.load_state_dict(weights)
    return network.eval().requires_grad_(False).to(device)


def _require_channels(plan: BundlePlan, channels: int, classes: int) -> None:
    """Raise `SpecError` where the bundle's metadata and its network disagree on what goes in and comes out."""
    for key, promised in (("in_channels", channels), ("out_channels", classes)):
        built = plan.network.arguments.get(key, promised)
        if built != promised:
            what = key.replace("_", "put ")
            raise SpecError(
                f"The model {plan.folder.name} contradicts itself: its metadata speaks of {promised} {what}, "
                f"its network has {built}."
            )
