"""Where in an unpacked folder the model is: archives often wrap it in folders of their own."""

from pathlib import Path

from MedAILib.errors import ModelError, SpecError
from MedAILib.read_spec import require_model

DEEPEST = 5
# Of a folder that holds so much else nobody means that it is a model.
MOST_FOLDERS = 2_000


def model_root(folder: Path, whole: object) -> Path:
    """The folder or file in `folder` that is a model: itself, or the only one that lies in it, folders within folders.

    `whole` is what the user gave, for messages.

    Raises:
        ModelError: there is none, or several.
    """
    level = [folder]
    for _ in range(DEEPEST):
        models = [path for path in level if _is_model(path)]
        if len(models) > 1:
            names = ", ".join(path.relative_to(folder).as_posix() for path in models[:5])
            raise ModelError(f"{whole} holds several models ({names}); unpack it and add them one by one.")
        if models:
            return models[0]
        level = [path for place in level if place.is_dir() for path in _inside(place)]
        if len(level) > MOST_FOLDERS:
            break
    raise ModelError(f"{whole} holds no model that MedAI knows{_formats(folder)}")


def _inside(folder: Path) -> list[Path]:
    """The folders in a folder; its file, where there is nothing else in it."""
    paths = sorted(folder.iterdir())
    return paths if len(paths) == 1 else [path for path in paths if path.is_dir() and not path.is_symlink()]


def _formats(folder: Path) -> str:
    """What makes a folder a model, in the words of the reader of specs."""
    try:
        require_model(folder)
    except SpecError as error:
        return f": {str(error).partition(': ')[2]}"
    return "."


def _is_model(path: Path) -> bool:
    try:
        require_model(path)
    except SpecError:
        return False
    return True
