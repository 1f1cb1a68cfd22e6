"""How a plan changes what is learnt from: nnU-Net's augmentation, and mirroring as the names of structures allow."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from MedAILib.training.examine import CaseFacts
from MedAILib.training.plan_grid import ANISOTROPIC
from MedAILib.training.recipe import PARAMETERS, usual_recipe

LONG = 1.5  # nnU-Net's: pictures this much longer than wide are turned but little
DIRECTIONS = (
    ("left", "right", "lh", "rh", "links", "rechts"),
    ("anterior", "posterior", "front", "back", "ventral", "dorsal"),
    ("superior", "inferior", "upper", "lower", "cranial", "caudal", "top", "bottom"),
)


def sides_of(facts: Sequence[CaseFacts], flat: bool) -> list[tuple[str, ...]]:
    """For each of the network's axes the words that tell its two ends apart."""
    if not flat:
        return list(DIRECTIONS)
    found: list[tuple[str, ...]] = [(), ()]
    for fact in facts:
        if fact.is_picture:  # which way it was taken is not told: what is not left and right may be up and down
            return [DIRECTIONS[0], (*DIRECTIONS[1], *DIRECTIONS[2])]
        for axis in range(2):
            found[axis] += DIRECTIONS["RLAPSI".index(fact.orientation[axis]) // 2]
    return found


def planned_mirror(names: Sequence[str], sides: Sequence[tuple[str, ...]] = DIRECTIONS) -> tuple[list[int], str]:
    """The axes along which images may be mirrored, and why: none of them whose sides the names tell apart.

    Args:
        names: of structures.
        sides: for each axis the words that tell its two ends apart.
    """
    words = {word for name in names for word in re.split(r"[\W_\d]+", name.lower())}
    kept = [axis for axis, told in enumerate(sides) if not words & set(told)]
    if len(kept) == len(sides):
        return kept, "all axes: no structure's name speaks of a side"
    ways = ("along rows", "along columns") if len(sides) == 2 else ("left to right", "back to front", "bottom to top")
    out = [way for axis, way in enumerate(ways) if axis not in kept]
    return kept, f"not {' nor '.join(out)}: names of structures tell these sides apart"


def planned_augmentation(
    spacing: Sequence[float], patch: Sequence[int], named_sides: bool
) -> tuple[dict[str, dict[str, Any]], str]:
    recipe = usual_recipe()
    if len(patch) == 2:
        little = named_sides or max(patch) / min(patch) > LONG
        recipe["rotation"]["degrees"] = [15.0 if little else 180.0]
        why = "sides have names" if named_sides else "the patch is long" if little else "pictures have no upright"
        return recipe, f"nnU-Net's for pictures: turned by at most {15 if little else 180} degrees, since {why}"
    coarse = int(np.argmax(spacing))
    if max(patch) / min(patch) > ANISOTROPIC and patch[coarse] == min(patch):
        recipe["rotation"]["degrees"] = [180.0 if axis == coarse else 0.0 for axis in range(3)]
        return recipe, "nnU-Net's; slices are thick, so that turning keeps to their plane"
    return recipe, f"nnU-Net's; also known: {', '.join(sorted(PARAMETERS.keys() - recipe.keys()))}"


def planned_for_boxes(
    spacing: Sequence[float], patch: Sequence[int], named_sides: bool
) -> tuple[dict[str, dict[str, Any]], str]:
    """How images with boxes are changed: turned little, or in their plane where slices are thick, and why."""
    recipe = usual_recipe()
    coarse = int(np.argmax(spacing))
    if max(spacing) / min(spacing) > ANISOTROPIC:
        angle = 15.0 if named_sides else 180.0
        recipe["rotation"]["degrees"] = [angle if axis == coarse else 0.0 for axis in range(3)]
        recipe["translation"]["voxels"] = [0 if axis == coarse else 4 for axis in range(3)]
        return (
            recipe,
            f"nnU-Net's; slices are thick, so that turning keeps to their plane, by at most {angle:g} degrees",
        )
    return (
        recipe,
        f"nnU-Net's; also known: {', '.join(sorted(PARAMETERS.keys() - recipe.keys() - {'elastic', 'mixup'}))}",
    )
