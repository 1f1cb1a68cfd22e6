"""One trained configuration of nnU-Net in memory, and its way through one image."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from MedAILib.errors import ModelError
from MedAILib.inference.agreement import Agreement
from MedAILib.inference.engine import ChosenEngine, Engine
from MedAILib.inference.precision import HALF, casting, number_format
from MedAILib.inference.restore import Decision, Restored, decided_by, restore
from MedAILib.inference.segment import checked, pasted
from MedAILib.inference.window import Network, Planes, forwards, slide
from MedAILib.models.engines import Engines
from MedAILib.models.nnunet_networks import build_nnunet
from MedAILib.models.nnunet_prepare import Prepared, prepare_nnunet, view_of
from MedAILib.models.nnunet_windows import NnunetWindows
from MedAILib.models.weights import load_weights, network_weights, require_fit
from MedAILib.nnunet_plan import NnunetPlan
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.volume import Volume

OVERLAP = 0.5
BATCH_NORM_TRAINER = "nnUNetTrainerBN"


@dataclass(frozen=True)
class Passed:
    """How a stage went.

    Args:
        said: for provenance: the number format of the sums, and what computed the network.
        agreement: of folds and mirrored copies; None where there was one pass.
        gave_way: what was done otherwise than usual while preparing, as memory was short.
    """

    said: dict[str, str]
    agreement: Agreement | None = None
    gave_way: tuple[str, ...] = ()


@dataclass(frozen=True)
class Stage:
    """A configuration that is ready to run.

    Args:
        plan: what it asks for.
        networks: one for each fold, on `device`; their outputs are averaged.
        mirror_axes: of the working image (X, Y, Z), along which it was mirrored in training.
        device: where the networks are.
        sums: where overlapping windows are added up and labels decided.
        parity: sum and round in float16 everywhere nnU-Net does.
        sha256: of its result folder.
    """

    plan: NnunetPlan
    networks: tuple[nn.Module, ...]
    mirror_axes: tuple[int, ...]
    device: torch.device
    sums: torch.device
    parity: bool = False
    sha256: str = ""

    @contextmanager
    def on(self, device: torch.device, sums: torch.device) -> Iterator["Stage"]:
        """Within this, the same stage on a device, its networks moved there and back, sums where wanted."""
        for network in self.networks:
            network.to(device)
        try:
            yield replace(self, device=device, sums=sums)
        finally:
            for network in self.networks:
                network.to(self.device)

    def prepare(
        self, volume: Volume, labels: NDArray[Any] | None, progress: Progress, device: torch.device
    ) -> Prepared:
        """What the networks see of a volume, as `prepare_nnunet` makes it."""
        return prepare_nnunet(volume, self.plan, view_of(self.plan, volume.geometry), labels, progress, device)

    def run(
        self,
        volume: Volume,
        prepared: Prepared,
        options: RunOptions,
        progress: Progress,
    ) -> tuple[Restored, Passed]:
        """Segment a volume; gives labels (1, K, J, I), probabilities and uncertainty if asked for, and how it went.

        Args:
            volume: the image, without a region of interest.
            prepared: what `prepare` made of it.
            options: of the run.
            progress: told of each window; may cancel between two.
        """
        view = view_of(self.plan, volume.geometry)
        engines = self._engines(prepared, options, progress)
        decision = Decision(
            stepped=prepared.stepped,
            priority=self.plan.priority,
            late=True,
            half=self.parity,
        )
        several = len(self.networks) > 1 or (options.mirror and self.mirror_axes)
        agreement = Agreement(partial(decided_by, decision=decision)) if several else None
        planes = self._planes(prepared, engines, options, progress, agreement)
        size = tuple(part.stop - part.start for part in prepared.box)
        wanted, unsure = options.probabilities, options.uncertainty
        part = restore(planes, prepared.frame, (size[0], size[1], size[2]), decision, wanted, uncertainty=unsure)
        shape = tuple(volume.geometry.shape_kji[axis] for axis in view.order)
        said = {"accumulation": planes.accumulation, **engines[0].said}
        whole = pasted(part, (shape[0], shape[1], shape[2]), prepared.box)
        if whole.probabilities is not None and self.plan.priority is None:
            outside = np.ones(shape, bool)
            outside[prepared.box] = False
            whole.probabilities[0][outside] = 1
        restored = Restored(
            view.undo(whole.layers),
            None if whole.probabilities is None else view.undo(whole.probabilities),
            None if whole.uncertainty is None else view.undo(whole.uncertainty[np.newaxis])[0],
        )
        return restored, Passed(said, agreement)

    def _windows(self, options: RunOptions) -> tuple[NnunetWindows, tuple[int, ...]]:
        """The windows, and the axes along which they are mirrored."""
        patch = self.plan.patch if len(self.plan.patch) == 3 else (1, *self.plan.patch)
        overlap = OVERLAP if options.overlap is None else options.overlap
        windows = NnunetWindows(patch, (overlap,) * 3, gaussian=True)
        return windows, self.mirror_axes if options.mirror else ()

    def _engines(self, prepared: Prepared, options: RunOptions, progress: Progress) -> tuple[ChosenEngine, ...]:
        """What computes each network."""
        calls = forwards(tuple(prepared.image.shape[1:]), *self._windows(options))
        return tuple(
            Engines(self.sha256, number).chosen(network, calls, options, progress)
            for number, network in enumerate(self.networks)
        )

    def _planes(
        self,
        prepared: Prepared,
        engines: tuple[ChosenEngine, ...],
        options: RunOptions,
        progress: Progress,
        agreement: Agreement | None,
    ) -> Planes:
        windows, axes = self._windows(options)
        outputs, flat = self.plan.outputs, len(self.plan.patch) == 2
        number = number_format(self.device, options, HALF)
        functions = [checked(_Seeing(engine, flat, number), outputs, self.device) for engine in engines]

        def run(some: Sequence[Network], heard: Agreement | None) -> Planes:
            return slide(
                some,
                prepared.image,
                windows,
                axes,
                outputs,
                progress,
                half=self.parity,
                sums=self.sums,
                agreement=heard,
            )

        if not self.parity or len(functions) == 1:
            return run(functions, agreement)
        each = [run([function], None) for function in functions]
        return replace(each[0], values=_mean([one.values for one in each], agreement))


@dataclass(frozen=True)
class _Seeing:
    """A network as a function of a patch (1, C, X, Y, Z); a 2D network sees (1, C, Y, Z)."""

    network: Engine
    flat: bool
    number: str

    def __call__(self, patch: Tensor) -> Tensor:
        patch = patch[:, :, 0] if self.flat else patch
        with casting(patch.device, self.number):
            output = self.network(patch)
        return output[:, :, None] if self.flat else output


def _mean(folds: list[Iterator[Tensor]], agreement: Agreement | None) -> Iterator[Tensor]:
    """The mean of the folds' planes, in their own number format."""
    for planes in zip(*folds, strict=True):
        total = planes[0]
        for plane in planes[1:]:
            total = total + plane
        mean = total / len(planes)
        if agreement is not None:
            for plane in planes:
                agreement.hear(plane)
            agreement.settle(mean)
        yield mean


