"""Statistics as a file that spreadsheets read."""

import csv
from pathlib import Path

import numpy as np
import pytest

from MedAILib.errors import OutputError
from MedAILib.files.tables import write_statistics
from MedAILib.results import Label, Segmentation
from MedAILib.statistics import segment_statistics
from MedAILib.volume import Geometry, Volume


def write(path: Path) -> list[dict[str, str]]:
    """Statistics of two of eight voxels of 2 mL each, values 4 and 6, and of a structure that was not found."""
    grid = Geometry((2, 2, 2), np.diag((10.0, 10, 20, 1)))
    layers = np.zeros((1, 2, 2, 2), np.uint8)
    layers[0, 0, 0] = 3
    data = np.arange(4, 20, 2, dtype=np.int16).reshape(1, 2, 2, 2)
    labels = (Label(3, 'Hippocampus, "körper"'), Label(4, "none"))
    write_statistics(segment_statistics(Segmentation(layers, labels, grid), Volume(data, grid)), path)
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_columns_and_numbers_come_back(tmp_path: Path) -> None:
    first = write(tmp_path / "a.csv")[0]
    assert list(first) == ["segment", "label", "voxels", "volume_ml", "mean", "sd", "min", "max"]
    assert first["segment"] == 'Hippocampus, "körper"'
    assert [float(first[name]) for name in ("label", "voxels", "volume_ml", "mean", "min", "max")] == [3, 2, 4, 5, 4, 6]


def test_structure_without_voxels_has_no_mean(tmp_path: Path) -> None:
    second = write(tmp_path / "a.csv")[1]
    assert (second["voxels"], float(second["volume_ml"]), second["mean"]) == ("0", 0, "")


def test_absent_folder_is_told(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match="does not exist"):
        write(tmp_path / "absent" / "a.csv")
