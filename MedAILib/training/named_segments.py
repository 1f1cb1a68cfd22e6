"""Labels that are segmentations with named segments: which label value each segment's voxels get."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError, MedAIError
from MedAILib.files.segments import on_grid, read_segments, segment_names, segmentation_file
from MedAILib.training.cases import Case, Fault, is_picture
from MedAILib.volume import Geometry


def with_values(
    cases: Sequence[Case], names: Mapping[int, str] | None, first: Mapping[int, str] | None = None
) -> tuple[tuple[Case, ...], tuple[Fault, ...]]:
    """The cases, those with named segments told which values these have; and what is wrong with some.

    A segment is the one of its name or, where there is none, of its name in other case, with other dashes and blanks.

    Args:
        cases: files; no voxels are read.
        names: by label value; None: segments get 1, 2, 3, … in the order in which their names are first met.
        first: names that have values already where `names` are not told.

    Returns:
        the cases that are sound, and faults of the others.
    """
    files = {case.name: segmentation_file(case.label) for case in cases}
    if not any(files.values()):
        return tuple(cases), ()
    if not (names or first) and (plain := [case for case in cases if files[case.name] is None]):
        text = (
            f"{plain[0].label} is a label map and others have named segments, so that it can't be told which value "
            "means what; name the values in dataset.json."
        )
        return (), (Fault(plain[0].label.name, text),)
    known = _Known(names if names is not None else first or {}, names is None)
    found, faults = [], []
    for case in cases:
        file = files[case.name]
        if file is None:
            found.append(case)
            continue
        try:
            found.append(replace(case, label=file, values=known.values(file, segment_names(file))))
        except MedAIError as error:
            faults.append(Fault(case.label.name, str(error)))
    return tuple(found), tuple(faults)


class _Known:
    """Label values by name, to which others may be added.

    Args:
        names: by value.
        grows: whether a new name gets the next value.
    """

    def __init__(self, names: Mapping[int, str], grows: bool) -> None:
        self._exact = {name: value for value, name in names.items()}
        self._grows = grows

    def values(self, file: Path, names: Sequence[str]) -> tuple[tuple[str, int], ...]:
        """The values of a file's segments.

        Raises:
            InputError: a segment's name is none of those known, or two stand for the same.
        """
        found: dict[int, str] = {}
        for name in names:
            value = self._value(name)
            if value is None:
                raise InputError(
                    f"{file} has the segment '{name}', which is none of {', '.join(self._exact)}; rename it, or take "
                    "it out."
                )
            if value in found:
                raise InputError(f"{file} has the segments '{found[value]}' and '{name}', which are one; merge them.")
            found[value] = name
        return tuple((name, value) for value, name in found.items())

    def _value(self, name: str) -> int | None:
        if name in self._exact:
            return self._exact[name]
        alike = [value for other, value in self._exact.items() if plain_name(other) == plain_name(name)]
        if len(alike) == 1:
            return alike[0]
        if self._grows and not alike:
            return self._exact.setdefault(name, max(self._exact.values(), default=0) + 1)
        return None


def names_by_value(cases: Sequence[Case]) -> dict[int, str] | None:
    """What the cases' segments are called, by label value; None where the labels are label maps."""
    found: dict[int, str] = {}
    for case in cases:
        for name, value in case.values:
            found.setdefault(value, name)
    return dict(sorted(found.items())) or None


def segment_values(case: Case, grid: Geometry | None) -> NDArray[np.uint16]:
    """The label values (K, J, I) of a case with named segments, on its image's grid or, without one, on their own.

    A picture (PNG, JPEG) has no grid: beside it they are taken pixel by pixel.

    Raises:
        InputError: the file can't be read or has changed, segments overlap, or they lie on another grid.
    """
    segments = read_segments(case.label)
    if segments.names != tuple(name for name, _ in case.values):
        raise InputError(f"{case.label} has changed since its segments were read; start again.")
    plain = grid is None or (is_picture(case.images[0]) and segments.geometry.shape_kji == grid.shape_kji)
    labels = segments.labels if plain or grid is None else on_grid(segments, grid)
    if labels is None:
        raise InputError(
            f"The segmentation {case.label} is on another grid than its image {case.images[0]}; in Slicer's module "
            "Segmentations export it as a label map with that image as reference volume."
        )
    return np.array([0, *(value for _, value in case.values)], np.uint16)[labels]


def plain_name(name: str) -> str:
    """A name as it is compared: without regard to case, dashes, underscores and blanks."""
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())
