"""What a MONAI bundle says of itself, as a `ModelSpec`; neither weights nor PyTorch are touched."""

import math
import reprlib
from pathlib import Path
from typing import Any

from MedAILib.bundle_needs import bundle_task, is_prompted, obstacle
from MedAILib.bundle_plan import BundlePlan, argument
from MedAILib.config import read_text
from MedAILib.config_values import Component, Name, Unknown
from MedAILib.detection_plan import is_faster_rcnn
from MedAILib.errors import SpecError
from MedAILib.estimate import network_values
from MedAILib.feature_memory import feature_values
from MedAILib.read_classes import read_classes
from MedAILib.results import Code, Label, Terminology
from MedAILib.reviewed_steps import click_channels, merged_images
from MedAILib.spec import ModelSpec

LARGEST_LABEL = 65535  # of 16 bits without sign
LARGEST_LICENCE = 1_000_000
SHORT = reprlib.Repr()
SHORT.maxlist = SHORT.maxtuple = SHORT.maxdict = 8
SHORT.maxstring = SHORT.maxother = 80
# The names that MONAI's networks have for the number of channels that go in and come out.
IN_CHANNELS = ("in_channels", "n_input_channels")
OUT_CHANNELS = ("out_channels", "num_classes", "out_classes")


def bundle_spec(plan: BundlePlan) -> ModelSpec:
    """The spec that a bundle's metadata and inference config give.

    Colours, terminology and mirroring, which MONAI's metadata has no place for, are read from its entry "medai".

    Raises:
        SpecError: entries are missing or of the wrong kind.
    """
    data, own = plan.metadata, plan.metadata.get("medai", {})
    try:
        task = bundle_task(data)
        inputs = next(iter(data["network_data_format"]["inputs"].values()))
        outputs = next(iter(data["network_data_format"]["outputs"].values()))
        spacing = _per_axis(_argument(plan.preprocessing, "Spacing", "pixdim"))
        roi = _per_axis(plan.detection.window if plan.detection else argument(plan.inferer, "roi_size"))
        _require_numbers(plan, "spacing of its Spacing", spacing)
        _require_numbers(plan, "roi_size of its inferer", roi)
        if task == "segmentation":
            _require_channels(plan, inputs, outputs)
        orientation = _argument(plan.preprocessing, "Orientation", "axcodes")
        held, with_gradients = _values(plan, task, outputs)
        return ModelSpec(
            name=plan.folder.resolve().name,
            version=str(data.get("version", "")),
            task=task,
            source=plan.folder,
            title=str(data.get("name") or plan.folder.resolve().name),
            description=str(data.get("description", "")),
            channels=_channels(plan, inputs),
            classes=read_classes(plan, outputs) if task == "classification" else None,
            labels=_labels(plan, outputs, own.get("labels", {})) if task == "segmentation" else (),
            modality=str(inputs.get("modality", "")),
            orientation=None if orientation is None else str(orientation),
            spacing_mm=None if spacing is None else tuple(float(mm) for mm in spacing),
            patch=None if roi is None else tuple(int(n) for n in roi),
            mirror_axes=tuple(int(axis) for axis in own.get("mirror_axes", ())),
            steps=tuple(_in_words(step) for step in (*plan.preprocessing, plan.inferer, *plan.postprocessing)),
            licence=_licence(plan.folder, data),
            authors=str(data.get("authors", "")),
            data_source=str(data.get("data_source", "")),
            intended_use=str(data.get("intended_use", "")),
            references=tuple(str(text) for text in data.get("references", ())),
            warnings=tuple(str(text) for text in own.get("warnings", ())),
            obstacle=obstacle(plan),
            weights_bytes=plan.weights.stat().st_size if plan.weights.is_file() else 0,
            window_values=held,
            gradient_values=with_gradients,
            overlap=_overlap(plan),
            findings=_findings(plan, outputs, own) if task == "detection" else (),
            finding_codes=_finding_codes(plan, outputs, own) if task == "detection" else (),
            finding_labels=_finding_labels(plan, outputs, own) if task == "detection" else (),
        )
    except (LookupError, TypeError, AttributeError, StopIteration, ValueError, ArithmeticError) as error:
        if isinstance(error, SpecError):
            raise
        raise SpecError(f"{plan.told_in} lacks or garbles what a model has to say of itself: {error!r}.") from error


