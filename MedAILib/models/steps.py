"""The transforms that a bundle's config may name, translated to our own steps; everything else is refused by name."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
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
from MedAILib.errors import SpecError
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
IGNORED = ("keys", "allow_missing_keys", "lazy", "dtype", "meta_keys", "meta_key_postfix", "image_only")
# The letters of an axis's two ends, as MONAI's `Orientation` has them by default.
DEFAULT_LABELS = [["L", "R"], ["P", "A"], ["I", "S"]]
PADDING_MODES = ("constant", "reflect", "replicate", "circular")
LARGEST_SIDE = 100_000


def preprocessing_steps(components: tuple[Component, ...]) -> tuple[Step, ...]:
    """Translate a bundle's preprocessing; steps for other entries than the image (a label's) are left out.

    Raises:
        SpecError: a transform, or an argument of one, that is not supported; the sentence names it.
    """
    image = _image_key(components)
    steps: list[Step] = []
    for component in components:
        name = step_name(component)
        if name in WITHOUT_EFFECT or image not in _keys(component, image):
            continue
        if name in INTENSITIES:
            steps.append(Intensity(_intensity(name, component)))
        elif name in _SPATIAL:
            with _sense(component):
                steps.append(_SPATIAL[name](_Arguments(component, image)))
        else:
            raise SpecError(f"The model's preprocessing uses '{component.target}', which MedAI does not do.")
    return tuple(steps)


def window_plan(inferer: Component) -> Windows:
    """Translate a bundle's inferer.

    Raises:
        SpecError: an inferer or an argument that is not supported.
    """
    if inferer.target.rpartition(".")[0] not in ("", "monai.inferers", "monai.inferers.inferer"):
        raise SpecError(f"The model's inferer '{inferer.target}' is not one that MedAI does.")
    arguments = _Arguments(inferer)
    if inferer.name == "SimpleInferer":
        arguments.finish()
        return Windows()
    if inferer.name != "SlidingWindowInferer":
        raise SpecError(f"The model's inferer '{inferer.target}' is not one that MedAI does.")
    with _sense(inferer):
        roi, mode = arguments.take("roi_size", None), str(arguments.take("mode", "constant"))
        windows = Windows(
            roi=_three(roi, _size) if roi is not None else None,
            overlap=_three(arguments.take("overlap", 0.25), float),
            gaussian=mode == "gaussian",
            sigma_scale=_three(arguments.take("sigma_scale", 0.125), float),
            padding_mode=str(arguments.take("padding_mode", "constant")),
            padding_value=float(arguments.take("cval", 0.0)),
        )
    # How the work is dealt out, which changes no value.
    arguments.drop("sw_batch_size", "sw_device", "device", "progress", "cache_roi_weight_map", "cpu_thresh")
    arguments.drop("buffer_steps", "buffer_dim")
    arguments.finish()
    if mode not in ("constant", "gaussian") or windows.padding_mode not in PADDING_MODES:
        raise SpecError(f"The model's inferer works by '{mode}' and '{windows.padding_mode}', which MedAI does not do.")
    if not all(0 <= part < 1 for part in windows.overlap) or min(windows.sigma_scale) <= 0:
        raise SpecError(f"The model's inferer has windows that overlap by {windows.overlap}, which is not possible.")
    return windows


def activation_plan(components: tuple[Component, ...]) -> str | None:
    """What a classifier's post-processing makes of its output: "softmax", "sigmoid" or None where it does not say.

    How the class is chosen (AsDiscrete) is told by the model's spec, not here.

    Raises:
        SpecError: a transform or an argument that is not supported.
    """
    activation = None
    for component in components:
        name = step_name(component)
        if name == "Activations":
            with _sense(component):
                activation = _activation(_Arguments(component))
        elif name not in (*WITHOUT_EFFECT, "AsDiscrete", "SaveClassification"):
            raise SpecError(f"The model's post-processing uses '{component.target}', which MedAI does not do.")
    return activation


def postprocessing_plan(components: tuple[Component, ...]) -> tuple[Decision, tuple[Cleanup, ...]]:
    """Translate a bundle's post-processing to how labels are decided and what is done to them.

    What is understood is, in this order: Activations (may be absent), Invert and AsDiscrete in either order (Invert may
    be absent: labels come back to the input's grid all the same), then clean-ups.

    Raises:
        SpecError: a transform, an argument or an order of them that is not supported; no decision at all.
    """
    told = [c for c in components if step_name(c) not in WITHOUT_EFFECT and "pred" in _keys(c, "pred")]
    names = [step_name(component) for component in told]
    decisive = [name for name in names if name not in _CLEANUPS]
    if "AsDiscrete" not in names:
        raise SpecError("The model's post-processing makes no labels: it has no AsDiscrete.")
    if names[: len(decisive)] != decisive or decisive not in _ORDERS:
        raise SpecError(f"The model's post-processing is {', '.join(names)}, which MedAI does not do in this order.")
    found = {name: _Arguments(component) for name, component in zip(names, told, strict=True)}
    activation = _activation(found["Activations"]) if "Activations" in found else None
    first = decisive.index("AsDiscrete") < len(decisive) - 1
    nearest = "Invert" in found and bool(found["Invert"].take("nearest_interp", True))
    if first and not nearest:
        raise SpecError("The model's post-processing interpolates between label values, which makes no sense of them.")
    threshold = _threshold(found["AsDiscrete"])
    cleanups: list[Cleanup] = []
    for component in told[len(decisive) :]:
        if threshold is not None and component.arguments.get("applied_labels") is not None:
            raise SpecError(
                f"The model's '{component.target}' picks channels by applied_labels, which MedAI does not do."
            )
        with _sense(component):
            cleanups.append(_CLEANUPS[step_name(component)](_Arguments(component)))
    return Decision(activation, threshold, first, nearest), tuple(cleanups)


# Orders of the deciding steps that have a meaning here; what follows are clean-ups.
_ORDERS = [
    [*activation, *rest]
    for activation in ([], ["Activations"])
    for rest in (["AsDiscrete"], ["Invert", "AsDiscrete"], ["AsDiscrete", "Invert"])
]


class _Arguments:
    """A component's arguments, taken one by one, so that one that is read by nobody is noticed."""

    def __init__(self, component: Component, image_key: str = "image") -> None:
        self.target, self.image_key = component.target, image_key
        self.place = _keys(component, image_key).index(image_key) if image_key in _keys(component, image_key) else 0
        self.left = {key: value for key, value in component.arguments.items() if key not in IGNORED}

    def take(self, key: str, default: Any) -> Any:
        return self.left.pop(key, default)

    def drop(self, *keys: str) -> None:
        for key in keys:
            self.left.pop(key, None)

    def finish(self) -> None:
        for key, value in self.left.items():
            raise SpecError(f"The model's '{self.target}' has '{key}' = {value!r}, which MedAI does not do.")


@contextmanager
def _sense(component: Component) -> Iterator[None]:
    """Turn what goes wrong with a component's arguments into a sentence that names it."""
    try:
        yield
    except SpecError:
        raise
    except (TypeError, ValueError, ArithmeticError, LookupError, AttributeError) as error:
        reason = str(error).partition("\n")[0].rstrip(".")
        raise SpecError(f"The model's '{component.target}' has arguments that make no sense: {reason}.") from error


def _image_key(components: tuple[Component, ...]) -> str:
    """The entry that holds the image: the first that is loaded."""
    loaded = next(
        (c.arguments["keys"] for c in components if step_name(c) == "LoadImage" and c.arguments.get("keys")), "image"
    )
    return str(loaded[0]) if isinstance(loaded, (list, tuple)) else str(loaded)


def _keys(component: Component, default: str) -> list[str]:
    keys = component.arguments.get("keys", default)
    return [str(key) for key in keys] if isinstance(keys, (list, tuple)) else [str(keys)]


def _three(value: Any, kind: Callable[[Any], Any]) -> tuple[Any, ...]:
    values = tuple(value) if isinstance(value, (list, tuple)) else (value,) * 3
    if len(values) != 3:
        raise SpecError(f"The model has {list(values)} where three numbers, one for each axis, are wanted.")
    converted = tuple(kind(item) for item in values)
    if not all(math.isfinite(item) for item in converted):
        raise SpecError(f"The model has {list(values)} where three finite numbers are wanted.")
    return converted


def _size(value: Any) -> int:
    """A number of voxels; 0 or less stands for the image's own."""
    if int(value) != value or value > LARGEST_SIDE:
        raise SpecError(f"The model has {value!r} where a number of voxels is wanted.")
    return int(value)


def _count(value: Any) -> int:
    if _size(value) < 1:
        raise SpecError(f"The model has {value!r} where a number of at least 1 is wanted.")
    return int(value)


def _require_linear(arguments: _Arguments, default: str) -> None:
    mode = arguments.take("mode", default)
    mode = mode[min(arguments.place, len(mode) - 1)] if isinstance(mode, (list, tuple)) else mode
    if mode not in ("bilinear", "trilinear", "linear"):
        raise SpecError(f"The model's '{arguments.target}' interpolates by '{mode}', which MedAI does not do.")


def _orient(arguments: _Arguments) -> Step:
    codes, labels = arguments.take("axcodes", None), arguments.take("labels", None)
    arguments.finish()
    pairs = [next((pair for pair in ("RL", "AP", "SI") if code in pair), None) for code in str(codes)]
    if sorted(str(pair) for pair in pairs) != ["AP", "RL", "SI"]:
        raise SpecError(f"The model's orientation {codes!r} is not three letters such as 'RAS'.")
    if labels is not None and [list(pair) for pair in labels] != DEFAULT_LABELS:
        raise SpecError(f"The model's orientation has letters of its own ({labels!r}), which MedAI does not do.")
    return Orient(str(codes))


def _space(arguments: _Arguments) -> Step:
    step = Space(_three(arguments.take("pixdim", None), float))
    _require_linear(arguments, "bilinear")
    if arguments.take("padding_mode", "border") != "border" or arguments.take("diagonal", False):
        raise SpecError("The model's Spacing pads or aligns in a way that MedAI does not do.")
    arguments.drop("align_corners", "recompute_affine", "ensure_same_shape")
    arguments.finish()
    return step


def _resize(arguments: _Arguments) -> Step:
    area = arguments.left.get("mode", "area") == "area"
    step = Resize(_three(arguments.take("spatial_size", None), _size), area)
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


def _crop_foreground(arguments: _Arguments) -> Step:
    if arguments.take("source_key", arguments.image_key) != arguments.image_key:
        raise SpecError("The model's CropForeground looks at another entry than the image, which MedAI does not do.")
    step = CropForeground(
        _three(arguments.take("margin", 0), _size),
        _three(arguments.take("k_divisible", 1), _count),
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
    step = Pad(shape=_three(arguments.take("spatial_size", None), _size), value=value)
    arguments.finish()
    return step


def _divisible_pad(arguments: _Arguments) -> Step:
    value = _constant_padding(arguments)
    step = Pad(k=_three(arguments.take("k", None), _count), value=value)
    arguments.finish()
    return step


def _center_crop(arguments: _Arguments) -> Step:
    step = CenterCrop(_three(arguments.take("roi_size", None), _size))
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
    with _sense(component):
        transform = INTENSITIES[name](**arguments)

    def change(image: Tensor) -> Tensor:
        with _sense(component):
            return torch.as_tensor(transform(image), dtype=torch.float32)

    return change


def _activation(arguments: _Arguments) -> str | None:
    softmax, sigmoid = arguments.take("softmax", False), arguments.take("sigmoid", False)
    arguments.finish()
    return "softmax" if softmax else "sigmoid" if sigmoid else None


def _threshold(arguments: _Arguments) -> float | None:
    """The threshold of each channel; None where the largest channel wins."""
    argmax, threshold = arguments.take("argmax", False), arguments.take("threshold", None)
    arguments.drop("to_onehot", "rounding")
    arguments.finish()
    if bool(argmax) == (threshold is not None):
        raise SpecError("The model's AsDiscrete wants neither or both of argmax and threshold.")
    if isinstance(threshold, (list, tuple)) and len(set(threshold)) == 1:
        threshold = threshold[0]
    if threshold is not None and (isinstance(threshold, bool) or not isinstance(threshold, (int, float))):
        raise SpecError(f"The model's AsDiscrete has the threshold {threshold!r}, which MedAI does not do.")
    return None if threshold is None else float(threshold)


def _values(arguments: _Arguments) -> tuple[int, ...] | None:
    values = arguments.take("applied_labels", None)
    return (
        None
        if values is None
        else tuple(int(v) for v in values)
        if isinstance(values, (list, tuple))
        else (int(values),)
    )


def _connectivity(arguments: _Arguments, default: int) -> int:
    value = arguments.take("connectivity", None)
    if value not in (None, 1, 2, 3):
        raise SpecError(f"The model's '{arguments.target}' has a connectivity of {value!r}; 1, 2 or 3 are possible.")
    return default if value is None else int(value)


def _keep_largest(arguments: _Arguments) -> Cleanup:
    if not arguments.take("independent", True):
        raise SpecError("The model's KeepLargestConnectedComponent joins structures, which MedAI does not do.")
    step = KeepLargest(_values(arguments), _connectivity(arguments, 3), _count(arguments.take("num_components", 1)))
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
