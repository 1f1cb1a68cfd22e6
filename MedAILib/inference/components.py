"""Findings from a segmentation: a box around every connected part of a structure."""

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects, generate_binary_structure, label, maximum

from MedAILib.detections import Box, Detections
from MedAILib.errors import InputError
from MedAILib.results import Segmentation


def component_boxes(segmentation: Segmentation, smallest_ml: float = 0.0) -> Detections:
    """A box around each part of each structure whose voxels touch, by face, edge or corner.

    A box's faces are the outer faces of its voxels. Its score is the highest probability of the structure in it where
    the segmentation has probabilities, else 1.

    Args:
        segmentation: labels, and probabilities or none.
        smallest_ml: parts below this volume are left out.

    Raises:
        InputError: a volume below 0.
    """
    if not smallest_ml >= 0:
        raise InputError(f"The smallest finding's volume is at least 0 mL, not {smallest_ml}.")
    least = smallest_ml / segmentation.geometry.voxel_volume_ml - 1e-6  # voxels; what rounding takes is given back
    boxes = []
    for structure in segmentation.labels:
        mask = segmentation.mask(structure)
        parts, places = touching_parts(mask)
        count = len(places)
        if not count:
            continue
        sizes = np.bincount(parts.ravel(), minlength=count + 1)[1:]
        scores = _scores(segmentation, structure.name, parts, count)
        for number, (k, j, i) in enumerate(places):
            if sizes[number] >= least:
                low, high = (i.start - 0.5, j.start - 0.5, k.start - 0.5), (i.stop - 0.5, j.stop - 0.5, k.stop - 0.5)
                boxes.append(Box(structure.name, scores[number], low, high))
    names = tuple(structure.name for structure in segmentation.labels)
    codes = tuple(None if x.terminology is None else x.terminology.type for x in segmentation.labels)
    return Detections(tuple(boxes), names, segmentation.geometry, 0.0, dict(segmentation.provenance), codes)


def touching_parts(mask: NDArray[np.bool_]) -> tuple[NDArray[np.int32], list[tuple[slice, ...]]]:
    """The parts of a mask (K, J, I) whose voxels touch, by face, edge or corner.

    Returns:
        an array of the mask's shape with the parts' numbers, from 1 on; the box of each.
    """
    parts, _ = label(mask, generate_binary_structure(3, 3))
    return parts, find_objects(parts)


def _scores(segmentation: Segmentation, name: str, parts: NDArray[np.int32], count: int) -> list[float]:
    if segmentation.probabilities is None or name not in segmentation.probability_names:
        return [1.0] * count
    probability = segmentation.probabilities[segmentation.probability_names.index(name)]
    return [float(np.clip(score, 0, 1)) for score in maximum(probability, parts, range(1, count + 1))]
