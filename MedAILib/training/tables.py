"""Tables that people write by hand: CSV with commas, semicolons or tabs, their headers in the first line."""

import csv
from collections.abc import Sequence
from pathlib import Path

from MedAILib.errors import InputError

Rows = list[dict[str, str | None]]


def read_table(path: Path, headers: Sequence[str] | None = None) -> tuple[list[str], Rows]:
    """A table's headers as they stand there, and its rows by header.

    Args:
        path: of the table.
        headers: for one that has none in its first line.

    Raises:
        InputError: it can't be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            separator = separator_of(stream.readline())
            stream.seek(0)
            reader = csv.DictReader(stream, headers, delimiter=separator)
            return list(reader.fieldnames or ()), list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as a table: {error}.") from error


def column_of(headers: Sequence[str], names: Sequence[str]) -> str | None:
    """The header that is one of some names, whatever its case and outer blanks; the first of these that there is."""
    found = {(header or "").strip().lower(): header for header in headers}
    return next((found[name] for name in names if name in found), None)


def first_row(path: Path) -> list[str]:
    """The cells of a table's first line.

    Raises:
        InputError: it can't be read.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as stream:
            line = stream.readline()
        return next(csv.reader([line], delimiter=separator_of(line)), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} can't be read as a table: {error}.") from error


def separator_of(line: str) -> str:
    """What stands between the cells of a table, by its first line: a comma where there is one, else ";" or a tab."""
    return next((sign for sign in (",", ";", "\t") if sign in line), ",")
