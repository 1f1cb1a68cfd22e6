"""One image through one segmentation network: prepare, slide, restore, clean up."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from MedAILib.errors import InputError, ModelError
from MedAILib.estimate import Demand, demand
from MedAILib.inference.agreement import Agreement
from MedAILib.inference.cleanup import Cleanup
from MedAILib.inference.engine import ChosenEngine, first_of
from MedAILib.inference.frame import Frame
from MedAILib.inference.ladder import Preparing, Rung, climb_down, rungs
from MedAILib.inference.memory import is_out_of_memory
from MedAILib.inference.precision import FULL, HALF, casting, number_format, say_if_refused
from MedAILib.inference.prepare import Step, prepared, require_usable
from MedAILib.inference.restore import Decision, Restored, decided_by, restore
from MedAILib.inference.window import Windows, all_finite, forwards, slide
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.spec import ModelSpec
from MedAILib.volume import Volume


@dataclass(frozen=True)
class Recipe:
    """What a model does around its network.

    Args:
        steps: preprocessing.
        windows: how windows are laid.
        decision: how the network's output becomes labels.
        cleanups: post-processing of the labels, in order.
        in_channels, out_channels: of the network.
        mirror_axes: axes along which its author says it may be mirrored.
        cleanups_before: post-processing on the network's grid, before labels come back; only where they are decided
            there.
        slice_axis: the working axis that a network for slices doesn't see; None for one that takes volumes.
        by_slice: a volume's slices (along K) are images of their own, prepared and restored each by itself.
        notes: warnings that each run gives.
        values: label value of each class but the background; empty where they are 1, 2 and so on.
        spec: what foretells the memory that it takes; None where that can't be foretold.
        window_multiple: sizes of windows that the network takes are multiples of these; None where it takes its own
            alone, and whole images where it has none.
        on_planes: changes the output's values (C, A, B), voxel by voxel, on the network's grid; None leaves them.
    """

    steps: tuple[Step, ...]
    windows: Windows
    decision: Decision
    cleanups: tuple[Cleanup, ...]
    in_channels: int
    out_channels: int
    mirror_axes: tuple[int, ...] = ()
    cleanups_before: tuple[Cleanup, ...] = ()
    slice_axis: int | None = None
    by_slice: bool = False
    notes: tuple[str, ...] = ()
    values: tuple[int, ...] = ()
    spec: ModelSpec | None = None
    window_multiple: tuple[int, ...] | None = None
    on_planes: Callable[[Tensor], Tensor] | None = None


@dataclass(frozen=True)
class Segmented:
    """Labels and probabilities on the input's grid, and how they came about.

    Args:
        layers, probabilities: as `Restored` has them, for the whole input.
        accumulation: the number format of the sums in between.
        device: where the network ran.
        gave_way: what was done otherwise than usual, as memory was short.
        uncertainty: as `Restored` has it.
        agreement: of mirrored copies; None where there were none.
        engine: what computed the network and why, for provenance.
    """

    layers: NDArray[np.unsignedinteger]
    probabilities: NDArray[np.float32] | None
    accumulation: str
    device: torch.device
    gave_way: tuple[str, ...] = ()
    uncertainty: NDArray[np.float32] | None = None
    agreement: Agreement | None = None
    engine: dict[str, str] = field(default_factory=dict)


# A prepared image (C, X, Y, Z), and where it lies in the input.
Ahead = tuple[Tensor, Frame]


class Engines(Protocol):
    """What may run a network; see `models.engines`."""

    def chosen(self, network: nn.Module, calls: int, options: RunOptions, progress: Progress) -> ChosenEngine: ...


def prepare_ahead(volume: Volume, recipe: Recipe, options: RunOptions, progress: Progress) -> Ahead | None:
    """Prepare an image while another one is computed; None where that is done with the run alone.

    It is done on the CPU, whatever the network runs on: a GPU's memory is left to the image that is computed.

    Raises:
        InputError: the image does not suit.
        Cancelled: by `progress`.
    """
    by_slice = recipe.by_slice and volume.geometry.shape_kji[0] > 1
    if options.roi is not None or by_slice or volume.channels != recipe.in_channels:
        return None
    require_usable(volume, Progress())  # the run warns
    with torch.inference_mode():
        return prepared(volume, recipe.steps, progress)


def segment(
    volume: Volume,
    network: nn.Module,
    recipe: Recipe,
    options: RunOptions,
    progress: Progress,
    engines: Engines | None = None,
    *,
    ahead: Ahead | None = None,
) -> Segmented:
    """Segment one image, on the device that the network is on, or as `ladder` says where memory is short.

    `engines` says what may run the network; None is PyTorch alone. `ahead` is what `prepare_ahead` made of the image.

    Raises:
        InputError: the image does not suit (see `prepare`), an option does not suit the model, or there is too little
            memory.
        ModelError: the network's output is not what its description says, or not finite.
        Cancelled: by `progress`.
    """
    if volume.channels != recipe.in_channels:
        raise InputError(
            f"{volume.name} has {volume.channels} channel{'s'[: volume.channels != 1]}, but the model takes "
            f"{recipe.in_channels}; give one image per channel in the model's order."
        )
    if options.mirror and not recipe.mirror_axes:
        raise InputError("This model's description names no axes along which it may be mirrored; run it without.")
    box = volume.geometry.box_of_roi(options.roi) if options.roi else None
    part = volume.cropped(box) if box else volume
    for note in recipe.notes:
        progress.warn(note)
    require_usable(part, progress)
    if engines is None:
        say_if_refused(next(network.parameters()).device, options, progress)
    way = _Way(part, network, recipe, options, progress, engines)
    way.ahead = ahead
    home = next(network.parameters()).device
    try:
        (restored, accumulation), rung = climb_down(
            rungs(home, way.window, recipe.window_multiple if recipe.windows.roi else None),
            way.need if recipe.spec is not None and not way.sliced else None,
            way.run,
            progress,
        )
    finally:
        network.to(home)
    if not way.sliced:
        _clean_up(recipe.cleanups, restored.layers, volume.geometry.voxel_volume_ml, options, progress)
    if recipe.values:
        numbers = np.array([0, *recipe.values], np.uint8 if max(recipe.values) < 256 else np.uint16)
        restored = replace(restored, layers=numbers[restored.layers])
    if not restored.layers.any() and recipe.decision.activation != "identity":
        progress.warn(f"The model found nothing in {volume.name}: everything is background.")
    whole = pasted(restored, volume.geometry.shape_kji, box) if box else restored
    agreement = way.agreement if options.mirror else None
    return Segmented(
        whole.layers,
        whole.probabilities,
        accumulation,
        rung.device,
        (*way.preparing.gave_way, *rung.steps),
        whole.uncertainty,
        agreement,
        way.engine,
    )


class _Way:
    """An image before a network, there and back in the way that a rung says; a whole volume is prepared once."""

    def __init__(
        self,
        part: Volume,
        network: nn.Module,
        recipe: Recipe,
        options: RunOptions,
        progress: Progress,
        engines: Engines | None = None,
    ) -> None:
        self.engines, self._chosen = engines, dict[torch.device, ChosenEngine]()
        self.part, self.network, self.recipe, self.options, self.progress = part, network, recipe, options, progress
        self.sliced = recipe.by_slice and part.geometry.shape_kji[0] > 1
        self.ahead: Ahead | None = None
        self.preparing = Preparing(progress)
        self.agreement = self._fresh()

    def _fresh(self) -> Agreement:
        """Nothing heard yet: each way to run begins anew."""
        return Agreement(partial(decided_by, decision=self.recipe.decision))

    @property
    def window(self) -> tuple[int, ...]:
        """The model's own window; 0 stands for the image's size."""
        return tuple(max(n, 0) for n in self.recipe.windows.roi or (0, 0, 0))

    @property
    def engine(self) -> dict[str, str]:
        """What computed the network in the end, and why."""
        return list(self._chosen.values())[-1].said if self._chosen else {}

    def need(self, rung: Rung) -> Demand:
        """What it takes to run in a way, with the box already cut out."""
        assert self.recipe.spec is not None
        inside = replace(self.options, roi=None)
        return demand(self.recipe.spec, self.part.geometry, self.part.data.dtype, inside, rung.window)

    def run(self, rung: Rung) -> tuple[Restored, str]:
        """The result on the part's grid, and the number format of the sums."""
        self.agreement = self._fresh()
        if self.sliced:
            return self._slice_by_slice(rung)
        if self.ahead is None:
            self.ahead = self._prepared(self.part, rung, self.progress)
        image, frame = self.ahead
        try:
            return self._one(self.part, image, frame, rung, self.progress)
        except (RuntimeError, MemoryError) as error:
            if is_out_of_memory(error):  # the next way may have no room for it where it is
                self.ahead = (image.cpu(), frame)
            raise

    def _prepared(self, part: Volume, rung: Rung, progress: Progress) -> Ahead:
        """An image as the network sees it, where its sums will be, or on the CPU."""
        need = None if self.recipe.spec is None or self.sliced else self.need(rung)
        return self.preparing(rung.sums, lambda device: prepared(part, self.recipe.steps, progress, device), need)

    def _one(self, part: Volume, image: Tensor, frame: Frame, rung: Rung, progress: Progress) -> tuple[Restored, str]:
        """A prepared image through the network and back."""
        recipe, windows = self.recipe, _windows(replace(self.recipe.windows, roi=rung.window), self.options)
        mirror = recipe.mirror_axes if self.options.mirror else ()
        network = self._engine(rung.device, forwards(tuple(image.shape[1:]), windows, mirror))
        planes = slide(
            checked(
                network,
                recipe.out_channels,
                rung.device,
                recipe.slice_axis,
                number_format(rung.device, self.options),
            ),
            image,
            windows,
            mirror,
            recipe.out_channels,
            progress,
            sums=rung.sums,
            agreement=self.agreement,
        )
        if (on_planes := recipe.on_planes) is not None:
            planes = replace(planes, values=(on_planes(plane) for plane in planes.values))
        voxel_ml = abs(float(np.linalg.det(frame.affine(part.geometry.ijk_to_ras)[:3, :3]))) / 1000

        def tidy(labels: NDArray[np.unsignedinteger]) -> None:
            _clean_up(recipe.cleanups_before, labels, voxel_ml, self.options, progress)

        shape, wanted, unsure = part.geometry.shape_kji, self.options.probabilities, self.options.uncertainty
        with torch.inference_mode():
            found = restore(planes, frame, shape, recipe.decision, wanted, tidy, uncertainty=unsure)
            return found, planes.accumulation

    def _engine(self, device: torch.device, calls: int) -> Callable[[Tensor], Tensor]:
        """The network as it is to run on a device, on so many windows of a slice or of the whole volume."""
        network = self.network.to(device)
        if self.engines is None:
            return network
        if device not in self._chosen:
            slices = self.part.geometry.shape_kji[0] if self.sliced else 1
            self._chosen[device] = self.engines.chosen(network, calls * slices, self.options, self.progress)
        return self._chosen[device]

    def _slice_by_slice(self, rung: Rung) -> tuple[Restored, str]:
        """A volume for a model of slices: each slice along K is an image of its own."""
        layers, probabilities, uncertainty, accumulation = [], [], [], ""
        k, j, i = self.part.geometry.shape_kji
        for number in range(k):
            self.progress.step(number, k, "Segmenting")
            one = self.part.cropped((slice(number, number + 1), slice(0, j), slice(0, i)))
            progress = _OfSlice(self.progress, number, k)
            image, frame = self._prepared(one, rung, progress)
            restored, accumulation = self._one(one, image, frame, rung, progress)
            voxel_ml = self.part.geometry.voxel_volume_ml
            _clean_up(self.recipe.cleanups, restored.layers, voxel_ml, self.options, Progress())
            layers.append(restored.layers)
            if restored.probabilities is not None:
                probabilities.append(restored.probabilities)
            if restored.uncertainty is not None:
                uncertainty.append(restored.uncertainty)
        self.progress.step(k, k, "Segmenting")
        shown = np.concatenate(probabilities, axis=1) if probabilities else None
        unsure = np.concatenate(uncertainty) if uncertainty else None
        return Restored(np.concatenate(layers, axis=1), shown, unsure), accumulation


