"""Images with boxes around findings on disk: lists of boxes in millimetres, or label maps whose parts become boxes."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.detections import Box
from MedAILib.errors import InputError
from MedAILib.files.images import read_channels
from MedAILib.inference.components import touching_parts
from MedAILib.progress import Progress
from MedAILib.training.case_images import read_label
from MedAILib.training.cases import Case, images_by_name, read_labels
from MedAILib.training.data_folder import find_cases
from MedAILib.training.named_segments import names_by_value, plain_name
from MedAILib.training.tables import read_table
from MedAILib.volume import Volume

LISTS = ("boxes.csv", "boxes.json")
CENTER = ("center_r", "center_a", "center_s")
ALONG_IMAGE, ALONG_WORLD = ("size_i", "size_j", "size_k"), ("size_r", "size_a", "size_s")


@dataclass(frozen=True)
class WorldBox:
    """A finding as a list has it.

    Args:
        label: as the data has it.
        center_ras: mm.
        size_mm: full edge lengths along the image's axes I, J, K, or along R, A, S.
        along_world: whether they are along R, A, S.
        told_in: file and line, for messages.
    """

    label: str
    center_ras: tuple[float, float, float]
    size_mm: tuple[float, float, float]
    along_world: bool
    told_in: str


@dataclass(frozen=True)
class BoxedCase:
    """One image and its findings: those of a list, or a label map."""

    name: str
    images: tuple[Path, ...]
    boxes: tuple[WorldBox, ...] = ()
    label: Path | None = None
    values: tuple[tuple[str, int], ...] = ()  # of its named segments, as `Case` has them


@dataclass(frozen=True, eq=False)
class BoxedImage:
    """An image as it was read, and its findings on its grid, each of a class by its name.

    Args:
        outermost: of each finding the indices (n, 3) of its outermost voxels along I, J, K, where a label map tells
            its shape; none where boxes alone are known.
    """

    case: BoxedCase
    volume: Volume
    boxes: tuple[Box, ...]
    outermost: tuple[NDArray[np.int64], ...] = ()


def find_boxed_cases(folder: Path, channels: int = 1) -> tuple[BoxedCase, ...]:
    """List a folder's images with findings, sorted by name.

    The folder holds `images` (or `imagesTr`) and beside it `boxes.csv` or `boxes.json`, or label maps in `labels` (or
    `labelsTr`). An image that a list does not name has no findings.

    `boxes.csv` has the columns case, label, center_r, center_a, center_s (mm) and size_i, size_j, size_k (full edge
    lengths along the image's axes, as `medai detect` writes them) or size_r, size_a, size_s (along the world's).
    `boxes.json` has for each case's name a list of objects with label, center_ras and size_mm or size_ras_mm.

    Raises:
        InputError: no such folders or lists; a list that can't be read, or names a case that there is not.
    """
    told = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    if told is None:
        if not any((folder / name).is_dir() for name in ("labels", "labelsTr")):
            raise InputError(
                f"{folder} has no boxes: it needs boxes.csv or boxes.json, or label maps in a folder labels."
            )
        cases = find_cases(folder, channels)
        return tuple(BoxedCase(case.name, case.images, label=case.label, values=case.values) for case in cases)
    images = images_by_name(folder, channels)
    boxes = _read_csv(told) if told.suffix == ".csv" else _read_json(told)
    if unknown := sorted(set(boxes) - set(images)):
        raise InputError(f"{told} has boxes for '{unknown[0]}', of which there is no image in {folder}.")
    return tuple(BoxedCase(name, files, tuple(boxes.get(name, ()))) for name, files in images.items())


def channels_there(folder: Path) -> int:
    """How many files each image of a folder has, by the ends of their names: _0000, _0001, ...; else one."""
    images = next((folder / name for name in ("imagesTr", "images") if (folder / name).is_dir()), None)
    ends = [] if images is None else [re.search(r"_(\d{4})\.", path.name) for path in images.iterdir()]
    return 1 + max((int(end[1]) for end in ends if end), default=0) if ends and all(ends) else 1


def label_names(folder: Path, names: Mapping[str, Sequence[str]]) -> dict[str, str]:
    """Which class each of a folder's labels stands for, by what the classes may be called there.

    A label map's values are what `dataset.json` calls them, where there is one; a value that it calls by no class's
    name stands for none.

    Raises:
        InputError: `dataset.json` can't be read.
    """
    known = {text.strip().lower(): name for name, texts in names.items() for text in (name, *texts)}
    if (folder / "dataset.json").is_file():
        for value, text in read_labels(folder).items():
            name = known.get(text.strip().lower())
            if name is None:
                known.pop(str(value), None)
            else:
                known[str(value)] = name
    return known


def labels_there(folder: Path, cases: Iterable[BoxedCase]) -> dict[str, tuple[str, ...]]:
    """Every class that the cases have, sorted, and what they call it: texts of lists, values of label maps.

    Raises:
        InputError: a label map, or `dataset.json`, can't be read.
    """
    found: set[str] = set()
    for case in cases:
        found |= {box.label.strip() for box in case.boxes}
        if case.label is not None:
            values = np.unique(read_label(as_case(case), None))
            found |= {str(int(value)) for value in values if value}
    own = names_by_value([as_case(case) for case in cases]) or {}
    named = read_labels(folder) if (folder / "dataset.json").is_file() else own
    classes: dict[str, tuple[str, ...]] = {}
    for text in sorted(found, key=lambda x: (len(x), x)):
        told = named.get(int(text)) if text.isdecimal() else text
        name = told or f"class {text}"
        classes[name] = (*classes.get(name, ()), *dict.fromkeys((name, text)))
    return classes


def read_boxed(case: BoxedCase, names: Mapping[str, str], progress: Progress | None = None) -> BoxedImage:
    """Read an image and its findings, each checked.

    Args:
        case: where they are.
        names: see `label_names`.
        progress: warned of channels on other grids.

    Raises:
        InputError: a file can't be read; a label that stands for no class; a box of no size or outside of its image; a
            label map on another grid.
    """
    volume = read_channels(list(case.images), None, progress)
    if case.label is None:
        return BoxedImage(case, volume, tuple(_on_grid(box, volume, names) for box in case.boxes))
    values = read_label(as_case(case), volume)
    every = [int(value) for value in np.unique(values) if value]
    own = {plain_name(text): name for text, name in names.items()}
    called = {value: own.get(plain_name(name)) for name, value in case.values}  # values of segments are nobody else's
    called = called or {value: names.get(str(value)) for value in every}
    if unknown := [value for value in every if called[value] is None]:
        told = next((f"segment '{name}'" for name, value in case.values if value == unknown[0]), f"value {unknown[0]}")
        raise InputError(f"{case.label} has the {told}, which is none of the classes {_classes(names)}.")
    boxes: list[Box] = []
    outermost: list[NDArray[np.int64]] = []
    for value in every:
        parts, places = touching_parts(values == value)
        for number, place in enumerate(places, start=1):
            ends = outermost_voxels(parts[place] == number) + [side.start for side in place]
            outermost.append(ends[:, ::-1])
            k, j, i = place
            low, high = (i.start - 0.5, j.start - 0.5, k.start - 0.5), (i.stop - 0.5, j.stop - 0.5, k.stop - 0.5)
            boxes.append(Box(str(called[value]), 1.0, low, high))
    return BoxedImage(case, volume, tuple(boxes), tuple(outermost))


def outermost_voxels(mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """The indices (n, axes) of voxels that end a mask along every axis; its convex hull's corners are among them."""
    ends = mask.copy()
    for axis in range(mask.ndim):
        first = np.cumsum(mask, axis) == 1
        last = np.flip(np.cumsum(np.flip(mask, axis), axis), axis) == 1
        ends &= first | last
    return np.argwhere(ends)


