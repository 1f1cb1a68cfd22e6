"""A folder of weights with a `medai.json` read as a plan: a bundle's network and steps and its metadata in one file."""

from pathlib import Path, PurePosixPath
from typing import Any

from MedAILib.bundle_plan import BundlePlan, plan_of
from MedAILib.config import Config, read_json
from MedAILib.errors import SpecError
from MedAILib.formats import DESCRIPTION, WEIGHT_ENDINGS

# What a `medai.json` has that is no metadata.
CONFIG = ("network_def", "preprocessing", "inferer", "postprocessing", "weights")


def read_state_dict_plan(folder: Path) -> BundlePlan:
    """Read the plan of a folder that has a `medai.json` and a file of weights.

    Raises:
        SpecError: `medai.json` is unreadable or lacks something, or there is no telling which file has the weights.
    """
    path = folder / DESCRIPTION
    content = read_json(path)
    metadata: dict[str, Any] = {key: value for key, value in content.items() if key not in CONFIG}
    if "network_data_format" not in metadata:
        metadata["network_data_format"] = _data_format(content, path)
    return plan_of(folder, path, metadata, Config(content, path, {"bundle_root": "."}), _weights(folder, content, path))


def _data_format(content: dict[str, Any], path: Path) -> dict[str, Any]:
    """MONAI's description of what goes in and comes out, from the lists "channels" and "labels"."""
    channels, labels = _names(content, "channels", path), _names(content, "labels", path)
    return {
        "inputs": {"image": _side(channels) | {"modality": str(content.get("modality", ""))}},
        "outputs": {"pred": _side(labels) | {"format": "segmentation"}},
    }


def _side(names: list[str]) -> dict[str, Any]:
    return {
        "type": "image",
        "num_channels": len(names),
        "channel_def": {str(number): name for number, name in enumerate(names)},
    }


def _names(content: dict[str, Any], key: str, path: Path) -> list[str]:
    names = content.get(key)
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name for name in names):
        raise SpecError(f"{path} has no list '{key}' with a name for each channel of the network's {_SIDES[key]}.")
    return names


_SIDES = {"channels": "input", "labels": 'output ("background" first, where the largest wins)'}


def _weights(folder: Path, content: dict[str, Any], path: Path) -> Path:
    """The file that "weights" names; else the only one that can be meant, safetensors before others."""
    named = content.get("weights")
    if named is not None:
        inside = PurePosixPath(str(named))
        if inside.is_absolute() or ".." in inside.parts or "\\" in str(named) or ":" in str(named):
            raise SpecError(f"{path}: the weights '{named}' lie outside of the folder.")
        return folder / inside
    found = sorted(file for file in folder.iterdir() if file.suffix.lower() in WEIGHT_ENDINGS)
    for chosen in ([file for file in found if file.suffix.lower() == ".safetensors"], found):
        if len(chosen) == 1:
            return chosen[0]
    if not found:
        return folder / "model.safetensors"
    raise SpecError(f"{folder} has several files of weights; name the right one as 'weights' in its {DESCRIPTION}.")
