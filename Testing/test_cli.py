"""The command line: what it writes, and what it says and leaves behind when something is wrong."""

import csv
import gzip
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pydicom
import pytest
import SimpleITK as sitk
import slicer
import torch
from bundles import network_entry, random_bundle, threshold_bundle
from vtk.util.numpy_support import vtk_to_numpy

from MedAILib.cli import main
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.storage import load_scene

AFFINE = np.diag([-0.9, 0.9, 1.4, 1.0])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an image `scan.nii.gz`, bright in one corner, and models `threshold` and `two_channels`."""
    folder = tmp_path_factory.mktemp("place")
    threshold_bundle(folder / "threshold", 50.0, spacing_mm=None)
    random_bundle(folder / "two_channels", network_entry("UNet", channels=2))
    nibabel.save(nibabel.Nifti1Image(voxels(), AFFINE), folder / "scan.nii.gz")
    return folder


def voxels() -> Any:
    data = np.random.default_rng(0).integers(0, 40, (18, 20, 22)).astype(np.int16)
    data[2:7, 3:9, 4:8] = 100
    return data


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def medai(*words: object) -> int:
    return main([str(word) for word in words])


def test_a_label_map_has_the_images_grid_and_the_models_values(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "labels.nii.gz"
    assert medai("segment", place / "scan.nii.gz", "-m", place / "threshold", "-o", out, "--quiet") == 0
    labels = nibabel.load(out)
    assert np.array_equal(np.asarray(labels.dataobj), voxels() > 50)
    assert np.allclose(labels.affine, AFFINE, atol=1e-5)
    assert names(tmp_path) == ["labels.nii.gz"]


def test_finding_nothing_is_an_answer_and_is_said(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model, out = threshold_bundle(tmp_path / "model", 5000.0, spacing_mm=None), tmp_path / "out"
    assert medai("segment", place / "scan.nii.gz", "-m", model, "-o", out, "--surfaces", tmp_path / "stl") == 0
    assert "found nothing in scan.nii.gz" in capsys.readouterr().err
    assert not np.asarray(nibabel.load(out / "labels.nii.gz").dataobj).any()
    assert names(out) == ["labels.nii.gz", "scene.mrb", "segmentation.seg.nrrd", "volumes.csv"]
    assert names(tmp_path / "stl") == []


def test_an_input_is_never_written_over(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = tmp_path / "scan.nii.gz"
    shutil.copy(place / "scan.nii.gz", source)
    before = source.read_bytes()
    assert medai("segment", source, "-m", place / "threshold", "-o", source, "--quiet") == 2
    refused(capsys, "is an input", "scan.nii.gz")
    assert source.read_bytes() == before


def test_two_results_of_one_path_are_refused(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "l.nii.gz"
    words = ("segment", place / "scan.nii.gz", "-m", place / "threshold", "-o", out, "--probabilities", out)
    assert medai(*words, "--quiet") == 2
    refused(capsys, "to be written there", "l.nii.gz")
    assert names(tmp_path) == []


def test_folders_made_for_a_failed_run_are_taken_back(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "deep" / "l.nii.gz"
    words = ("segment", place / "scan.nii.gz", "-m", place / "threshold", "-o", out, "--surfaces", tmp_path / "s")
    assert medai(*words, "--device", "cuda:99", "--quiet") == 2
    assert names(tmp_path) == []


def test_a_picture_gives_a_label_map_as_a_picture(place: Path, tmp_path: Path) -> None:
    pixels = voxels()[4].astype(np.uint8)
    PIL.Image.fromarray(pixels).save(tmp_path / "a.png")
    out = tmp_path / "labels.png"
    assert medai("segment", tmp_path / "a.png", "-m", place / "threshold", "-o", out, "--quiet") == 0
    assert np.array_equal(np.asarray(PIL.Image.open(out)), pixels > 50)


def test_the_program_loads_nothing_that_only_training_needs(place: Path, tmp_path: Path) -> None:
    code = (
        "import sys; from MedAILib.cli import console; code = console(); "
        "print([x for x in ('ignite', 'sklearn', 'pandas') if x in sys.modules]); "
        "import ignite.engine; sys.exit(code)"
    )
    words = ["segment", place / "scan.nii.gz", "-m", place / "threshold", "-o", tmp_path / "l.nii.gz", "--quiet"]
    command = [sys.executable, "-c", code, *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert np.array_equal(np.asarray(nibabel.load(tmp_path / "l.nii.gz").dataobj), voxels() > 50)


def test_json_is_the_only_thing_on_standard_output(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tmp_path / "table.csv"
    words = ("segment", place / "scan.nii.gz", "-m", place / "threshold", "-o", tmp_path / "l.nrrd", "--table", table)
    assert medai(*words, "--json") == 0
    printed = capsys.readouterr()
    said = json.loads(printed.out)
    assert said["model"] == "threshold" and len(said["sha256"]) == 64 and said["input"] == "scan.nii.gz"
    assert said["segments"][0]["voxels"] == 120
    assert said["segments"][0]["volume_ml"] == pytest.approx(120 * 0.9 * 0.9 * 1.4 / 1000)
    assert "Segmenting" in printed.err
    rows = list(csv.DictReader(table.open(encoding="utf-8")))
    assert rows[0]["voxels"] == "120" and float(rows[0]["mean"]) == 100


def test_probabilities_are_written_beside_the_labels(place: Path, tmp_path: Path) -> None:
    out, extra = tmp_path / "l.nii.gz", tmp_path / "p.nii.gz"
    words = ("segment", place / "scan.nii.gz", "-m", place / "threshold", "-o", out, "--probabilities", extra)
    assert medai(*words, "--quiet") == 0
    probabilities = np.asarray(nibabel.load(extra).dataobj)
    assert probabilities.shape == (18, 20, 22, 2)
    assert np.allclose(probabilities.sum(-1), 1, atol=1e-4)
    assert np.array_equal(probabilities.argmax(-1), voxels() > 50)


def test_a_region_of_interest_is_given_in_world_millimetres(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "l.nii.gz"
    box = ("--roi", "-3.6", "4.5", "8.4", "1.8", "100", "100")
    assert medai("segment", place / "scan.nii.gz", "-m", place / "threshold", "-o", out, "--quiet", *box) == 0
    found = np.argwhere(np.asarray(nibabel.load(out).dataobj))
    assert sorted(set(found[:, 0])) == [3, 4, 5]


def test_a_folder_gets_every_kind_of_result(place: Path, tmp_path: Path) -> None:
    out, surfaces = tmp_path / "out", tmp_path / "surfaces"
    words = ("segment", place / "scan.nii.gz", "-m", place / "threshold", "-o", out, "--surfaces", surfaces)
    assert medai(*words, "--quiet") == 0
    assert names(out) == ["labels.nii.gz", "scene.mrb", "segmentation.seg.nrrd", "volumes.csv"]
    assert len(names(surfaces)) == 1
    image = sitk.ReadImage(str(out / "segmentation.seg.nrrd"))
    assert image.GetMetaData("Segment0_Name") == "part 1"
    assert (sitk.GetArrayFromImage(image) > 0).sum() == 120


def test_a_dicom_series_gives_a_dicom_segmentation(shared_data: Path, tmp_path: Path) -> None:
    model = threshold_bundle(tmp_path / "model", 300.0, spacing_mm=None)
    series = next((shared_data / "mr_brain_dicom").glob("*FLAIR*"))
    assert medai("segment", series, "-m", model, "-o", tmp_path / "seg.dcm", "--quiet") == 0
    dataset = pydicom.dcmread(tmp_path / "seg.dcm")
    assert dataset.Modality == "SEG" and dataset.SegmentSequence[0].SegmentLabel == "part 1"


# What can be wrong with the input, and a word or two of the sentence that says so.


def nan(path: Path) -> None:
    data = voxels().astype(np.float32)
    data[3, 3, 3] = np.nan
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), path)


def infinite(path: Path) -> None:
    data = voxels().astype(np.float32)
    data[0] = np.inf
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), path)


def constant(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.full((9, 9, 9), 7, np.int16), AFFINE), path)


def empty(path: Path) -> None:
    path.write_bytes(b"")


def truncated(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels(), AFFINE), path)
    path.write_bytes(path.read_bytes()[:-4000])


def truncated_inside(path: Path) -> None:
    """A whole gzip stream whose content ends too early."""
    nibabel.save(nibabel.Nifti1Image(voxels(), AFFINE), path)
    content = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(content[:-4000]))


def four_dimensional(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.stack([voxels()] * 3, -1), AFFINE), path)


def colour(path: Path) -> None:
    data = np.zeros((9, 9, 9), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    data["R"][3:5] = 9
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), path)


def sheared(path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 1] = 0.4
    image = nibabel.Nifti1Image(voxels(), affine)
    image.set_qform(None, code=0)
    image.set_sform(affine, code=1)
    nibabel.save(image, path)


def text(path: Path) -> None:
    path.write_text("no image", encoding="utf-8")


def absent(path: Path) -> None:
    del path


def without_voxel_size(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels(), None), path)
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[80:84] = bytes(4)
    path.write_bytes(gzip.compress(content))


def too_large(path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(voxels() * 1e300, AFFINE), path)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (nan, "NaN or infinite"),
        (infinite, "NaN or infinite"),
        (constant, "value 7 in every voxel"),
        (empty, "empty"),
        (truncated, "cut short|truncated|ends"),
        (truncated_inside, "cut short|truncated|ends"),
        (four_dimensional, "3 channels"),
        (colour, "3 channels"),
        (sheared, "shear"),
        (text, "no image|not an image|image"),
        (absent, "does not exist|no such|there is no"),
        (without_voxel_size, "0 x 1 x 1 mm large"),
        (too_large, "more than a network can take"),
    ],
)
def test_a_bad_image_is_one_sentence_and_leaves_nothing(
    make: Callable[[Path], None], words: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = tmp_path / "bad.nii.gz", tmp_path / "out"
    make(source)
    out.mkdir()
    (out / "labels.nii.gz").write_bytes(b"older")
    assert medai("segment", source, "-m", place / "threshold", "-o", out / "labels.nii.gz", "--quiet") == 2
    refused(capsys, words, "bad.nii.gz")
    assert names(out) == ["labels.nii.gz"] and (out / "labels.nii.gz").read_bytes() == b"older"


def test_an_unusual_image_is_segmented_with_a_warning(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nibabel.save(
        nibabel.Nifti1Image(np.arange(125, dtype=np.float32).reshape(5, 5, 5), np.eye(4)), tmp_path / "tiny.nii.gz"
    )
    assert medai("segment", tmp_path / "tiny.nii.gz", "-m", place / "threshold", "-o", tmp_path / "l.nii.gz") == 0
    assert "Only 125 voxels of tiny" in capsys.readouterr().err
    assert (tmp_path / "l.nii.gz").exists()


def refused(capsys: pytest.CaptureFixture[str], words: str, named: str) -> None:
    """What was printed is one sentence that has the words and names what is at fault."""
    printed = capsys.readouterr()
    assert printed.out == ""
    lines = printed.err.strip().splitlines()
    assert len(lines) == 1 and lines[0].startswith("medai: ") and named in lines[0]
    assert any(word in lines[0].lower() for word in words.lower().split("|")), lines[0]


def test_missing_slices_are_refused_with_their_place(
    shared_data: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = tmp_path / "series"
    shutil.copytree(next((shared_data / "mr_brain_dicom").glob("*FLAIR*")), source)
    files = sorted(source.iterdir(), key=lambda path: pydicom.dcmread(path).ImagePositionPatient[2])
    files[len(files) // 2].unlink()
    assert medai("segment", source, "-m", place / "threshold", "-o", tmp_path / "l.nii.gz", "--quiet") == 2
    refused(capsys, "missing|gap|spac", "series")
    assert not (tmp_path / "l.nii.gz").exists()


@pytest.mark.parametrize(
    ("words", "said", "named"),
    [
        (["-m", "hipocampus"], "did you mean 'hippocampus'", "hipocampus"),
        (["-m", "{place}/two_channels"], "1 channel, the model two_channels takes 2: sequence 0, sequence 1", "scan"),
        (["-m", "{place}/scan.nii.gz"], "no model that MedAI knows", "scan.nii.gz"),
        (["-m", "{place}/threshold", "--device", "cuda:99"], "choose one of auto, cpu", "cuda:99"),
        (["-m", "{place}/threshold", "--series", "1.2.3"], "is no DICOM", "scan"),
        (["-m", "{place}/threshold", "--roi", "9e2", "-1e-05", "-2.E0", "9", "9", "9"], "outside the image", "region"),
        (["-m", "{place}/threshold", "--mirror"], "mirrored", "model"),
        (["-m", "{place}/threshold", "--overlap", "1.5"], "below 1", "1.5"),
        (["-m", "{place}/threshold", "--roi", "0", "0", "0", "0", "1", "1"], "sizes above 0", "region"),
        (["-m", "{place}/threshold", "--roi", "900", "0", "0", "9", "9", "9"], "outside the image", "region"),
        (["-m", "{place}/threshold", "--table", "{out}/t.txt"], ".csv", "t.txt"),
        (["-m", "{place}/threshold", "--probabilities", "{out}/p.png"], ".nii.gz", "p.png"),
    ],
)
def test_a_wrong_option_is_one_sentence_and_leaves_nothing(
    words: list[str], said: str, named: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = [word.format(place=place, out=tmp_path) for word in words]
    assert medai("segment", place / "scan.nii.gz", "-o", tmp_path / "l.nii.gz", "--quiet", *given) == 2
    refused(capsys, said, named)
    assert names(tmp_path) == []


def test_an_ending_without_meaning_is_said_before_the_image_is_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert medai("segment", tmp_path / "absent", "-m", "hippocampus", "-o", tmp_path / "l.v2", "--quiet") == 2
    refused(capsys, "this ending stands for no kind of result", "l.v2")


@pytest.mark.parametrize(
    "output", ["l.xyz", "l.dcm", "l.png", "file.txt/l.nii.gz", f"{'l' * 300}.nii.gz", "folder.mrb"]
)
def test_an_output_that_cannot_be_is_refused_before_the_work(
    output: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file.txt").write_text("x", encoding="utf-8")
    (tmp_path / "folder.mrb").mkdir()
    model = place / "threshold"
    assert medai("segment", place / "scan.nii.gz", "-m", model, "-o", tmp_path / output, "--quiet") == 2
    refused(capsys, "ending|DICOM|one slice|can't be written", output.rpartition("/")[2])
    assert names(tmp_path) == ["file.txt", "folder.mrb"] and names(tmp_path / "folder.mrb") == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["segment", "", "-m", "hippocampus", "-o", "l.nii.gz"], "argument INPUT: the name is empty"),
        (["segment", "a.nii.gz", "-m", "hippocampus", "-o", ""], "argument -o/--output: the name is empty"),
        (["segment", "a.nii.gz", "-m", "hippocampus"], "the following arguments are required: -o/--output"),
        (["segment", "a", "-m", "hippocampus", "-o", "l", "--overlap", "much"], "invalid float value: 'much'"),
        (["devour"], "invalid choice: 'devour'"),
    ],
)
def test_words_that_mean_nothing_are_told_in_one_line(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ending:
        main(words)
    assert ending.value.code == 2
    refused(capsys, said, said)


def test_the_folder_one_is_in_can_be_input_and_output(
    place: Path, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(shared_data / "mr_brain_dicom" / "13_HCropVolume", tmp_path / "scan")
    monkeypatch.chdir(tmp_path / "scan")
    assert medai("segment", ".", "-m", place / "threshold", "-o", ".", "--quiet") == 0
    assert {"labels.nii.gz", "scene.mrb", "segmentation.seg.nrrd", "volumes.csv"} <= set(names(tmp_path / "scan"))


def test_a_training_that_cannot_begin_makes_no_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    assert medai("train", "hippocampus", "--data", tmp_path / "data", "-o", tmp_path / "new" / "model") == 2
    refused(capsys, "no data folder", "data")
    assert names(tmp_path) == ["data"]


@pytest.mark.parametrize("spoil", ["missing", "shapes"])
def test_a_model_with_wrong_weights_is_one_sentence(
    spoil: str, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tmp_path / "model"
    shutil.copytree(place / "threshold", model)
    if spoil == "missing":
        (model / "models" / "model.pt").unlink()
    else:
        torch.save({"model.0.conv.weight": torch.zeros(2, 2)}, model / "models" / "model.pt")
    assert medai("segment", place / "scan.nii.gz", "-m", model, "-o", tmp_path / "l.nii.gz", "--quiet") == 2
    refused(capsys, "weights", "model.pt")
    assert not (tmp_path / "l.nii.gz").exists()


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from MedAILib.cli import main
from MedAILib.scene.headless import headless_scene
from MedAILib.scene.storage import load_scene
import MedAILib.commands.segment, MedAILib.models.open
resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="file size limits of POSIX")
def test_a_full_disk_is_one_sentence_and_leaves_the_older_file(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "l.nii.gz"
    out.write_bytes(b"older")
    words = ["segment", place / "scan.nii.gz", "-m", place / "threshold", "-o", out, "--quiet"]
    command = [sys.executable, "-W", "ignore", "-c", LIMITED, *words]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "l.nii.gz" in done.stderr and "Traceback" not in done.stderr
    assert names(tmp_path) == ["l.nii.gz"] and out.read_bytes() == b"older"


@pytest.mark.skipif(sys.platform != "linux", reason="/proc of Linux")
def test_a_folder_without_permission_is_refused(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = Path("/proc/l.nii.gz")  # where not even root may write
    assert medai("segment", place / "scan.nii.gz", "-m", place / "threshold", "-o", out, "--quiet") == 2
    refused(capsys, "can't be written", "l.nii.gz")


WITHOUT_PRIVILEGES = """
import ctypes, sys
if sys.platform == "linux":  # root too is refused then what others are
    library = ctypes.CDLL(None, use_errno=True)
    assert library.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()) == 0
