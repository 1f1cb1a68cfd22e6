"""Where a worker's command leads, for the window to say before images leave this computer."""

import shlex
from collections.abc import Sequence
from pathlib import PurePath

# Options of OpenSSH's client that take the next argument.
WITH_ARGUMENT = "BbcDEeFIiJLlmOoPpQRSWw"


def destination_of(command: Sequence[str]) -> str:
    """The host that an `ssh` command names, without the user and the port; any other command whole.

    Example: `["ssh", "-p", "2222", "me@gpu-box", "python"]` is "gpu-box".
    """
    if command and PurePath(command[0]).stem.lower() == "ssh":
        rest = iter(command[1:])
        for word in rest:
            if word == "--":
                continue
            if not word.startswith("-"):
                return _host(word)
            flags = word[1:]
            taking = next((place for place, flag in enumerate(flags) if flag in WITH_ARGUMENT), None)
            if taking is not None and taking == len(flags) - 1:
                next(rest, None)
    return shlex.join(command)


def _host(word: str) -> str:
    """The host in "host", "user@host" or "ssh://user@host:port"."""
    if word.startswith("ssh://"):
        place = word.removeprefix("ssh://").partition("/")[0].rpartition("@")[2]
        return place if place.startswith("[") else place.partition(":")[0]
    return word.rpartition("@")[2]
