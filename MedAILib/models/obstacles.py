"""Whether a bundle can be run, from its description alone."""

from pathlib import Path

from MedAILib.bundle_plan import read_plan
from MedAILib.bundle_spec import bundle_spec
from MedAILib.errors import ModelError, SpecError
from MedAILib.models.bundle import bundle_network, bundle_recipe
from MedAILib.models.classifier import classify_recipe
from MedAILib.models.networks import sketched


def why_not(folder: Path) -> str:
    """Why a bundle can't be run, in a sentence; empty where it can. Its weights are not looked at.

    Raises:
        SpecError: its description can't be read.
    """
    plan = read_plan(folder)
    spec = bundle_spec(plan)
    try:
        if spec.classes is None:
            bundle_recipe(plan, spec)
        else:
            classify_recipe(plan, spec, spec.classes)
        with sketched():
            bundle_network(plan)
    except (SpecError, ModelError) as error:
        return str(error)
    return ""
