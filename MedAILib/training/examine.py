"""Every labelled image looked at once before training: what is wrong with which file, and what a plan needs to know."""

import hashlib
import json
from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import find_objects

from MedAILib.errors import MedAIError
from MedAILib.inference.prepare import require_usable
from MedAILib.progress import Progress
from MedAILib.training.case_images import read_case
from MedAILib.training.cases import Case, Fault, is_picture, require_faultless
from MedAILib.training.noted import Noted

# Values inside structures that each case gives to the statistics of intensities.
SAMPLED = 10_000


@dataclass(frozen=True, eq=False)
class CaseFacts:
    """What one labelled image is.

    Args:
        case: its files.
        shape_kji, spacing_kji_mm, orientation: its grid.
        channels: how many values a voxel has.
        voxels: how many voxels have each label value, background included.
        values: (C, n), some of the values inside structures.
        lowest: the smallest value of any channel.
        nonzero: the share of the image that the box around its nonzero voxels takes.
        image_sha256, label_sha256: of voxels, whatever the file's format.
    """

    case: Case
    shape_kji: tuple[int, int, int]
    spacing_kji_mm: tuple[float, float, float]
    orientation: str
    channels: int
    voxels: dict[int, int]
    values: NDArray[np.float32]
    lowest: float
    nonzero: float
    image_sha256: str
    label_sha256: str

    @property
    def is_slice(self) -> bool:
        """Whether it has a single slice."""
        return min(self.shape_kji) == 1

    @property
    def is_picture(self) -> bool:
        """Whether its file tells nothing of a grid."""
        return is_picture(self.case.images[0])


@dataclass(frozen=True)
class Examined:
    """What a look at all cases gave: facts of those that can be read, faults that forbid training, and remarks."""

    facts: tuple[CaseFacts, ...]
    faults: tuple[Fault, ...]
    remarks: tuple[Fault, ...]


def examine_cases(
    cases: Sequence[Case],
    labels: Mapping[int, str] | None,
    progress: Progress,
    channels: int | None = None,
    known: Container[tuple[int, str]] = (),
) -> Examined:
    """Read every case once and tell all that is wrong.

    Args:
        cases: files.
        labels: names by value, background left out; None: not told.
        progress: hears each case.
        channels: how many channels an image has to have; None: as many as most have.
        known: value and name of structures of the model that training starts from, which the cases may lack.

    Raises:
        Cancelled: by `progress`.
    """
    facts: list[CaseFacts] = []
    faults: list[Fault] = []
    noted = Noted()
    for number, case in enumerate(cases):
        progress.step(number, len(cases), f"Checking {case.name}")
        noted.begin(case.name, case.images)
        try:
            facts.append(examine_case(case, noted))
        except MedAIError as error:
            faults.append(Fault(case.name, str(error)))
    progress.step(len(cases), len(cases), "Checking done")
    absent = _absent(facts, labels)
    faults += [*unlike_faults(facts, channels), *_unknown_values(facts, labels), *_empty(facts, absent, known)]
    remarks = (*noted.remarks, *duplicate_remarks(facts), *_left_out(absent, known), *_balance(facts, labels))
    return Examined(tuple(facts), tuple(faults), remarks)


def examine_case(case: Case, progress: Progress) -> CaseFacts:
    """Read a case's image and label; `progress` is warned of what is strange and can be trained on.

    Raises:
        MedAIError: as `read_case`; an image of one value everywhere.
    """
    image, values = read_case(case, progress)
    require_usable(image, progress)
    counts = np.bincount(values.ravel())
    present = {int(value): int(counts[value]) for value in np.flatnonzero(counts)}
    inside = image.data[:, values > 0]
    if inside.shape[1] > SAMPLED:
        inside = inside[:, np.random.default_rng(0).choice(inside.shape[1], SAMPLED, replace=False)]
    box = find_objects((image.data != 0).any(axis=0).astype(np.uint8))
    kept = np.prod([part.stop - part.start for part in box[0]]) if box else 0
    return CaseFacts(
        case,
        image.geometry.shape_kji,
        image.geometry.spacing_kji_mm,
        image.geometry.orientation,
        image.channels,
        present,
        inside.astype(np.float32),
        float(image.data.min()),
        float(kept) / values.size,
        sha256_of(image.data),
        sha256_of(values),
    )


def require_sound(examined: Examined, progress: Progress, more: Sequence[Fault] = ()) -> None:
    """Tell the remarks, and stop where anything is wrong.

    Raises:
        InputError: with one fault its sentence, with several a table of file and sentence.
    """
    require_faultless([*more, *examined.faults])
    for remark in examined.remarks:
        progress.warn(remark.text)


def groups_of(facts: Sequence[CaseFacts], patients: Mapping[str, str]) -> dict[str, str]:
    """What cases share by name: the patient, and the same image under two names; both have to stay on one side."""
    first: dict[str, str] = {}
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            name = parent[name]
        return name

    for fact in facts:
        name = fact.case.name
        own = f"patient {patients[name]}" if name in patients else f"case {name}"
        same = first.setdefault(fact.image_sha256, own)
        parent[root(own)] = root(same)
    return {
        fact.case.name: root(
            f"patient {patients[fact.case.name]}" if fact.case.name in patients else f"case {fact.case.name}"
        )
        for fact in facts
    }


