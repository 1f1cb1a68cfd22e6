"""Labels that are worked out near boundaries alone are those of the whole interpolation, voxel by voxel."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy import ndimage

from MedAILib.inference.boundary import largest_classes
from MedAILib.inference.frame import Frame, input_frame
from MedAILib.inference.interpolate import linear_taps, spanned_taps
from MedAILib.inference.restore import Decision, _slices, by_odd, first_largest, restore
from MedAILib.inference.spline import spline_zoom
from MedAILib.inference.window import Planes

GRID, IMAGE = (9, 20, 17), (14, 33, 41)  # the network's and the input's voxels


def outputs(classes: int, grid: tuple[int, ...] = GRID, scale: float = 8.0, seed: int = 0) -> torch.Tensor:
    """Smooth values (C, X, Y, Z): each class is largest somewhere, if there is room."""
    noise = np.random.default_rng(seed).normal(size=(classes, *grid))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 1.5, 1.5, 1.5)) * 10 * scale).float()


def frame_of(grid: tuple[int, ...], image: tuple[int, ...]) -> Frame:
    """A working grid that spans an image (K, J, I) in the order K, J, I."""
    frame = input_frame((image[0], image[1], image[2])).permuted((2, 1, 0))
    for axis, (new, old) in enumerate(zip(grid, image, strict=True)):
        frame = frame.resampled(axis, old / new, new, 0.5 * old / new - 0.5)
    return frame


def labels(values: torch.Tensor, decision: Decision, probabilities: bool, axis: int = 0) -> np.ndarray:
    """On the input's grid; with probabilities every voxel is interpolated."""
    walked = values.half() if decision.half else values
    planes = Planes(axis, iter(walked.movedim(axis + 1, 0)), "x")
    return restore(planes, frame_of(values.shape[1:], IMAGE), IMAGE, decision, probabilities).layers


DECISIONS = {
    "single precision": Decision(),
    "nnU-Net's rounding": Decision(half=True, late=True),
    "nnU-Net's rounding, one axis stepped": Decision(half=True, late=True, stepped=(0,)),
    "softmax first": Decision(activation="softmax"),
    "nearest": Decision(nearest=True),
}


@pytest.mark.parametrize("classes", [1, 2, 15, 300])
@pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS.keys())
def test_labels_are_those_of_the_whole_interpolation(decision: Decision, classes: int) -> None:
    values = outputs(classes)
    near, whole = (labels(values, decision, probabilities) for probabilities in (False, True))
    assert near.dtype == whole.dtype
    assert np.array_equal(near, whole)
    assert len(np.unique(near)) > min(classes - 1, 9)


@pytest.mark.parametrize("axis", [1, 2])
def test_planes_may_come_along_any_axis(axis: int) -> None:
    values = outputs(6)
    assert np.array_equal(labels(values, Decision(), False, axis), labels(values, Decision(), True))


@pytest.mark.parametrize("half", [False, True])
def test_of_equal_values_the_first_class_wins_everywhere(half: bool) -> None:
    values = outputs(5).round()  # whole numbers: two classes are often equal, and often all the way to the next voxel
    values[3] = values[1]
    decision = replace(Decision(), half=half, late=half)
    near = labels(values, decision, False)
    assert np.array_equal(near, labels(values, decision, True))
    assert 3 not in near


def test_small_leads_that_rounding_takes_away_are_seen() -> None:
    values = torch.full((3, *GRID), 800.0)
    values[1] += 0.5  # one unit in the last place of float16: between two voxels it may go either way
    values[2, ::2] += 0.5
    decision = Decision(half=True, late=True)
    assert np.array_equal(labels(values, decision, False), labels(values, decision, True))


def test_it_is_the_plain_formula() -> None:
    values = outputs(7).double()
    places = [np.clip(np.arange(n) * m / n + 0.5 * m / n - 0.5, 0, m - 1) for n, m in zip(IMAGE, GRID, strict=True)]
    at = np.stack(np.meshgrid(*places, indexing="ij"))
    full = np.stack([ndimage.map_coordinates(one, at, order=1, mode="nearest") for one in values.numpy()])
    taps = [linear_taps(np.asarray(one), m) for one, m in zip(places, GRID, strict=True)]
    found = dict(largest_classes(iter(values.float().movedim(1, 0)), taps, half=False))
    assert np.array_equal(np.stack([found[n][0].numpy() for n in range(IMAGE[0])]), full.argmax(axis=0))


def test_slices_come_as_soon_as_their_planes_have_come() -> None:
    taps = [spanned_taps(n, m) for n, m in zip(IMAGE, GRID, strict=True)]
    taken: list[int] = []

    def planes():
        for number, plane in enumerate(outputs(3).movedim(1, 0)):
            taken.append(number)
            yield plane

    ahead = [taken[-1] - int(taps[0].low[number]) for number, _ in largest_classes(planes(), taps, half=True)]
    assert max(ahead) == 1


@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize(
    ("old", "new"),
    [((30, 41, 17), (22, 60, 33)), ((5, 1, 9), (7, 1, 4)), ((1, 30, 20), (3, 20, 20)), ((40, 33), (90, 7))],
)
def test_splines_as_matrices_are_scipys(old: tuple[int, ...], new: tuple[int, ...], order: int) -> None:
    image = (np.random.default_rng(0).normal(size=old) * 1000).astype(np.float32)
    factors = [n / m for n, m in zip(new, old, strict=True)]
    plain = ndimage.zoom(image.astype(float), factors, order=order, mode="nearest", grid_mode=True)
    wanted = np.clip(plain, image.min(), image.max()).astype(np.float32)
    np.testing.assert_allclose(spline_zoom(torch.from_numpy(image), new, order).numpy(), wanted, rtol=3e-7, atol=1e-4)


def test_rounding_by_way_of_the_odd_one_is_rounding_once() -> None:
    rng = np.random.default_rng(0)
    halves = rng.normal(scale=30, size=4000).astype(np.float16)
    between = (halves.astype(np.float64) + np.nextafter(halves, np.float16(np.inf)).astype(np.float64)) / 2
    near = np.concatenate([between, between * (1 + 1e-12), between * (1 - 1e-12), rng.normal(size=4000) * 1e-6])
    values = torch.from_numpy(np.concatenate([near, -near]))
    assert np.array_equal(by_odd(values).half().numpy(), values.numpy().astype(np.float16))
    assert not torch.equal(values.float().half(), by_odd(values).half())  # what it is for


def test_all_classes_at_once_are_decided_as_one_by_one() -> None:
    values = outputs(300).round()
    assert np.array_equal(first_largest(values).numpy(), values.numpy().argmax(axis=0))


@pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS.keys())
def test_labels_of_planes_on_a_gpu_are_made_there(decision: Decision) -> None:
    taps = [spanned_taps(n, m) for n, m in zip(IMAGE, GRID, strict=True)]
    # Stands in for a GPU: a device that is not the CPU, and from which nothing can be brought.
    planes = (torch.empty((6, *GRID[1:]), device="meta") for _ in range(GRID[0]))
    found = [blend.decide(decision) for _, blend, _ in _slices(planes, taps, decision, False)]
    assert {(one.device.type, tuple(one.shape)) for one in found} == {("meta", (1, *IMAGE[1:]))}


def test_planes_of_another_device_give_the_same_labels() -> None:
    values = outputs(6)
    planes = Planes(0, iter(values.movedim(1, 0)), "x", torch.device("cuda"))
    found = restore(planes, frame_of(values.shape[1:], IMAGE), IMAGE, Decision(), False).layers
    assert np.array_equal(found, labels(values, Decision(), False))
