"""The transforms that a bundle's config may name, translated to our own steps; everything else is refused by name."""

from collections.abc import Callable
from typing import Any

import torch
from monai.transforms import (
    HistogramNormalize,
    NormalizeIntensity,
    ScaleIntensity,
    ScaleIntensityRange,
    ScaleIntensityRangePercentiles,
    ShiftIntensity,
    ThresholdIntensity,
)
from torch import Tensor

from MedAILib.config import Component
from MedAILib.errors import ModelError, SpecError
from MedAILib.inference.cleanup import Cleanup, FillHoles, KeepLargest, RemoveSmall
from MedAILib.inference.prepare import CenterCrop, CropForeground, Intensity, Orient, Pad, Resize, Space, Step
from MedAILib.inference.restore import Decision
from MedAILib.inference.window import Windows
from MedAILib.read_spec import step_name

# Loading, channel order and types: done before, or without effect on values here.
WITHOUT_EFFECT = (
    "AddChannel",
    "CastToType",
    "DeleteItems",
    "EnsureChannelFirst",
    "EnsureType",
    "Identity",
    "LoadImage",
    "SaveImage",
    "SelectItems",
    "ToDevice",
    "ToTensor",
)
INTENSITIES: dict[str, type] = {
    "HistogramNormalize": HistogramNormalize,
    "NormalizeIntensity": NormalizeIntensity,
    "ScaleIntensity": ScaleIntensity,
    "ScaleIntensityRange": ScaleIntensityRange,
    "ScaleIntensityRangePercentiles": ScaleIntensityRangePercentiles,
    "ShiftIntensity": ShiftIntensity,
    "ThresholdIntensity": ThresholdIntensity,
}
# Arguments that concern the dictionary, or have one meaning here whatever they say.
IGNORED = (
    "keys",
    "allow_missing_keys",
    "lazy",
    "dtype",
    "meta_keys",
    "meta_key_postfix",
    "image_only",
    "labels",
    "source_key",
)


def preprocessing_steps(components: tuple[Component, ...]) -> tuple[Step, ...]:
    """Translate a bundle's preprocessing.

    Raises:
        SpecError: a transform, or an argument of one, that is not supported; the sentence names it.
    """
    steps: list[Step] = []
    for component in components:
        name = step_name(component)
        if name in WITHOUT_EFFECT:
            continue
        if name in INTENSITIES:
            steps.append(Intensity(_intensity(name, component)))
        elif name in _SPATIAL:
            steps.append(_SPATIAL[name](_Arguments(component)))
        else:
            raise SpecError(f"The model's preprocessing uses '{component.target}', which MedAI does not do.")
    return tuple(steps)


def window_plan(inferer: Component) -> Windows:
    """Translate a bundle's inferer.

    Raises:
        SpecError: an inferer or an argument that is not supported.
    """
    arguments = _Arguments(inferer)
    if inferer.name == "SimpleInferer":
        arguments.finish()
        return Windows()
    if inferer.name != "SlidingWindowInferer":
        raise SpecError(f"The model's inferer '{inferer.target}' is not one that MedAI does.")
    roi = arguments.take("roi_size", None)
    overlap = arguments.take("overlap", 0.25)
    mode = str(arguments.take("mode", "constant"))
    if mode not in ("constant", "gaussian"):
        raise SpecError(f"The model's inferer blends windows by '{mode}', which MedAI does not do.")
    windows = Windows(
        roi=_three(roi, int) if roi is not None else None,
        overlap=_three(overlap, float),
        gaussian=mode == "gaussian",
        sigma_scale=float(arguments.take("sigma_scale", 0.125)),
        padding_mode=str(arguments.take("padding_mode", "constant")),
        padding_value=float(arguments.take("cval", 0.0)),
    )
    # How the work is dealt out, which changes no value.
    arguments.drop("sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh")
    arguments.drop("buffer_steps", "buffer_dim")
    arguments.finish()
    if not all(0 <= part < 1 for part in windows.overlap):
        raise SpecError(
            f"The model's inferer overlaps windows by {windows.overlap}; at least 0 and below 1 is possible."
        )
    return windows


