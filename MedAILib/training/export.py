"""A trained model's folder, whatever its task: every file whole, or none."""

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from MedAILib.bundle_plan import is_bundle
from MedAILib.config import read_json
from MedAILib.errors import ModelError, OutputError
from MedAILib.formats import DESCRIPTION
from MedAILib.models.weights import save_checkpoint
from MedAILib.output import cannot_write
from MedAILib.training.task import Task


@dataclass(frozen=True)
class Contents:
    """A bundle's files: configs by name, model card, licence, weights by name, and what else lies beside the card."""

    configs: dict[str, dict[str, Any]]
    card: str
    licence: str
    weights: dict[str, Tensor]
    documents: dict[str, bytes] = field(default_factory=dict)


def write_model(contents: Contents, folder: Path) -> None:
    """Write a bundle into a folder that does not exist yet, or replace the bundle that stands there.

    The folder is built beside its place and moved there when it is whole.

    Raises:
        ModelError: a weight is no number.
        OutputError: the folder can't be written, or holds something else than a bundle.
    """
    if bad := [key for key, value in contents.weights.items() if not bool(torch.isfinite(value).all())]:
        raise ModelError(
            f"The trained model is not written: its weights {bad[0]} have values that are no numbers, or too large for "
            "half precision; train again with a tenth of the learning rate, or with --set precision=float32."
        )
    with whole_folder(folder) as part:
        for name, content in contents.configs.items():
            path = part / "configs" / f"{name}.json"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(content, indent=4) + "\n", encoding="utf-8")
        (part / "docs").mkdir()
        (part / "docs" / "README.md").write_text(contents.card, encoding="utf-8")
        for name, document in contents.documents.items():
            (part / "docs" / name).write_bytes(document)
        (part / "LICENSE").write_text(contents.licence, encoding="utf-8")
        save_checkpoint(contents.weights, part / "models" / "model.pt")


@contextmanager
def whole_folder(folder: Path) -> Iterator[Path]:
    """A folder to write a model into, moved to its place, over an older model there, when all is written.

    Raises:
        OutputError: the folder can't be written, or holds something else than a bundle or an ensemble.
    """
    require_place(folder)
    part, old = (folder.with_name(folder.name + ending) for ending in (".part", ".old"))
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        yield part
        shutil.rmtree(old, ignore_errors=True)
        if folder.exists():
            folder.rename(old)
        try:
            part.rename(folder)
        except OSError:
            if old.exists():
                old.rename(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    except OSError as error:
        raise cannot_write(folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def require_place(folder: Path) -> None:
    """Raise `OutputError` where a trained model can't stand: in the place of something else, or without permission."""
    if folder.exists() and not _may_be_replaced(folder):
        raise OutputError(f"{folder} exists and is no bundle or ensemble; choose another folder for the trained model.")
    there = next(parent for parent in folder.resolve().parents if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass  # nothing is made before there is something to put into it
    except OSError as error:
        raise cannot_write(folder, error) from error


def _may_be_replaced(folder: Path) -> bool:
    """Whether a training may have written this: a bundle or an ensemble, but no weights that somebody described."""
    told = folder / DESCRIPTION
    return is_bundle(folder) or (told.is_file() and "members" in read_json(told))


def licence_text(task: Task) -> str:
    """The bundle's `LICENSE`: which licence the weights have, and whom to name."""
    return (
        f"{task.licence}\n\n{task.copyright}\n\n"
        "The weights are derived from the data named here and are distributed under the licence above, as these data "
        f"are.\nData: {task.data_source}.\nFull text of the licence: https://spdx.org/licenses/{task.licence}.html\n"
    )
