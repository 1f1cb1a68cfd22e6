"""The models that can be fetched from elsewhere: `Resources/Models/catalogue.json`, read."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from MedAILib.config import read_json
from MedAILib.errors import SpecError
from MedAILib.store.folders import RESOURCES
from MedAILib.store.licence import Licence
from MedAILib.store.remote import Remote

CATALOGUE = RESOURCES / "Models" / "catalogue.json"


@dataclass(frozen=True)
class Entry:
    """A model that can be downloaded, as far as it is known; what is not is None or empty.

    Args:
        remote: its address, hash and size.
        licence: see `Licence`.
        task: "segmentation", "classification" or "detection".
        runs: whether MedAI runs it; None until somebody has tried.
        why: the reason where it does not.
    """

    name: str
    version: str
    remote: Remote
    title: str | None
    task: str | None
    modality: str | None
    channels: tuple[str, ...]
    labels: tuple[str, ...]
    description: str | None
    licence: Licence
    intended_use: str | None
    runs: bool | None
    why: str | None


def catalogue() -> dict[str, Entry]:
    """The models of the catalogue by name; none where the file is absent.

    Raises:
        SpecError: the file is damaged.
    """
    return dict(_read(CATALOGUE)) if CATALOGUE.is_file() else {}


@lru_cache(maxsize=2)
def _read(path: Path) -> dict[str, Entry]:
    try:
        return {str(row["name"]): _entry(row) for row in read_json(path)["models"]}
    except (KeyError, TypeError) as error:
        raise SpecError(f"{path} is damaged: {error!r}; install MedAI again.") from error


def _entry(row: dict[str, Any]) -> Entry:
    return Entry(
        name=row["name"],
        version=row["version"],
        remote=Remote(row["address"], row["sha256"], row["sha1"], row["size"]),
        title=row["title"],
        task=row["task"],
        modality=row["modality"],
        channels=tuple(row["channels"]),
        labels=tuple(row["labels"]),
        description=row["description"],
        licence=Licence(row["licence"] or "", row["commercial"]),
        intended_use=row["intended_use"],
        runs=row["runs"],
        why=row["why"],
    )
