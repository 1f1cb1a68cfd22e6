"""The models that the user added, and what was noted of each when it came.

A model `name` is the folder `name` in the store: in it `record.json`, and the model itself in a folder of that name or
as a file. Both come and go together.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from MedAILib.config import read_json
from MedAILib.errors import InputError, SpecError
from MedAILib.store.folders import VARIABLE, store_folder

FILE = "record.json"


@dataclass(frozen=True)
class Record:
    """What is known of an added model.

    Args:
        name: by which it is found.
        entry: the model's folder or file beside the record.
        source: the address or path it came from.
        date: when, ISO 8601, UTC.
        sha256: of the model's tree then.
        licence: its name, "" when unknown.
        commercial: False where the licence forbids commercial use, None when unknown.
        size: bytes.
        archive: the algorithm and hash of the archive it came in, such as "sha256:…"; "" without one.
        pinned: whether that hash, or a better one, had been promised beforehand.
    """

    name: str
    entry: str
    source: str
    date: str
    sha256: str
    licence: str
    commercial: bool | None
    size: int
    archive: str = ""
    pinned: bool = False

    def write(self, folder: Path) -> None:
        text = json.dumps(asdict(self), indent=4)
        (folder / FILE).write_text(text + "\n", encoding="utf-8")


@dataclass(frozen=True)
class Installed:
    """A model in the store: its record, and where it lies."""

    record: Record
    path: Path


def installed_models() -> dict[str, Installed]:
    """The models in the store by name; folders without a readable record are none.

    Raises:
        InputError: there is no home folder to keep models in, or the store can't be read.
    """
    store = store_folder()
    try:
        found = [_installed(folder) for folder in sorted(store.iterdir())] if store.is_dir() else []
    except OSError as error:
        raise InputError(
            f"The models in {store} can't be read ({error.strerror}); mend the folder's permissions, or set {VARIABLE} "
            "to another folder."
        ) from error
    return {there.record.name: there for there in found if there is not None}


def _installed(folder: Path) -> Installed | None:
    if folder.name.startswith(".") or not (folder / FILE).is_file():
        return None
    try:
        record = Record(**read_json(folder / FILE))
    except (SpecError, TypeError):
        return None
    names_its_own = record.name == folder.name and record.entry == Path(str(record.entry)).name and record.entry != ".."
    if not names_its_own or not (folder / record.entry).exists():
        return None
    return Installed(record, folder / record.entry)
