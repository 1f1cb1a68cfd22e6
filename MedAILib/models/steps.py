"""The preprocessing that a bundle may name, translated to our own steps; everything else is refused by name."""

import re
from collections.abc import Callable, Iterator
from functools import partial

import torch
from monai.transforms import (
    AdjustContrast,
    ClipIntensityPercentiles,
    GaussianSmooth,
    HistogramNormalize,
    MedianSmooth,
    NormalizeIntensity,
    ScaleIntensity,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
    ShiftIntensity,
    ThresholdIntensity,
)
from torch import Tensor

from MedAILib.bundle_spec import step_name
from MedAILib.config_values import Component, Lambda, Name, known
from MedAILib.errors import SpecError
from MedAILib.inference.prepare import (
    AddChannels,
    CenterCrop,
    CropForeground,
    Intensity,
    Orient,
    Pad,
    Resize,
    Space,
    Step,
)
from MedAILib.models.arguments import IGNORED, Arguments, count, keys_of, sense, size, three
from MedAILib.models.intensities import anywhere
from MedAILib.reviewed_steps import Merged, click_channels, draws_clicks, is_about_clicks, merged_by, merged_images

# Loading, channel order and types: done before, or without effect on values here.
WITHOUT_EFFECT = (
    "AddChannel",
    "CastToType",
    "DeleteItems",
    "EnsureChannelFirst",
    "EnsureType",
    "FromMetaTensor",
    "Identity",
    "LoadImage",
    "SaveImage",
    "SelectItems",
    "ToDevice",
    "ToMetaTensor",
    "ToNumpy",
    "ToTensor",
    "VistaPreTransform",  # concerns a user's prompts
)
INTENSITIES: dict[str, type] = {
    "AdjustContrast": AdjustContrast,
    "ClipIntensityPercentiles": ClipIntensityPercentiles,
    "GaussianSmooth": GaussianSmooth,
    "HistogramNormalize": HistogramNormalize,
    "MedianSmooth": MedianSmooth,
    "NormalizeIntensity": NormalizeIntensity,
    "ScaleIntensity": ScaleIntensity,
    "ScaleIntensityRange": ScaleIntensityRange,
    "ScaleIntensityRangePercentiles": ScaleIntensityRangePercentiles,
    "ShiftIntensity": ShiftIntensity,
    "ThresholdIntensity": ThresholdIntensity,
}
# MedAI's own, which MONAI has nothing like; a bundle names them by this place, and MONAI finds them there.
CORRECTIONS = "MedAILib.models.corrections"
OWN_INTENSITIES = tuple(
    f"{CORRECTIONS}.{name}d" for name in ("N4BiasFieldCorrection", "EdgePreservingDenoise", "CLAHE")
)
# Number formats that hold what an image has; others would cut it off.
FLOATS = ("float", "float16", "float32", "float64", "half", "double", "None")
# The letters of an axis's two ends, as MONAI's `Orientation` has them by default.
DEFAULT_LABELS = [["L", "R"], ["P", "A"], ["I", "S"]]


def preprocessing_steps(components: tuple[Component, ...], axes: int = 3) -> tuple[Step, ...]:
    """Translate a bundle's preprocessing; steps for other entries than the image (a label's) are left out.

    Args:
        components: the transforms in order.
        axes: how many spatial axes an image has for the model: 2 for slices, which are prepared each by itself.

    Raises:
        SpecError: a transform, or an argument of one, that is not supported; the sentence names it.
    """
    steps: list[Step] = []
    for component, image in _of_image(components):
        if draws_clicks(component):
            steps.append(AddChannels(click_channels(components)))
        elif (step := _step(component, image, axes)) is not None:
            steps.append(step)
    return tuple(steps)


def is_resized_by_area(steps: tuple[Step, ...]) -> bool:
    """Whether images are resampled by means of voxels and nothing else, and so are brought back by means, too."""
    moving = [step for step in steps if not isinstance(step, (Orient, Intensity, AddChannels))]
    return len(moving) == 1 and isinstance(moving[0], Resize) and moving[0].area


def _of_image(components: tuple[Component, ...]) -> Iterator[tuple[Component, str]]:
    """The steps that work on the image, or on each of those that are put together as its channels; with its entry.

    Raises:
        SpecError: images that are put together are not treated alike before.
    """
    image, merged = _image_key(components), merged_images(components)
    for component in components:
        if (now := merged_by(component)) is not None:
            if now != merged or image != now.keys[0]:
                raise SpecError(f"The model's '{component.target}' puts other images together than it has loaded.")
            image = now.into
        elif not is_about_clicks(component) and image in keys_of(component, image):
            if merged is not None and image != merged.into:
                _require_alike(component, merged)
            yield component, image