def _values(plan: BundlePlan, task: str, outputs: Any) -> tuple[float | None, float | None]:
    """Numbers that the network holds for each voxel, in a pass and with gradients; None where that is not known."""
    if task not in ("classification", "detection"):
        return network_values(plan.network, int(outputs["num_channels"])), None
    dimensions = 2 if argument(plan.network, "spatial_dims", 2) == 2 else 3
    return feature_values(plan.network, dimensions) or (None, None)


def _overlap(plan: BundlePlan) -> float:
    """The share of a window that overlaps the next, the largest of all axes; MONAI's own where none is named."""
    told = argument(plan.inferer, "overlap")
    shares = _per_axis(told) or (0.25,)
    return min(max(float(share) for share in shares), 0.99)


def step_name(component: Component) -> str:
    """A transform's name without the ending of MONAI's dictionary variants: "Spacingd" is "Spacing".

    What does not come from MONAI keeps its whole name, so that nothing of MONAI's is taken for it.
    """
    if component.target.rpartition(".")[0].split(".")[0] not in ("", "monai"):
        return component.target
    name = component.name
    return name.removesuffix("Dict") if name.endswith("Dict") else name.removesuffix("d").removesuffix("D")


def is_for(component: Component, key: str) -> bool:
    """Whether a transform works on an entry; one that names no entries works on all."""
    keys = argument(component, "keys", key)
    return key in keys if isinstance(keys, (list, tuple)) else key == keys


def overlapping(postprocessing: tuple[Component, ...]) -> bool:
    """Whether each output channel is a structure of its own, by threshold, instead of the largest winning."""
    discrete = (step for step in postprocessing if step_name(step) == "AsDiscrete" and is_for(step, "pred"))
    return any(_picked(step, "threshold") is not None for step in discrete)


def _picked(component: Component, key: str) -> Any:
    """The argument for the entry "pred", where there is one for each entry."""
    value, keys = argument(component, key), argument(component, "keys", "pred")
    if isinstance(value, list) and isinstance(keys, list) and len(value) == len(keys) and "pred" in keys:
        return value[keys.index("pred")]
    return value


def output_names(plan: BundlePlan) -> tuple[str, ...]:
    """The name of each channel of the network's output, in order; each name once."""
    outputs = next(iter(plan.metadata["network_data_format"]["outputs"].values()))
    names = _channel_names(outputs)
    if is_prompted(plan):
        return ("background", *(names.get(str(number), f"class {number}") for number in plan.prompts))
    found: list[str] = []
    for channel in range(_count(plan, outputs, OUT_CHANNELS)):
        name = names.get(str(channel), "background" if channel == 0 else f"structure {channel}")
        if channel == 0 and str(channel) not in names and overlapping(plan.postprocessing):
            name = "structure 0"
        found.append(name if name not in found else f"{name} ({channel})")
    return tuple(found)


def _count(plan: BundlePlan, side: dict[str, Any], keys: tuple[str, ...]) -> int:
    """Channels of one side of the network.

    Where the metadata speaks of another number than the network's own arguments, it is taken for a slip only when it
    counts one channel: images before they are put together, or labels instead of what they are decided from.
    """
    told = int(side["num_channels"])
    built = next((argument(plan.network, key) for key in keys if key in plan.network.arguments), None)
    count = built if told == 1 and isinstance(built, int) and not isinstance(built, bool) else told
    return _possible(plan, count)


def _possible(plan: BundlePlan, count: int) -> int:
    """A number of channels; raises SpecError for one that no image or network has."""
    if not 1 <= count <= LARGEST_LABEL:
        told = SHORT.repr(count)
        raise SpecError(f"The model {plan.folder.name} speaks of {told} channels; 1 to {LARGEST_LABEL} can be.")
    return count


def _channels(plan: BundlePlan, inputs: dict[str, Any]) -> tuple[str, ...]:
    names = _channel_names(inputs)
    merged = merged_images(plan.preprocessing)
    if merged is not None:
        return merged.keys
    count = _count(plan, inputs, IN_CHANNELS) if bundle_task(plan.metadata) == "segmentation" else 0
    count = count or _possible(plan, max(int(inputs.get("num_channels", 1)), 1))
    count = _possible(plan, count - click_channels(plan.preprocessing))
    return tuple(names.get(str(n), f"channel {n}") for n in range(count))


def _channel_names(side: dict[str, Any]) -> dict[str, str]:
    names = side.get("channel_def") or side.get("label_def") or {}
    return {str(key): str(name) for key, name in names.items()}


