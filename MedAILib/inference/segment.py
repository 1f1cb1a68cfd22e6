"""One image through one segmentation network: prepare, slide, restore, clean up."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from MedAILib.errors import InputError, ModelError
from MedAILib.inference.cleanup import Cleanup
from MedAILib.inference.memory import is_out_of_memory
from MedAILib.inference.prepare import Step, prepare
from MedAILib.inference.restore import Decision, Restored, restore
from MedAILib.inference.window import Windows, slide
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
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
    """

    steps: tuple[Step, ...]
    windows: Windows
    decision: Decision
    cleanups: tuple[Cleanup, ...]
    in_channels: int
    out_channels: int
    mirror_axes: tuple[int, ...] = ()


@dataclass(frozen=True)
class Segmented:
    """Labels and probabilities on the input's grid, and the number format of the sums in between."""

    layers: NDArray[np.unsignedinteger]
    probabilities: NDArray[np.float32] | None
    accumulation: str


def segment(volume: Volume, network: nn.Module, recipe: Recipe, options: RunOptions, progress: Progress) -> Segmented:
    """Segment one image, on the device that the network is on.

    Raises:
        InputError: the image does not suit (see `prepare`), or an option does not suit the model.
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
    image, frame = prepare(part, recipe.steps, progress)
    device = next(network.parameters()).device
    planes = slide(
        checked(network, recipe.out_channels, device),
        image,
        _windows(recipe.windows, options),
        recipe.mirror_axes if options.mirror else (),
        recipe.out_channels,
        progress,
    )
    with torch.inference_mode():
        restored = restore(planes, frame, part.geometry.shape_kji, recipe.decision, options.probabilities)
    if options.postprocess:
        voxel_ml = volume.geometry.voxel_volume_ml
        for done, cleanup in enumerate(recipe.cleanups):
            progress.step(done, len(recipe.cleanups), "Cleaning up")
            for layer in restored.layers:
                cleanup(layer, voxel_ml)
    if not restored.layers.any():
        progress.warn(f"The model found nothing in {volume.name}: everything is background.")
    whole = pasted(restored, volume.geometry.shape_kji, box) if box else restored
    return Segmented(whole.layers, whole.probabilities, planes.accumulation)


def _windows(windows: Windows, options: RunOptions) -> Windows:
    if options.overlap is None:
        return windows
    return Windows(
        windows.roi,
        (options.overlap,) * 3,
        windows.gaussian,
        windows.sigma_scale,
        windows.padding_mode,
        windows.padding_value,
    )


def checked(network: Callable[[Tensor], Any], channels: int, device: torch.device) -> Callable[[Tensor], Tensor]:
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


def pasted(part: Restored, shape: tuple[int, int, int], box: tuple[slice, slice, slice]) -> Restored:
    """Put a box's result back into a grid of background; probabilities around it are 0."""
    layers = np.zeros((len(part.layers), *shape), part.layers.dtype)
    layers[(slice(None), *box)] = part.layers
    if part.probabilities is None:
        return Restored(layers, None)
    probabilities = np.zeros((len(part.probabilities), *shape), np.float32)
    probabilities[(slice(None), *box)] = part.probabilities
    return Restored(layers, probabilities)