def _step(component: Component, image: str, axes: int) -> Step | None:
    """One transform of the image; None for one that changes nothing here."""
    name = step_name(component)
    if name == "CastToType":
        _require_float(component)
    if name in WITHOUT_EFFECT:
        return None
    if name in INTENSITIES or name in OWN_INTENSITIES:
        change = intensity_step(name, component)
        return Intensity(partial(_of_slice, change) if axes == 2 else change)
    if name in _SPATIAL:
        with sense(component):
            return _SPATIAL[name](Arguments(component, image), axes)
    if name == "Lambda" and isinstance(component.arguments.get("func"), Lambda):
        told = component.arguments["func"].text
        raise SpecError(f"The model's '{component.target}' would execute '{told}', which MedAI does not do.")
    raise SpecError(f"The model's preprocessing uses '{component.target}', which MedAI does not do.")


def _require_alike(component: Component, merged: Merged) -> None:
    """Raise `SpecError` unless a step before images are put together does one and the same to each of them."""
    alike = set(merged.keys) <= set(keys_of(component, "")) and step_name(component) not in (
        *INTENSITIES,
        *OWN_INTENSITIES,
    )
    if not alike:
        raise SpecError(f"The model's '{component.target}' does not treat all of its images alike, or by their values.")


def _require_float(component: Component) -> None:
    for wanted in [value] if not isinstance(value := known(component.arguments.get("dtype")), list) else value:
        name = wanted.dotted if isinstance(wanted, Name) else str(wanted)
        if name.rpartition(".")[2] not in FLOATS:
            raise SpecError(f"The model's '{component.target}' casts to {name}, which MedAI does not do.")


def _image_key(components: tuple[Component, ...]) -> str:
    """The entry that holds the image: the first that is loaded."""
    loaded = next(
        (c.arguments["keys"] for c in components if step_name(c) == "LoadImage" and c.arguments.get("keys")), "image"
    )
    return str(loaded[0]) if isinstance(loaded, (list, tuple)) else str(loaded)


def _require_linear(arguments: Arguments, default: str) -> None:
    mode = arguments.take_for_key("mode", default)
    mode = mode[-1] if isinstance(mode, (list, tuple)) and mode else mode
    if mode not in ("bilinear", "trilinear", "linear"):
        raise SpecError(f"The model's '{arguments.target}' interpolates by '{mode}', which MedAI does not do.")


def _orient(arguments: Arguments, axes: int) -> Step:
    codes, labels = arguments.take("axcodes", None), arguments.take("labels", None)
    arguments.finish()
    if axes != 3:
        raise SpecError(f"The model's '{arguments.target}' turns slices, which MedAI does not do.")
    pairs = [next((pair for pair in ("RL", "AP", "SI") if code in pair), None) for code in str(codes)]
    if sorted(str(pair) for pair in pairs) != ["AP", "RL", "SI"]:
        raise SpecError(f"The model's orientation {codes!r} is not three letters such as 'RAS'.")
    if labels is not None and [list(pair) for pair in labels] != DEFAULT_LABELS:
        raise SpecError(f"The model's orientation has letters of its own ({labels!r}), which MedAI does not do.")
    return Orient(str(codes))


def _space(arguments: Arguments, axes: int) -> Step:
    pixdim = arguments.take("pixdim", None)
    if isinstance(pixdim, (list, tuple)):  # as MONAI does: too many are cut off, the last stands for those that lack
        pixdim = [*pixdim, *pixdim[-1:] * axes][:axes]
    step = Space(three(pixdim, float, axes))
    _require_linear(arguments, "bilinear")
    if arguments.take("padding_mode", "border") != "border" or arguments.take("diagonal", False):
        raise SpecError("The model's Spacing pads or aligns in a way that MedAI does not do.")
    arguments.drop("align_corners", "recompute_affine", "ensure_same_shape")
    arguments.finish()
    return step


