"""`medai models trust`: which models may execute code of their own, by the user's word alone."""

import argparse
import json
import re
from dataclasses import asdict

from MedAILib.errors import InputError, SpecError
from MedAILib.formats import Format, find_format
from MedAILib.models.trust import ALLOWS, revoke, tree_sha256, trust, trust_list
from MedAILib.plans import READERS, read_any_plan
from MedAILib.store.find import find_model
from MedAILib.store.names import shown


def run_trust(options: argparse.Namespace) -> None:
    """Allow a model, take that back, or list what is allowed.

    Raises:
        InputError: no such model, one that needs no permission, or one that is not on the list.
        SpecError, ModelError, OutputError: the model or the list can't be read or written.
    """
    if options.name is None:
        if options.revoke:
            raise InputError("--revoke needs the name, path or SHA-256 of a model; `medai models trust` lists them.")
        _list(options.json)
    elif options.revoke:
        _revoke(options.name, options.json)
    else:
        _trust(options.name, options.json)


def _list(as_json: bool) -> None:
    entries = trust_list()
    if as_json:
        print(json.dumps([asdict(entry) for entry in entries]))
        return
    for entry in entries:
        print(f"{entry.sha256} {shown(entry.name)}, since {entry.since}: may {entry.allows}")
    if not entries:
        print("No model may execute code of its own.")


def _trust(name: str, as_json: bool) -> None:
    source = find_model(name)
    if find_format(source) is Format.ENSEMBLE:
        raise InputError(f"The model '{name}' is an ensemble; allow those of its members that are TorchScript.")
    if find_format(source) not in READERS or read_any_plan(source).script is None:
        raise InputError(f"The model '{name}' executes no code of its own, so that there is nothing to allow.")
    entry = trust(tree_sha256(source), name, ALLOWS)
    if as_json:
        print(json.dumps(asdict(entry)))
    else:
        print(f"{shown(name)} (SHA-256 {entry.sha256}) may now {entry.allows}, until you revoke it.")


def _revoke(words: str, as_json: bool) -> None:
    digests = [words.lower()] if re.fullmatch(r"[0-9a-fA-F]{64}", words) else _digests(words)
    taken = [digest for digest in digests if revoke(digest)]
    if not taken:
        raise InputError(f"'{words}' is not on the list of models that may execute code; nothing was taken back.")
    if as_json:
        print(json.dumps({"revoked": taken}))
        return
    for digest in taken:
        print(f"{shown(words)} (SHA-256 {digest}) may no longer execute code.")


def _digests(name: str) -> list[str]:
    """All that was allowed under this name, and what the model is now; it may have changed or be gone."""
    digests = [entry.sha256 for entry in trust_list() if entry.name == name]
    try:
        digests.append(tree_sha256(find_model(name)))
    except (InputError, SpecError):
        return digests
    return digests
