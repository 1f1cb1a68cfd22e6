"""From a model's files to its `ModelSpec`, one reader for each format; neither weights nor PyTorch are touched."""

from pathlib import Path

from MedAILib.bundle_plan import is_bundle, read_plan
from MedAILib.bundle_spec import bundle_spec
from MedAILib.errors import SpecError
from MedAILib.nnunet_folder import why_no_nnunet
from MedAILib.nnunet_spec import read_nnunet_spec
from MedAILib.spec import ModelSpec


def read_spec(source: Path) -> ModelSpec:
    """Read the description of the model in a folder or file.

    Raises:
        SpecError: there is no model, or its description is missing, unreadable or contradicts itself.
    """
    require_model(source)
    return bundle_spec(read_plan(source)) if is_bundle(source) else read_nnunet_spec(source)


def require_model(source: Path) -> None:
    """Raise `SpecError`, with the reason, unless the folder or file is a model of a format that MedAI knows."""
    if not source.exists():
        raise SpecError(f"There is no model at {source}.")
    if not is_bundle(source) and (reason := why_no_nnunet(source)):
        raise SpecError(
            f"{source} is no model that MedAI knows: a MONAI bundle has configs/metadata.json and "
            f"configs/inference.json in it; {reason}."
        )
