"""An ensemble: a folder with a `medai.json` that lists its members, and what they are together."""

from dataclasses import replace
from pathlib import Path, PurePosixPath

from MedAILib.config import read_json
from MedAILib.errors import SpecError
from MedAILib.formats import DESCRIPTION, Format, find_format
from MedAILib.spec import ModelSpec

MOST_MEMBERS = 32


def read_members(folder: Path) -> tuple[Path, ...]:
    """The members' folders or files, in the order of the list; all lie inside of the ensemble's folder.

    Raises:
        SpecError: the list is none, or names what is no model, lies elsewhere, or is itself an ensemble.
    """
    path = folder / DESCRIPTION
    names = read_json(path).get("members")
    if not isinstance(names, list) or not 2 <= len(names) <= MOST_MEMBERS or len({str(n) for n in names}) < len(names):
        raise SpecError(f"{path}: 'members' is no list of 2 to {MOST_MEMBERS} different models.")
    members = []
    for name in names:
        inside = PurePosixPath(str(name))
        if not isinstance(name, str) or inside.is_absolute() or ".." in inside.parts or "\\" in name or ":" in name:
            raise SpecError(f"{path}: the member {name!r} lies outside of the folder.")
        if not inside.parts or find_format(folder / inside) is Format.ENSEMBLE:
            raise SpecError(f"{path}: the member {name!r} is itself an ensemble.")
        members.append(folder / inside)
    return tuple(members)


def ensemble_spec(folder: Path, members: list[ModelSpec]) -> ModelSpec:
    """What the members are together: the first one's interface, which the others must share.

    Raises:
        SpecError: they take other channels or find other labels, or do something else.
    """
    content, first = read_json(folder / DESCRIPTION), members[0]
    for other in members[1:]:
        for what, key in (("channels", "channels"), ("task", "task")):
            if getattr(other, key) != getattr(first, key):
                raise SpecError(
                    f"The members of {folder} differ in their {what}: {first.name} has {getattr(first, key)}, "
                    f"{other.name} has {getattr(other, key)}."
                )
        if _labels(other) != _labels(first):
            raise SpecError(f"The members of {folder} differ in their labels: see those of {first.name}, {other.name}.")
    name = folder.resolve().name
    values = [member.window_values for member in members]
    return replace(
        first,
        name=name,
        title=str(content.get("name") or name),
        version=str(content.get("version", "")),
        description=str(content.get("description") or f"{len(members)} models, their probabilities averaged"),
        source=folder,
        mirror_axes=first.mirror_axes if all(member.mirror_axes for member in members) else (),
        steps=tuple(f"{member.name}: {step}" for member in members for step in member.steps),
        obstacle=next((member.obstacle for member in members if member.obstacle), ""),
        weights_bytes=sum(member.weights_bytes for member in members),
        window_values=None if None in values else max(value for value in values if value is not None),
        warnings=tuple(dict.fromkeys(text for member in members for text in member.warnings)),
    )


def _labels(spec: ModelSpec) -> list[tuple[int, str, int]]:
    return [(label.value, label.name, label.layer) for label in spec.labels]
