"""Models that run only by executing code of their own: which ones they are, and the question to the user."""

from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from MedAILib.ensemble_plan import read_members
from MedAILib.errors import MedAIError
from MedAILib.formats import Format, find_format
from MedAILib.models.store import find_model
from MedAILib.models.trust import ALLOWS, is_trusted, tree_sha256, trust
from MedAILib.plans import READERS


@dataclass(frozen=True)
class Script:
    """A model that executes code, where it lies and what exactly it is."""

    source: Path
    sha256: str

    def question(self) -> str:
        """What the user is asked before the model is run for the first time."""
        return _(
            "The model {name} in {folder} can only run if you allow it to execute the TorchScript code in it, which "
            "may do what any program of yours can.\n\n"
            "Allow it only if you trust who made it. Your answer holds for exactly this content, whose SHA-256 is\n"
            "{sha256}\nand until you revoke it with `medai models trust --revoke`."
        ).format(name=self.source.name, folder=self.source.parent, sha256=self.sha256)


def untrusted_scripts(model: str) -> list[Script]:
    """What of a model the user has to allow before it runs; nothing for one that can't be found or read here.

    Takes as long as reading the files of a model that executes code; others are not read.

    Args:
        model: its name or path.

    Raises:
        SpecError: the user's list can't be read.
    """
    return [script for script in _scripts(model) if not is_trusted(script.sha256)]


def trust_code(model: str) -> str:
    """The SHA-256 of the one script of a model that the user has allowed here.

    A worker elsewhere does not have her list, so it travels with the run. Empty for a model that executes no code, or
    of which several parts do.
    """
    scripts = [script for script in _scripts(model) if is_trusted(script.sha256)]
    return scripts[0].sha256 if len(scripts) == 1 else ""


def allow(script: Script) -> None:
    """Take down that the user allows it."""
    trust(script.sha256, str(script.source), ALLOWS)


def executes_code(source: Path) -> bool:
    """Whether a model, or one that it is made of, runs only by executing code; False for what can't be read."""
    try:
        return bool(_sources(source))
    except MedAIError:
        return False


def _scripts(model: str) -> list[Script]:
    try:
        sources = _sources(find_model(model))
    except MedAIError:  # for the worker to judge
        return []
    return [Script(source, tree_sha256(source)) for source in sources]


def _sources(source: Path) -> list[Path]:
    kind = find_format(source)
    if kind is Format.ENSEMBLE:
        return [script for member in read_members(source) for script in _sources(member)]
    return [source] if kind in READERS and READERS[kind](source).script is not None else []
