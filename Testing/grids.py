"""Grids and transforms as they come: every axis order, either handedness, oblique, anisotropic, nested."""

import itertools

import numpy as np
from hypothesis import strategies as st
from mrml import rotation

AXIS_ORDERS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((-1, 1), repeat=3)
]


def along_axes(order, signs, spacing):
    """The matrix of a grid whose axes I, J, K lie along the world axes `order`, in the directions `signs`."""
    matrix = np.zeros((4, 4))
    matrix[3, 3] = 1
    for column in range(3):
        matrix[order[column], column] = signs[column] * spacing[column]
    return matrix


@st.composite
def matrices(draw):
    """A voxel-to-RAS matrix: any axis order, 0.3 to 7 mm, tilted by up to 40 degrees, anywhere."""
    spacing = draw(st.tuples(*[st.floats(0.3, 7.0)] * 3))
    tilt = draw(st.one_of(st.just(0.0), st.floats(-40.0, 40.0)))
    axis = draw(st.sampled_from([(1, 0, 0), (0, 1, 0), (1, 2, 3)]))
    matrix = rotation(axis, tilt) @ along_axes(*draw(st.sampled_from(AXIS_ORDERS)), spacing)
    matrix[:3, 3] = draw(st.tuples(*[st.floats(-300.0, 300.0)] * 3))
    return matrix


@st.composite
def parents(draw):
    """None to three nested linear transforms, a mirroring one among them at times."""
    found = []
    for _ in range(draw(st.integers(0, 3))):
        matrix = rotation((2, -1, 1), draw(st.floats(-180.0, 180.0)))
        matrix = matrix @ np.diag([draw(st.sampled_from([1.0, 1.0, -1.0])), draw(st.floats(0.5, 2.0)), 1.0, 1.0])
        matrix[:3, 3] = draw(st.tuples(*[st.floats(-100.0, 100.0)] * 3))
        found.append(matrix)
    return found
