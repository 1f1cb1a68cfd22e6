"""The text that a user copies into a question or a bug report: versions, the worker's last words, the log."""

import platform
from collections.abc import Mapping, Sequence
from typing import Any

import slicer

from MedAILib.version import VERSION

LAST_LINES = 40


def diagnostics(worker: Mapping[str, Any], last_words: str, model: Sequence[str], log: str) -> str:
    """Everything that helps to find a fault; names of images are in it only where the log has them.

    Args:
        worker: what the worker said of itself (`WorkerClient.versions`).
        last_words: the end of what it wrote (`WorkerClient.log`).
        model: lines about the chosen model.
        log: the panel's log.
    """
    said = [f"{name}: {value}" for name, value in worker.items() if value is not None]
    words = last_words.splitlines()[-LAST_LINES:]
    parts = [
        f"MedAI {VERSION}",
        f"{slicer.app.applicationName} {slicer.app.applicationVersion} (revision {slicer.app.revision})",
        f"Python {platform.python_version()}, {platform.platform()}",
        "Worker: " + ("; ".join(said) if said else "not started yet"),
        *model,
        "",
        "Last words of the worker:",
        *(words or ["(none)"]),
        "",
        "Log:",
        log or "(empty)",
    ]
    return "\n".join(parts)
