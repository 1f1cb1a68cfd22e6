"""Labels that are segmentations with named segments: which label value each segment's voxels get."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError, MedAIError
from MedAILib.files.segments import on_grid, read_segments, segment_names, segmentation_file
from MedAILib.training.cases import Case, Fault
from MedAILib.volume import Geometry


def with_values(cases: Sequence[Case], names: Mapping[int, str] | None) -> tuple[tuple[Case, ...], tuple[Fault, ...]]:
    """The cases, those with named segments told which values these have; and what is wrong with some.

    Args:
        cases: files; no voxels are read.
        names: by label value; None: segments get 1, 2, 3, … in the order in which their names are first met.

    Returns:
        the cases that are sound, and faults of the others.
    """
    files = {case.name: segmentation_file(case.label) for case in cases}
    if not any(files.values()):
        return tuple(cases), ()
    if names is None and (plain := [case for case in cases if files[case.name] is None]):
        text = (
            f"{plain[0].label} is a label map and others have named segments, so that it can't be told which value "
            "means what; name the values in dataset.json."
        )
        return (), (Fault(plain[0].label.name, text),)
    known = {_plain(name): value for value, name in (names or {}).items()}
    found, faults = [], []
    for case in cases:
        file = files[case.name]
        if file is None:
            found.append(case)
            continue
        try:
            told = segment_names(file)
            if names is None:
                for name in told:
                    known.setdefault(_plain(name), len(known) + 1)
            if unknown := [name for name in told if _plain(name) not in known]:
                listed = ", ".join((names or {}).values())
                raise InputError(
                    f"{file} has the segment '{unknown[0]}', which is none of {listed}; rename it, or take it out."
                )
        except MedAIError as error:
            faults.append(Fault(case.label.name, str(error)))
            continue
        values = tuple((name, known[_plain(name)]) for name in told)
        found.append(replace(case, label=file, values=values))
    return tuple(found), tuple(faults)


def names_by_value(cases: Sequence[Case]) -> dict[int, str] | None:
    """What the cases' segments are called, by label value; None where the labels are label maps."""
    found: dict[int, str] = {}
    for case in cases:
        for name, value in case.values:
            found.setdefault(value, name)
    return dict(sorted(found.items())) or None


def segment_values(case: Case, grid: Geometry | None) -> NDArray[np.uint16]:
    """The label values (K, J, I) of a case with named segments, on its image's grid or, without one, on their own.

    Raises:
        InputError: the file can't be read or has changed, segments overlap, or they lie on another grid.
    """
    segments = read_segments(case.label)
    if segments.names != tuple(name for name, _ in case.values):
        raise InputError(f"{case.label} has changed since its segments were read; start again.")
    labels = segments.labels if grid is None else on_grid(segments, grid)
    if labels is None:
        raise InputError(
            f"The segmentation {case.label} is on another grid than its image {case.images[0]}; in Slicer's module "
            "Segmentations export it as a label map with that image as reference volume."
        )
    return np.array([0, *(value for _, value in case.values)], np.uint16)[labels]


def _plain(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
