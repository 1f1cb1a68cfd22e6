"""Folds of images with several labels each: every label in like shares, images that belong together in one fold.

The rarest label is dealt first, image by image (Sechidis, Tsoumakas and Vlahavas 2011); here group by group.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def deal_labels(
    marks: NDArray[np.int64], groups: Sequence[str], folds: int, seed: int
) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """For each fold the places of the images to learn from and to judge by.

    Args:
        marks: (N, labels), 1 where an image has a label.
        groups: (N,), what each image belongs to.
        folds: how many.
        seed: of the order of groups.
    """
    # Images without any label are dealt as if that was one.
    marked = np.concatenate((marks, 1 - marks.any(axis=1, keepdims=True)), axis=1)
    names = list(dict.fromkeys(groups))
    place = {name: number for number, name in enumerate(names)}
    owner = np.array([place[name] for name in groups])
    counts = np.zeros((len(names), marked.shape[1]))
    np.add.at(counts, owner, marked)
    sizes = np.bincount(owner, minlength=len(names)).astype(float)
    order = np.random.default_rng(seed).permutation(len(names))
    wanted, room = np.tile(counts.sum(axis=0) / folds, (folds, 1)), np.full(folds, len(marks) / folds)
    fold_of = np.full(len(names), -1)
    left = counts.sum(axis=0)
    while (fold_of < 0).any():
        label = int(np.argmin(np.where(left > 0, left, np.inf)))
        for group in (x for x in order if fold_of[x] < 0 and counts[x, label] > 0):
            fold = max(range(folds), key=lambda f: (wanted[f, label], room[f]))
            fold_of[group] = fold
            wanted[fold] -= counts[group]
            room[fold] -= sizes[group]
            left -= counts[group]
    each = fold_of[owner]
    return [(np.flatnonzero(each != fold), np.flatnonzero(each == fold)) for fold in range(folds)]
