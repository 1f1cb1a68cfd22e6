"""Random changes of a classifier's training images: which there are, how far each may go, and the words for them."""

from typing import Any

from MedAILib.errors import InputError

# Every random change of a training image, and what its number means; 0 leaves it out.
AUGMENTATIONS = {
    "flip": "list of the axes along which an image may be mirrored",
    "rotate": "largest angle, degrees",
    "scale": "largest enlargement or reduction, as a share",
    "translate": "largest shift, as a share of the image's size",
    "elastic": "largest shift of a place by bending, as a share of the image's size",
    "bias_field": "largest logarithm of a slow field that values are multiplied by",
    "gamma": "largest change of the logarithm of gamma",
    "ghosting": "largest share that lines of the spectrum lose",
    "spike": "largest height of stripes, in standard deviations of the image",
    "low_resolution": "least share of voxels along each axis",
    "noise": "largest standard deviation, in those of the image",
    "blur": "largest standard deviation, voxels",
    "mixup": "parameter of the beta distribution",
}
# What a number may be at most.
LARGEST = {
    "rotate": 180,
    "scale": 1,
    "translate": 1,
    "elastic": 0.5,
    "bias_field": 3,
    "ghosting": 1,
    "low_resolution": 1,
}
# How far each goes that is asked for by its name alone.
USUAL: dict[str, Any] = {
    **{"flip": [0], "rotate": 10, "scale": 0.1, "translate": 0.05, "elastic": 0.05, "bias_field": 0.3, "gamma": 0.2},
    **{"ghosting": 0.5, "spike": 0.5, "low_resolution": 0.5, "noise": 0.1, "blur": 1.0, "mixup": 0.2},
}


def augmentation_of(words: str, now: dict[str, Any]) -> dict[str, Any]:
    """Augmentations from names: "rotate,flip" for these alone, "+blur,-flip" for those there are with and without some.

    Args:
        words: names with commas between them; "none", or nothing, for no change.
        now: what the task has.

    Raises:
        InputError: a name that there is not, or some names with a sign and some without.
    """
    names = [name for word in words.split(",") if (name := word.strip()) not in ("", "none")]
    signed = [name for name in names if name[0] in "+-"]
    if signed and len(signed) < len(names):
        plain = next(name for name in names if name not in signed)
        raise InputError(f"--set augmentation={words}: give all names a + or -, or none; {plain} has no sign.")
    changed = dict(now) if signed else {}
    for name in names:
        key = name.lstrip("+-") if signed else name
        if key not in AUGMENTATIONS:
            raise _unknown(key)
        changed.pop(key, None)
        if name[0] != "-":
            changed[key] = USUAL[key]
    return changed


def require_augmentation(name: str, augmentation: dict[str, Any], axes: int) -> None:
    """Raise `InputError` where the task of a name has an augmentation that there is not, or one that goes too far."""
    for key, value in augmentation.items():
        if key not in AUGMENTATIONS:
            raise _unknown(key)
        if key == "flip":
            known = range(axes)
            fits = isinstance(value, (list, tuple)) and all(axis in known for axis in value)
            wanted = f"a list of axes, among {', '.join(map(str, known))}"
        else:
            most = LARGEST.get(key, float("inf"))
            fits = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= most
            wanted = f"a number from 0 to {most:g}" if key in LARGEST else "a number, 0 or above"
        if not fits:
            raise InputError(
                f"The training task {name} has the augmentation {key} = {value}; it has to be {wanted} "
                f"({AUGMENTATIONS[key]})."
            )


def _unknown(name: str) -> InputError:
    return InputError(f"There is no augmentation '{name}' for classifiers; known are {', '.join(AUGMENTATIONS)}.")
