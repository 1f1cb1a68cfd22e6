"""Statistics of segments as a CSV file that spreadsheets and scripts read."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path

from MedAILib.output import whole_file
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


def _text(number: float | None) -> str:
    """Six significant digits; empty where there is no value, as for the mean of no voxels."""
    return "" if number is None or math.isnan(number) else f"{number:.6g}"