def postprocessing_plan(components: tuple[Component, ...]) -> tuple[Decision, tuple[Cleanup, ...]]:
    """Translate a bundle's post-processing to how labels are decided and what is done to them.

    Raises:
        SpecError: a transform or an order of them that is not supported; no decision at all.
    """
    activation: str | None = None
    decision: Decision | None = None
    inverted, nearest = False, True
    cleanups: list[Cleanup] = []
    for component in components:
        name, arguments = step_name(component), _Arguments(component)
        if name in WITHOUT_EFFECT:
            continue
        if name == "Activations":
            activation = _activation(arguments)
        elif name == "Invert":
            inverted, nearest = True, bool(arguments.take("nearest_interp", True))
        elif name == "AsDiscrete":
            argmax, threshold = arguments.take("argmax", False), arguments.take("threshold", None)
            arguments.drop("to_onehot", "rounding")
            arguments.finish()
            if argmax == (threshold is not None):
                raise SpecError("The model's AsDiscrete wants neither or both of argmax and threshold.")
            # Before the way back, decisions are carried over to the nearest voxel; after it, values were interpolated.
            decision = Decision(activation, None if argmax else float(threshold), not inverted, inverted and nearest)
        elif name in _CLEANUPS and decision is not None:
            cleanups.append(_CLEANUPS[name](arguments))
        else:
            raise SpecError(f"The model's post-processing uses '{component.target}' in a way that MedAI does not do.")
    if decision is None:
        raise SpecError("The model's post-processing makes no labels: it has no AsDiscrete.")
    return decision, tuple(cleanups)


class _Arguments:
    """A component's arguments, taken one by one, so that one that is read by nobody is noticed."""

    def __init__(self, component: Component) -> None:
        self.target = component.target
        self.left = {key: value for key, value in component.arguments.items() if key not in IGNORED}

    def take(self, key: str, default: Any) -> Any:
        return self.left.pop(key, default)

    def drop(self, *keys: str) -> None:
        for key in keys:
            self.left.pop(key, None)

    def finish(self) -> None:
        for key, value in self.left.items():
            raise SpecError(f"The model's '{self.target}' has '{key}' = {value!r}, which MedAI does not do.")


def _three(value: Any, kind: Callable[[Any], Any]) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * 3
    if len(values) != 3:
        raise SpecError(f"The model has {list(values)} where three numbers, one for each axis, are wanted.")
    return tuple(kind(item) for item in values)


def _is_nearest(arguments: _Arguments) -> bool:
    mode = arguments.take("mode", "bilinear")
    mode = mode[0] if isinstance(mode, (list, tuple)) else mode
    if mode not in ("bilinear", "trilinear", "linear", "nearest", "area"):
        raise SpecError(f"The model's '{arguments.target}' interpolates by '{mode}', which MedAI does not do.")
    return bool(mode == "nearest")


