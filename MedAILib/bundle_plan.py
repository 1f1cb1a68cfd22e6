"""A MONAI bundle's folder read as a plan: which network, weights and steps it asks for. Nothing is built here."""

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from MedAILib.config import Component, Config, read_config, read_json
from MedAILib.errors import SpecError

WEIGHTS = ("models/model.safetensors", "models/model.pt")


@dataclass(frozen=True)
class BundlePlan:
    """What a bundle's inference config asks for.

    Args:
        folder: the bundle's root.
        metadata: its `configs/metadata.json`.
        network: the network to build.
        weights: the file of its weights, inside the folder.
        preprocessing, postprocessing: steps in order, without those that the config disables.
        inferer: how the network is laid over an image.
    """

    folder: Path
    metadata: dict[str, Any]
    network: Component
    weights: Path
    preprocessing: tuple[Component, ...]
    inferer: Component
    postprocessing: tuple[Component, ...]


def is_bundle(folder: Path) -> bool:
    """Whether a folder has a MONAI bundle's shape."""
    return (folder / "configs" / "metadata.json").is_file()


def read_plan(folder: Path) -> BundlePlan:
    """Read a bundle's plan.

    Raises:
        SpecError: a file is missing or unreadable, or asks for what is not done here; the sentence names it.
    """
    metadata = read_json(folder / "configs" / "metadata.json")
    config = read_config(folder / "configs" / "inference.json", {"bundle_root": "."})
    network = config.get("network_def" if "network_def" in config else "network")
    if not isinstance(network, Component):
        raise SpecError(f"{config.source}: 'network_def' describes no network.")
    inferer = config.get("inferer") if "inferer" in config else Component("SimpleInferer")
    if not isinstance(inferer, Component):
        raise SpecError(f"{config.source}: 'inferer' describes no inferer.")
    return BundlePlan(
        folder,
        metadata,
        network,
        _weights(folder, config),
        _steps(config, "preprocessing"),
        inferer,
        _steps(config, "postprocessing"),
    )


def _steps(config: Config, key: str) -> tuple[Component, ...]:
    if key not in config:
        raise SpecError(f"{config.source}: there is no '{key}', so that what the network wants is not known.")
    value = config.get(key)
    steps = value.arguments.get("transforms", []) if isinstance(value, Component) and value.name == "Compose" else value
    steps = [steps] if isinstance(steps, Component) else steps
    if not isinstance(steps, (list, tuple)) or not all(isinstance(step, Component) for step in steps):
        raise SpecError(f"{config.source}: '{key}' is no list of transforms.")
    return tuple(steps)


def _weights(folder: Path, config: Config) -> Path:
    """The file that the config's checkpoint loader names; else the usual ones."""
    written = None
    if "checkpointloader" in config:
        try:
            written = config.get("checkpointloader#load_path")
        except SpecError:
            written = None  # an expression that is not evaluated here: the usual names are tried
    if isinstance(written, str):
        path = PurePosixPath(written)
        if path.is_absolute() or ".." in path.parts or "\\" in written or ":" in written:
            raise SpecError(f"{config.source}: the weights '{written}' lie outside the bundle.")
        if (folder / path).is_file():
            return folder / path
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), folder / WEIGHTS[-1])
