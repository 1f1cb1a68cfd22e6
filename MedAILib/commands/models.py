"""`medai models`: which models there are, what they are, adding and removing them, and whether they are whole."""

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from MedAILib.commands.trust import run_trust
from MedAILib.errors import MedAIError, ModelError, SpecError, UntrustedCodeError
from MedAILib.formats import find_format
from MedAILib.plans import READERS
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.spec import ModelSpec
from MedAILib.store.adding import add_model, clean_store, remove_model, verify_model
from MedAILib.store.arrival import Wishes, find_source
from MedAILib.store.catalogue import Entry, catalogue
from MedAILib.store.content import size_bytes, tree_sha256
from MedAILib.store.engines import read_trials
from MedAILib.store.find import builtin_models, existing, find_model
from MedAILib.store.folders import store_folder
from MedAILib.store.licence import Licence, licence_of
from MedAILib.store.names import shown
from MedAILib.store.record import Installed, installed_models
from MedAILib.store.unpacked import unpacked_size

UNKNOWN = "unknown"
LONGEST_LINE = 5_000


def run_models(options: argparse.Namespace, progress: Progress) -> None:
    """List, describe, add, remove or verify models, or clean their store.

    Raises:
        InputError: no such model, or its name is taken.
        DownloadError, OutputError: it can't be fetched or written.
        SpecError, ModelError: a model is damaged or none.
        Cancelled: by `progress`.
    """
    match options.action:
        case "trust":
            run_trust(options)
        case "list":
            _list(options.json)
        case "info":
            _info(options.name, options.json)
        case "add":
            _add(options, progress)
        case "remove":
            size = remove_model(options.name)
            done = {"name": options.name, "freed": size}
            print(json.dumps(done) if options.json else f"{options.name}: removed, {_size(size)} freed")
        case "clean":
            size = clean_store()
            print(json.dumps({"freed": size}) if options.json else f"{_size(size)} freed")
        case _:
            _verify(options.name, options.json)


@dataclass(frozen=True)
class _Row:
    """A line of the list; what is not known is None."""

    name: str
    version: str | None
    task: str | None
    modality: str | None
    state: str
    size: int | None
    labels: tuple[str, ...]
    licence: str | None
    commercial: bool | None
    problem: str | None = None


def _list(as_json: bool) -> None:
    rows = [_row_at_hand(name, path, "built in") for name, path in builtin_models().items()]
    rows += [_row_at_hand(name, there.path, "installed") for name, there in installed_models().items()]
    here = {row.name for row in rows}
    rows += [_row_available(entry) for name, entry in catalogue().items() if name not in here]
    if as_json:
        print(json.dumps([asdict(row) for row in rows]))
        return
    _print_line(("NAME", "VERSION", "TASK", "MODALITY", "STATE", "SIZE"))
    for row in rows:
        size = UNKNOWN if row.size is None else _size(row.size)
        size += ", does not run" if row.problem else ""
        _print_line((row.name, row.version, row.task, row.modality, row.state, size))
    used = sum(there.record.size for there in installed_models().values())
    print(f"Added models take {_size(used)}, unpacked archives {_size(unpacked_size())}, in {store_folder()}.")
    print("`medai models add NAME` gets an available model, `medai models clean` removes unpacked archives.")


def _print_line(cells: tuple[str | None, ...]) -> None:
    widths = (45, 9, 14, 12, 10, 0)
    print(" ".join(f"{shown(cell or UNKNOWN, 60):<{width}}" for cell, width in zip(cells, widths, strict=True)))


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size / 1e3:.1f} kB"


def _row_at_hand(name: str, path: Path, state: str) -> _Row:
    try:
        spec = read_spec(path)
    except MedAIError as error:
        licence = licence_of(path)
        return _Row(name, None, None, None, state, size_bytes(path), (), licence.name, licence.commercial, str(error))
    licence = licence_of(path, spec.licence)
    labels = tuple(label.name for label in spec.labels)
    size, problem = size_bytes(path), spec.obstacle or None
    return _Row(
        name, spec.version, spec.task, spec.modality, state, size, labels, licence.name, licence.commercial, problem
    )


def _row_available(entry: Entry) -> _Row:
    return _Row(
        entry.name,
        entry.version,
        entry.task,
        entry.modality,
        "available",
        entry.remote.size,
        entry.labels,
        entry.licence.name or None,
        entry.licence.commercial,
        entry.why if entry.runs is False else None,
    )


def _info(name: str, as_json: bool) -> None:
    entry = catalogue().get(name)
    if entry is not None and name not in builtin_models() and name not in installed_models() and not existing(name):
        _info_available(entry, as_json)
        return
    source = find_model(name)
    digest, there = tree_sha256(source), installed_models().get(name)
    try:
        spec = read_spec(source)
        why = spec.obstacle or _why_not(source)
    except SpecError as error:
        if there is None:
            raise
        spec, why = None, str(error)
    licence = licence_of(source, spec.licence if spec else "")
    if as_json:
        own = asdict(spec) | {"source": str(spec.source)} if spec else {"name": name, "source": str(source)}
        more = {
            "commercial": licence.commercial,
            "runs": why is None,
            "obstacle": why or "",
            "size": size_bytes(source),
            "engines": _engines(digest),
        }
        print(json.dumps(own | {"sha256": digest} | more | {"record": asdict(there.record) if there else None}))
        return
    _print_rows(
        (_description(spec) if spec else {"Name": name})
        | {
            "Licence": licence.in_words(),
            "Runs": "yes" if why is None else f"no: {why}",
            "Size": _size(size_bytes(source)),
            "Engines": "\n".join(_engines(digest)),
            "From": _origin(there),
            "Folder": str(source),
            "SHA-256": digest,
        }
    )


