"""How much memory a run will take, from the model's description, the image's grid and the options alone.

The parts follow what `inference` holds at one time; what a network holds for each voxel of its window was measured on
the CPU for the networks that bundles may name (`Testing/benchmarks/worker_memory.py` compares). All sizes in bytes.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, prod
from typing import Any

import numpy as np

from MedAILib.config import Component
from MedAILib.request import ClassifyOptions, DetectOptions, GenerateOptions, Options, RunOptions
from MedAILib.spec import ModelSpec
from MedAILib.volume import Geometry, Volume, closest_axes

FLOAT = 4
# Above this many bytes, sums of overlapping windows are kept in half precision, as nnU-Net always keeps them.
FULL_PRECISION_BYTES = 3 * 2**30
# What PyTorch and its kernels take with the first run of a network, beside what grows with the window.
OVERHEAD_BYTES = 30 * 2**20
# What is added for blocks that are freed and kept by the process, between blocks in use; measured, 1.2 to 1.4.
KEPT = 1.3
# Numbers for each voxel of the window that a network of unknown build is taken to hold.
USUAL_VALUES = 250.0
# Planes that are decided on a GPU are there in float64, and several at a time, while the network is idle.
WIDE_PLANES = 4
# What preparing holds on a GPU at its peak, for what it holds in float32 alone: splines are in float64 in between;
# measured, 0.5 to 1.7. And blocks that are worked on at a time, of a large image.
WIDE_PREPARING, BLOCKS_BYTES = 1.7, 2**28
# Seconds for each of these numbers on one core, measured for the built-in model's U-Net.
CORE_S = 3.5e-8
# What a network that sees images whole is taken to hold for each voxel where its build is unknown (`feature_memory`
# has the others), and how many times more with the gradients of all its layers.
WHOLE_VALUES, WITH_GRADIENTS = 80.0, 6.0
# What Grad-CAM holds more than a pass: maps of the last layers alone.
MAPS_KEPT = 1.1
# What the kernels of a deep network keep with its first pass, beside `OVERHEAD_BYTES`.
WHOLE_OVERHEAD_BYTES = 60 * 2**20
# Numbers in a batch of changed copies for an explanation, above which images pass one by one.
BATCH_ELEMENTS = 1 << 18


@dataclass(frozen=True)
class Demand:
    """What a run takes, in bytes.

    Args:
        weights: the network's weights.
        input: the image as it came.
        prepared: what preparing holds at its peak, the prepared image included.
        image: the prepared image alone.
        network: what the network holds at its peak, for one window.
        sums: the sums of overlapping windows.
        planes: planes of the output on their way back to the input's grid.
        result: labels and probabilities, and a copy of them while their axes are put in order.
    """

    weights: int
    input: int
    prepared: int
    image: int
    network: int
    sums: int
    planes: int
    result: int

    def on_cpu(self) -> int:
        """Main memory, where all of it is there."""
        running = self.image + self.sums + max(self.network, self.planes) + self.result
        return OVERHEAD_BYTES + self.weights + self.input + round(KEPT * max(self.prepared, running))

    def beside_gpu(self, sums_on_gpu: bool) -> int:
        """Main memory, where the network is on a GPU."""
        running = self.image + self.result + (0 if sums_on_gpu else self.sums + self.planes)
        return self.input + max(self.prepared, running)

    def preparing_on_gpu(self) -> int:
        """The GPU's memory that preparing the image there takes, beside the weights; it may be done on the CPU."""
        return round(WIDE_PREPARING * self.prepared) + min(BLOCKS_BYTES, 4 * self.prepared)

    def at_best_on_gpu(self) -> int:
        """The GPU's memory for a run of which nothing has to give way."""
        return max(self.on_gpu(True), self.weights + self.preparing_on_gpu())

    def on_gpu(self, sums_on_gpu: bool) -> int:
        """The GPU's memory, with the image prepared on the CPU."""
        if not sums_on_gpu:
            return self.weights + self.network
        return self.weights + self.image + self.sums + max(self.network, WIDE_PLANES * self.planes)