class _OfSlice(Progress):
    """A slice's own steps, told as the volume's: how many slices are done."""

    def __init__(self, whole: Progress, number: int, count: int) -> None:
        self.whole, self.number, self.count = whole, number, count

    def step(self, done: int, total: int, text: str = "") -> None:
        self.whole.step(self.number, self.count, "Segmenting")

    def warn(self, text: str) -> None:
        self.whole.warn(text)


def _clean_up(
    cleanups: tuple[Cleanup, ...],
    labels: NDArray[np.unsignedinteger],
    voxel_ml: float,
    options: RunOptions,
    progress: Progress,
) -> None:
    for done, cleanup in enumerate(cleanups if options.postprocess else ()):
        progress.step(done, len(cleanups), "Cleaning up")
        cleanup(labels, voxel_ml)


def _windows(windows: Windows, options: RunOptions) -> Windows:
    return windows if options.overlap is None else replace(windows, overlap=(options.overlap,) * 3)


def checked(
    network: Callable[[Tensor], Any],
    channels: int,
    device: torch.device,
    slice_axis: int | None = None,
    number: str = FULL,
) -> Callable[[Tensor], Tensor]:
    """The network as a function between CPU tensors that refuses to hand on nonsense.

    A network for slices (`slice_axis`) is given windows of one voxel along that axis, without the axis. It computes in
    the format `number`, where it does not say one itself.
    """

    def run(patch: Tensor) -> Tensor:
        try:
            window = patch.to(device) if slice_axis is None else patch.squeeze(slice_axis + 2).to(device)
            with casting(device, number):
                output = network(window)
        except (
            RuntimeError,
            ValueError,
            TypeError,
            LookupError,
            AttributeError,
            AssertionError,
            ArithmeticError,
        ) as error:
            if is_out_of_memory(error):
                raise
            reason = str(error).partition("\n")[0]
            raise ModelError(
                f"The network can't take a window of {list(patch.shape[2:])} voxels ({reason}); "
                "the model's window size or the image does not suit it."
            ) from error
        output = first_of(output)
        if slice_axis is not None and isinstance(output, Tensor):
            output = output.unsqueeze(slice_axis + 2)
        if not isinstance(output, Tensor) or output.shape != (1, channels, *patch.shape[2:]):
            shape = list(output.shape) if isinstance(output, Tensor) else "that no tensor has"
            raise ModelError(
                f"The network gave an output of shape {shape} for a window of {list(patch.shape)}, where "
                f"the model's description promises {channels} channels on the same voxels."
            )
        # Every fourth plane, to name the cause; what hides between comes up in the sums, all of which are looked at.
        if not all_finite(output[:, :, ::4]):
            again = "; run it in float32" if number == HALF else ""
            raise ModelError(f"The network's output is not finite; its weights or the intensities don't suit{again}.")
        return torch.as_tensor(output).float() if number == HALF else torch.as_tensor(output)

    return run


def pasted(part: Restored, shape: tuple[int, int, int], box: tuple[slice, slice, slice]) -> Restored:
    """Put a box's result back into a grid of background; probabilities and uncertainty around it are 0."""
    layers = np.zeros((len(part.layers), *shape), part.layers.dtype)
    layers[(slice(None), *box)] = part.layers
    probabilities = uncertainty = None
    if part.probabilities is not None:
        probabilities = np.zeros((len(part.probabilities), *shape), np.float32)
        probabilities[(slice(None), *box)] = part.probabilities
    if part.uncertainty is not None:
        uncertainty = np.zeros(shape, np.float32)
        uncertainty[box] = part.uncertainty
    return Restored(layers, probabilities, uncertainty)
