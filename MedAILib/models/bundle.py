"""A MONAI bundle as a model that runs, built by our own interpreter from an allow-list; nothing in it is executed."""

import platform
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path

import monai
import numpy as np
import torch

from MedAILib.bundle_plan import BundlePlan, read_plan
from MedAILib.errors import InputError, SpecError
from MedAILib.inference.memory import is_out_of_memory
from MedAILib.inference.segment import Recipe, Segmented, segment
from MedAILib.models.networks import build_network, window_multiple
from MedAILib.models.steps import postprocessing_plan, preprocessing_steps, window_plan
from MedAILib.models.trust import tree_sha256
from MedAILib.models.weights import load_weights, network_weights, require_fit
from MedAILib.progress import Progress
from MedAILib.read_spec import bundle_spec
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.version import VERSION
from MedAILib.volume import Volume

# What a result says of the image it came from, where the image says so itself.
SOURCE_KEYS = ("Modality", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID")


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
        weights = network_weights(load_weights(plan.weights), plan.weights)
        with torch.device("meta"):  # without memory: a network of another size than its weights is never made
            require_fit(build_network(plan.network.target, plan.network.arguments), weights, plan.weights)
        network = build_network(plan.network.target, plan.network.arguments)
        network.load_state_dict(weights)
        self._recipe = Recipe(
            preprocessing_steps(plan.preprocessing),
            window_plan(plan.inferer),
            decision,
            cleanups,
            len(self.spec.channels),
            classes,
            self.spec.mirror_axes,
            self.spec,
            window_multiple(plan.network),
        )
        self._device = device
        self._network = network.eval().requires_grad_(False).to(device)

    @property
    def weights_bytes(self) -> int:
        """What its network's weights hold on their device."""
        return sum(part.nbytes for part in (*self._network.parameters(), *self._network.buffers()))

    def run(self, volume: Volume, options: RunOptions, progress: Progress) -> Segmentation:
        """Segment a volume (C, K, J, I); the result stands on the volume's own grid.

        Raises:
            InputError: the volume or an option does not suit the model.
            ModelError: the network fails on it.
            Cancelled: by `progress`.
        """
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
        said = asdict(options)
        return {
            "model": self.spec.name,
            "version": self.spec.version,
            "sha256": self._sha256,
            "input": volume.name,
            **{f"input.{key}": volume.provenance[key] for key in SOURCE_KEYS if key in volume.provenance},
            "device": str(done.device) if done.device.type == "cpu" else torch.cuda.get_device_name(done.device),
            "memory": "; ".join(done.gave_way) or "enough",
            **{f"option.{key}": str(value) for key, value in said.items()},
            "accumulation": done.accumulation,
            "medai": VERSION,
            "numpy": np.__version__,
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