def estimate_memory(spec: ModelSpec, geometry: Geometry, dtype: Any, options: RunOptions | None = None) -> int:
    """By how many bytes a run on the CPU raises the memory that its process holds, the model's weights included.

    Args:
        spec: the model.
        geometry: the image's grid; it has as many channels as the model takes.
        dtype: of the image's voxels.
        options: of the run; None takes the usual ones.

    Raises:
        InputError: a region of interest that misses the image.
    """
    return demand(spec, geometry, dtype, options or RunOptions()).on_cpu()


def demand(
    spec: ModelSpec,
    geometry: Geometry,
    dtype: Any,
    options: RunOptions,
    window: tuple[int, ...] | None = None,
) -> Demand:
    """What a run takes part by part; `window` stands for the model's own window, along the network's axes in voxels."""
    classes, channels = output_channels(spec), len(spec.channels)
    part = geometry
    if options.roi is not None:
        box = geometry.box_of_roi(options.roi)
        part = geometry.cropped([s.start for s in box], [s.stop - s.start for s in box])
    whole, voxels = prod(geometry.shape_kji), prod(part.shape_kji)
    shape, sizes_ijk = _working_grid(spec, part)
    size = _window(window or spec.patch, shape)
    padded = [max(n, m) for n, m in zip(shape, size, strict=True)]
    axis = min(range(3), key=lambda a: size[a] * prod(padded) // padded[a])
    plane = prod(padded) // padded[axis]
    ring = size[axis] * plane * classes
    in_window = prod(size)
    # Each output is added up by a weighted copy, and checked by another one.
    handled = FLOAT * in_window * classes * (3 + 2 * options.mirror)
    held = FLOAT * in_window * (spec.window_values or max(USUAL_VALUES, 5.0 * classes))
    in_plane = prod(sizes_ijk) // sizes_ijk[axis]
    shown = classes if options.probabilities or options.uncertainty else 0  # of a plane at a time
    kept = (classes if options.probabilities else 0) + options.uncertainty
    labels = (classes if _layered(spec) else 1) * (1 if classes <= 256 else 2)
    pasted = whole if options.roi is not None else 0
    image = FLOAT * channels * prod(padded)
    return Demand(
        weights=spec.weights_bytes,
        input=whole * channels * np.dtype(dtype).itemsize,
        prepared=FLOAT * channels * (voxels + 2 * max(voxels, prod(shape))),
        image=image,
        network=round(max(held, handled)),
        sums=ring * (FLOAT if FLOAT * ring <= FULL_PRECISION_BYTES else 2) + FLOAT * size[axis] * plane,
        planes=FLOAT * (2 * classes + shown) * (in_plane + plane),
        result=(labels + FLOAT * kept) * (2 * voxels + pasted),
    )


def demand_of(spec: ModelSpec, volume: Volume, options: Options) -> Demand | None:
    """What a run of any task takes; None where that can't be foretold, as for detectors that MONAI has not.

    Raises:
        InputError: a region of interest that misses the image.
    """
    if isinstance(options, ClassifyOptions):
        return _classifier_demand(spec, volume, options)
    if isinstance(options, DetectOptions):
        if spec.task == "detection":
            return _detector_demand(spec, volume, options)
        options = RunOptions(roi=options.roi, probabilities=True)
    if isinstance(options, GenerateOptions):  # an image of an image is made as probabilities are
        options = RunOptions(probabilities=True)
    return demand(spec, volume.geometry, volume.data.dtype, options)


def _classifier_demand(spec: ModelSpec, volume: Volume, options: ClassifyOptions) -> Demand:
    """A classifier sees one look at a time, whole; those that an explanation is asked for are kept."""
    shape = list(volume.geometry.shape_kji)
    if options.roi is not None:
        shape = [part.stop - part.start for part in volume.geometry.box_of_roi(options.roi)]
    elif options.box_kji is not None:
        shape = [end - first for first, end in options.box_kji]
    region, looks = prod(shape), 1
    if options.slices is not None:
        axis = "KJI".index(options.slices.axis)
        looks = shape[axis] if options.slices.index is None else 1
        shape[axis] = 1
    wanted = prod(n if n > 0 else own for n, own in zip(spec.patch or shape, shape, strict=False))
    sequence = 1
    if spec.classes is not None and spec.classes.sequence:
        if spec.classes.dimensions == 2 and shape[0] > 1:  # its slices are the frames
            sequence, shape[0] = shape[0], 1
        else:
            sequence = max(volume.channels // len(spec.channels), 1)
        sequence = spec.classes.frames or sequence
    image = FLOAT * len(spec.channels) * wanted * sequence
    held = FLOAT * wanted * sequence * _held_values(spec, options, len(spec.channels) * wanted)
    return Demand(
        weights=spec.weights_bytes,
        input=volume.data.nbytes,
        prepared=3 * FLOAT * len(spec.channels) * max(prod(shape), wanted),
        image=image * (looks if options.explain else 1),
        network=round(held) + round(WHOLE_OVERHEAD_BYTES / KEPT),
        sums=0,
        planes=0,
        result=2 * FLOAT * prod(volume.geometry.shape_kji) + FLOAT * region if options.explain else 0,
    )


def _held_values(spec: ModelSpec, options: ClassifyOptions, numbers: int) -> float:
    """What a classifier holds for each voxel of an image of so many numbers, at the peak of pass and explanation."""
    plain = spec.window_values or WHOLE_VALUES
    if options.explain is None:
        return plain
    if options.explain.method.startswith("grad-cam"):
        return MAPS_KEPT * plain
    copies = copies_at_once(numbers)
    if options.explain.method == "integrated-gradients":
        return copies * (spec.gradient_values or WITH_GRADIENTS * plain)
    return copies * plain


def copies_at_once(numbers: int) -> int:
    """How many changed copies of an image of so many numbers pass through a network together: more of small ones."""
    return max(min(BATCH_ELEMENTS // max(numbers, 1), 16), 1)


def _detector_demand(spec: ModelSpec, volume: Volume, options: DetectOptions) -> Demand | None:
    """A detector sees one window at a time, and keeps what it says of all of them."""
    if spec.window_values is None:
        return None
    geometry = volume.geometry
    if options.roi is not None:
        box = geometry.box_of_roi(options.roi)
        geometry = geometry.cropped([side.start for side in box], [side.stop - side.start for side in box])
    shape, _ = _working_grid(spec, geometry)
    flat = spec.patch is not None and len(spec.patch) == 2
    seen = prod(_window(spec.patch, shape)) if spec.patch else prod(shape)
    seen = min(seen, prod(shape))  # an image smaller than a window is seen as it is
    voxels, image = prod(geometry.shape_kji), FLOAT * len(spec.channels) * prod(shape)
    return Demand(
        weights=spec.weights_bytes,
        input=volume.data.nbytes,
        prepared=FLOAT * len(spec.channels) * (voxels + 2 * max(voxels, prod(shape))),
        image=image,
        network=round(FLOAT * seen * spec.window_values) + round(WHOLE_OVERHEAD_BYTES / KEPT),
        sums=0 if flat else 2 * FLOAT * prod(shape),
        planes=0,
        result=0,
    )


def network_voxels(spec: ModelSpec, geometry: Geometry, options: RunOptions) -> int:
    """Voxels that a segmentation network is shown in a run, each as often as windows and mirrored copies have it.

    Raises:
        InputError: a region of interest that misses the image.
    """
    part = geometry
    if options.roi is not None:
        box = geometry.box_of_roi(options.roi)
        part = geometry.cropped([s.start for s in box], [s.stop - s.start for s in box])
    shape, _ = _working_grid(spec, part)
    size = _window(spec.patch, shape)
    share = spec.overlap if options.overlap is None else options.overlap
    steps = [n if n >= whole else max(int(n * (1 - share)), 1) for n, whole in zip(size, shape, strict=True)]
    windows = prod(ceil(max(whole - n, 0) / step) + 1 for n, whole, step in zip(size, shape, steps, strict=True))
    return windows * prod(size) * (2 ** len(spec.mirror_axes) if options.mirror else 1)


def usual_seconds(spec: ModelSpec, voxels: int, cores: int) -> float:
    """Roughly how long a CPU computes on so many voxels with a network that was never timed on it."""
    return CORE_S * voxels * (spec.window_values or USUAL_VALUES) / max(cores, 1)


def output_channels(spec: ModelSpec) -> int:
    """Output channels of a model's network: a label each, and the background where the largest wins."""
    return len(spec.labels) + (not _layered(spec))


def network_values(network: Component, classes: int) -> float | None:
    """Numbers (float32) that a network holds at its peak for each voxel of its window; None for an unknown network."""
    arguments = network.arguments
    try:
        if network.name == "DynUNet":
            return max(_first(arguments["filters"], 9.8) / _step(arguments), 2.5 * classes)
        if network.name == "UNet":
            # The last layer works on the output's channels at full size; few of them are convolved by way of copies.
            full = 4.75 * classes if classes >= 16 else 29.0 * classes + 32
            first = _first(arguments["channels"], 9.0) / _step(arguments)
            return max(full if arguments.get("num_res_units", 0) else 10.0 * classes, first)
        if network.name in ("BasicUNet", "FCN"):
            key, each = ("features", 8.7) if network.name == "BasicUNet" else ("channels", 5.4)
            return max(_first(arguments.get(key, (32,)), each), (3.0 if key == "features" else 3.6) * classes)
        if network.name == "SegResNet":
            return max(_first((arguments.get("init_filters", 8),), 8.1), 3.0 * classes)
    except (KeyError, IndexError, TypeError, ValueError, ArithmeticError):
        return None  # it says of its build what can't be built; opening the model says so
    return None


def _first(widths: Any, values: float) -> float:
    """Numbers per voxel that a first layer of so many channels comes to."""
    return values * float(widths[0])


def _step(arguments: Mapping[str, Any]) -> int:
    """Voxels of the window for one of the first layer's."""
    first = arguments["strides"][0]
    return int(first) ** 3 if isinstance(first, (int, float)) else prod(int(n) for n in first)


def _layered(spec: ModelSpec) -> bool:
    return any(label.layer > 0 for label in spec.labels)


def _working_grid(spec: ModelSpec, geometry: Geometry) -> tuple[list[int], list[int]]:
    """The image's size in voxels along the network's axes: in the network's spacing, and in its own."""
    order = [0, 1, 2]
    if spec.orientation is not None:
        towards = [world for world, _ in closest_axes(geometry.ijk_to_ras)]
        order = [towards.index("RASLPI".index(letter) % 3) for letter in spec.orientation]
    own = [geometry.shape_kji[2 - axis] for axis in order]
    if spec.spacing_mm is None:
        return own, own
    old = [geometry.spacing_kji_mm[2 - axis] for axis in order]
    wanted = (*spec.spacing_mm, 0.0, 0.0, 0.0)[:3]  # a model of slices names two
    new = [mm if mm > 0 else now for mm, now in zip(wanted, old, strict=True)]
    return [max(1, ceil(n * a / b - 0.5)) for n, a, b in zip(own, old, new, strict=True)], own


def _window(patch: tuple[int, ...] | None, shape: list[int]) -> list[int]:
    sizes = (*(patch or (0, 0, 0)), 1)[:3]  # a model of slices names two
    return [n if wanted <= 0 else wanted for wanted, n in zip(sizes, shape, strict=True)]