def digest_of(facts: Sequence[CaseFacts]) -> str:
    """The SHA-256 of all voxels of all cases, by name."""
    told = [[fact.case.name, fact.image_sha256, fact.label_sha256] for fact in facts]
    return hashlib.sha256(json.dumps(told).encode()).hexdigest()


def unlike_faults(facts: Sequence[CaseFacts], channels: int | None) -> list[Fault]:
    """Cases with another number of channels or of dimensions than the others."""
    found = []
    usual = channels or Counter(fact.channels for fact in facts).most_common(1)[0][0] if facts else 0
    for fact in facts:
        if fact.channels != usual:
            others = "wanted are" if channels else "most have"
            text = f"{fact.case.images[0]} has {fact.channels} channels, and {others} {usual}"
            found.append(Fault(fact.case.name, f"{text}; all images need the same channels."))
    flat = [fact for fact in facts if fact.is_slice]
    if 0 < len(flat) < len(facts):
        for fact in flat if len(flat) * 2 <= len(facts) else [f for f in facts if not f.is_slice]:
            what = "a single slice" if fact.is_slice else "a volume"
            found.append(
                Fault(
                    fact.case.name, f"{fact.case.images[0]} is {what}, unlike the others; train on one kind at a time."
                )
            )
    for fact in flat:
        if fact.shape_kji[0] > 1:
            sizes = " x ".join(str(n) for n in reversed(fact.shape_kji))
            text = f"{fact.case.images[0]} has {sizes} voxels; the axis of one voxel has to be the third: transpose it."
            found.append(Fault(fact.case.name, text))
    return found


def _unknown_values(facts: Sequence[CaseFacts], labels: Mapping[int, str] | None) -> list[Fault]:
    if labels is None:
        return []
    found = []
    for fact in facts:
        if unknown := sorted(fact.voxels.keys() - {0, *labels}):
            listed = ", ".join(str(value) for value in unknown[:5])
            text = f"{fact.case.label} has the label value {listed}, which is not in the list ({sorted(labels)})"
            found.append(Fault(fact.case.name, f"{text}; take it out of the file, or name it in dataset.json."))
    return found


def _absent(facts: Sequence[CaseFacts], labels: Mapping[int, str] | None) -> dict[int, str]:
    """Structures that no case has."""
    present = {value for fact in facts for value in fact.voxels}
    return {value: name for value, name in (labels or {}).items() if value not in present}


def _empty(facts: Sequence[CaseFacts], absent: Mapping[int, str], known: Container[tuple[int, str]]) -> list[Fault]:
    """Structures that no case has and no model knows; and data without any structure."""
    if not facts:
        return []
    if not {value for fact in facts for value in fact.voxels} - {0}:
        return [Fault("labels", "No label has any structure: all voxels are 0, so that there is one class only.")]
    return [
        Fault(name, f"No label has the value {value} ('{name}'); add cases with it, or take it out of the list.")
        for value, name in absent.items()
        if (value, name) not in known
    ]


def _left_out(absent: Mapping[int, str], known: Container[tuple[int, str]]) -> list[Fault]:
    """Structures that no case has, and the model knows that training starts from."""
    text = "No label has '{}', which the model knows that training starts from; it is learnt to be absent there."
    return [Fault(entry[1], text.format(entry[1])) for entry in absent.items() if entry in known]


def duplicate_remarks(facts: Sequence[CaseFacts]) -> list[Fault]:
    named: dict[str, list[str]] = {}
    for fact in facts:
        named.setdefault(fact.image_sha256, []).append(fact.case.name)
    return [
        Fault(names[0], f"{' and '.join(names)} are the same image; they stay together on one side of each split.")
        for names in named.values()
        if len(names) > 1
    ]


def _balance(facts: Sequence[CaseFacts], labels: Mapping[int, str] | None) -> list[Fault]:
    """Structures that few cases have, and cases without any."""
    found = []
    for value in sorted({value for fact in facts for value in fact.voxels} - {0}):
        there = sum(value in fact.voxels for fact in facts)
        if there < max(3, len(facts) / 20):
            name = (labels or {}).get(value, f"value {value}")
            text = f"'{name}' is in {there} of {len(facts)} cases only; expect little of it, or add cases."
            found.append(Fault(name, text))
    if empty := [fact.case.name for fact in facts if not fact.voxels.keys() - {0}]:
        found.append(Fault(empty[0], f"{len(empty)} cases have no structure at all ({', '.join(empty[:5])})."))
    return found


def sha256_of(voxels: NDArray[np.generic]) -> str:
    """Of shape and values, the same for a file and its copy in another number format."""
    plain = np.ascontiguousarray(voxels.astype(np.float32))
    return hashlib.sha256(str(plain.shape).encode() + plain.tobytes()).hexdigest()
