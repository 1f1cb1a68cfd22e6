"""Whether a model with a plan can be run, from its description alone."""

from pathlib import Path

from MedAILib.bundle_spec import bundle_spec
from MedAILib.detection_plan import is_faster_rcnn
from MedAILib.errors import ModelError, SpecError
from MedAILib.models.bundle import bundle_network, bundle_recipe
from MedAILib.models.classifier import classify_recipe
from MedAILib.models.detector import build_anchors, detect_recipe
from MedAILib.models.faster_rcnn import faster_rcnn_recipe
from MedAILib.models.generator import generator_networks, generator_values
from MedAILib.models.networks import build_network, sketched
from MedAILib.models.trust import require_trust, tree_sha256
from MedAILib.plans import read_any_plan


def why_not(folder: Path) -> str:
    """Why a model can't be run, in a sentence; empty where it can. Its weights are not looked at.

    Raises:
        SpecError: its description can't be read.
    """
    plan = read_any_plan(folder)
    spec = bundle_spec(plan)
    try:
        if spec.task == "generation":
            generator_values(plan)
            with sketched():
                for network in generator_networks(plan):
                    build_network(network.target, network.arguments, plan.folder)
            return ""
        if plan.detection is not None:
            detect_recipe(plan, spec, plan.detection)
            build_anchors(plan.detection.anchors)
        elif is_faster_rcnn(plan.network) and spec.task == "detection":
            faster_rcnn_recipe(plan, spec)
        elif spec.classes is not None:
            classify_recipe(plan, spec, spec.classes)
        else:
            bundle_recipe(plan, spec)
        if plan.script is not None:
            require_trust(folder, tree_sha256(folder))
            return ""
        with sketched():
            bundle_network(plan)
    except (SpecError, ModelError) as error:
        return str(error)
    return ""
