"""`medai models`: which models there are, what they are, and whether their files are whole."""

import argparse
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from MedAILib.bundle_plan import is_bundle
from MedAILib.errors import ModelError
from MedAILib.models.store import builtin_checksums, builtin_models, find_model
from MedAILib.models.trust import tree_sha256
from MedAILib.read_spec import read_spec
from MedAILib.spec import ModelSpec


def run_models(options: argparse.Namespace) -> None:
    """List, describe or verify models.

    Raises:
        InputError: no such model.
        SpecError, ModelError: a model is damaged.
    """
    if options.action == "list":
        _list(options.json)
    elif options.action == "info":
        _info(find_model(options.name), options.json)
    else:
        names = [options.name] if options.name else list(builtin_models())
        _verify(names, options.json)


def _list(as_json: bool) -> None:
    rows = [_row(name, read_spec(path)) for name, path in builtin_models().items()]
    if as_json:
        print(json.dumps(rows))
        return
    header = {key: key.upper() for key in ("name", "version", "task", "modality", "state", "size")}
    for row in [header, *rows]:
        size = row["size"] if isinstance(row["size"], str) else f"{row['size'] / 1e6:.1f} MB"
        print(f"{row['name']:<20} {row['version']:<9} {row['task']:<14} {row['modality']:<9} {row['state']:<10} {size}")


def _row(name: str, spec: ModelSpec) -> dict[str, Any]:
    size = sum(path.stat().st_size for path in spec.source.rglob("*") if path.is_file())
    labels = [label.name for label in spec.labels]
    return {
        "name": name,
        "version": spec.version,
        "task": spec.task,
        "modality": spec.modality,
        "state": "built in",
        "size": size,
        "labels": labels,
        "licence": spec.licence,
    }


def _info(source: Path, as_json: bool) -> None:
    spec, digest = read_spec(source), tree_sha256(source)
    obstacle = spec.obstacle or _obstacle(source)
    if as_json:
        print(json.dumps(asdict(spec) | {"source": str(spec.source), "sha256": digest, "obstacle": obstacle}))
        return
    rows = {
        "Name": f"{spec.name} {spec.version}, {spec.title}",
        "What it does": spec.description,
        "Runs": f"no: {obstacle}" if obstacle else "yes",
        "Task": spec.task,
        "Modality": spec.modality,
        "Channels": ", ".join(spec.channels),
        "Labels": ", ".join(f"{label.value} {label.name}" for label in spec.labels),
        "Orientation": spec.orientation or "as it lies",
        "Voxel spacing": "as it is"
        if spec.spacing_mm is None
        else f"{' x '.join(f'{mm:g}' for mm in spec.spacing_mm)} mm",
        "Window": "whole image" if spec.patch is None else f"{' x '.join(map(str, spec.patch))} voxels",
        "Steps": "\n".join(spec.steps),
        "Intended use": spec.intended_use,
        "Mind": "\n".join(spec.warnings),
        "Licence": spec.licence,
        "Authors": spec.authors,
        "Data": spec.data_source,
        "References": "\n".join(spec.references),
        "Folder": str(spec.source),
        "SHA-256": digest,
    }
    for key, text in rows.items():
        for number, line in enumerate(text.splitlines()):
            print(f"{key if number == 0 else '':<14} {line}")


def _obstacle(source: Path) -> str:
    """What stands against running a model that only shows when its steps and its network are put together."""
    if not is_bundle(source):
        return ""
    from MedAILib.models.bundle import why_not  # needs PyTorch, and MONAI for the networks

    return why_not(source)


def _verify(names: list[str], as_json: bool) -> None:
    """Compare with the recorded checksum where there is one, and fit the weights into the network.

    The first damaged model ends the command with its sentence.
    """
    from MedAILib.models.open import open_model  # needs PyTorch, which the other actions do without

    checksums, done = builtin_checksums(), []
    for name in names:
        source = find_model(name)
        digest = tree_sha256(source)
        recorded = checksums.get(name) if source == builtin_models().get(name) else None
        if recorded not in (None, digest):
            raise ModelError(
                f"The model '{name}' is not as it was shipped (SHA-256 {digest}, recorded {recorded}); install MedAI "
                "again."
            )
        open_model(source, "cpu")
        done.append({"name": name, "sha256": digest, "recorded": recorded is not None})
        if not as_json:
            print(f"{name}: whole, SHA-256 {digest}{'' if recorded else ' (nothing recorded to compare with)'}")
    if as_json:
        print(json.dumps(done))
