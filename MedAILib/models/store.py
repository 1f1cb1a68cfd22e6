"""Which models are at hand, by name."""

import difflib
from pathlib import Path

from MedAILib.config import read_json
from MedAILib.errors import InputError

_PACKAGE = Path(__file__).parents[1]
# In a wheel the resources stand inside the package; in a source tree and in Slicer beside it.
RESOURCES = next(
    (p for p in (_PACKAGE / "Resources", _PACKAGE.parent / "Resources") if p.is_dir()), _PACKAGE / "Resources"
)

CHECKSUMS = RESOURCES / "Models" / "checksums.json"


def builtin_models() -> dict[str, Path]:
    """The models that ship with MedAI: name and folder."""
    folder = RESOURCES / "Models"
    found = folder.iterdir() if folder.is_dir() else ()
    return {path.name: path for path in sorted(found) if (path / "configs" / "metadata.json").is_file()}


def builtin_checksums() -> dict[str, str]:
    """The SHA-256 (see `trust.tree_sha256`) that each built-in model had when it was shipped, by name."""
    return {str(k): str(v) for k, v in read_json(CHECKSUMS).items()} if CHECKSUMS.is_file() else {}


def find_model(name_or_path: str) -> Path:
    """The folder or file of a model, from its name or from a path.

    Raises:
        InputError: there is none; the sentence says the nearest name.
    """
    builtin = builtin_models()
    if name_or_path in builtin:
        return builtin[name_or_path]
    path = Path(name_or_path).expanduser()
    if name_or_path and path.exists():
        return path
    near = difflib.get_close_matches(name_or_path.lower(), builtin, n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(builtin) or 'none'}."
    raise InputError(f"There is no model '{name_or_path}', neither installed nor as a path; {hint}")
