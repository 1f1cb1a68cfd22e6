"""A MONAI bundle's folder read as a plan: which network, weights and steps it asks for. Nothing is built here."""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from MedAILib.config import Config, read_config, read_json
from MedAILib.config_values import Component, Unknown, known
from MedAILib.detection_plan import DetectionPlan, read_detection
from MedAILib.errors import SpecError
from MedAILib.generation_plan import Generation, read_generation, sampler_target

CONFIGS = ("configs/inference.json", "configs/inference.yaml", "configs/inference.yml")
WEIGHTS = ("models/model.safetensors", "models/model.pt")
SCRIPT = "models/model.ts"
HANDLERS = ("handlers", "val_handlers", "evaluator#val_handlers")

_IMPORT = re.compile(r"(?:from\s+([\w.]+)\s+)?import\s+(.+)")


# The zoo's lung nodule detector is told by it whether an image still has to be brought to the voxel spacing that it was
# trained on; its author resampled his images before. An image that has that spacing is left as it is in either case.
RESAMPLED_SWITCH = "whether_raw_luna16"


@dataclass(frozen=True)
class BundlePlan:
    """What a bundle's inference config asks for.

    Args:
        folder: the bundle's root.
        metadata: its `configs/metadata.json`.
        told_in: the file that has the metadata.
        network: the network to build.
        weights: the file of its weights, inside the folder.
        preprocessing, postprocessing: steps in order, without those that the config disables.
        inferer: how the network is laid over an image.
        imports: modules that the config would import, by the name that it has for each.
        problems: parts of the config that were not worked out, and why; such a part is empty.
        prompts: classes that a network of prompts is asked for by itself, by their numbers.
        script: a file of TorchScript that has network and weights in it; None where the network is built.
        detection: how boxes are found; None for a model that finds none.
        generation: how images come about from noise; `Unknown` where that is not understood, None for other models.
    """

    folder: Path
    metadata: dict[str, Any]
    told_in: Path
    network: Component
    weights: Path
    preprocessing: tuple[Component, ...]
    inferer: Component
    postprocessing: tuple[Component, ...]
    imports: dict[str, str]
    problems: tuple[str, ...] = ()
    prompts: tuple[int, ...] = ()
    script: Path | None = None
    detection: DetectionPlan | None = None
    generation: Generation | Unknown | None = None

    def components(self) -> Iterator[tuple[str, Component]]:
        """Everything that the config wants built, with what it is for."""
        for what, component in (
            *(() if self.script else (("network", self.network),)),
            *(("preprocessing", step) for step in self.preprocessing),
            ("inferer", self.inferer),
            *(("post-processing", step) for step in self.postprocessing),
        ):
            yield what, component
            for value in (*component.arguments.values(), *component.positional):
                if isinstance(value, Component):
                    yield what, value


def is_bundle(folder: Path) -> bool:
    """Whether a folder has a MONAI bundle's shape."""
    return (folder / "configs" / "metadata.json").is_file()


def read_plan(folder: Path) -> BundlePlan:
    """Read a bundle's plan.

    Raises:
        SpecError: a file is missing or unreadable, or its weights lie elsewhere; the sentence names it.
    """
    told_in = folder / "configs" / "metadata.json"
    metadata = read_json(told_in)
    place = next((folder / name for name in CONFIGS if (folder / name).is_file()), folder / CONFIGS[0])
    config = read_config(place, {"bundle_root": "."})
    if RESAMPLED_SWITCH in config:
        config = read_config(place, {"bundle_root": ".", RESAMPLED_SWITCH: True})
    weights = _weights(folder, config)
    script = None if weights.is_file() or not (folder / SCRIPT).is_file() else folder / SCRIPT
    return plan_of(folder, told_in, metadata, config, weights, script)


def plan_of(
    folder: Path,
    told_in: Path,
    metadata: dict[str, Any],
    config: Config,
    weights: Path,
    script: Path | None = None,
) -> BundlePlan:
    """The plan that a config asks for; what can't be worked out in it is among the plan's problems.

    `config` has the network, the steps and the inferer; everything else is as the plan has it.
    """
    problems: list[str] = []

    def part(read: Callable[[Config], Any], empty: Any) -> Any:
        try:
            return read(config)
        except SpecError as error:
            problems.append(str(error))
            return empty

    prompts, detection = part(_prompts, ()), part(read_detection, None)
    generation = _generation(config, folder)
    steps = _steps if generation is None else _steps_if_any
    network = part(_network, Component("")) if script is None else _network_of_script(config)
    return BundlePlan(
        folder,
        metadata,
        told_in,
        network,
        weights,
        part(lambda c: steps(c, "preprocessing"), ()),
        part(_inferer, Component("")),
        part(lambda c: steps(c, "postprocessing"), ()),
        _imports(config),
        tuple(problems),
        prompts,
        script,
        detection,
        generation,
    )