def _labels(plan: BundlePlan, outputs: dict[str, Any], own: dict[str, dict[str, Any]]) -> tuple[Label, ...]:
    layered = overlapping(plan.postprocessing)
    labels = []
    for channel, name in enumerate(output_names(plan)):
        if channel == 0 and (not layered or name.lower() == "background"):
            continue
        more = own.get(str(channel), {})
        labels.append(
            Label(
                value=1 if layered else plan.prompts[channel - 1] if is_prompted(plan) else channel,
                name=name,
                color=tuple(float(part) for part in more["color"]) if "color" in more else None,  # type: ignore[arg-type]
                terminology=_terminology(more["terminology"]) if "terminology" in more else None,
                layer=channel if layered else 0,
            )
        )
    return tuple(labels)


def _terminology(entry: dict[str, Any]) -> Terminology:
    modifier = entry.get("modifier")
    return Terminology(Code(*entry["category"]), Code(*entry["type"]), Code(*modifier) if modifier else None)


def _argument(steps: tuple[Component, ...], name: str, key: str) -> Any:
    return next((argument(step, key) for step in steps if step_name(step) == name), None)


def _per_axis(value: Any) -> Any:
    """A number for all three axes as three numbers; anything else as it is."""
    return (value,) * 3 if isinstance(value, (int, float)) else value


def _require_numbers(plan: BundlePlan, what: str, values: Any) -> None:
    """Raise `SpecError` unless there is nothing, or a list of finite numbers (as numbers or in words)."""
    if values is None or isinstance(values, Unknown):
        return
    each = values if isinstance(values, (list, tuple)) else (values,)
    for value in each:
        try:
            fits = math.isfinite(float(value))
        except (TypeError, ValueError, OverflowError):
            fits = False
        if not fits:
            raise SpecError(
                f"The model {plan.folder.name} has {SHORT.repr(value)} in the {what}, which is no finite number."
            )


def _findings(plan: BundlePlan, outputs: dict[str, Any], own: dict[str, Any]) -> tuple[str, ...]:
    """The detector's classes, in the order of its network's output; "finding" for a nameless only one."""
    names = own.get("detection", {}).get("classes") or list(_channel_names(outputs).values())
    background = int(is_faster_rcnn(plan.network))  # torchvision's classes begin with one for nothing
    told = int(argument(plan.network, "num_classes", (len(names) or 1) + background))
    count = _possible(plan, told - background)
    if len(names) != count:
        names = ["finding"] if count == 1 else [f"class {number}" for number in range(count)]
    return tuple(str(name) for name in names)


def _finding_codes(plan: BundlePlan, outputs: dict[str, Any], own: dict[str, Any]) -> tuple[Code | None, ...]:
    """The code of each class, from the entry "codes" beside the classes' names: scheme, value and meaning by name."""
    told, names = own.get("detection", {}).get("codes") or {}, _findings(plan, outputs, own)
    if unknown := sorted(set(told) - set(names)):
        raise SpecError(f"The model {plan.folder.name} has a code for '{unknown[0]}', which is none of its classes.")
    return tuple(Code(*told[name]) if name in told else None for name in names) if told else ()


def _finding_labels(plan: BundlePlan, outputs: dict[str, Any], own: dict[str, Any]) -> tuple[tuple[str, ...], ...]:
    """What data may call each class, from the entry "labels" beside the classes' names: lists of texts by name."""
    told, names = own.get("detection", {}).get("labels") or {}, _findings(plan, outputs, own)
    return tuple(tuple(str(text) for text in told.get(name, ())) for name in names) if told else ()


def _require_channels(plan: BundlePlan, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    for side in (inputs, outputs):
        _possible(plan, int(side["num_channels"]))


def _in_words(component: Component) -> str:
    hidden = ("keys", "transform", "orig_keys", "meta_keys", "allow_missing_keys")
    arguments = ", ".join(f"{key}={_brief(value)}" for key, value in component.arguments.items() if key not in hidden)
    return f"{step_name(component)}({arguments})"


def _brief(value: Any) -> str:
    if isinstance(value, Unknown):
        return "…"
    return value.dotted if isinstance(value, Name) else SHORT.repr(value)


def _licence(folder: Path, metadata: dict[str, Any]) -> str:
    """The licence's name: as the metadata says, else the first line with a word in the file LICENSE."""
    for key in ("license", "licence"):
        if metadata.get(key):
            return str(metadata[key])
    path = folder / "LICENSE"
    if not path.is_file():
        return ""
    try:
        lines = read_text(path, LARGEST_LICENCE).splitlines()
    except (OSError, UnicodeDecodeError):
        return ""
    return next((line.strip() for line in lines if line.strip()), "")
