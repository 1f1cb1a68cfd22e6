"""Which models are at hand, by name: those that ship with MedAI, those the user added, and paths."""

import difflib
from pathlib import Path

from MedAILib.config import read_json
from MedAILib.errors import InputError
from MedAILib.store.archive import is_archive
from MedAILib.store.catalogue import catalogue
from MedAILib.store.folders import RESOURCES
from MedAILib.store.record import installed_models
from MedAILib.store.unpacked import unpacked

CHECKSUMS = RESOURCES / "Models" / "checksums.json"


def builtin_models() -> dict[str, Path]:
    """The models that ship with MedAI: name and folder."""
    folder = RESOURCES / "Models"
    found = folder.iterdir() if folder.is_dir() else ()
    return {path.name: path for path in sorted(found) if is_model_folder(path)}


def is_model_folder(path: Path) -> bool:
    """Whether a folder is a bundle or an ensemble, as far as its files' names tell."""
    return any((path / name).is_file() for name in ("configs/metadata.json", "medai.json"))


def builtin_checksums() -> dict[str, str]:
    """The SHA-256 (see `content.tree_sha256`) that each built-in model had when it was shipped, by name."""
    return {str(k): str(v) for k, v in read_json(CHECKSUMS).items()} if CHECKSUMS.is_file() else {}


def find_model(name_or_path: str) -> Path:
    """The folder or file of a model, from its name or from a path; an archive is unpacked into the store's cache.

    Raises:
        InputError: there is none; the sentence says the nearest name.
        ModelError: an archive is damaged or refused.
        OutputError: an archive can't be unpacked.
    """
    if not name_or_path.strip():
        raise InputError("The model's name is empty; `medai models list` shows the names.")
    builtin = builtin_models()
    if name_or_path in builtin:
        return builtin[name_or_path]
    installed = {name: there.path for name, there in installed_models().items()}
    if name_or_path in installed:
        return installed[name_or_path]
    path = existing(name_or_path)
    if path is not None:
        return unpacked(path) if is_archive(path) else path
    if name_or_path in catalogue():
        raise InputError(
            f"The model '{name_or_path}' is not on this computer yet; get it with `medai models add {name_or_path}`."
        )
    names = [*builtin, *installed]
    near = difflib.get_close_matches(name_or_path.lower(), [*names, *catalogue()], n=1, cutoff=0.5)
    hint = f"did you mean '{near[0]}'?" if near else f"known are {', '.join(names) or 'none'}."
    raise InputError(f"There is no model '{name_or_path}', neither installed nor as a path; {hint}")


def existing(words: str) -> Path | None:
    """The path that these words are, if there is something."""
    try:
        path = Path(words).expanduser()
        return path if path.exists() else None
    except (OSError, ValueError, RuntimeError):  # too long, with a zero byte, of an unknown user
        return None