def _generation(config: Config, folder: Path) -> Generation | Unknown | None:
    try:
        return read_generation(config, folder)
    except SpecError as error:
        return Unknown(str(error))


def _network(config: Config) -> Component:
    network = config.get("network" if "network" in config and "network_def" not in config else "network_def")
    if not isinstance(network, Component):
        raise SpecError(f"{config.source}: 'network_def' describes no network.")
    return network


def _network_of_script(config: Config) -> Component:
    """What a config says of a network that is TorchScript: of use for its number of axes and channels."""
    try:
        return _network(config)
    except SpecError:
        return Component("")


def _inferer(config: Config) -> Component:
    if sampler := sampler_target(config):
        return Component(sampler)  # what it wants done first is done in our own way
    inferer = config.get("inferer") if "inferer" in config else Component("SimpleInferer")
    if not isinstance(inferer, Component):
        raise SpecError(f"{config.source}: 'inferer' describes no inferer.")
    return inferer


def _prompts(config: Config) -> tuple[int, ...]:
    """The classes that VISTA3D's configs list for a run without prompts."""
    numbers = config.get("everything_labels") if "everything_labels" in config else []
    if not isinstance(numbers, list) or not all(isinstance(n, int) and 0 < n < 256 for n in numbers):
        raise SpecError(f"{config.source}: 'everything_labels' is no list of class numbers.")
    return tuple(sorted(set(numbers)))


def _steps(config: Config, key: str) -> tuple[Component, ...]:
    if key not in config:
        raise SpecError(f"{config.source}: there is no '{key}', so that what the network wants is not known.")
    return tuple(_flat(config.get(key), key, config))


def _steps_if_any(config: Config, key: str) -> tuple[Component, ...]:
    """Steps of a model that makes images from noise, which may have none."""
    return _steps(config, key) if key in config else ()


def _flat(value: Any, key: str, config: Config) -> Iterator[Component]:
    """Transforms one by one, those within a `Compose` too."""
    if isinstance(value, Component) and value.target.rpartition(".")[2] == "Compose":
        arguments = dict(value.arguments)
        transforms = known(arguments.pop("transforms", value.positional[0] if value.positional else []))
        yield from _flat([] if transforms is None else transforms, key, config)
    elif isinstance(value, Component):
        yield value
    elif isinstance(value, (list, tuple)):
        for step in value:
            yield from _flat(step, key, config)
    else:
        raise SpecError(f"{config.source}: '{key}' is no list of transforms.")


def _weights(folder: Path, config: Config) -> Path:
    """The file that the config's checkpoint loader names; else the usual ones."""
    named: Path | None = None
    for written in _load_paths(config):
        if not isinstance(written, (str, PurePosixPath)):
            continue
        path = PurePosixPath(written)
        if path.is_absolute() or ".." in path.parts or "\\" in str(written) or ":" in str(written):
            raise SpecError(f"{config.source}: the weights '{written}' lie outside the bundle.")
        try:
            if (folder / path).is_file():
                return folder / path
        except OSError as error:
            raise SpecError(f"{config.source}: the weights can't be read: {error.strerror or error}.") from error
        named = named or folder / path
    return next((folder / name for name in WEIGHTS if (folder / name).is_file()), named or folder / WEIGHTS[-1])


def _load_paths(config: Config) -> Iterator[Any]:
    """What each checkpoint loader of the config names, as far as it can be worked out."""
    places = ["checkpointloader"]
    for handlers in HANDLERS:
        try:
            items = config.raw(handlers)
        except SpecError:
            continue
        places += [f"{handlers}#{number}" for number in range(len(items) if isinstance(items, list) else 0)]
    for place in places:
        try:
            entry = config.raw(place)
            if isinstance(entry, dict) and str(entry.get("_target_", "")).endswith("CheckpointLoader"):
                yield config.get(f"{place}#load_path")
        except SpecError:
            continue  # an expression that is not evaluated here: the usual names are tried


def _imports(config: Config) -> dict[str, str]:
    """Modules by the names that the config's imports give them; what is no import is left out."""
    found: dict[str, str] = {}
    for key in ("imports", "import"):
        lines = config.raw(key) if key in config else []
        for line in lines if isinstance(lines, list) else [lines]:
            match = _IMPORT.fullmatch(str(line).lstrip("$ ").strip())
            for name in match[2].split(",") if match else ():
                module, _, alias = (part.strip() for part in name.partition(" as "))
                prefix = f"{match[1]}." if match and match[1] else ""
                found[alias or (module if prefix else module.split(".")[0])] = (
                    prefix + module if alias or prefix else module.split(".")[0]
                )
    return found


def argument(component: Component, key: str, default: Any = None) -> Any:
    """A component's argument, or the default where it has none or one that was not worked out."""
    value = component.arguments.get(key, default)
    return default if isinstance(value, Unknown) else value
