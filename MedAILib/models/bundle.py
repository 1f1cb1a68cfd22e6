"""A MONAI bundle as a model that runs, built by our own interpreter from an allow-list; nothing in it is executed."""

import platform
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import monai
import torch

from MedAILib.bundle_plan import BundlePlan, read_plan
from MedAILib.errors import SpecError
from MedAILib.inference.segment import Recipe, Segmented, segment
from MedAILib.models.networks import build_network
from MedAILib.models.steps import postprocessing_plan, preprocessing_steps, window_plan
from MedAILib.models.trust import tree_sha256
from MedAILib.models.weights import fill_network, load_weights, network_weights
from MedAILib.progress import Progress
from MedAILib.read_spec import bundle_spec
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.version import VERSION
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
        plan = read_plan(folder)
        self.spec = bundle_spec(plan)
        if self.spec.task != "segmentation":
            raise SpecError(f"The model {self.spec.name} is for {self.spec.task}, which MedAI does not run yet.")
        decision, cleanups = postprocessing_plan(plan.postprocessing)
        classes = len(self.spec.labels) + (decision.threshold is None)
        _require_channels(plan, len(self.spec.channels), classes)
        network = build_network(plan.network.target, plan.network.arguments)
        content = load_weights(plan.weights)
        fill_network(network, network_weights(content, plan.weights), plan.weights)
        self._recipe = Recipe(
            preprocessing_steps(plan.preprocessing),
            window_plan(plan.inferer),
            decision,
            cleanups,
            len(self.spec.channels),
            classes,
            self.spec.mirror_axes,
        )
        self._sha256 = tree_sha256(folder)
        self._device = device
        self._network = network.eval().requires_grad_(False).to(device)

    def run(self, volume: Volume, options: RunOptions, progress: Progress) -> Segmentation:
        """Segment a volume (C, K, J, I); the result stands on the volume's own grid.

        Raises:
            InputError: the volume or an option does not suit the model.
            ModelError: the network fails on it.
            Cancelled: by `progress`.
        """
        with torch.inference_mode():
            done = segment(volume, self._network, self._recipe, options, progress)
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
        said = asdict(options)
        return {
            "model": self.spec.name,
            "version": self.spec.version,
            "sha256": self._sha256,
            "input": volume.name,
            "device": str(self._device) if self._device.type == "cpu" else torch.cuda.get_device_name(self._device),
            **{f"option.{key}": str(value) for key, value in said.items()},
            "accumulation": done.accumulation,
            "medai": VERSION,
            "torch": torch.__version__,
            "monai": monai.__version__,
            "python": platform.python_version(),
            "time": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        }


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
