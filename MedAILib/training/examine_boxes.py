"""Every image with boxes looked at once before training: what is wrong with which file, and what a plan needs."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from MedAILib.detections import Box
from MedAILib.errors import MedAIError
from MedAILib.inference.prepare import require_usable
from MedAILib.progress import Progress
from MedAILib.training.boxed_images import BoxedCase, BoxedImage, as_case, read_boxed
from MedAILib.training.case_images import require_finite
from MedAILib.training.cases import Fault
from MedAILib.training.examine import (
    SAMPLED,
    CaseFacts,
    Examined,
    duplicate_remarks,
    sha256_of,
    unlike_faults,
)
from MedAILib.training.noted import Noted
from MedAILib.volume import Geometry


@dataclass(frozen=True, eq=False)
class BoxedFacts:
    """What one image with boxes is.

    Args:
        case: its files.
        geometry: its grid.
        boxes: its findings, on that grid.
        plain: what is known of images of any task; its values are some of those inside of boxes.
    """

    case: BoxedCase
    geometry: Geometry
    boxes: tuple[Box, ...]
    plain: CaseFacts


def examine_boxed(
    cases: Sequence[BoxedCase], names: Mapping[str, str], progress: Progress, channels: int | None
) -> tuple[tuple[BoxedFacts, ...], Examined]:
    """Read every case once and tell all that is wrong.

    Args:
        cases: files.
        names: see `boxed_images.label_names`.
        progress: hears each case.
        channels: how many an image has to have; None: as many as most have.

    Returns:
        each case that can be read; the same without boxes, with all faults and remarks.

    Raises:
        Cancelled: by `progress`.
    """
    found: list[BoxedFacts] = []
    faults: list[Fault] = []
    noted = Noted()
    for number, case in enumerate(cases):
        progress.step(number, len(cases), f"Checking {case.name}")
        noted.begin(case.name, case.images)
        try:
            found.append(_facts_of(read_boxed(case, names, noted), noted))
        except MedAIError as error:
            faults.append(Fault(case.name, str(error)))
    progress.step(len(cases), len(cases), "Checking done")
    plain = [one.plain for one in found]
    faults += unlike_faults(plain, channels)
    if found and all(min(one.geometry.shape_kji) == 1 for one in found):
        faults.append(Fault("images", "The images are single slices; a detector is trained on volumes."))
    if not faults and not any(one.boxes for one in found):
        faults.append(Fault("boxes", "There is no box in the data, so that there is nothing to learn to find."))
    remarks = (*noted.remarks, *duplicate_remarks(plain), *_balance(found, names))
    return tuple(found), Examined(tuple(plain), tuple(faults), remarks)


def _facts_of(image: BoxedImage, progress: Progress) -> BoxedFacts:
    data, geometry = image.volume.data, image.volume.geometry
    require_finite(image.volume, image.case.images[0])
    require_usable(image.volume, progress)
    parts = [data[(slice(None), *_voxels(box, geometry))].reshape(len(data), -1) for box in image.boxes]
    inside = np.concatenate([np.empty((len(data), 0), np.float32), *parts], axis=1)
    if inside.shape[1] > SAMPLED:
        inside = inside[:, np.random.default_rng(0).choice(inside.shape[1], SAMPLED, replace=False)]
    told = repr([(box.label, box.low_ijk, box.high_ijk) for box in image.boxes]).encode()
    plain = CaseFacts(
        as_case(image.case),
        geometry.shape_kji,
        geometry.spacing_kji_mm,
        geometry.orientation,
        len(data),
        {},
        inside.astype(np.float32),
        float(data.min()),
        1.0,
        sha256_of(data),
        hashlib.sha256(told).hexdigest(),
    )
    return BoxedFacts(image.case, geometry, image.boxes, plain)


def _voxels(box: Box, geometry: Geometry) -> tuple[slice, ...]:
    """The voxels (K, J, I) whose centres lie in a box, at least one along each axis."""
    sides = []
    for low, high, size in zip(box.low_ijk[::-1], box.high_ijk[::-1], geometry.shape_kji, strict=True):
        start = min(max(int(np.ceil(low)), 0), size - 1)
        sides.append(slice(start, max(min(int(np.floor(high)) + 1, size), start + 1)))
    return tuple(sides)


def _balance(found: Sequence[BoxedFacts], names: Mapping[str, str]) -> list[Fault]:
    """Classes that few cases have, and how many cases have no box."""
    remarks = []
    for name in dict.fromkeys(names.values()):
        there = sum(any(box.label == name for box in one.boxes) for one in found)
        if there < max(3, len(found) / 20):
            text = f"'{name}' is in {there} of {len(found)} cases only; expect little of it, or add cases."
            remarks.append(Fault(name, text))
    if empty := [one.case.name for one in found if not one.boxes]:
        text = f"{len(empty)} cases have no box ({', '.join(empty[:5])}); they are learnt from as free of findings."
        remarks.append(Fault(empty[0], text))
    return remarks
