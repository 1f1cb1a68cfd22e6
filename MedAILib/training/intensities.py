"""How a segmentation task brings values into one range: words for it, and the rules that hold for what a task names.

Only what MONAI has as a transform, and MedAI's interpreter knows, can be in a task: a model that was trained behind
anything else would run nowhere else.
"""

import re
from typing import Any

from MedAILib.config_values import Component
from MedAILib.errors import InputError, SpecError
from MedAILib.models.steps import INTENSITIES, preprocessing_steps
from MedAILib.training.recipe import Z_SCORE

# What is asked for by one word.
WORDS: dict[str, dict[str, Any]] = {
    "zscore": Z_SCORE,
    "zscore_nonzero": Z_SCORE | {"nonzero": True},
    "denoise": {"_target_": "MedianSmoothd", "radius": 1},
    "smooth": {"_target_": "GaussianSmoothd", "sigma": 0.7},
    "equalise": {"_target_": "HistogramNormalized", "num_bins": 256, "min": 0, "max": 1},
    "percentiles": {"_target_": "ScaleIntensityRangePercentilesd", "lower": 0.5, "upper": 99.5, "b_min": 0, "b_max": 1}
    | {"clip": True, "channel_wise": True},
}
WINDOW = re.compile(r"window:(-?\d+(?:\.\d+)?):(-?\d+(?:\.\d+)?)")
# What the field does that no transform of MONAI's does, and what comes closest.
ELSEWHERE = {
    "n4": "no transform of MONAI's corrects a bias field by N4, so that no other program could run the model; correct "
    "the images before training and before each use, or train with the augmentation bias_field",
    "clahe": "no transform of MONAI's equalises histograms part by part, so that no other program could run the model; "
    "use equalise, which does it over the whole image",
}


def intensity_entries(words: list[Any]) -> list[dict[str, Any]]:
    """A task's `intensity` from words such as "denoise", "window:-160:240" and "zscore", or from entries as they are.

    Raises:
        InputError: a word that there is not, or a transform that can't be in a model.
    """
    entries = [dict(word) if isinstance(word, dict) else _entry(str(word)) for word in words]
    require_runnable(entries)
    return entries


def require_runnable(entries: list[dict[str, Any]]) -> None:
    """Raise `InputError` where MedAI's interpreter, and so a model that results, would not do one of the steps."""
    for entry in entries:
        name = str(entry.get("_target_", "")).removesuffix("d")
        if name not in INTENSITIES:
            raise InputError(
                f"The task's intensity names '{entry.get('_target_')}', which no model may; it may name "
                f"{', '.join(f'{known}d' for known in INTENSITIES)}."
            )
        arguments = {key: value for key, value in entry.items() if key != "_target_"}
        try:
            preprocessing_steps((Component(f"{name}d", {"keys": "image", **arguments}),))
        except SpecError as error:
            raise InputError(f"The task's intensity is wrong: {error}") from error


def _entry(word: str) -> dict[str, Any]:
    if match := WINDOW.fullmatch(word):
        low, high = float(match[1]), float(match[2])
        if low >= high:
            raise InputError(f"The window '{word}' is empty; give the lower end first, such as window:-160:240.")
        return {"_target_": "ScaleIntensityRanged", "a_min": low, "a_max": high, "b_min": 0, "b_max": 1, "clip": True}
    if word.lower() in ELSEWHERE:
        raise InputError(f"'{word}' can't be part of a model: {ELSEWHERE[word.lower()]}.")
    if word not in WORDS:
        raise InputError(f"There is no preprocessing '{word}'; known are {', '.join(WORDS)} and window:LOW:HIGH.")
    return dict(WORDS[word])
