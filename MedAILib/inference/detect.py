"""One image through one detector: prepare, look for boxes, bring them back onto the input's own grid."""

import math
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from MedAILib.detections import Box
from MedAILib.errors import ModelError
from MedAILib.inference.frame import Frame
from MedAILib.inference.ladder import Preparing
from MedAILib.inference.looks import with_channels
from MedAILib.inference.memory import is_out_of_memory
from MedAILib.inference.prepare import Step, prepared, require_usable
from MedAILib.progress import Progress
from MedAILib.request import DetectOptions
from MedAILib.volume import Volume

BOXES, LABELS, SCORES = "box", "label", "label_scores"


@dataclass(frozen=True)
class DetectRecipe:
    """What a detector does around its network.

    Args:
        steps: preprocessing.
        classes: names, in the order of the network's output.
        channels: of the network's input.
        window: see `DetectionPlan`.
        window_overlap: likewise.
        always_windows: likewise.
        size_divisible: what images are padded to, for each axis of the network.
        flat: the network takes pictures: a volume is looked through slice by slice.
    """

    steps: tuple[Step, ...]
    classes: tuple[str, ...]
    channels: int
    window: tuple[int, ...] | None
    window_overlap: float
    always_windows: bool
    size_divisible: tuple[int, ...]
    flat: bool


class Detector(Protocol):
    """What looks for boxes: MONAI's detector, or another that answers as it does.

    Called with a list of one image (C, X, Y[, Z]) and whether to lay windows, it gives a list of one dictionary: boxes
    (N, 2 x axes), classes (N,) from 0 on, and scores (N,).
    """

    network: Any

    def __call__(self, images: list[Tensor], *, use_inferer: bool) -> Any: ...


def find_boxes(
    volume: Volume, detector: Detector, recipe: DetectRecipe, options: DetectOptions, progress: Progress
) -> tuple[tuple[Box, ...], tuple[str, ...]]:
    """Findings of one image, on its own grid, the surest first; and what gave way where memory was short.

    Raises:
        InputError: the image does not suit (see `prepare`).
        ModelError: the network fails on it, or its output is not finite.
        Cancelled: by `progress`, between two windows.
    """
    volume = with_channels(volume, recipe.channels, recipe.flat and recipe.channels == 3, progress)
    k, j, i = volume.geometry.shape_kji
    region = volume.geometry.box_of_roi(options.roi) if options.roi else (slice(0, k), slice(0, j), slice(0, i))
    part = volume.cropped(region)
    require_usable(part, progress)
    start, preparing = tuple(float(side.start) for side in reversed(region)), Preparing(progress)
    if not recipe.flat:
        found = _boxes_of(part, detector, recipe, preparing, progress)
    else:
        found = []
        for number, one in enumerate(_slices(part)):
            told = _OfSlice(progress, number, part.geometry.shape_kji[0])
            boxes = _boxes_of(one, detector, recipe, preparing, told)
            found += [_moved(box, (0.0, 0.0, float(number))) for box in boxes]
        progress.step(1, 1, "Looking for findings")
    boxes = [_moved(box, start) for box in found]
    voxel_ml = volume.geometry.voxel_volume_ml
    kept = [box for box in boxes if _voxels(box) * voxel_ml >= options.smallest_ml]
    return tuple(sorted(kept, key=lambda box: -box.score)), preparing.gave_way


def _boxes_of(
    part: Volume, detector: Detector, recipe: DetectRecipe, preparing: Preparing, progress: Progress
) -> list[Box]:
    device = next(detector.network.parameters()).device
    image, frame = preparing(device, lambda place: prepared(part, recipe.steps, progress, place))
    if recipe.flat:
        image = image[..., 0]
    sizes = [math.ceil(n / k) * k for n, k in zip(image.shape[1:], recipe.size_divisible, strict=True)]
    windows = recipe.window is not None and (
        recipe.always_windows or math.prod(image.shape[1:]) >= math.prod(recipe.window)
    )
    total = _count(sizes, recipe.window, recipe.window_overlap) if windows and recipe.window else 1
    bare = detector.network
    detector.network = _Counted(bare, total, progress)
    try:
        (found,) = detector([image.to(device)], use_inferer=windows)
    except (RuntimeError, ValueError, IndexError, AssertionError) as error:
        if is_out_of_memory(error):
            raise
        reason = str(error).partition("\n")[0]
        raise ModelError(
            f"The network can't take an image of {list(image.shape[1:])} voxels ({reason}); the model's windows or the "
            "image do not suit it."
        ) from error
    finally:
        detector.network = bare
    progress.step(total, total, "Looking for findings")
    return _on_input(found, frame, tuple(image.shape[1:]), recipe, part.geometry.shape_kji)