def _resize(arguments: Arguments, axes: int) -> Step:
    shape, area = three(arguments.take("spatial_size", None), size, axes), arguments.left.get("mode", "area") == "area"
    step = Resize(shape, area)
    if area:
        arguments.drop("mode")
    else:
        _require_linear(arguments, "area")
    if arguments.take("size_mode", "all") != "all" or arguments.take("anti_aliasing", False):
        raise SpecError("The model's Resize works in a way that MedAI does not do.")
    if arguments.take("align_corners", None):
        raise SpecError("The model's Resize aligns corners, which MedAI does not do.")
    arguments.finish()
    return step


def _crop_foreground(arguments: Arguments, axes: int) -> Step:
    if arguments.take("source_key", arguments.key) != arguments.key:
        raise SpecError("The model's CropForeground looks at another entry than the image, which MedAI does not do.")
    margin = three(arguments.take("margin", 0), size, axes)
    if min(margin) < 0:
        raise SpecError(f"The model's '{arguments.target}' has a margin of {list(margin)} voxels; it is at least 0.")
    divisible = three(arguments.take("k_divisible", 1), count, axes, 1)
    smaller = bool(arguments.take("allow_smaller", False))
    mode = arguments.take_for_key("mode", "constant")
    pads = max(divisible) > 1 or (max(margin) > 0 and not smaller)
    if pads and mode not in ("constant", ["constant"]):
        raise SpecError(f"The model's '{arguments.target}' pads by '{mode}', which MedAI does not do.")
    step = CropForeground(margin, divisible, smaller, _foreground_above(arguments))
    arguments.drop("start_coord_key", "end_coord_key")
    arguments.finish()
    return step


def _foreground_above(arguments: Arguments) -> float:
    """The value above which a voxel counts as foreground, from a function that says no more than that."""
    told = arguments.take("select_fn", None)
    if told is None:
        return 0.0
    match = _ABOVE.fullmatch(told.text) if isinstance(told, Lambda) else None
    if match is None:
        raise SpecError(f"The model's '{arguments.target}' would execute {told!r}, which MedAI does not do.")
    return float(match[2])


_ABOVE = re.compile(r"lambda (\w+): \1 > (-?\d+(?:\.\d+)?)")


def _constant_padding(arguments: Arguments) -> float:
    if arguments.take("mode", "constant") != "constant" or arguments.take("method", "symmetric") != "symmetric":
        raise SpecError(f"The model's '{arguments.target}' pads in a way that MedAI does not do.")
    return float(arguments.take("value", arguments.take("constant_values", 0.0)))


def _spatial_pad(arguments: Arguments, axes: int) -> Step:
    value = _constant_padding(arguments)
    step = Pad(shape=three(arguments.take("spatial_size", None), size, axes), value=value)
    arguments.finish()
    return step


def _divisible_pad(arguments: Arguments, axes: int) -> Step:
    value = _constant_padding(arguments)
    step = Pad(k=three(arguments.take("k", None), count, axes, 1), value=value)
    arguments.finish()
    return step


def _center_crop(arguments: Arguments, axes: int) -> Step:
    step = CenterCrop(three(arguments.take("roi_size", None), size, axes))
    arguments.finish()
    return step


_SPATIAL: dict[str, Callable[[Arguments, int], Step]] = {
    "CenterSpatialCrop": _center_crop,
    "CropForeground": _crop_foreground,
    "DivisiblePad": _divisible_pad,
    "Orientation": _orient,
    "Resize": _resize,
    "Spacing": _space,
    "SpatialPad": _spatial_pad,
}


def _of_slice(change: Callable[[Tensor], Tensor], image: Tensor) -> Tensor:
    """A change of values that looks at neighbours sees a slice (C, X, Y, 1) as the picture that it is."""
    return change(image[..., 0])[..., None] if image.shape[-1] == 1 else change(image)


def intensity_step(name: str, component: Component) -> Callable[[Tensor], Tensor]:
    """One of `INTENSITIES` or `OWN_INTENSITIES` as a function of an image (C, ...).

    Raises:
        SpecError: arguments that it does not take.
    """
    arguments = {key: known(value) for key, value in component.arguments.items() if key not in IGNORED}
    with sense(component):
        transform = anywhere((_correction(name) if name in OWN_INTENSITIES else INTENSITIES[name])(**arguments))

    def change(image: Tensor) -> Tensor:
        with sense(component):
            return torch.as_tensor(transform(image), dtype=torch.float32)

    return change


def _correction(name: str) -> type:
    from MedAILib.models import corrections  # noqa: PLC0415  SimpleITK takes half a second, and few models need it

    return {f"{CORRECTIONS}.{kind.__name__}d": kind for kind in corrections.CORRECTIONS}[name]
