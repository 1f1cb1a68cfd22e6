"""How sure several models are together at each voxel: the entropy of the probabilities on average."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from MedAILib.inference.entropy import entropy
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation


def with_uncertainty(found: Segmentation, options: RunOptions) -> Segmentation:
    """What was found with the uncertainty that was asked for, and without probabilities that were not."""
    if not options.uncertainty or found.probabilities is None:
        return found
    unsure = voxel_entropy(found.probabilities, is_exclusive(found))
    if options.probabilities:
        return replace(found, uncertainty=unsure)
    return replace(found, uncertainty=unsure, probabilities=None, probability_names=())


def is_exclusive(found: Segmentation) -> bool:
    """Whether one class excludes the others, so that probabilities add up to 1; else each structure is by itself."""
    return len(found.probability_names) == len(found.labels) + 1 and len(found.layers) == 1


def voxel_entropy(probabilities: NDArray[np.float32], exclusive: bool) -> NDArray[np.float32]:
    """Entropy at each voxel, 0 (sure) to 1 (anything is as likely as anything else).

    Args:
        probabilities: (N, K, J, I), 0 to 1.
        exclusive: they are of N classes of which one is right; else of N structures, and the least sure one counts.

    Returns:
        (K, J, I) float32; worked out slice by slice, so that little memory is taken besides.
    """
    found = np.zeros(probabilities.shape[1:], np.float32)
    for k in range(len(found)):
        found[k] = entropy(torch.from_numpy(np.ascontiguousarray(probabilities[:, k])), exclusive).numpy()
    return found