def _engines(digest: str) -> list[str]:
    """What came of trying engines with a model; PyTorch alone where none was tried."""
    if not read_trials(digest):
        return ["PyTorch; others have not been tried here"]
    from MedAILib.models.engines import tried_engines  # needs PyTorch

    return tried_engines(digest)


def _why_not(source: Path) -> str | None:
    """Why a model does not run here; None where it does."""
    from MedAILib.models.obstacles import why_not  # needs PyTorch, which most actions do without
    from MedAILib.models.open import open_model

    try:
        if find_format(source) in READERS:
            return why_not(source) or None
        open_model(source, "cpu")
    except MedAIError as error:
        return str(error)
    return None


def _description(spec: ModelSpec) -> dict[str, str]:
    return {
        "Name": f"{spec.name} {spec.version}, {spec.title}",
        "What it does": spec.description,
        "Task": spec.task,
        "Modality": spec.modality,
        "Channels": ", ".join(spec.channels),
        "Labels": ", ".join(f"{label.value} {label.name}" for label in spec.labels),
        "Classes": ", ".join(spec.classes.names) if spec.classes else "",
        "Orientation": spec.orientation or "as it lies",
        "Voxel spacing": "as it is"
        if spec.spacing_mm is None
        else f"{' x '.join(f'{mm:g}' for mm in spec.spacing_mm)} mm",
        "Window": "whole image" if spec.patch is None else f"{' x '.join(map(str, spec.patch))} voxels",
        "Steps": "\n".join(spec.steps),
        "Intended use": spec.intended_use,
        "Mind": "\n".join(spec.warnings),
        "Authors": spec.authors,
        "Data": spec.data_source,
        "References": "\n".join(spec.references),
    }


def _origin(there: Installed | None) -> str:
    if there is None:
        return ""
    record = there.record
    compared = "compared with its promised hash" if record.pinned else "no promised hash to compare with"
    return f"{record.source}, {record.date}{f', {compared}' if record.archive else ''}"


def _info_available(entry: Entry, as_json: bool) -> None:
    """What the catalogue knows of a model that is not here yet."""
    if as_json:
        print(json.dumps(asdict(entry) | {"state": "available"}))
        return
    algorithm, digest = entry.remote.checksum or (UNKNOWN, "")
    runs = {True: "yes", False: f"no: {entry.why}", None: f"{UNKNOWN} until it is here"}[entry.runs]
    rows = {
        "Name": f"{entry.name} {entry.version}{f', {entry.title}' if entry.title else ''}",
        "What it does": entry.description,
        "Task": entry.task,
        "Modality": entry.modality,
        "Channels": ", ".join(entry.channels),
        "Labels": ", ".join(entry.labels),
        "Intended use": entry.intended_use,
        "Licence": entry.licence.in_words(),
        "Runs": runs,
        "Size": _size(entry.remote.size) if entry.remote.size else None,
        "State": f"available; get it with `medai models add {entry.name}`",
        "Address": entry.remote.address,
        "Hash": f"{algorithm.upper()} {digest}",
    }
    _print_rows({key: text or UNKNOWN for key, text in rows.items()})


def _print_rows(rows: dict[str, str]) -> None:
    for key, text in rows.items():
        for number, line in enumerate(text.splitlines()):
            print(f"{key if number == 0 else '':<14} {shown(line, LONGEST_LINE)}")


def _add(options: argparse.Namespace, progress: Progress) -> None:
    """Add a model; what its licence is comes before the download where it is known by then."""
    source = find_source(options.source, options.sha256)
    entry = catalogue().get(source.name or "")
    if entry is not None:
        progress.warn(f"The licence of '{entry.name}' is {entry.licence.in_words()}")
    there = add_model(source, Wishes(options.name, options.replace, options.sha256), progress)
    if options.json:
        print(json.dumps(asdict(there.record) | {"path": str(there.path)}))
        return
    licence = Licence(there.record.licence, there.record.commercial)
    print(f"{there.record.name}: added, {_size(there.record.size)} in {there.path}")
    print(f"Licence: {licence.in_words()}")


def _verify(name: str | None, as_json: bool) -> None:
    """Compare models with their records, and fit the weights into the networks; all are looked at before it fails."""
    names = [name] if name is not None else [*builtin_models(), *installed_models()]
    done, problems = [], []
    for each in names:
        try:
            done.append(_verified(each, as_json))
        except (ModelError, SpecError) as error:
            problems.append(error)
    if problems:
        raise problems[0] if len(problems) == 1 else ModelError(" ".join(str(problem) for problem in problems))
    if as_json:
        print(json.dumps(done))


def _verified(name: str, as_json: bool) -> dict[str, Any]:
    """One model, looked at.

    An added model that is as it came and still does not run is whole; its author wants what MedAI does not do.

    Raises:
        InputError: no such model.
        ModelError, SpecError: it is not as it came; or it does not run, and is not one that was added so.
    """
    from MedAILib.models.open import open_model  # needs PyTorch, which most actions do without

    verified, why = verify_model(name, find_model(name)), None
    try:
        open_model(verified.path, "cpu")
    except MedAIError as error:
        added = verified.recorded and name in installed_models()
        if not added and not isinstance(error, UntrustedCodeError):
            raise
        why = str(error)
    if not as_json:
        notes = [] if verified.recorded else ["nothing recorded to compare with"]
        said = "; ".join([*notes, *([f"does not run: {why}"] if why else [])])
        print(f"{name}: whole, SHA-256 {verified.sha256}{f' ({said})' if said else ''}")
    return {"name": name, "sha256": verified.sha256, "recorded": verified.recorded, "runs": why is None, "why": why}
