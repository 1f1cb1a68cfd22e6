"""What is wrong with the data of a classifier, told before its training starts and file by file."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import PIL.Image
import pytest
from balls import train, write_cases
from labelled import class_folders, small_task


def nonsense(data: Path) -> None:
    (data / "above" / "x.png").write_bytes(b"nonsense")


def volume(data: Path) -> None:
    made = write_cases(data.parent / "made", 1, (12, 12, 12))
    shutil.copy(made / "imagesTr" / "case_0.nii.gz", data / "below" / "v.nii.gz")


def blank(data: Path) -> None:
    PIL.Image.new("L", (12, 12)).save(data / "below" / "blank.png")


def csv(data: Path, line: Callable[[int, Path], str], head: str) -> None:
    rows = "".join(f"{line(n, p.relative_to(data))}\n" for n, p in enumerate(sorted(data.rglob("*.png"))))
    (data / "list.csv").write_text(f"{head}\n{rows}", encoding="utf-8")


def number(path: Path) -> int:
    return int(path.parent.name == "below")


FAULTS: dict[str, tuple[Callable[[Path], Any], str, str]] = {
    "unreadable": (nonsense, "", r"above/x\.png is no image"),
    "mixed dimensions": (volume, "", r"below/v\.nii\.gz is of 12 x 12 x 12 voxels.*pictures are wanted"),
    "several": (
        lambda d: (nonsense(d), volume(d), blank(d)),
        "",
        r"3 faults:\n  above/x\.png: .*\n  below/blank\.png: .*same value.*\n  below/v\.nii\.gz: ",
    ),
    "one class": (lambda d: shutil.rmtree(d / "below"), "", r"^medai: \S+ has images of one class only"),
    "another class": (
        lambda d: shutil.copytree(d / "above", d / "third"),
        "",
        r"'third' of third/.*none of the classes",
    ),
    "no images": (lambda d: [shutil.rmtree(d / n) for n in ("above", "below")], "", "holds no images"),
    "one patient": (
        lambda d: csv(d, lambda n, p: f"{p},{number(p)},a", "path,label,patient"),
        "list.csv",
        r"All images \(above/00\.png and 7 more\) are of the patient a",
    ),
    "a patient in two parts": (
        lambda d: csv(d, lambda n, p: f"{p},{number(p)},{'train' if n % 2 else 'val'},a", "path,label,split,patient"),
        "list.csv",
        "the patient a are in two parts",
    ),
    "an absent file": (
        lambda d: csv(d, lambda n, p: f"{p}{'' if n else 'g'},{number(p)}", "path,label"),
        "list.csv",
        r"Line 2 of .*list\.csv names .*00\.pngg, which does not exist",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_labelled_images_are_told(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, file, words = FAULTS[fault]
    data = class_folders(tmp_path / "data", 8)
    spoil(data)
    (tmp_path / "task.json").write_text(json.dumps(small_task()), encoding="utf-8")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert train(tmp_path / "task.json", "--data", data / file, "-o", tmp_path / "new" / "m") == 2
    told = capsys.readouterr().err
    assert re.search(words, told, re.DOTALL), told
    assert sorted(path.name for path in tmp_path.iterdir()) == before


def test_what_is_the_same_with_several_files_is_said_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = class_folders(tmp_path / "data", 8)
    for name in ("above/00.png", "below/01.png"):
        PIL.Image.new("L", (12, 12)).save(data / name)
    (tmp_path / "task.json").write_text(json.dumps(small_task()), encoding="utf-8")
    assert train(tmp_path / "task.json", "--data", data, "-o", tmp_path / "m") == 2
    told = capsys.readouterr().err
    assert "above/00.png has the same value everywhere" in told and "The same holds for below/01.png." in told


class Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_a_full_disk_is_told_before_a_classifier_is_trained(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**9, 10**9 - 1000, 1000))
    (tmp_path / "task.json").write_text(json.dumps(small_task()), encoding="utf-8")
    data = class_folders(tmp_path / "data", 8)
    assert train(tmp_path / "task.json", "--data", data, "-o", tmp_path / "m") == 2
    assert "MB left, and checkpoints take" in capsys.readouterr().err
    assert not (tmp_path / "m.training").exists()


def test_a_folder_that_there_is_not_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("auto", "--data", tmp_path / "nowhere", "-o", tmp_path / "m") == 2
    assert "nowhere does not exist" in capsys.readouterr().err


def test_labels_of_another_size_as_npz_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    np.savez(tmp_path / "d.npz", train_images=np.zeros((3, 8, 8), np.uint8), train_labels=np.zeros((2, 1), np.uint8))
    (tmp_path / "task.json").write_text(json.dumps(small_task()), encoding="utf-8")
    assert train(tmp_path / "task.json", "--data", tmp_path / "d.npz", "-o", tmp_path / "m") == 2
    assert "3 images and 2 labels for train" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["dataset.json", "task.json"])
def test_a_description_of_endless_depth_is_one_sentence(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_cases(tmp_path / "data", 2, (12, 12, 12))
    (data / name).write_text("[" * 100_000, encoding="utf-8")
    task = str(data / name) if name == "task.json" else "parts"
    assert train(task, "--data", data, "-o", tmp_path / "m") == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert name in line and "can't be read" in line
