"""From a model's files to its `ModelSpec`, one reader for each format; neither weights nor PyTorch are touched."""

from pathlib import Path

from MedAILib.bundle_spec import bundle_spec
from MedAILib.ensemble_plan import ensemble_spec, read_members
from MedAILib.formats import Format, find_format
from MedAILib.nnunet_spec import read_nnunet_spec
from MedAILib.plans import READERS
from MedAILib.spec import ModelSpec


def read_spec(source: Path) -> ModelSpec:
    """Read the description of the model in a folder or file.

    Raises:
        SpecError: there is no model, or its description is missing, unreadable or contradicts itself.
    """
    kind = find_format(source)
    if kind is Format.NNUNET:
        return read_nnunet_spec(source)
    if kind is Format.ENSEMBLE:
        return ensemble_spec(source, [read_spec(member) for member in read_members(source)])
    return bundle_spec(READERS[kind](source))


def require_model(source: Path) -> None:
    """Raise `SpecError`, with the reason, unless the folder or file is a model of a format that MedAI knows."""
    find_format(source)