def _on_input(
    found: dict[str, Tensor],
    frame: Frame,
    shape: tuple[int, ...],
    recipe: DetectRecipe,
    shape_kji: tuple[int, int, int],
) -> list[Box]:
    """Boxes of the working grid, cut to its image, on the input's grid.

    MONAI's boxes are places on the working grid's axes, whole numbers at the centres of voxels, which is how it takes
    them to the world.
    """
    places = found[BOXES].double().cpu().numpy()
    kinds, scores = found[LABELS].tolist(), found[SCORES].clamp(0, 1).tolist()
    axes = len(shape)
    low = np.clip(places[:, :axes], -0.5, shape)
    high = np.clip(places[:, axes:], -0.5, shape)
    boxes = []
    for number in np.flatnonzero((high - low > 0).all(axis=1)):
        faces = np.zeros((3, 2))
        for working in range(axes):
            ends = np.array([low[number, working], high[number, working]])
            faces[frame.axes[working]] = sorted(frame.scale[working] * ends + frame.offset[working])
        for working in range(axes, 3):  # a slice is as thick as its voxels
            axis = frame.axes[working]
            faces[axis] = (-0.5, shape_kji[2 - axis] - 0.5)
        name, score = recipe.classes[int(kinds[number])], float(scores[number])
        boxes.append(Box(name, score, _triple(faces[:, 0]), _triple(faces[:, 1])))
    return boxes


def _triple(values: np.ndarray) -> tuple[float, float, float]:
    i, j, k = (float(value) for value in values)
    return i, j, k


def _slices(volume: Volume) -> list[Volume]:
    """A volume's slices along K, each an image of its own."""
    k, j, i = volume.geometry.shape_kji
    return [volume.cropped((slice(n, n + 1), slice(0, j), slice(0, i))) for n in range(k)]


def _moved(box: Box, by: tuple[float, ...]) -> Box:
    low, high = np.array(box.low_ijk) + by, np.array(box.high_ijk) + by
    return Box(box.label, box.score, _triple(low), _triple(high))


def _voxels(box: Box) -> float:
    return float(np.prod(np.array(box.high_ijk) - np.array(box.low_ijk)))


def _count(sizes: list[int], window: tuple[int, ...], overlap: float) -> int:
    """How many windows MONAI's sliding window lays over an image, padded to at least one window."""
    count = 1
    for size, side in zip(sizes, window, strict=True):
        step = max(int(side * (1 - overlap)), 1) if size > side else side
        count *= math.ceil(max(size - side, 0) / step) + 1
    return count


class _Counted(nn.Module):
    """The network, telling of each window before it is run and refusing to hand on nonsense."""

    def __init__(self, network: nn.Module, total: int, progress: Progress) -> None:
        super().__init__()
        self.network, self._total, self._progress, self._done = network, total, progress, 0

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("network"), name)

    def forward(self, image: Tensor) -> dict[str, list[Tensor]]:
        self._progress.step(min(self._done, self._total), self._total, "Looking for findings")
        self._done += 1
        output: dict[str, list[Tensor]] = self.network(image)
        for maps in output.values() if isinstance(output, dict) else [output]:
            if not all(bool(torch.isfinite(one).all()) for one in maps):
                raise ModelError("The network's output is not finite; its weights or the intensities don't suit.")
        return output


class _OfSlice(Progress):
    """A slice's own steps, told as the volume's: how many slices are done."""

    def __init__(self, whole: Progress, number: int, count: int) -> None:
        self.whole, self.number, self.count = whole, number, count

    def step(self, done: int, total: int, text: str = "") -> None:
        self.whole.step(self.number, self.count, "Looking for findings")

    def warn(self, text: str) -> None:
        self.whole.warn(text)
