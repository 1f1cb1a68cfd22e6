"""Several labels for one image as data has them: a row of zeros and ones, or a list in one cell of a table."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from MedAILib.errors import InputError

SEPARATOR = ";"  # between the labels in one cell
_YES, _NO = ("1", "1.0", "true"), ("0", "0.0", "false")

Row = Mapping[str, str | None]


def listed(cell: str) -> tuple[str, ...]:
    """The labels that a cell such as "mass; nodule" lists, each once; none of an empty one."""
    return tuple(dict.fromkeys(part.strip() for part in cell.split(SEPARATOR) if part.strip()))


def one_spelling(rows: Sequence[tuple[str, ...]]) -> list[tuple[str, ...]]:
    """The same labels, each spelt as where it comes first: "Mass" and "mass" are one."""
    first: dict[str, str] = {}
    return [tuple(dict.fromkeys(first.setdefault(x.casefold(), x) for x in labels)) for labels in rows]


def labels_of_rows(rows: NDArray[Any], split: str, path: Path) -> list[tuple[str, ...]]:
    """The numbers of the columns in which each row (N, L) of an archive has a 1.

    Raises:
        InputError: another value than 0 and 1; the sentence names its row, counted from 0.
    """
    wrong = np.argwhere(~((rows == 0) | (rows == 1)))
    if len(wrong):
        row, column = wrong[0].tolist()
        raise InputError(
            f"Row {row} (counted from 0) of {split}_labels in {path} has {rows[row, column]} for the label {column}; "
            "of several labels for an image each has to be 0 or 1."
        )
    return [tuple(str(n) for n in np.flatnonzero(row)) for row in rows]


def single_labels(rows: NDArray[Any], split: str, path: Path) -> list[str]:
    """The column in which each row (N, L) has its only 1, for decisions between classes that exclude each other.

    Raises:
        InputError: a row with no 1, or with several; the sentence names it.
    """
    found = labels_of_rows(rows, split, path)
    wrong = next((number for number, labels in enumerate(found) if len(labels) != 1), None)
    if wrong is not None:
        raise InputError(
            f"Row {wrong} (counted from 0) of {split}_labels in {path} has {len(found[wrong])} labels, but one class "
            "for each image is wanted; only the decision 'multilabel' takes several."
        )
    return [labels[0] for labels in found]


def label_columns(headers: Sequence[str], rows: Sequence[Row]) -> tuple[str, ...]:
    """Those columns of a table that stand for a label each: all, if there are two and most cells are 0 or 1."""
    cells = [_plain(row[header]) for row in rows for header in headers]
    marks = sum(cell in (*_YES, *_NO) for cell in cells)
    return tuple(headers) if len(headers) > 1 and 2 * marks > len(cells) else ()


def labels_of_columns(path: Path, rows: Sequence[Row], headers: Sequence[str], first: int) -> list[tuple[str, ...]]:
    """The names of the columns in which each row of a table has a 1.

    Args:
        path: of the table, for messages.
        rows: cells by header.
        headers: the columns that stand for a label each.
        first: the line that the first row is.

    Raises:
        InputError: two columns of one name, or another value than 0 and 1; the sentence names its line.
    """
    double = [name for name, count in Counter(header.strip().casefold() for header in headers).items() if count > 1]
    if double:
        raise InputError(f"{path} has two columns for the label {double[0]}; keep one.")
    found = []
    for line, row in enumerate(rows, start=first):
        for header in headers:
            if _plain(row[header]) not in (*_YES, *_NO):
                said = f"'{row[header]}'" if row[header] else "nothing"
                raise InputError(
                    f"Line {line} of {path} has {said} for the label {header.strip()}; of several labels for an image "
                    "each has to be 0 or 1. If that column is no label, take it out."
                )
        found.append(tuple(header.strip() for header in headers if _plain(row[header]) in _YES))
    return found


def require_one_layout(
    path: Path, labels: Sequence[tuple[str, ...]], headers: Sequence[str], rows: Sequence[Row]
) -> None:
    """Raise `InputError` where a table tells labels twice: by name in one column, and in columns of their own."""
    told = {label.casefold() for own in labels for label in own}
    both = [
        header.strip()
        for header in headers
        if header.strip().casefold() in told and all(_plain(row[header]) in (*_YES, *_NO) for row in rows)
    ]
    if both:
        raise InputError(
            f"{path} has labels by name in one column, and columns of zeros and ones for {', '.join(both)}; keep one "
            "of both layouts."
        )


def _plain(cell: str | None) -> str:
    return (cell or "").strip().casefold()