from MedAILib.cli import main
for words in sys.argv[1].split(";"):
    print(main(words.split()), file=sys.stderr)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="capabilities of Linux")
def test_folders_without_permission_are_one_sentence_each(place: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.mkdir()
    if os.geteuid() == 0:
        os.chown(secret, 65534, 65534)
    secret.chmod(0o000 if os.geteuid() else 0o700)
    scan, model = place / "scan.nii.gz", place / "threshold"
    calls = (
        f"segment {scan} -m {model} -o {secret}/l.nii.gz --quiet",
        f"segment {secret} -m {model} -o {tmp_path}/l.nii.gz --quiet",
        f"evaluate -m {model} --data {secret} -o {tmp_path}/report",
        f"train hippocampus --data {secret} -o {secret}/model",
    )
    command = [sys.executable, "-W", "ignore", "-c", WITHOUT_PRIVILEGES, ";".join(calls)]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=tmp_path)
    secret.chmod(0o700)
    lines = done.stderr.splitlines()
    assert len(lines) == 2 * len(calls) and lines[1::2] == ["2"] * len(calls), done.stderr
    assert all(line.startswith("medai: ") and "secret" in line and "ermission" in line for line in lines[::2])
    assert names(tmp_path) == ["secret"] and names(secret) == []


def test_a_write_protected_file_is_left_alone(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "l.nii.gz"
    out.write_bytes(b"precious")
    out.chmod(0o444)
    assert medai("segment", place / "scan.nii.gz", "-m", place / "threshold", "-o", out, "--quiet") == 2
    refused(capsys, "write-protected", "l.nii.gz")
    assert out.read_bytes() == b"precious"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupt_ends_with_130_and_leaves_nothing(sign: int, place: Path, tmp_path: Path) -> None:
    image = tmp_path / "large.nii.gz"
    noise = np.random.default_rng(0).normal(size=(160, 160, 160)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(noise, AFFINE), image)
    model = random_bundle(tmp_path / "model", network_entry("SegResNet"))
    (tmp_path / "out").mkdir()
    words = [sys.executable, "-m", "MedAILib", "segment", image, "-m", model, "-o", tmp_path / "out" / "l.nii.gz"]
    for _ in range(5):  # who interrupts may sleep until it is done
        process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True)
        assert process.stderr is not None
        for line in process.stderr:
            if "Segmenting" in line:
                break
        time.sleep(0.2)  # somewhere inside of a window
        process.send_signal(sign)
        rest = process.stderr.read()
        if process.wait() != 0:
            break
        (tmp_path / "out" / "l.nii.gz").unlink()
    assert process.returncode == 130
    assert rest.strip().splitlines()[-1] == "medai: cancelled" and "Traceback" not in rest
    assert names(tmp_path / "out") == []


