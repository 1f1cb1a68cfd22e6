"""Statistics of segments as a table node."""

from collections.abc import Sequence
from typing import Any

import slicer
import vtk

from MedAILib.statistics import SegmentStatistics

# Column title, and the field of SegmentStatistics that it shows.
_COLUMNS = (
    ("Segment", "name"),
    ("Label", "value"),
    ("Voxels", "voxels"),
    ("Volume [mL]", "volume_ml"),
    ("Mean", "mean"),
    ("SD", "sd"),
    ("Minimum", "minimum"),
    ("Maximum", "maximum"),
)
_INTEGERS = ("value", "voxels")
_SHARED = ("Agreement", "agreement")


def fill_statistics(node: "slicer.vtkMRMLTableNode", rows: Sequence[SegmentStatistics]) -> None:
    """Give a table node one line per segment; intensities of a segment without voxels are NaN, which shows as such.

    A last column "Agreement" is there only where several passes over the image were compared.
    """
    columns = (*_COLUMNS, _SHARED) if any(row.agreement is not None for row in rows) else _COLUMNS
    table = vtk.vtkTable()
    for title, field in columns:
        values = [getattr(row, field) for row in rows]
        table.AddColumn(_column(title, field, values))
    node.SetAndObserveTable(table)
    for title, _ in columns:
        node.SetColumnTitle(title, title)
    node.SetUseColumnTitleAsColumnHeader(True)
    node.SetUseFirstColumnAsRowHeader(True)
    node.SetLocked(True)


def _column(title: str, field: str, values: list[Any]) -> Any:
    if field == "name":
        column = vtk.vtkStringArray()
    elif field in _INTEGERS:
        column = vtk.vtkLongLongArray()
    else:
        column = vtk.vtkDoubleArray()
    column.SetName(title)
    for value in values:
        column.InsertNextValue(float("nan") if value is None else value)
    return column
