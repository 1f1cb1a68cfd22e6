"""The plan of a model of any format that is built like a MONAI bundle: the one place where they are told apart."""

from collections.abc import Callable
from pathlib import Path

from MedAILib.bundle_plan import BundlePlan, read_plan
from MedAILib.errors import SpecError
from MedAILib.formats import Format, find_format
from MedAILib.state_dict_plan import read_state_dict_plan
from MedAILib.torchscript_plan import read_torchscript_plan

READERS: dict[Format, Callable[[Path], BundlePlan]] = {
    Format.BUNDLE: read_plan,
    Format.STATE_DICT: read_state_dict_plan,
    Format.TORCHSCRIPT: read_torchscript_plan,
}


def read_any_plan(source: Path) -> BundlePlan:
    """Read the plan of a MONAI bundle, of weights with a description, or of TorchScript.

    Raises:
        SpecError: it is none of these, or its description can't be read.
    """
    kind = find_format(source)
    if kind not in READERS:
        raise SpecError(f"{source} is an {kind.value}, which has no such plan.")
    return READERS[kind](source)