def _orient(arguments: _Arguments) -> Step:
    codes = arguments.take("axcodes", None)
    if not isinstance(codes, str) or sorted("RAS"["RLAPSI".find(c) // 2] for c in codes) != ["A", "R", "S"]:
        raise SpecError(f"The model's orientation {codes!r} is not three letters such as 'RAS'.")
    arguments.finish()
    return Orient(codes)


def _space(arguments: _Arguments) -> Step:
    step = Space(_three(arguments.take("pixdim", None), float), _is_nearest(arguments))
    if arguments.take("padding_mode", "border") != "border" or arguments.take("diagonal", False):
        raise SpecError("The model's Spacing pads or aligns in a way that MedAI does not do.")
    arguments.drop("align_corners", "recompute_affine", "ensure_same_shape")
    arguments.finish()
    return step


def _resize(arguments: _Arguments) -> Step:
    step = Resize(_three(arguments.take("spatial_size", None), int), _is_nearest(arguments))
    if arguments.take("size_mode", "all") != "all" or arguments.take("anti_aliasing", False):
        raise SpecError("The model's Resize works in a way that MedAI does not do.")
    arguments.drop("align_corners")
    arguments.finish()
    return step


def _crop_foreground(arguments: _Arguments) -> Step:
    step = CropForeground(
        int(arguments.take("margin", 0)),
        int(arguments.take("k_divisible", 1)),
        bool(arguments.take("allow_smaller", False)),
    )
    arguments.drop("start_coord_key", "end_coord_key")
    arguments.finish()
    return step


def _constant_padding(arguments: _Arguments) -> float:
    if arguments.take("mode", "constant") != "constant" or arguments.take("method", "symmetric") != "symmetric":
        raise SpecError(f"The model's '{arguments.target}' pads in a way that MedAI does not do.")
    return float(arguments.take("value", arguments.take("constant_values", 0.0)))


def _spatial_pad(arguments: _Arguments) -> Step:
    value = _constant_padding(arguments)
    step = Pad(shape=_three(arguments.take("spatial_size", None), int), value=value)
    arguments.finish()
    return step


def _divisible_pad(arguments: _Arguments) -> Step:
    value = _constant_padding(arguments)
    step = Pad(k=_three(arguments.take("k", None), int), value=value)
    arguments.finish()
    return step


def _center_crop(arguments: _Arguments) -> Step:
    step = CenterCrop(_three(arguments.take("roi_size", None), int))
    arguments.finish()
    return step


_SPATIAL: dict[str, Callable[[_Arguments], Step]] = {
    "CenterSpatialCrop": _center_crop,
    "CropForeground": _crop_foreground,
    "DivisiblePad": _divisible_pad,
    "Orientation": _orient,
    "Resize": _resize,
    "Spacing": _space,
    "SpatialPad": _spatial_pad,
}


def _intensity(name: str, component: Component) -> Callable[[Tensor], Tensor]:
    arguments = {key: value for key, value in component.arguments.items() if key not in IGNORED}
    try:
        transform = INTENSITIES[name](**arguments)
    except (TypeError, ValueError) as error:
        raise ModelError(f"The model's '{component.target}' has arguments that MONAI refuses: {error}.") from error
    return lambda image: torch.as_tensor(transform(image), dtype=torch.float32)


def _activation(arguments: _Arguments) -> str | None:
    softmax, sigmoid = arguments.take("softmax", False), arguments.take("sigmoid", False)
    arguments.finish()
    return "softmax" if softmax else "sigmoid" if sigmoid else None


def _values(arguments: _Arguments) -> tuple[int, ...] | None:
    values = arguments.take("applied_labels", None)
    return None if values is None else tuple(values) if isinstance(values, (list, tuple)) else (int(values),)


def _connectivity(arguments: _Arguments, default: int) -> int:
    value = arguments.take("connectivity", None)
    return default if value is None else int(value)


def _keep_largest(arguments: _Arguments) -> Cleanup:
    if not arguments.take("independent", True):
        raise SpecError("The model's KeepLargestConnectedComponent joins structures, which MedAI does not do.")
    step = KeepLargest(_values(arguments), _connectivity(arguments, 3), int(arguments.take("num_components", 1)))
    arguments.drop("is_onehot")
    arguments.finish()
    return step


def _fill_holes(arguments: _Arguments) -> Cleanup:
    step = FillHoles(_values(arguments), _connectivity(arguments, 3))
    arguments.finish()
    return step


def _remove_small(arguments: _Arguments) -> Cleanup:
    size = float(arguments.take("min_size", 64))
    physical = bool(arguments.take("by_measure", False))
    if arguments.take("independent_channels", True) is not True or arguments.take("pixdim", None) is not None:
        raise SpecError("The model's RemoveSmallObjects works in a way that MedAI does not do.")
    step = RemoveSmall(size / 1000 if physical else size, _connectivity(arguments, 1), in_ml=physical)
    arguments.finish()
    return step


_CLEANUPS: dict[str, Callable[[_Arguments], Cleanup]] = {
    "FillHoles": _fill_holes,
    "KeepLargestConnectedComponent": _keep_largest,
    "RemoveSmallObjects": _remove_small,
}