def test_models_are_listed_described_and_verified(capsys: pytest.CaptureFixture[str]) -> None:
    assert medai("models", "list") == 0
    assert "hippocampus" in capsys.readouterr().out
    assert medai("models", "info", "hippocampus", "--json") == 0
    info = json.loads(capsys.readouterr().out)
    assert [label["name"] for label in info["labels"]] == ["anterior", "posterior"] and len(info["sha256"]) == 64
    assert medai("models", "info", "hippocampus") == 0
    assert "not a medical device" in capsys.readouterr().out.lower()
    assert medai("models", "verify") == 0
    assert "hippocampus: whole" in capsys.readouterr().out


def test_an_evaluation_writes_its_report(place: Path, tmp_path: Path) -> None:
    for name, data in (("images", voxels()), ("labels", (voxels() > 50).astype(np.uint8))):
        (tmp_path / "data" / name).mkdir(parents=True)
        for number in range(2):
            path = tmp_path / "data" / name / f"case_{number}.nii.gz"
            nibabel.save(nibabel.Nifti1Image(data, AFFINE), path)
    description = {"labels": {"background": 0, "part 1": 1}}
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(description), encoding="utf-8")
    report = tmp_path / "report"
    words = ("evaluate", "-m", place / "threshold", "--data", tmp_path / "data", "-o", report, "--quiet")
    assert medai(*words) == 0
    summary = json.loads((report / "summary.json").read_text(encoding="utf-8"))
    assert summary["mean"]["1"]["Dice"] == 1 and len(summary["metric_per_case"]) == 2
    only = tmp_path / "only.txt"
    only.write_text("case_1", encoding="utf-8-sig")  # with a byte order mark, as some editors write
    assert medai(*words, "--only", only) == 0
    assert len(json.loads((report / "summary.json").read_text(encoding="utf-8"))["metric_per_case"]) == 1
    for images, kept in (("images", "imagesTs"), ("labels", "labelsTs")):
        (tmp_path / "data" / kept).mkdir()
        shutil.copy(tmp_path / "data" / images / "case_0.nii.gz", tmp_path / "data" / kept / "kept.nii.gz")
    assert medai(*words, "--split", "test") == 0
    judged = json.loads((report / "summary.json").read_text(encoding="utf-8"))["metric_per_case"]
    assert len(judged) == 1 and "kept" in str(judged[0])
    assert medai(*words, "--split", "val") == 2
    (tmp_path / "data" / "dataset.json").unlink()  # then the labels are what the model calls them
    assert medai(*words, "--only", only) == 0
    assert json.loads((report / "summary.json").read_text(encoding="utf-8"))["mean"]["1"]["Dice"] == 1


