"""How a segmentation task brings values into one range: words for it, and the rules that hold for what a task names.

Only what MedAI's interpreter knows can be in a task: transforms of MONAI's, and MedAI's own (`models/corrections.py`)
for what MONAI has nothing for, which MONAI runs where MedAI is installed.
"""

import re
from typing import Any

from MedAILib.config_values import Component
from MedAILib.errors import InputError, SpecError
from MedAILib.models.steps import CORRECTIONS, INTENSITIES, OWN_INTENSITIES, preprocessing_steps
from MedAILib.training.recipe import Z_SCORE

# What is asked for by one word.
WORDS: dict[str, dict[str, Any]] = {
    "zscore": Z_SCORE,
    "zscore_nonzero": Z_SCORE | {"nonzero": True},
    "denoise": {"_target_": "MedianSmoothd", "radius": 1},
    "smooth": {"_target_": "GaussianSmoothd", "sigma": 0.7},
    "equalise": {"_target_": "HistogramNormalized", "num_bins": 256, "min": 0, "max": 1},
    "n4": {"_target_": f"{CORRECTIONS}.N4BiasFieldCorrectiond"},
    "clahe": {"_target_": f"{CORRECTIONS}.CLAHEd"},
    "denoise_edges": {"_target_": f"{CORRECTIONS}.EdgePreservingDenoised"},
    "percentiles": {"_target_": "ScaleIntensityRangePercentilesd", "lower": 0.5, "upper": 99.5, "b_min": 0, "b_max": 1}
    | {"clip": True, "channel_wise": True},
}
WINDOW = re.compile(r"window:(-?\d+(?:\.\d+)?):(-?\d+(?:\.\d+)?)")


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
        target = str(entry.get("_target_", ""))
        if target not in OWN_INTENSITIES and target.removesuffix("d") not in INTENSITIES:
            every = (*(f"{known}d" for known in INTENSITIES), *OWN_INTENSITIES)
            raise InputError(
                f"The task's intensity names '{target}', which no model may; it may name {', '.join(every)}."
            )
        arguments = {key: value for key, value in entry.items() if key != "_target_"}
        try:
            preprocessing_steps((Component(target.removesuffix("d") + "d", {"keys": "image", **arguments}),))
        except SpecError as error:
            raise InputError(f"The task's intensity is wrong: {error}") from error


def _entry(word: str) -> dict[str, Any]:
    if match := WINDOW.fullmatch(word):
        low, high = float(match[1]), float(match[2])
        if low >= high:
            raise InputError(f"The window '{word}' is empty; give the lower end first, such as window:-160:240.")
        return {"_target_": "ScaleIntensityRanged", "a_min": low, "a_max": high, "b_min": 0, "b_max": 1, "clip": True}
    if word not in WORDS:
        raise InputError(f"There is no preprocessing '{word}'; known are {', '.join(WORDS)} and window:LOW:HIGH.")
    return dict(WORDS[word])


def own_steps_told(entries: list[dict[str, Any]]) -> str:
    """A sentence for a model card, a space before it, on steps that stock MONAI has no transform for; else empty."""
    own = [str(entry["_target_"]).rpartition(".")[2] for entry in entries if entry["_target_"] in OWN_INTENSITIES]
    if not own:
        return ""
    return (
        f" Stock MONAI has no transform {' or '.join(own)}: it runs this model where MedAI is installed, and not alone."
    )


def intensity_told(entries: list[dict[str, Any]]) -> str:
    """Steps that change values, in words for a card: names as the bundle's config has them, and their arguments."""
    told = []
    for entry in entries:
        arguments = ", ".join(f"{key} {value}" for key, value in entry.items() if key != "_target_")
        name = str(entry["_target_"]).rpartition(".")[2].removesuffix("d")
        told.append(f"{name} ({arguments})" if arguments else name)
    return ", then ".join(told)
