"""A MONAI bundle that makes an image of an image (denoising, synthesis); nothing in it is executed."""

from dataclasses import replace
from typing import NoReturn

import numpy as np
import torch

from MedAILib.bundle_plan import BundlePlan
from MedAILib.errors import SpecError
from MedAILib.inference.memory import memory_told
from MedAILib.inference.segment import segment
from MedAILib.models.bundle import BundleModel, weighted_network
from MedAILib.models.provenance import provenance
from MedAILib.models.trust import tree_sha256
from MedAILib.models.values import changed, values_plan
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.results import Generated
from MedAILib.volume import Volume


class ImageModel(BundleModel):
    """A model that makes an image of an image, its network on a device and ready.

    Args:
        plan: of a bundle for it.
        device: where its network runs.

    Raises:
        SpecError, UntrustedCodeError, ModelError: as `BundleModel`.

    Example::

        model = ImageModel(read_plan(Path("denoiser")), torch.device("cpu"))
        clean = model.translate(volume, RunOptions(), Progress()).volumes[0]
    """

    def __init__(self, plan: BundlePlan, device: torch.device) -> None:
        sha256 = tree_sha256(plan.folder)
        self._prepare(plan)
        self._after = values_plan(plan.postprocessing).after
        if plan.script is not None:
            raise SpecError(f"The model {self.spec.name} is TorchScript that makes images, which MedAI does not run.")
        self._place(weighted_network(plan), sha256, device)

    def run(self, volume: Volume, options: object, progress: Progress, ahead: object = None) -> NoReturn:
        """An image is no segmentation: raises `SpecError`."""
        raise SpecError(f"The model {self.spec.name} makes images of images, no labels; use `medai generate`.")

    def translate(self, volume: Volume, options: RunOptions, progress: Progress) -> Generated:
        """Make an image of a volume (C, K, J, I), on the volume's own grid; 0 outside of a region of interest.

        Raises:
            InputError: the volume or an option does not suit the model, or there is too little memory.
            ModelError: the network fails on it.
            Cancelled: by `progress`.
        """
        wanted = replace(options, probabilities=True, uncertainty=False)
        with memory_told(f"{self.spec.name} ran on {volume.name}"), torch.inference_mode():
            done = segment(volume, self._network, self._recipe, wanted, progress)
            assert done.probabilities is not None, "they were asked for"
            image = torch.from_numpy(done.probabilities)
            box = volume.geometry.box_of_roi(options.roi) if options.roi else (slice(None),) * 3
            inside = (slice(None), *box)
            image[inside] = changed(image[inside], self._after)
        data = np.ascontiguousarray(image.numpy(), dtype=np.float32)
        said = provenance(self.spec, volume, options, done.device, {"sha256": self._sha256, "synthetic": "yes"})
        said |= {"memory": "; ".join(done.gave_way) or "enough", "accumulation": done.accumulation}
        name = f"{volume.name}, {self.spec.name}"
        return Generated((Volume(data, volume.geometry, name),), (), self._names, said)
