"""Where models lie on the disk: those that ship with MedAI, and the user's own store."""

import os
import sys
from pathlib import Path

from MedAILib.errors import InputError

_PACKAGE = Path(__file__).parents[1]
# In a wheel the resources stand inside the package; in a source tree and in Slicer beside it.
RESOURCES = next(
    (p for p in (_PACKAGE / "Resources", _PACKAGE.parent / "Resources") if p.is_dir()), _PACKAGE / "Resources"
)
VARIABLE = "MEDAI_MODELS"
CONFIG_VARIABLE = "MEDAI_CONFIG"


def store_folder() -> Path:
    """The user's model store, which need not exist yet: `MEDAI_MODELS`, else where the system keeps a user's data.

    Everything that MedAI keeps lies in it, downloads and unpacked archives too: deleting it frees all the space.

    Raises:
        InputError: the system knows no home folder of this user.
    """
    chosen = os.environ.get(VARIABLE)
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        return _user_data() / "models"
    except RuntimeError as error:
        raise InputError(f"There is no home folder to keep models in; set {VARIABLE} to a folder.") from error


def work_folder() -> Path:
    """The folder inside the store for what is no model: downloads, unpacked archives, locks."""
    return store_folder() / ".medai"


def config_folder() -> Path:
    """Where this user's decisions are kept: `MEDAI_CONFIG`, else where the system keeps a user's settings.

    Raises:
        InputError: the system knows no home folder of this user.
    """
    chosen = os.environ.get(CONFIG_VARIABLE)
    try:
        if chosen:
            return Path(chosen).expanduser().absolute()
        if sys.platform in ("win32", "darwin"):
            return _user_data()
        return Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config") / "medai"
    except RuntimeError as error:
        raise InputError(f"There is no home folder to keep settings in; set {CONFIG_VARIABLE} to a folder.") from error


def _user_data() -> Path:
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local") / "MedAI"
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Application Support" / "MedAI"
    return Path(os.environ.get("XDG_DATA_HOME") or Path.home() / ".local" / "share") / "medai"
