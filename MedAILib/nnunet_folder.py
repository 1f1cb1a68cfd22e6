"""Which nnU-Net v2 result folder a path means, and which configuration and folds are in it; by names and JSON alone."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from MedAILib.config import read_json
from MedAILib.errors import SpecError

CHECKPOINTS = ("checkpoint_final.pth", "checkpoint_best.pth")
# Which of several configurations of one dataset is taken; nnU-Net's own recommendation for a start.
PREFERENCE = ("3d_fullres", "3d_cascade_fullres", "3d_lowres", "2d")
MOST_FOLDERS = 500


@dataclass(frozen=True)
class Results:
    """One trained configuration.

    Args:
        folder: `<trainer>__<plans>__<configuration>`, with plans.json and dataset.json in it.
        configuration: its name in the plans.
        checkpoints: one file for each fold, in order.
    """

    folder: Path
    configuration: str
    checkpoints: tuple[Path, ...]

    @property
    def trainer(self) -> str:
        """The name of nnU-Net's trainer class as the folder's name says it; empty when it doesn't."""
        return self.folder.resolve().name.partition("__")[0] if "__" in self.folder.resolve().name else ""

    def sibling(self, configuration: str) -> Path:
        """Where nnU-Net puts another configuration of the same trainer and plans."""
        folder = self.folder.resolve()
        return folder.parent / "__".join([*folder.name.split("__")[:-1], configuration])


def why_no_nnunet(source: Path) -> str:
    """Why a folder is no nnU-Net v2 result folder, or holds none; empty when it is one."""
    if not source.is_dir():
        return "an nnU-Net result is a folder"
    candidates = list(_candidates(source))
    if not candidates:
        return "an nnU-Net result folder has plans.json and dataset.json in it"
    try:
        content = read_json(candidates[0] / "plans.json")
    except SpecError as error:
        return str(error).rstrip(".")
    return "" if isinstance(content.get("configurations"), dict) else "its plans.json names no 'configurations'"


def find_results(source: Path) -> Results:
    """The trained configuration that a path means.

    Args:
        source: a result folder; one fold's folder in it, which picks that fold alone; or a folder above, of one
            dataset with several configurations, of which the first of `PREFERENCE` is taken.

    Raises:
        SpecError: there is none, it can't be told which, or it has no checkpoint.
    """
    if reason := why_no_nnunet(source):
        raise SpecError(f"{source} is no nnU-Net result: {reason}.")
    candidates = list(_candidates(source))
    if len(candidates) == 1:
        only = source.resolve().name if source.resolve().name.startswith("fold_") else None
        return results_in(candidates[0], only)
    if len({folder.parent for folder in candidates}) > 1:
        names = ", ".join(sorted({folder.parent.name for folder in candidates}))
        raise SpecError(f"{source} holds nnU-Net models of several datasets ({names}); name the folder of one.")
    trained = [(_configuration(folder), folder) for folder in candidates if _checkpoints(folder)]
    if not trained:
        raise SpecError(_no_checkpoint(source))
    wanted = min((name for name, _ in trained), key=_rank)
    chosen = [folder for name, folder in trained if name == wanted]
    if len(chosen) > 1:
        names = ", ".join(folder.name for folder in chosen)
        raise SpecError(f"{source} holds several nnU-Net models of {wanted} ({names}); name the folder of one.")
    return results_in(chosen[0])


def results_in(folder: Path, only: str | None = None) -> Results:
    """What a result folder holds; `only` picks one fold by its folder's name.

    Raises:
        SpecError: no checkpoint, or no telling which configuration it is.
    """
    checkpoints = tuple(path for path in _checkpoints(folder, only))
    if not checkpoints:
        raise SpecError(_no_checkpoint(folder))
    return Results(folder, _configuration(folder), checkpoints)


def _is_result(folder: Path) -> bool:
    return (folder / "plans.json").is_file() and (folder / "dataset.json").is_file()


def _candidates(source: Path) -> Iterator[Path]:
    """The result folders that a path can mean: itself, its parent if it is a fold, or those one or two levels below."""
    if _is_result(source):
        yield source
    elif source.resolve().name.startswith("fold_") and _is_result(source.resolve().parent):
        yield source.resolve().parent
    else:
        below = _folders(source)
        direct = [folder for folder in below if _is_result(folder)]
        yield from direct or (folder for parent in below for folder in _folders(parent) if _is_result(folder))


def _folders(folder: Path) -> list[Path]:
    try:
        inside = sorted(path for path in folder.iterdir() if path.is_dir() and not path.is_symlink())
    except OSError:
        return []
    return inside[:MOST_FOLDERS]


def _checkpoints(folder: Path, only: str | None = None) -> list[Path]:
    """One checkpoint for each trained fold, all of one kind; the fold of all cases only where there is no other."""
    folds = [path for path in _folders(folder) if path.name.startswith("fold_") and only in (None, path.name)]
    for name in CHECKPOINTS:
        found = [fold / name for fold in folds if (fold / name).is_file()]
        numbered = [path for path in found if path.parent.name != "fold_all"]
        if found:
            return numbered or found
    return []


def _configuration(folder: Path) -> str:
    """The configuration's name: as the folder is named, else as a fold's debug.json says, else the only one."""
    known: Any = read_json(folder / "plans.json").get("configurations")
    if not isinstance(known, dict) or not known:
        raise SpecError(f"{folder / 'plans.json'} names no configuration, so that nothing is known of the network.")
    name = folder.resolve().name.split("__")
    if len(name) > 2:
        if name[-1] in known:
            return name[-1]
        raise SpecError(
            f"{folder / 'plans.json'} has no configuration '{name[-1]}', which the folder is named for; it has "
            f"{', '.join(map(str, known))}."
        )
    for fold in _folders(folder):
        if fold.name.startswith("fold_") and (fold / "debug.json").is_file():
            noted = read_json(fold / "debug.json").get("configuration_name")
            if noted in known:
                return str(noted)
    if len(known) == 1:
        return str(next(iter(known)))
    raise SpecError(
        f"It can't be told which configuration {folder} holds; name it as nnU-Net does, such as "
        "nnUNetTrainer__nnUNetPlans__3d_fullres."
    )


def _rank(configuration: str) -> tuple[int, str]:
    known = configuration in PREFERENCE
    return (PREFERENCE.index(configuration) if known else len(PREFERENCE), configuration)


def _no_checkpoint(folder: Path) -> str:
    return (
        f"The nnU-Net model in {folder} has no weights: no fold has a {' or a '.join(CHECKPOINTS)}; finish the "
        "training or copy them there."
    )
