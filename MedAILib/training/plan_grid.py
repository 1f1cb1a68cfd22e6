"""How fine and how large a plan's network sees: spacing, patch and batch, by nnU-Net's published rules.

Rules: Isensee et al., Nature Methods 18, 203-211 (2021), supplementary note 2. What differs is in the reasons.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from MedAILib.errors import InputError
from MedAILib.training.architectures import feature_values, levels_for, multiple_of
from MedAILib.training.choices import ASKED, short
from MedAILib.training.examine import CaseFacts

ANISOTROPIC = 3.0
# Feature values that training holds for each GB, from nnU-Net's own reference: 560 million for 8 GB.
VALUES_PER_GB = 70e6
LARGEST_BATCH = 16
LARGEST_ON_CPU = {2: 8, 3: 2}  # by axes
LARGEST_PATCH = {2: 2048**2, 3: 256**3}  # voxels that nnU-Net starts from, by axes
NUMBERS = {2: "two", 3: "three"}


@dataclass(frozen=True)
class Budget:
    """What a training may take: memory for feature values, features at the finest level, steps in all."""

    name: str
    memory_gb: float
    base: int
    steps: int


CPU = Budget("cpu", 1.0, 16, 5_000)
GPU = Budget("gpu", 8.0, 32, 25_000)


@dataclass(frozen=True)
class Wishes:
    """What the user decides instead of the rules; None leaves it to them."""

    network: str | None = None
    patch: list[int] | None = None
    spacing_mm: list[float] | None = None
    batch: int | None = None
    memory_gb: float | None = None


@dataclass(frozen=True)
class Grid:
    """The grid that all images are brought to.

    Args:
        spacing: of the network's axes in mm; 1 for each where pixels are taken as they lie.
        as_it_lies: whether images are taken pixel by pixel.
        median: size of the median image on this grid, in voxels.
        reason: for the spacing.
    """

    spacing: list[float]
    as_it_lies: bool
    median: Any
    reason: str


def planned_grid(facts: Sequence[CaseFacts], flat: bool, wishes: Wishes) -> Grid:
    """The grid for images that are all pictures or slices (`flat`), or volumes.

    Raises:
        InputError: a spacing is asked for that does not suit the images.
    """
    spacings = np.array([_on_network(fact, fact.spacing_kji_mm[::-1], flat) for fact in facts])
    shapes = np.array([_on_network(fact, fact.shape_kji[::-1], flat) for fact in facts])
    as_it_lies = flat and wishes.spacing_mm is None and any(fact.is_picture for fact in facts)
    if as_it_lies:
        spacings = np.ones_like(spacings)
        spacing, reason = [1.0, 1.0], "pixel by pixel: pictures (PNG, JPEG) don't tell how large a pixel is"
    elif wishes.spacing_mm is None:
        spacing, reason = _spacing(spacings, shapes)
    else:
        spacing, reason = _asked_spacing(wishes.spacing_mm, spacings.shape[1]), ASKED
    return Grid(spacing, as_it_lies, np.median(shapes * spacings / spacing, axis=0), reason)


def planned_patch(network: str, grid: Grid, budget: Budget, wished: list[int] | None) -> tuple[list[int], str]:
    """The patch that a network is shown, and why.

    Raises:
        InputError: the one that is asked for does not suit the images.
    """
    if wished is None:
        return _patch(network, grid.spacing, grid.median, budget)
    return _rounded(network, grid.spacing, _asked_patch(wished, len(grid.spacing))), ASKED


def planned_batch(budget: Budget, held: float, voxels: float, patch: Sequence[int]) -> tuple[int, str]:
    fits = int(budget.memory_gb * VALUES_PER_GB / held)
    share = round(voxels * 0.05 / math.prod(patch))
    most = LARGEST_BATCH if budget.name == "gpu" else LARGEST_ON_CPU[len(patch)]
    return max(min(fits, share, most), 2), (
        f"what fits into {budget.memory_gb:g} GB, at most a twentieth of all voxels, at least 2"
        + (f"; on a CPU at most {most}, since a larger one only makes steps slower" if budget.name == "cpu" else "")
    )


def _on_network(fact: CaseFacts, values: Sequence[float], flat: bool) -> list[float]:
    """Values for I, J, K in the order of the network's axes: I and J of pictures, else R, A and S."""
    return [float(value) for value in values[:2]] if flat else _on_ras(fact.orientation, values)


