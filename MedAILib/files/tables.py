"""CSV files that spreadsheets and scripts read: statistics of segments, classifications; and covariates from one."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from MedAILib import classification_record
from MedAILib.detections import Detections
from MedAILib.errors import InputError
from MedAILib.output import whole_file
from MedAILib.results import Classification
from MedAILib.statistics import SegmentStatistics

COLUMNS = ("segment", "label", "voxels", "volume_ml", "mean", "sd", "min", "max")


def write_statistics(rows: Sequence[SegmentStatistics], path: Path) -> None:
    """Write one line per segment, UTF-8, comma-separated, decimal points; what has no value is left empty.

    A last column "agreement" is there for ensembles alone.

    Raises:
        OutputError: the file can't be written.
    """
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        shared = any(row.agreement is not None for row in rows)
        writer.writerow([*COLUMNS, *(["agreement"] if shared else [])])
        for row in rows:
            numbers = (row.volume_ml, row.mean, row.sd, row.minimum, row.maximum, *([row.agreement] if shared else []))
            writer.writerow([row.name, row.value, row.voxels, *(_text(number) for number in numbers)])


def write_classification(result: Classification, path: Path) -> None:
    """Write one line per place and class, as `write_statistics` writes them; decision is yes, no or "not sure".

    Raises:
        OutputError: the file can't be written.
    """
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(classification_record.COLUMNS)
        for line in classification_record.table(result):
            writer.writerow([cell if isinstance(cell, str) else _text(cell) for cell in line])


def read_covariates(path: Path, wanted: Sequence[str], case: str) -> dict[str, float]:
    """Read numbers by their column's title; other columns are left alone.

    Args:
        path: CSV, UTF-8, with a line of titles.
        wanted: the columns to read.
        case: where there are several lines, the one to take: it has this in its first column, with or without ending.

    Raises:
        InputError: the file can't be read, has no such column or line, or a cell that is no number.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            lines = list(reader)
            titles = list(reader.fieldnames or ())
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as a table of covariates: {error}.") from error
    missing = [name for name in wanted if name not in titles]
    if missing:
        raise InputError(f"{path} has no column {missing[0]}; the model wants {', '.join(wanted)}.")
    if len(lines) > 1:
        lines = [line for line in lines if line[titles[0]] in (case, case.partition(".")[0])]
    if len(lines) != 1:
        raise InputError(f"{path} has {len(lines)} lines for {case}; name each image once in the first column.")
    found = {}
    for name in wanted:
        try:
            found[name] = float(lines[0][name])
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{path}: the covariate {name} of {case} is {lines[0][name]!r}, which is no number."
            ) from error
    return found


def _text(number: float | None) -> str:
    """Six significant digits; empty where there is no value, as for the mean of no voxels."""
    return "" if number is None or math.isnan(number) else f"{number:.6g}"


def write_detections(detections: Detections, path: Path) -> None:
    """Write one line per finding, the surest first: class, score, centre (RAS, mm), edges along the image's axes (mm).

    Raises:
        OutputError: the file can't be written.
    """
    with whole_file(path) as part, part.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        head = ("finding", "label", "score", "center_r", "center_a", "center_s", "size_i", "size_j", "size_k")
        writer.writerow(head)
        for number, box in enumerate(detections.boxes, start=1):
            numbers = [box.score, *detections.center_ras(box), *detections.size_mm(box)]
            writer.writerow([number, box.label, *(_text(float(x)) for x in numbers)])