def _on_grid(told: WorldBox, volume: Volume, names: Mapping[str, str]) -> Box:
    if told.label.strip().lower() not in names:
        raise InputError(
            f"{told.told_in} has the label '{told.label}', which is none of the classes {_classes(names)}."
        )
    grid = volume.geometry
    center, size = np.array(told.center_ras), np.array(told.size_mm)
    if told.along_world:  # the smallest box along the image's axes that holds it
        signs = np.array(np.meshgrid((-0.5, 0.5), (-0.5, 0.5), (-0.5, 0.5))).reshape(3, -1).T
        corners = grid.ijk_of(center + signs * size)
        low, high = corners.min(axis=0), corners.max(axis=0)
    else:
        middle, half = grid.ijk_of(center[None])[0], size / np.array(grid.spacing_kji_mm[::-1]) / 2
        low, high = middle - half, middle + half
    limits = np.array(grid.shape_kji[::-1]) - 0.5
    if (low >= limits).any() or (high <= -0.5).any():
        raise InputError(f"{told.told_in} has a box at {list(told.center_ras)} mm (RAS), outside of {volume.name}.")
    low, high = np.maximum(low, -0.5), np.minimum(high, limits)
    name = names[told.label.strip().lower()]
    return Box(name, 1.0, (low[0], low[1], low[2]), (high[0], high[1], high[2]))