def _on_ras(orientation: str, values: Sequence[float]) -> list[float]:
    """Values for I, J, K in the order of the axes R, A, S, given where I, J, K grow ("LPS", "SAR")."""
    axes = ["RLAPSI".index(letter) // 2 for letter in orientation]
    return [float(values[axes.index(axis)]) for axis in range(3)]


def _spacing(spacings: Any, shapes: Any) -> tuple[list[float], str]:
    """nnU-Net's target: the median, and along a coarse axis its 10th percentile."""
    target = np.median(spacings, axis=0)
    size = np.median(shapes, axis=0)
    coarse = int(np.argmax(target))
    others = [axis for axis in range(len(target)) if axis != coarse]
    if (
        len(target) == 3
        and target[coarse] > ANISOTROPIC * target[others].max()
        and size[coarse] * ANISOTROPIC < size[others].min()
    ):
        low = float(np.percentile(spacings[:, coarse], 10))
        target[coarse] = max(low, float(target[others].max()) + 1e-5)
        reason = "the median; along the coarse axis, over three times the others, the 10th percentile"
    else:
        reason = "the median of all cases along each axis"
    return [round(float(mm), 5) for mm in target], reason


def _asked_spacing(spacing: list[float], axes: int) -> list[float]:
    if len(spacing) != axes:
        raise InputError(
            f"--set spacing has {len(spacing)} numbers, and the images have {axes} axes; give {NUMBERS[axes]} numbers."
        )
    return spacing


def _asked_patch(patch: list[int], axes: int) -> list[int]:
    if len(patch) != axes or any(not isinstance(n, int) or n < 4 for n in patch):
        example = ",".join(["64"] * axes)
        raise InputError(
            f"The patch {patch} is none: give {NUMBERS[axes]} whole numbers of at least 4, as in --set patch={example}."
        )
    return patch


def _rounded(network: str, spacing: Sequence[float], patch: Sequence[int]) -> list[int]:
    """The patch, each side up to what the network's levels divide it into."""
    sides = [int(n) for n in patch]
    for _ in range(3):  # more voxels may mean more levels
        multiple = multiple_of(network, levels_for(spacing, sides))
        sides = [math.ceil(n / m) * m for n, m in zip(sides, multiple, strict=True)]
    if sides == list(multiple):  # normalisation needs more than one voxel at the coarsest level
        sides[sides.index(max(sides))] *= 2
    return sides


def _patch(network: str, spacing: Sequence[float], median: Any, budget: Budget) -> tuple[list[int], str]:
    """nnU-Net's: start from a cube (for pictures: a square) in mm no larger than the median image.

    It is shrunk until two fit into the budget.
    """
    inverse, axes = 1 / np.array(spacing), len(spacing)
    start = inverse * (LARGEST_PATCH[axes] / inverse.prod()) ** (1 / axes)
    sides = [max(round(min(a, b)), 8) for a, b in zip(start, median, strict=True)]
    patch = _rounded(network, spacing, sides)
    shrunk = False
    while 2 * feature_values(levels_for(spacing, patch), patch, budget.base) > budget.memory_gb * VALUES_PER_GB:
        multiple = multiple_of(network, levels_for(spacing, patch))
        able = [axis for axis in range(axes) if patch[axis] > multiple[axis]]
        if not able:
            break
        axis = max(able, key=lambda a: patch[a] / median[a])
        sides = list(patch)
        sides[axis] -= multiple[axis]
        patch, before = _rounded(network, spacing, sides), patch
        shrunk = True
        if patch == before:
            break
    reason = f"the median image has {short([round(float(n)) for n in median])} voxels at this spacing"
    fits = (
        f"; shrunk until two patches fit into {budget.memory_gb:g} GB" if shrunk else "; it fits whole into the budget"
    )
    return patch, reason + fits
