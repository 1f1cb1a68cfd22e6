"""An nnU-Net v2 result folder as a model that runs, built from an allow-list; nothing in it is executed."""

import hashlib
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from importlib.metadata import version
from pathlib import Path

import torch

from MedAILib.errors import InputError
from MedAILib.estimate import Demand, demand
from MedAILib.inference.ladder import Preparing, Rung, climb_down, rungs
from MedAILib.inference.memory import memory_told
from MedAILib.inference.place import CPU
from MedAILib.inference.precision import HALF, computed_in, number_format
from MedAILib.inference.prepare import require_usable
from MedAILib.inference.restore import Restored
from MedAILib.inference.segment import pasted
from MedAILib.models.nnunet_prepare import Prepared
from MedAILib.models.nnunet_stage import Passed, Stage, open_stage
from MedAILib.models.provenance import provenance
from MedAILib.models.trust import tree_sha256
from MedAILib.nnunet_plan import NnunetPlan, read_nnunet_plan
from MedAILib.nnunet_spec import nnunet_spec
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.volume import Volume


class NnunetModel:
    """A segmentation model from an nnU-Net result folder, its networks on a device and ready.

    Labels are nnU-Net's own: regions that overlap become one label map in the order the dataset gives.

    Args:
        source: a result folder, one fold's folder in it, or a dataset's folder above (see `find_results`).
        device: where its networks run.
        parity: sum and round in float16 as nnU-Net's predictor does, for the same labels to the last voxel; without, in
            float32, which differs in less than one voxel of a thousand and takes half as long around the network.

    Raises:
        SpecError: its description can't be read, or asks for what is not done here.
        ModelError: its networks can't be built, or weights are missing, damaged or don't fit.

    Example::

        model = NnunetModel(Path("Dataset004_Hippocampus/nnUNetTrainer__nnUNetPlans__3d_fullres"), torch.device("cpu"))
        segmentation = model.run(volume, RunOptions(mirror=True), Progress())
    """

    def __init__(self, source: Path, device: torch.device, *, parity: bool = True) -> None:
        plan = read_nnunet_plan(source)
        plans = [plan] if plan.previous is None else [plan.previous, plan]
        self._sha256 = _sha256(plans)
        self._stages = [
            replace(open_stage(stage, device, parity), sha256=tree_sha256(stage.results.folder)) for stage in plans
        ]
        self.spec = replace(nnunet_spec(plan, source), mirror_axes=self._stages[-1].mirror_axes)
        self._plan, self._device, self._parity = plan, device, parity

    def prepare_ahead(self, volume: Volume, options: RunOptions, progress: Progress) -> Prepared | None:
        """What `run` takes as `ahead`, made while another image is computed; raises as `run` does.

        It is done on the CPU, whatever the networks run on: a GPU's memory is left to the image that is computed.
        """
        self._require_suitable(volume, options)
        if options.roi is not None:
            return None
        require_usable(volume, Progress())  # the run warns
        with torch.inference_mode():
            return self._stages[0].prepare(volume, None, progress, CPU)

    def run(
        self, volume: Volume, options: RunOptions, progress: Progress, ahead: Prepared | None = None
    ) -> Segmentation:
        """Segment a volume (C, K, J, I); the result stands on the volume's own grid.

        Raises:
            InputError: the volume or an option does not suit the model.
            ModelError: the network fails on it.
            Cancelled: by `progress`.
        """
        self._require_suitable(volume, options)
        with memory_told(f"{self.spec.name} ran on {volume.name}"), torch.inference_mode():
            need = self._need(volume, options) if self._device.type != "cpu" else None
            (restored, done), rung = climb_down(
                rungs(self._device, (), None),
                None if need is None else lambda _: need,
                lambda rung: self._through_stages(volume, options, progress, rung, ahead),
                progress,
            )
        if not restored.layers.any():
            progress.warn(f"The model found nothing in {volume.name}: everything is background.")
        names = self._plan.output_names if options.probabilities else ()
        number = number_format(rung.device, options, HALF)
        more = {
            "sha256": self._sha256,
            "nnunet.configuration": self._plan.results.configuration,
            "nnunet.folds": ", ".join(path.parent.name for path in self._plan.results.checkpoints),
            "nnunet.parity": str(self._parity),
            "precision": computed_in(number, done.said.get("engine", "")),
            **done.said,
            "memory": "; ".join((*done.gave_way, *rung.steps)) or "enough",
            "dynamic-network-architectures": version("dynamic-network-architectures"),
        }
        said = provenance(self.spec, volume, options, rung.device, more)
        shared = done.agreement
        return Segmentation(
            restored.layers,
            self.spec.labels,
            volume.geometry,
            restored.probabilities,
            names,
            said,
            restored.uncertainty,
            () if shared is None else tuple(shared.dice(label.layer, label.value) for label in self.spec.labels),
        )

    def _require_suitable(self, volume: Volume, options: RunOptions) -> None:
        if volume.channels != len(self.spec.channels):
            raise InputError(
                f"{volume.name} has {volume.channels} channel{'s'[: volume.channels != 1]}, but the model takes "
                f"{len(self.spec.channels)} ({', '.join(self.spec.channels)}); give one image for each in this order."
            )
        if options.mirror and not self.spec.mirror_axes:
            raise InputError("This model was trained without mirroring; run it without.")

    def _need(self, volume: Volume, options: RunOptions) -> Demand:
        """What a run takes: with float16's exact way each fold has sums of its own."""
        one = demand(self.spec, volume.geometry, volume.data.dtype, options)
        folds = len(self._plan.results.checkpoints) if self._parity else 1
        return replace(one, sums=folds * one.sums, planes=folds * one.planes)

    def _through_stages(
        self, volume: Volume, options: RunOptions, progress: Progress, rung: Rung, ahead: Prepared | None
    ) -> tuple[Restored, Passed]:
        with ExitStack() as moved:
            stages = [moved.enter_context(stage.on(rung.device, rung.sums)) for stage in self._stages]
            return self._through(stages, volume, options, progress, ahead)

    def _through(
        self,
        stages: list[Stage],
        volume: Volume,
        options: RunOptions,
        progress: Progress,
        ahead: Prepared | None,
    ) -> tuple[Restored, Passed]:
        box = volume.geometry.box_of_roi(options.roi) if options.roi else None
        part = volume.cropped(box) if box else volume
        require_usable(part, progress)
        need = self._need(volume, options) if self._device.type != "cpu" else None
        labels, preparing = None, Preparing(progress)
        for stage in stages:
            if ahead is not None and stage is stages[0]:
                seen = ahead
            else:
                seen = preparing(stage.sums, partial(stage.prepare, part, labels, progress), need)
            plain = replace(options, probabilities=False, uncertainty=False)
            restored, done = stage.run(part, seen, options if stage is stages[-1] else plain, progress)
            labels = restored.layers[0]  # the next stage sees these, too
        done = replace(done, gave_way=preparing.gave_way)
        return pasted(restored, volume.geometry.shape_kji, box) if box else restored, done


def _sha256(plans: list[NnunetPlan]) -> str:
    """The hash of the result folder; of a cascade, over those of both stages."""
    each = [tree_sha256(plan.results.folder) for plan in plans]
    return each[0] if len(each) == 1 else hashlib.sha256("\n".join(each).encode()).hexdigest()