def _classes(names: Mapping[str, str]) -> str:
    return ", ".join(dict.fromkeys(names.values()))


def _read_csv(path: Path) -> dict[str, list[WorldBox]]:
    head, rows = read_table(path)
    along_world = not set(ALONG_IMAGE) <= set(head)
    sizes = ALONG_WORLD if along_world else ALONG_IMAGE
    if missing := [key for key in ("case", "label", *CENTER, *sizes) if key not in head]:
        raise InputError(f"{path} has no column '{missing[0]}'; it needs case, label, {', '.join((*CENTER, *sizes))}.")
    found: dict[str, list[WorldBox]] = {}
    for number, row in enumerate(rows, start=2):
        told_in = f"{path}, line {number},"
        case, label = (row["case"] or "").strip(), row["label"] or ""
        if not case:
            raise InputError(f"{told_in} names no case.")
        entry = _box(label, [row[key] for key in CENTER], [row[key] for key in sizes], along_world, told_in)
        found.setdefault(case, []).append(entry)
    return found


def _read_json(path: Path) -> dict[str, list[WorldBox]]:
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} can't be read as JSON: {error}.") from error
    if not isinstance(content, dict) or not all(isinstance(entries, list) for entries in content.values()):
        raise InputError(f"{path} is no object with a list of boxes for each case's name.")
    found: dict[str, list[WorldBox]] = {}
    for name, entries in content.items():
        found[name] = []
        for number, entry in enumerate(entries, start=1):
            told_in = f"{path}, '{name}' box {number},"
            if not isinstance(entry, dict) or "label" not in entry:
                raise InputError(f"{told_in} has no label.")
            along_world = "size_mm" not in entry
            size = entry.get("size_ras_mm" if along_world else "size_mm")
            found[name].append(_box(str(entry["label"]), entry.get("center_ras"), size, along_world, told_in))
    return found


def _box(label: str, center: Any, size: Any, along_world: bool, told_in: str) -> WorldBox:
    if not label.strip():
        raise InputError(f"{told_in} has no label.")
    try:
        numbers = np.array([*center, *size], dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InputError(f"{told_in} has a centre or a size that is no three numbers.") from error
    if len(numbers) != 6 or not np.isfinite(numbers).all() or numbers[3:].min() <= 0:
        raise InputError(f"{told_in} has a centre or a size that is no three numbers, the sizes above 0.")
    r, a, s, *edges = (float(number) for number in numbers)
    return WorldBox(label, (r, a, s), (edges[0], edges[1], edges[2]), along_world, told_in)


def as_case(case: BoxedCase) -> Case:
    """The same case, for what deals cases out by their names or looks at their label maps."""
    return Case(case.name, case.images, case.label or case.images[0], case.values)