def test_a_report_without_a_place_is_refused_before_the_work(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("x", encoding="utf-8")
    assert medai("evaluate", "-m", place / "threshold", "--data", tmp_path, "-o", tmp_path / "file" / "report") == 2
    refused(capsys, "is a file; choose another name", "report")


def test_the_demo_finds_both_hippocampi(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert medai("demo", "-o", tmp_path) == 0
    expected = ["labels.nii.gz", "picture.png", "scene.mrb", "segmentation.seg.nrrd", "volumes.csv"]
    assert names(tmp_path) == expected
    image = nibabel.load(tmp_path / "labels.nii.gz")
    labels = np.asarray(image.dataobj)
    for values, side in (((1, 2), 1), ((3, 4), -1)):
        found = np.argwhere(np.isin(labels, values))
        assert 1.5 < len(found) * abs(np.linalg.det(image.affine[:3, :3])) / 1000 < 5.5
        assert (np.sign((found @ image.affine[:3, :3].T + image.affine[:3, 3])[:, 0]) == side).all()
    assert "mL" in capsys.readouterr().out
    counts = [int((labels == value).sum()) for value in (1, 2, 3, 4)]
    with headless_scene() as owner:
        load_scene(owner.scene, tmp_path / "scene.mrb")
        storage, node = slicer.vtkMRMLSegmentationStorageNode(), slicer.vtkMRMLSegmentationNode()
        owner.scene.AddNode(node)
        storage.SetFileName(str(tmp_path / "segmentation.seg.nrrd"))
        assert storage.ReadData(node)
        for found in owner.scene.GetNodesByClass("vtkMRMLSegmentationNode"):
            assert segment_voxels(found) == counts


def segment_voxels(node: Any) -> list[int]:
    counts = []
    for index in range(node.GetSegmentation().GetNumberOfSegments()):
        image = slicer.vtkOrientedImageData()
        assert node.GetBinaryLabelmapRepresentation(node.GetSegmentation().GetNthSegmentID(index), image)
        counts.append(int((vtk_to_numpy(image.GetPointData().GetScalars()) > 0).sum()))
    return counts