def open_stage(plan: NnunetPlan, device: torch.device, parity: bool) -> Stage:
    """Build a configuration's networks, one for each fold.

    Raises:
        SpecError: an architecture that is not built here.
        ModelError: weights are missing, damaged, of another configuration, or don't fit.
    """
    dimensions, networks, axes = len(plan.patch), [], None
    for path in plan.results.checkpoints:
        content = load_weights(path)
        if not isinstance(content.get("network_weights"), dict):
            raise ModelError(f"The file {path} is no nnU-Net checkpoint: it has no 'network_weights'.")
        trained = (content.get("init_args") or {}).get("configuration", plan.results.configuration)
        if trained != plan.results.configuration:
            raise ModelError(
                f"The weights in {path} are of the configuration '{trained}', but the folder is read as "
                f"'{plan.results.configuration}'; name the folder as nnU-Net did."
            )
        batch_norm = content.get("trainer_name") == BATCH_NORM_TRAINER
        weights = {
            key.removeprefix("_orig_mod."): value
            for key, value in network_weights({"network_weights": content["network_weights"]}, path).items()
        }
        with torch.device("meta"):  # without memory: a network of another size than its weights is never made
            meta = build_nnunet(plan.network, plan.inputs, plan.outputs, dimensions, batch_norm)
            require_fit(meta, weights, path)
        network = build_nnunet(plan.network, plan.inputs, plan.outputs, dimensions, batch_norm)
        network.load_state_dict(weights)
        networks.append(network.eval().requires_grad_(False).to(device))
        if axes is None:
            axes = _mirror_axes(content.get("inference_allowed_mirroring_axes"), dimensions, str(path))
    return Stage(plan, tuple(networks), axes or (), device, device, parity)


def _mirror_axes(said: Any, dimensions: int, path: str) -> tuple[int, ...]:
    """The working image's axes from a checkpoint's, which count those of a window."""
    axes = tuple(said or ())
    if not all(isinstance(axis, int) and 0 <= axis < dimensions for axis in axes) or len(set(axes)) != len(axes):
        raise ModelError(f"The weights in {path} may be mirrored along the axes {axes}, which are none.")
    return tuple(axis + 3 - dimensions for axis in axes)
