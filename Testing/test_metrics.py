"""Measures of agreement against closed forms, MONAI and plain brute force."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_dice, compute_surface_dice
from monai.metrics.utils import get_code_to_measure_table
from scipy.spatial.distance import cdist

from MedAILib.training.metrics import (
    compare,
    count_voxels,
    hausdorff_distance,
    mean_surface_distance,
    surface_dice,
    surface_distances,
)

SPACINGS = st.tuples(*[st.sampled_from((0.5, 1.0, 2.5))] * 3)
# No distance on these grids equals a tolerance, so that single and double precision agree on every element.
TOLERANCES = st.sampled_from((0.3, 1.2, 2.7))


@st.composite
def mask_pairs(draw, least=2):
    shape = draw(st.tuples(*[st.integers(least, 6)] * 3))
    return [draw(arrays(bool, shape, elements=st.booleans())) for _ in range(2)]


def box(shape, low, high):
    mask = np.zeros(shape, dtype=bool)
    mask[tuple(slice(a, b) for a, b in zip(low, high, strict=True))] = True
    return mask


def ball(shape, centre_mm, radius_mm, spacing):
    grid = np.meshgrid(*[np.arange(n) * mm for n, mm in zip(shape, spacing, strict=True)], indexing="ij")
    return sum((g - c) ** 2 for g, c in zip(grid, centre_mm, strict=True)) <= radius_mm**2


def surface_by_brute_force(mask, spacing):
    """Positions and weights of all corners whose eight voxels are not alike, found one corner at a time."""
    table, kernel = get_code_to_measure_table(spacing)
    bits = kernel.squeeze().numpy().astype(int)
    padded = np.pad(mask, 1)
    points, weights = [], []
    for corner in np.ndindex(*(n + 1 for n in mask.shape)):
        cell = padded[tuple(slice(c, c + 2) for c in corner)]
        if cell.any() and not cell.all():
            points.append(np.array(corner) * spacing)
            weights.append(float(table[int((bits * cell).sum())]))
    return np.array(points), np.array(weights)


def test_same_structure_agrees_in_everything():
    mask = box((8, 9, 10), (2, 2, 2), (5, 6, 7))
    agreement = compare(mask, mask, (3.0, 1.0, 0.5))
    assert (agreement.overlap.dice, agreement.overlap.iou, agreement.surface_dice) == (1, 1, 1)
    assert (agreement.hd95_mm, agreement.mean_distance_mm, agreement.volume_difference_ml) == (0, 0, 0)


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("shift", [1, 3])
def test_shifted_cube_is_as_far_off_as_it_was_shifted(axis, shift):
    spacing = (2.5, 1.0, 0.7)
    low, high = np.array([5, 5, 5]), np.array([15, 15, 15])
    moved = np.eye(3, dtype=int)[axis] * shift
    agreement = compare(box((25, 25, 25), low, high), box((25, 25, 25), low + moved, high + moved), spacing)
    assert agreement.overlap.dice == pytest.approx((10 - shift) / 10)
    assert agreement.overlap.iou == pytest.approx((10 - shift) / (10 + shift))
    assert agreement.hd95_mm == pytest.approx(shift * spacing[axis])
    assert agreement.volume_difference_ml == 0


def test_surface_dice_counts_area_beyond_the_tolerance():
    """A bar of 40 x 10 x 10 voxels that grows by 3 along its length: only what is near that end is beyond 1 mm."""
    long, longer = box((60, 20, 20), (5, 5, 5), (45, 15, 15)), box((60, 20, 20), (5, 5, 5), (48, 15, 15))
    end, rim = 10 * 10, 4 * 10
    whole = (40 + 43) * rim + 4 * end
    # The shorter one's end without its outermost 1.5 mm; the longer one's end, and its sides from 1.5 mm on.
    beyond = 7 * 7 + end + 1.5 * rim
    measured = surface_dice(surface_distances(long, longer, (1.0, 1.0, 1.0)), 1.0)
    assert measured == pytest.approx(1 - beyond / whole, abs=0.004)
    assert surface_dice(surface_distances(long, longer, (1.0, 1.0, 1.0)), 3.0) == 1


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 0.8, 0.8)])
def test_concentric_balls_are_their_radii_apart(spacing):
    shape = tuple(int(60 / mm) for mm in spacing)
    reference, predicted = (ball(shape, (29, 29, 29), radius, spacing) for radius in (20, 16))
    agreement = compare(reference, predicted, spacing)
    assert agreement.mean_distance_mm == pytest.approx(4, abs=max(0.5, max(spacing) / 4))
    assert 3.5 < agreement.hd95_mm < 4 + max(spacing)
    assert agreement.reference_ml == pytest.approx(4 / 3 * math.pi * 2**3, rel=0.02)
    assert agreement.relative_volume_difference == pytest.approx((16 / 20) ** 3 - 1, abs=0.02)
    assert agreement.surface_dice < 0.05


def test_flat_faces_have_their_area_in_mm2():
    """Of a large box nearly all area is on its faces; edges and corners are cut by marching cubes."""
    mask = box((42, 42, 42), (1, 1, 1), (41, 41, 41))
    spacing = (2.0, 1.0, 0.5)
    area = surface_distances(mask, mask, spacing).reference_weights.sum()
    faces = 2 * 40 * 40 * (2.0 * 1.0 + 2.0 * 0.5 + 1.0 * 0.5)
    assert area == pytest.approx(faces, rel=0.03)


def test_neighbouring_voxels_share_half_their_corners():
    one, other = box((3, 3, 3), (1, 1, 1), (2, 2, 2)), box((3, 3, 3), (2, 1, 1), (3, 2, 2))
    agreement = compare(one, other, (4.0, 1.0, 1.0))
    assert agreement.overlap.dice == 0
    assert agreement.hd95_mm == 4
    assert agreement.mean_distance_mm == pytest.approx(2)
    assert agreement.surface_dice == pytest.approx(0.5)


def test_structure_at_the_border_has_a_closed_surface():
    reference, predicted = box((6, 6, 6), (0, 0, 0), (3, 6, 6)), box((6, 6, 6), (0, 0, 0), (4, 6, 6))
    spacing = (1.5, 1.0, 1.0)
    inside = compare(np.pad(reference, 3), np.pad(predicted, 3), spacing)
    assert compare(reference, predicted, spacing).hd95_mm == inside.hd95_mm == 1.5
    assert compare(reference, predicted, spacing).surface_dice == pytest.approx(inside.surface_dice)


def test_spacing_in_single_precision_does_not_fail_the_tolerance():
    spacing = (float(np.float32(1.0000001)),) * 3
    reference, predicted = box((9, 9, 9), (2, 2, 2), (5, 5, 5)), box((9, 9, 9), (3, 2, 2), (6, 5, 5))
    assert compare(reference, predicted, spacing).surface_dice == 1


def test_absent_from_both_says_nothing():
    nothing = np.zeros((4, 4, 4), dtype=bool)
    agreement = compare(nothing, nothing, (1.0, 1.0, 1.0))
    ratios = (agreement.overlap.dice, agreement.overlap.iou, agreement.surface_dice, agreement.hd95_mm)
    assert all(math.isnan(x) for x in (*ratios, agreement.mean_distance_mm, agreement.relative_volume_difference))
    assert agreement.volume_difference_ml == 0
    assert agreement.overlap.tn == 64


@pytest.mark.parametrize("missed", [True, False])
def test_absent_from_one_is_as_bad_as_can_be(missed):
    there, nothing = box((4, 4, 4), (1, 1, 1), (3, 3, 3)), np.zeros((4, 4, 4), dtype=bool)
    agreement = compare(*((there, nothing) if missed else (nothing, there)), (1.0, 1.0, 1.0))
    assert (agreement.overlap.dice, agreement.overlap.iou, agreement.surface_dice) == (0, 0, 0)
    assert agreement.hd95_mm == agreement.mean_distance_mm == math.inf
    assert agreement.volume_difference_ml == pytest.approx(-0.008 if missed else 0.008)
    assert agreement.relative_volume_difference == (-1 if missed else math.inf)


def test_one_slice_is_measured_in_its_plane():
    """Squares of 10 x 10 in one slice, one 2 wider: without the faces, 2 mm lie between two of the sides."""
    narrow, wide = box((1, 20, 20), (0, 5, 5), (1, 15, 15)), box((1, 20, 20), (0, 5, 5), (1, 15, 17))
    agreement = compare(narrow, wide, (5.0, 1.0, 1.0))
    assert agreement.hd95_mm == 2
    assert agreement.reference_ml == pytest.approx(0.5)
    contour = surface_distances(narrow, wide, (5.0, 1.0, 1.0)).reference_weights.sum()
    assert contour == pytest.approx(40, rel=0.1)


def test_single_voxel_image_is_measured():
    voxel = np.ones((1, 1, 1), dtype=bool)
    assert compare(voxel, voxel, (1.0, 1.0, 1.0)).hd95_mm == 0


def test_half_a_percent_of_the_surface_does_not_move_the_95_percent_distance():
    body = box((40, 40, 40), (5, 5, 5), (30, 30, 30))
    speck = body.copy()
    speck[37, 37, 37] = True
    assert hausdorff_distance(surface_distances(body, speck, (1.0, 1.0, 1.0)), 0.95) == 0
    assert hausdorff_distance(surface_distances(body, speck, (1.0, 1.0, 1.0)), 1.0) > 10


def test_masks_of_different_shapes_are_refused():
    with pytest.raises(ValueError, match="different grids"):
        compare(np.zeros((2, 2, 2), dtype=bool), np.zeros((2, 2, 3), dtype=bool), (1.0, 1.0, 1.0))


@settings(max_examples=150, deadline=None)
@given(mask_pairs(), SPACINGS, TOLERANCES)
def test_surface_dice_is_monais(pair, spacing, tolerance):
    reference, predicted = pair
    if not (reference.any() and predicted.any()):
        return
    tensors = [torch.from_numpy(mask)[None, None] for mask in (predicted, reference)]
    theirs = compute_surface_dice(
        *tensors, class_thresholds=[tolerance], include_background=True, spacing=list(spacing), use_subvoxels=True
    )
    ours = surface_dice(surface_distances(reference, predicted, spacing), tolerance)
    assert ours == pytest.approx(float(theirs), abs=1e-5)


@settings(max_examples=100, deadline=None)
@given(mask_pairs())
def test_dice_is_monais(pair):
    reference, predicted = pair
    overlap = count_voxels(reference, predicted)
    tensors = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, reference)]
    theirs = float(compute_dice(*tensors, include_background=True, ignore_empty=True))
    if reference.any():
        assert overlap.dice == pytest.approx(theirs, abs=1e-6)
    assert overlap.tp + overlap.fp + overlap.fn + overlap.tn == reference.size


@settings(max_examples=100, deadline=None)
@given(mask_pairs(), SPACINGS)
def test_distances_are_those_of_brute_force(pair, spacing):
    reference, predicted = pair
    if not (reference.any() and predicted.any()):
        return
    (points, weights), (others, other_weights) = (surface_by_brute_force(mask, spacing) for mask in pair)
    between = cdist(points, others)
    there, back = between.min(axis=1), between.min(axis=0)
    found = surface_distances(reference, predicted, spacing)
    assert hausdorff_distance(found, 1.0) == pytest.approx(max(there.max(), back.max()))
    mean = (there @ weights + back @ other_weights) / (weights.sum() + other_weights.sum())
    assert mean_surface_distance(found) == pytest.approx(mean)


@settings(max_examples=100, deadline=None)
@given(mask_pairs(), SPACINGS)
def test_reference_and_prediction_can_change_places(pair, spacing):
    forth, back = compare(*pair, spacing), compare(*pair[::-1], spacing)
    for name in ("hd95_mm", "mean_distance_mm", "surface_dice"):
        assert getattr(forth, name) == pytest.approx(getattr(back, name), nan_ok=True)
    assert (forth.overlap.fp, forth.overlap.fn) == (back.overlap.fn, back.overlap.fp)
    assert forth.volume_difference_ml == -back.volume_difference_ml


@settings(max_examples=100, deadline=None)
@given(mask_pairs(), SPACINGS, st.integers(0, 4))
def test_distances_grow_with_the_grid_and_ignore_what_is_around(pair, spacing, margin):
    plain = compare(*pair, spacing, 1.2)
    around = compare(*(np.pad(mask, ((0, margin), (margin, 0), (0, 0))) for mask in pair), spacing, 1.2)
    larger = compare(*pair, tuple(2 * mm for mm in spacing), 2.4)
    assert around.hd95_mm == pytest.approx(plain.hd95_mm, nan_ok=True)
    assert around.surface_dice == pytest.approx(plain.surface_dice, nan_ok=True)
    assert larger.hd95_mm == pytest.approx(2 * plain.hd95_mm, nan_ok=True)
    assert larger.surface_dice == pytest.approx(plain.surface_dice, nan_ok=True)
    assert larger.reference_ml == pytest.approx(8 * plain.reference_ml)
