"""Segment statistics against a plain count of every label."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from MedAILib.errors import InputError
from MedAILib.results import Label, Segmentation
from MedAILib.statistics import segment_statistics
from MedAILib.volume import Geometry, Volume

SHAPE = (3, 4, 5)
GRID = Geometry(SHAPE, np.diag([0.5, 2.0, 10.0, 1.0]))
LABELS = tuple(Label(value, f"label {value}") for value in (1, 2, 300))


def statistics_of(labels, image, known=LABELS):
    return segment_statistics(Segmentation(labels[None], known, GRID), Volume(image[None], GRID))


@settings(deadline=None, max_examples=100)
@given(
    arrays(np.uint16, SHAPE, elements=st.sampled_from([0, 1, 2, 7, 300])),
    arrays(np.float32, SHAPE, elements=st.floats(-1e4, 1e4, width=32)),
)
def test_statistics_are_those_of_a_plain_count(labels, image):
    for row in statistics_of(labels, image):
        values = image[labels == row.value].astype(float)
        assert row.voxels == values.size
        assert math.isclose(row.volume_ml, values.size * 0.01)
        if values.size:
            expected = values.mean(), values.std(), values.min(), values.max()
            assert np.allclose((row.mean, row.sd, row.minimum, row.maximum), expected, atol=1e-3)


def test_label_without_voxels_is_listed_without_intensities():
    row = statistics_of(np.zeros(SHAPE, np.uint8), np.ones(SHAPE))[2]
    assert (row.name, row.value, row.voxels, row.volume_ml) == ("label 300", 300, 0, 0.0)
    assert (row.mean, row.sd, row.minimum, row.maximum) == (None, None, None, None)


def test_value_that_the_layer_cannot_hold_has_no_voxels():
    assert statistics_of(np.ones(SHAPE, np.uint8), np.ones(SHAPE))[2].voxels == 0


def test_nan_and_infinite_voxels_count_for_volume_alone():
    image = np.full(SHAPE, 3.0)
    image[0, 0, :2] = np.nan, np.inf
    row = statistics_of(np.ones(SHAPE, np.uint8), image)[0]
    assert (row.voxels, row.mean, row.sd, row.maximum) == (60, 3.0, 0.0, 3.0)


def test_segment_of_nan_voxels_alone_has_no_mean():
    row = statistics_of(np.ones(SHAPE, np.uint8), np.full(SHAPE, np.nan))[0]
    assert (row.voxels, row.mean) == (60, None)


def test_deviation_survives_a_large_offset():
    image = 1e9 + (np.arange(60).reshape(SHAPE) % 2)
    assert statistics_of(np.ones(SHAPE, np.uint8), image)[0].sd == pytest.approx(0.5)


def test_label_spread_over_many_chunks_is_summed_up():
    shape = (7, 300, 300)
    grid = Geometry(shape, np.eye(4))
    labels = np.random.default_rng(1).integers(0, 4, shape, dtype=np.uint8)
    image = np.random.default_rng(2).integers(-1000, 1000, shape, dtype=np.int16)
    rows = segment_statistics(Segmentation(labels[None], LABELS, grid), Volume(image[None], grid))
    for row in rows[:2]:
        values = image[labels == row.value].astype(float)
        assert row.voxels == values.size
        assert np.allclose(
            (row.mean, row.sd, row.minimum, row.maximum), (values.mean(), values.std(), values.min(), values.max())
        )


def test_each_label_counts_in_its_own_layer():
    layers = np.zeros((2, *SHAPE), np.uint8)
    layers[0, 0], layers[1, :2] = 1, 1
    known = (Label(1, "organ"), Label(1, "tumour", layer=1))
    rows = segment_statistics(Segmentation(layers, known, GRID), Volume(np.ones((1, *SHAPE)), GRID))
    assert [row.voxels for row in rows] == [20, 40]


def test_first_channel_is_measured():
    image = np.stack([np.full(SHAPE, 2.0), np.full(SHAPE, 9.0)])
    segmentation = Segmentation(np.ones((1, *SHAPE), np.uint8), LABELS, GRID)
    assert segment_statistics(segmentation, Volume(image, GRID))[0].mean == 2.0


def test_image_on_another_grid_is_refused():
    other = Volume(np.ones((1, *SHAPE)), Geometry(SHAPE, np.eye(4)), "moved")
    with pytest.raises(InputError, match="moved"):
        segment_statistics(Segmentation(np.ones((1, *SHAPE), np.uint8), LABELS, GRID), other)
