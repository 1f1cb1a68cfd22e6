"""Slices in a detector's report: boxes lie around what they are of, and no false box hides a true one."""

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from numpy.typing import NDArray

from MedAILib.training.detection_pictures import boxes_picture
from MedAILib.training.evaluate_detector import BoxedPicture

LOW, HIGH = np.array([29.5, 19.5]), np.array([49.5, 34.5])  # of what is bright, I and J
ORANGE, BLUE = (230, 159, 0), (86, 180, 233)


def drawn(
    boxes: tuple[tuple[str, NDArray[np.float64], NDArray[np.float64]], ...], orientation: str
) -> NDArray[np.int64]:
    image = np.zeros((60, 80))
    image[20:35, 30:50] = 1
    figure = boxes_picture(BoxedPicture("a", image, boxes, (1.0, 1.5), orientation, 3))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].astype(int)


def places(pixels: NDArray[np.int64], colour: tuple[int, int, int]) -> NDArray[np.int64]:
    return np.argwhere((abs(pixels - colour) < 40).all(axis=2))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "SLA", "PIR", "AIL"])
def test_boxes_are_around_what_they_are_of(orientation: str) -> None:
    pixels = drawn((("reference", LOW, HIGH), ("false", np.array([60.0, 45]), np.array([70.0, 55]))), orientation)
    bright, box = places(pixels, (255, 255, 255)), places(pixels, ORANGE)
    inside = (abs(bright - bright.mean(axis=0)) < 75).all(axis=1)  # no letter
    bright = bright[inside]
    for side in (np.min, np.max):
        assert abs(side(bright, axis=0) - side(box, axis=0)).max() < 6  # pixels


def test_a_true_box_is_seen_above_a_false_one_and_a_found_one_below_it() -> None:
    for kind in ("false", "found"):
        two = [(kind, LOW, HIGH), ("reference", LOW, HIGH)]
        seen = [drawn(boxes, "RAS") for boxes in (tuple(two), tuple(two[::-1]))]
        assert np.array_equal(*seen)
        assert len(places(seen[0], ORANGE)) > 300 and len(places(seen[0], BLUE)) > 30
