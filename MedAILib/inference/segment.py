"""One image through one segmentation network: prepare, slide, restore, clean up."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from MedAILib.errors import InputError, ModelError
from MedAILib.estimate import Demand, demand
from MedAILib.inference.cleanup import Cleanup
from MedAILib.inference.frame import Frame
from MedAILib.inference.ladder import Rung, climb_down, rungs
from MedAILib.inference.memory import is_out_of_memory
from MedAILib.inference.prepare import Step, prepare
from MedAILib.inference.restore import Decision, Restored, restore
from MedAILib.inference.window import Windows, slide
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
        spec: what foretells the memory that it takes; None where that can't be foretold.
        window_multiple: sizes of windows that the network takes are multiples of these; None where it takes its own
            alone, and whole images where it has none.
    """

    steps: tuple[Step, ...]
    windows: Windows
    decision: Decision
    cleanups: tuple[Cleanup, ...]
    in_channels: int
    out_channels: int
    mirror_axes: tuple[int, ...] = ()
    spec: ModelSpec | None = None
    window_multiple: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Segmented:
    """Labels and probabilities on the input's grid, and how they came about.

    Args:
        layers, probabilities: as `Restored` has them, for the whole input.
        accumulation: the number format of the sums in between.
        device: where the network ran.
        gave_way: what was done otherwise than usual, as memory was short.
    """

    layers: NDArray[np.unsignedinteger]
    probabilities: NDArray[np.float32] | None
    accumulation: str
    device: torch.device
    gave_way: tuple[str, ...] = ()


def segment(volume: Volume, network: nn.Module, recipe: Recipe, options: RunOptions, progress: Progress) -> Segmented:
    """Segment one image, on the device that the network is on, or as `ladder` says where memory is short.

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
    pass_ = _Pass(part, network, recipe, options, progress)
    home = next(network.parameters()).device
    try:
        (restored, accumulation), rung = climb_down(
            rungs(home, pass_.window, recipe.window_multiple if recipe.windows.roi else None),
            pass_.need if recipe.spec is not None else None,
            pass_.run,
            progress,
        )
    finally:
        network.to(home)
    if options.postprocess:
        voxel_ml = volume.geometry.voxel_volume_ml
        for done, cleanup in enumerate(recipe.cleanups):
            progress.step(done, len(recipe.cleanups), "Cleaning up")
            for layer in restored.layers:
                cleanup(layer, voxel_ml)
    if not restored.layers.any():
        progress.warn(f"The model found nothing in {volume.name}: everything is background.")
    whole = _pasted(restored, volume, box) if box else restored
    return Segmented(whole.layers, whole.probabilities, accumulation, rung.device, rung.steps)


class _Pass:
    """One image before one network; prepared once, whatever way it is run in."""

    def __init__(
        self, part: Volume, network: nn.Module, recipe: Recipe, options: RunOptions, progress: Progress
    ) -> None:
        self.part, self.network, self.recipe, self.options, self.progress = part, network, recipe, options, progress
        self._prepared: tuple[Tensor, Frame] | None = None

    @property
    def window(self) -> tuple[int, ...]:
        """The model's own window; 0 stands for the image's size."""
        return tuple(max(n, 0) for n in self.recipe.windows.roi or (0, 0, 0))

    def need(self, rung: Rung) -> Demand:
        """What it takes to run in a way, with the box already cut out."""
        assert self.recipe.spec is not None
        inside = replace(self.options, roi=None)
        return demand(self.recipe.spec, self.part.geometry, self.part.data.dtype, inside, rung.window)

    def run(self, rung: Rung) -> tuple[Restored, str]:
        """The result on the part's grid, and the number format of the sums."""
        if self._prepared is None:
            self._prepared = prepare(self.part, self.recipe.steps, self.progress)
        image, frame = self._prepared
        planes = slide(
            _checked(self.network.to(rung.device), self.recipe.out_channels, rung.device),
            image,
            _windows(replace(self.recipe.windows, roi=rung.window), self.options),
            self.recipe.mirror_axes if self.options.mirror else (),
            self.recipe.out_channels,
            self.progress,
            sums=rung.sums,
        )
        shape, wanted = self.part.geometry.shape_kji, self.options.probabilities
        with torch.inference_mode():
            return restore(planes, frame, shape, self.recipe.decision, wanted), planes.accumulation


def _windows(windows: Windows, options: RunOptions) -> Windows:
    return windows if options.overlap is None else replace(windows, overlap=(options.overlap,) * 3)


def _checked(network: nn.Module, channels: int, device: torch.device) -> Callable[[Tensor], Tensor]:
    """The network as a function between CPU tensors that refuses to hand on nonsense."""

    def run(patch: Tensor) -> Tensor:
        try:
            output = network(patch.to(device))
        except (RuntimeError, ValueError, IndexError) as error:
            if is_out_of_memory(error):
                raise
            raise ModelError(
                f"The network can't take a window of {list(patch.shape[2:])} voxels ({str(error).splitlines()[0]}); "
                "the model's window size or the image does not suit it."
            ) from error
        if isinstance(output, (list, tuple)):
            output = output[0]
        if output.shape != (1, channels, *patch.shape[2:]):
            raise ModelError(
                f"The network gave an output of shape {list(output.shape)} for a window of {list(patch.shape)}, where "
                f"the model's description promises {channels} channels on the same voxels."
            )
        if not bool(torch.isfinite(output).all()):
            raise ModelError("The network's output is not finite; its weights or the intensities don't suit.")
        return torch.as_tensor(output)

    return run


def _pasted(part: Restored, volume: Volume, box: tuple[slice, slice, slice]) -> Restored:
    """Put a box's result back into a grid of background."""
    shape = volume.geometry.shape_kji
    layers = np.zeros((len(part.layers), *shape), part.layers.dtype)
    layers[(slice(None), *box)] = part.layers
    if part.probabilities is None:
        return Restored(layers, None)
    probabilities = np.zeros((len(part.probabilities), *shape), np.float32)
    probabilities[(slice(None), *box)] = part.probabilities
    return Restored(layers, probabilities)
