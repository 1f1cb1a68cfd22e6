"""Detectors trained by the command: how well they find, how a training goes on or stops, and what data is refused."""

import json
from pathlib import Path

import pytest
from blobs import blob_folder

from MedAILib.cli import main
from MedAILib.progress import Progress

SILENT = Progress()


def command(*words: object) -> int:
    return main([str(word) for word in (*words, "--device", "cpu", "--quiet")])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data to learn from, others made the same way, and the model `balls`."""
    folder = tmp_path_factory.mktemp("detector")
    blob_folder(folder / "data", 12, 1)
    blob_folder(folder / "new", 8, 2, "boxes.csv")
    words = ["train", "detection", "--data", folder / "data", "-o", folder / "balls", "--epochs", 7]
    assert command(*words, "--set", "samples=4") == 0
    return folder


def test_a_small_detector_finds_what_is_in_volumes_made_the_same_way(trained: Path) -> None:
    assert command("evaluate", "-m", trained / "balls", "--data", trained / "new", "-o", trained / "report") == 0
    told = json.loads((trained / "report" / "summary.json").read_text(encoding="utf-8"))
    assert told["mAP@0.5"] >= 0.9
