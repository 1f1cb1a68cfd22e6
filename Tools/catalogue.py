"""Write `Resources/Models/catalogue.json` from the MONAI Model Zoo's own list and, where they are at hand, its configs.

    python Tools/catalogue.py FOLDER

FOLDER holds the zoo's `model_info.json` and any number of its bundles, of which the configs and the licence are enough.
What these don't say stays null: nothing is guessed. Whether MedAI runs a bundle is found from its description.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from MedAILib.models.obstacles import why_not
from MedAILib.store.catalogue import CATALOGUE
from MedAILib.store.licence import licence_of

# The zoo's other bundles make images, register them, find landmarks or want clicks.
LEFT_OUT = ("_gan", "_reg", "_generative", "_diffusion", "_landmarks", "_annotation")
TASKS = ("segmentation", "classification", "detection")
TASK_OF_FORMAT = {"segmentation": "segmentation", "classes": "classification", "labels": "classification"}


def latest(listed: dict[str, dict[str, str]]) -> dict[str, tuple[str, dict[str, str]]]:
    """Each bundle's newest version and what the list says of it."""
    found: dict[str, tuple[str, dict[str, str]]] = {}
    for key, row in listed.items():
        name, _, version = key.rpartition("_v")
        if name not in found or _number(version) > _number(found[name][0]):
            found[name] = (version, row)
    return {name: found[name] for name in sorted(found) if not name.endswith(LEFT_OUT)}


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))


def entry(name: str, version: str, row: dict[str, str], bundle: Path) -> dict[str, Any]:
    """One model of the catalogue; `bundle` need not exist."""
    unknown = dict.fromkeys(
        ("title", "modality", "description", "licence", "commercial", "intended_use", "runs", "why", "size")
    )
    found = {
        "name": name,
        "version": version,
        "address": row["source"],
        "sha256": None,
        "sha1": row["checksum"],
        "task": _task_of_name(name),
        "channels": [],
        "labels": [],
    } | unknown
    metadata = bundle / "configs" / "metadata.json"
    if metadata.is_file():
        found |= _described(json.loads(metadata.read_text(encoding="utf-8")), bundle, found["task"])
    return found


def _task_of_name(name: str) -> str | None:
    named = [task for task in TASKS if task in name]
    return named[0] if len(named) == 1 else None


def _described(data: dict[str, Any], bundle: Path, task: str | None) -> dict[str, Any]:
    inputs = next(iter(data["network_data_format"]["inputs"].values()))
    outputs = next(iter(data["network_data_format"]["outputs"].values()))
    licence, why = licence_of(bundle), why_not(bundle) or None
    # What is missing on this computer says nothing of others.
    here = why is not None and any(words in why for words in ("does not exist", "not installed here"))
    labels = [str(label) for label in (outputs.get("channel_def") or {}).values()]
    modality = str(inputs.get("modality") or "")
    return {
        "title": data.get("name"),
        "task": task or TASK_OF_FORMAT.get(str(outputs.get("format"))),
        "modality": None if modality in ("", "none", "n/a") else modality,
        "channels": [str(channel) for channel in (inputs.get("channel_def") or {}).values()],
        "labels": [label for label in labels if label != "background"],
        "description": str(data.get("description") or "").strip() or None,
        "licence": licence.name or None,
        "commercial": licence.commercial,
        "intended_use": data.get("intended_use"),
        "runs": None if here else why is None,
        "why": None if here else why and why.replace(f"{bundle.parent}/", ""),  # no path of this computer
    }


def main() -> None:
    """Write the catalogue."""
    parser = argparse.ArgumentParser(description="Write the catalogue of models.")
    parser.add_argument("folder", type=Path, help="with model_info.json and bundles")
    folder = parser.parse_args().folder
    listed = json.loads((folder / "model_info.json").read_text(encoding="utf-8"))
    models = [entry(name, version, row, folder / name) for name, (version, row) in latest(listed).items()]
    CATALOGUE.write_text(json.dumps({"format": 1, "models": models}, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
