"""From a model's files to its `ModelSpec`, one reader for each format; neither weights nor PyTorch are touched."""

import reprlib
from pathlib import Path
from typing import Any

from MedAILib.bundle_plan import BundlePlan, is_bundle, read_plan
from MedAILib.config import Component, read_text
from MedAILib.errors import SpecError
from MedAILib.read_classes import read_classes
from MedAILib.results import Code, Label, Terminology
from MedAILib.spec import ModelSpec

LARGEST_LABEL = 65535  # of 16 bits without sign
LARGEST_LICENCE = 1_000_000
SHORT = reprlib.Repr()
SHORT.maxlist = SHORT.maxtuple = SHORT.maxdict = 8
SHORT.maxstring = SHORT.maxother = 80


def read_spec(source: Path) -> ModelSpec:
    """Read the description of the model in a folder or file.

    Raises:
        SpecError: there is no model, or its description is missing, unreadable or contradicts itself.
    """
    require_model(source)
    return bundle_spec(read_plan(source))


def require_model(source: Path) -> None:
    """Raise `SpecError`, with the reason, unless the folder or file is a model of a format that MedAI knows."""
    if not source.exists():
        raise SpecError(f"There is no model at {source}.")
    if not is_bundle(source):
        raise SpecError(
            f"{source} is no model that MedAI knows: a MONAI bundle has configs/metadata.json and "
            "configs/inference.json in it."
        )


def bundle_spec(plan: BundlePlan) -> ModelSpec:
    """The spec that a bundle's metadata and inference config give.

    Colours, terminology and mirroring, which MONAI's metadata has no place for, are read from its entry "medai".

    Raises:
        SpecError: entries are missing or of the wrong kind.
    """
    data, own = plan.metadata, plan.metadata.get("medai", {})
    try:
        inputs = next(iter(data["network_data_format"]["inputs"].values()))
        outputs = next(iter(data["network_data_format"]["outputs"].values()))
        channels = _channel_names(inputs)
        spacing = _triple(_argument(plan.preprocessing, "Spacing", "pixdim"))
        roi = _triple(plan.inferer.arguments.get("roi_size"))
        _require_channels(plan, inputs, outputs)
        classes = read_classes(plan, outputs)
        task = "segmentation" if outputs.get("format", "segmentation") == "segmentation" else outputs["format"]
        return ModelSpec(
            name=plan.folder.resolve().name,
            version=str(data.get("version", "")),
            task="classification" if classes else task,
            source=plan.folder,
            title=str(data.get("name") or plan.folder.resolve().name),
            description=str(data.get("description", "")),
            channels=tuple(channels.get(str(n), f"channel {n}") for n in range(int(inputs["num_channels"]))),
            labels=() if classes else _labels(outputs, own.get("labels", {}), plan.postprocessing),
            modality=str(inputs.get("modality", "")),
            orientation=_argument(plan.preprocessing, "Orientation", "axcodes"),
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
            classes=classes,
        )
    except (KeyError, TypeError, AttributeError, StopIteration, ValueError) as error:
        if isinstance(error, SpecError):
            raise
        path = plan.folder / "configs" / "metadata.json"
        raise SpecError(f"{path} lacks or garbles what a model has to say of itself: {error!r}.") from error


def step_name(component: Component) -> str:
    """A transform's name without the ending of MONAI's dictionary variants: "Spacingd" is "Spacing".

    What does not come from MONAI keeps its whole name, so that nothing of MONAI's is taken for it.
    """
    if component.target.rpartition(".")[0].split(".")[0] not in ("", "monai"):
        return component.target
    name = component.name
    return name.removesuffix("Dict") if name.endswith("Dict") else name.removesuffix("d").removesuffix("D")


def overlapping(postprocessing: tuple[Component, ...]) -> bool:
    """Whether each output channel is a structure of its own, by threshold, instead of the largest winning."""
    discrete = next((step for step in postprocessing if step_name(step) == "AsDiscrete"), None)
    return discrete is not None and discrete.arguments.get("threshold") is not None


def _channel_names(side: dict[str, Any]) -> dict[str, str]:
    return {str(key): str(name) for key, name in (side.get("channel_def") or {}).items()}


def _labels(
    outputs: dict[str, Any], own: dict[str, dict[str, Any]], postprocessing: tuple[Component, ...]
) -> tuple[Label, ...]:
    names = _channel_names(outputs)
    layered = overlapping(postprocessing)
    labels = []
    for channel in range(0 if layered else 1, int(outputs["num_channels"])):
        more = own.get(str(channel), {})
        labels.append(
            Label(
                value=1 if layered else channel,
                name=names.get(str(channel), f"structure {channel}"),
                color=tuple(float(part) for part in more["color"]) if "color" in more else None,  # type: ignore[arg-type]
                terminology=_terminology(more["terminology"]) if "terminology" in more else None,
                layer=channel if layered else 0,
            )
        )
    return tuple(labels)


def _terminology(entry: dict[str, Any]) -> Terminology:
    modifier = entry.get("modifier")
    return Terminology(Code(*entry["category"]), Code(*entry["type"]), Code(*modifier) if modifier else None)


def _argument(steps: tuple[Component, ...], name: str, argument: str) -> Any:
    return next((step.arguments.get(argument) for step in steps if step_name(step) == name), None)


def _triple(value: Any) -> Any:
    """A number for all three axes as three numbers; anything else as it is."""
    return (value,) * 3 if isinstance(value, (int, float)) else value


def _require_channels(plan: BundlePlan, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    for side in (inputs, outputs):
        if not 1 <= int(side["num_channels"]) <= LARGEST_LABEL:
            raise SpecError(
                f"The model {plan.folder.name} speaks of {side['num_channels']} channels; 1 to 65535 can be."
            )


def _in_words(component: Component) -> str:
    hidden = ("keys", "transform", "orig_keys", "meta_keys", "allow_missing_keys")
    arguments = ", ".join(
        f"{key}={SHORT.repr(value)}" for key, value in component.arguments.items() if key not in hidden
    )
    return f"{step_name(component)}({arguments})"


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
