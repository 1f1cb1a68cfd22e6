"""What stands against running a MONAI bundle, as far as its description alone tells: its task, and code of its own."""

import sys
from pathlib import Path
from typing import Any

from MedAILib.bundle_plan import BundlePlan
from MedAILib.config_values import Component, Unknown
from MedAILib.detection_plan import INFERER as DETECTION_INFERER
from MedAILib.detection_plan import is_faster_rcnn
from MedAILib.generation_plan import SAMPLERS, Generation
from MedAILib.reviewed_steps import REVIEWED_STEPS

# Packages whose names in a config stand for what an allow-list may build instead.
LIBRARIES = {
    "",
    "MedAILib",
    "monai",
    "torch",
    "torchvision",
    "numpy",
    "np",
    "ignite",
    "builtins",
    *sys.stdlib_module_names,
}
# Networks and transforms of the Model Zoo's own scripts that MedAI has written anew; a person has read what they do.
REVIEWED_NETWORKS = ("scripts.networks.unest.UNesT", "scripts.networks.unest_base_patch_4.UNesT")
TASKS = {
    "segmentation": ("segmentation",),
    "classification": ("classes", "classification", "class", "label", "labels"),
    "detection": ("dict", "boxes", "box", "bounding_box", "bounding boxes"),
    "landmark detection": ("points", "point", "landmarks", "keypoints"),
}

TASKS_THAT_RUN = ("segmentation", "classification", "detection", "generation", "image-to-image")


def bundle_task(metadata: dict[str, Any]) -> str:
    """What a bundle is for, by what its metadata says of the network's outputs, in one or two words.

    "segmentation", "classification", "detection", "landmark detection", "registration", "generation",
    "reconstruction", "image-to-image"; else the output's format as written.
    """
    data = metadata.get("network_data_format") or {}
    inputs, outputs = _sides(data.get("inputs")), _sides(data.get("outputs"))
    told = str(metadata.get("task", "")).lower()
    first = outputs[0] if outputs else {}
    kind, form = str(first.get("type", "")).lower(), str(first.get("format", "segmentation")).lower()
    if form in ("segmentation", "labels") and not _is_vector(first):
        return "segmentation"
    if kind in ("object", "boxes"):
        return "detection"
    for task, forms in TASKS.items():
        if form in forms:
            return task
    taken = " ".join(str(side.get(key, "")).lower() for side in inputs for key in ("type", "format"))
    if any(word in taken for word in ("latent", "noise", "timesteps")):
        return "generation"
    for word in ("registration", "reconstruction"):
        if word in told:
            return word
    return "image-to-image" if kind == "image" else form


def obstacle(plan: BundlePlan) -> str:
    """Why a bundle can't be run, in a sentence; empty where its description says nothing against it."""
    name, task = plan.folder.resolve().name, bundle_task(plan.metadata)
    needs = code_needs(plan)
    if needs:
        uses = "; ".join(f"{path} for its {what} '{target}'" for path, what, target in needs)
        return f"The model {name} needs code of its own, which MedAI does not execute: {uses}."
    if task not in TASKS_THAT_RUN:
        return f"The model {name} is for {task}, which MedAI does not run yet."
    if task == "generation" and not isinstance(plan.generation, Generation):
        why = plan.generation.reason if isinstance(plan.generation, Unknown) else "its config draws no noise."
        return f"The model {name} is for generation, and how it makes images is not understood: {why}"
    if plan.problems:
        return plan.problems[0]
    if task == "detection" and plan.detection is None and not is_faster_rcnn(plan.network):
        return f"The model {name} is for detection, and its config describes no detector that MedAI runs."
    return ""


def is_detector(plan: BundlePlan) -> bool:
    """Whether a bundle's inferer is the Model Zoo's for detectors, which only hands the image to MONAI's detector."""
    return plan.inferer.target == DETECTION_INFERER and bundle_task(plan.metadata) == "detection"


def is_prompted(plan: BundlePlan) -> bool:
    """Whether a bundle is VISTA3D: MONAI has the network and the post-processing, and its own inferer's part is known.

    Its inferer lays Gaussian windows, and asks the network for each of the classes that the config lists.
    """
    return (
        plan.network.target == "monai.networks.nets.vista3d132"
        and plan.inferer.target == "scripts.inferer.Vista3dInferer"
        and any(step.name == "VistaPostTransformd" for step in plan.postprocessing)
        and bool(plan.prompts)
    )


def is_sampled(plan: BundlePlan) -> bool:
    """Whether a bundle's sampler is one that MedAI has itself."""
    return plan.inferer.target in SAMPLERS and plan.generation is not None


def code_needs(plan: BundlePlan) -> list[tuple[str, str, str]]:
    """Python files of a bundle that it would execute: (path in the bundle, what for, the name in its config)."""
    found: list[tuple[str, str, str]] = []
    for what, component in plan.components():
        first, _, rest = component.target.partition(".")
        dotted = f"{plan.imports.get(first, first)}.{rest}" if rest else first
        if not rest or dotted.split(".")[0] in LIBRARIES or _is_reviewed(plan, what, component):
            continue
        entry = (_file_of(plan.folder, dotted), what, component.target)
        if entry[0] not in [path for path, _, _ in found]:
            found.append(entry)
    return found


def _is_reviewed(plan: BundlePlan, what: str, component: Component) -> bool:
    """Whether something of a bundle's scripts is one that MedAI has itself."""
    if component is plan.inferer:
        return is_prompted(plan) or is_sampled(plan) or is_detector(plan)
    if component is plan.network:
        return component.target in REVIEWED_NETWORKS
    return what == "preprocessing" and component.target in REVIEWED_STEPS


def _file_of(folder: Path, dotted: str) -> str:
    """The file that a dotted name of a class leads to: that of its module, or of the package that it stands in."""
    parts = dotted.split(".")[:-1]
    for count in range(len(parts), 0, -1):
        module = "/".join(parts[:count])
        for path in (f"{module}.py", f"{module}/__init__.py"):
            if (folder / path).is_file():
                return path
    return f"{'/'.join(parts)}.py"


def _sides(sides: Any) -> list[dict[str, Any]]:
    return [side for side in sides.values() if isinstance(side, dict)] if isinstance(sides, dict) else []


def _is_vector(output: dict[str, Any]) -> bool:
    """Whether an output is one number for each class instead of an image."""
    shape = output.get("spatial_shape")
    return isinstance(shape, list) and len(shape) <= 2 and shape[:1] == [1]
