"""How sure a model is at each voxel: the entropy of what it finds likely there."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from MedAILib.request import RunOptions
from MedAILib.results import Segmentation


def with_probabilities(options: RunOptions) -> RunOptions:
    """The options of a run that has what an uncertainty is worked out from."""
    return replace(options, probabilities=True) if options.uncertainty else options


def with_uncertainty(found: Segmentation, options: RunOptions) -> Segmentation:
    """What was found with the uncertainty that was asked for, and without probabilities that were not."""
    if not options.uncertainty or found.probabilities is None:
        return found
    entropy = voxel_entropy(found.probabilities, is_exclusive(found))
    if options.probabilities:
        return replace(found, uncertainty=entropy)
    return replace(found, uncertainty=entropy, probabilities=None, probability_names=())


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
    entropy = np.zeros(probabilities.shape[1:], np.float32)
    for k in range(probabilities.shape[1]):
        likely = probabilities[:, k].astype(np.float32)
        if exclusive:
            entropy[k] = _weighted(likely).sum(axis=0) / np.log(max(len(likely), 2))
        else:
            entropy[k] = (_weighted(likely) + _weighted(1 - likely)).max(axis=0) / np.log(2)
    return np.clip(entropy, 0, 1, out=entropy)


def _weighted(likely: NDArray[np.float32]) -> NDArray[np.float32]:
    """-p log p, which is 0 where p is."""
    safe = np.where(likely > 0, likely, np.float32(1))
    return -safe * np.log(safe)
