"""Slices with boxes for a detector's report: the reference's above the model's, each of a style of its own."""

from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

from MedAILib.training.evaluate_detector import BoxedPicture
from MedAILib.training.plots import PREDICTED, REFERENCE, slice_around, turns

# In the order in which they are drawn, so that no false box hides a true one; what lies below shows between dashes.
STYLES: dict[str, dict[str, Any]] = {
    "false": {"edgecolor": PREDICTED, "linestyle": (0, (1, 1.5)), "linewidth": 1.4},
    "found": {"edgecolor": PREDICTED, "linestyle": "-", "linewidth": 1.8},
    "reference": {"edgecolor": REFERENCE, "linestyle": (0, (4, 2.5)), "linewidth": 1.8},
}


def boxes_picture(picture: BoxedPicture) -> Figure:
    """The square part of the slice around its boxes, as radiologists look at it."""
    swapped, mirrored, upturned, letters = turns(picture.orientation)
    image: NDArray[Any] = picture.image.astype(np.float64)
    spacing = picture.spacing_ji_mm
    if swapped:
        image, spacing = image.T, spacing[::-1]
    image = image[:: -1 if upturned else 1, :: -1 if mirrored else 1]
    size = np.array([image.shape[1] * spacing[1], image.shape[0] * spacing[0]])
    placed = []
    for kind, low_ij, high_ij in picture.boxes:
        ends = (np.array([low_ij, high_ij])[:, :: -1 if swapped else 1] + 0.5) * spacing[::-1]
        ends = np.where([mirrored, upturned], size - ends, ends)
        placed.append((kind, ends.min(axis=0), ends.max(axis=0)))
    lows, highs = (np.array([box[side] for box in placed]).reshape(-1, 2) for side in (1, 2))
    bounds = (lows.min(axis=0), highs.max(axis=0)) if placed else (np.zeros(2), size)
    low, high = (tuple(float(n) for n in place) for place in bounds)
    figure, axes = slice_around(image, spacing, letters, ((low[0], low[1]), (high[0], high[1])))
    for kind, style in STYLES.items():
        for found, corner, far in placed:
            if found == kind:
                axes.add_patch(Rectangle((corner[0], corner[1]), *(far - corner), fill=False, **style))
    return figure
