"""What a plan does with values: steps that bring them into one range, by what channels are called and images hold."""

import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from MedAILib.training.examine import CaseFacts
from MedAILib.training.recipe import Z_SCORE


def modality_of(channels: Sequence[str]) -> str:
    """What the channels' names tell of the modality: "CT", "MR" or "OT"."""
    if all(_is_ct(name) for name in channels):
        return "CT"
    words = {word for name in channels for word in re.split(r"\W+", name.lower())}
    return "MR" if words & {"mri", "mr", "t1", "t1w", "t2", "t2w", "flair", "adc", "t1gd", "t1c"} else "OT"


def planned_intensity(channels: Sequence[str], facts: Sequence[CaseFacts]) -> tuple[list[dict[str, Any]], bool, str]:
    """Steps that bring values into one range, whether images are cut to what is above zero, and why."""
    crop = float(np.median([fact.nonzero for fact in facts])) < 0.75 and min(fact.lowest for fact in facts) >= 0
    if all(_is_ct(name) for name in channels):
        values = np.concatenate([fact.values.ravel() for fact in facts]).astype(np.float64)
        low, high = (float(x) for x in np.percentile(values, (0.5, 99.5)))
        mean, sd = float(values.mean()), max(float(values.std()), 1e-8)
        entry = {"_target_": "ScaleIntensityRanged", "a_min": round(low, 2), "a_max": round(max(high, low + 1), 2)} | {
            "b_min": round((low - mean) / sd, 5),
            "b_max": round((max(high, low + 1) - mean) / sd, 5),
            "clip": True,
        }
        return (
            [entry],
            crop,
            (
                f"CT: clipped to {low:.0f} to {high:.0f} HU (0.5 and 99.5 % of what lies inside structures), "
                f"their mean {mean:.0f} to 0 and their standard deviation {sd:.0f} to 1"
            ),
        )
    mixed = any(_is_ct(name) for name in channels)
    entry = dict(Z_SCORE) | ({"nonzero": True} if crop else {})
    return (
        [entry],
        crop,
        "each channel of each image to mean 0 and standard deviation 1"
        + (", inside its nonzero voxels" if crop else "")
        + ("; CT is not clipped, since MONAI's transforms clip all channels alike" if mixed else ""),
    )


def _is_ct(name: str) -> bool:
    return name.strip().lower() in ("ct", "cta", "ct image")
