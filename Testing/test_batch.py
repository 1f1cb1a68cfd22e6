"""Many cases through one model: errors that stay with their case, stops and resumptions, table and page."""

import csv
import json
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
from bundles import network_entry, random_bundle, threshold_bundle
from classifier_bundles import DENSENET, classifier_bundle
from detector_bundles import detector_bundle
from legitimate import nnunet

from MedAILib.batch.cases import find_batch_cases
from MedAILib.batch.overview import page
from MedAILib.batch.records import Row, content_sha256
from MedAILib.batch.room import MemoryRoom
from MedAILib.batch.thumbnail import findings_picture
from MedAILib.cli import main
from MedAILib.commands.batch import LOCK
from MedAILib.detections import Box, Detections
from MedAILib.errors import InputError
from MedAILib.models.bundle import BundleModel
from MedAILib.models.open import open_model
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.request import RunOptions
from MedAILib.store.lock import locked
from MedAILib.threads import wait_asleep
from MedAILib.volume import Geometry, Volume

AFFINE = np.diag([-0.9, 0.9, 1.4, 1.0])


def voxels(seed: int) -> np.ndarray:
    data = np.random.default_rng(seed).integers(0, 40, (18, 20, 22)).astype(np.int16)
    data[2 : 5 + seed, 3:9, 4:8] = 100
    return data


def save(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), path)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return threshold_bundle(tmp_path_factory.mktemp("models") / "threshold", 50.0, spacing_mm=None)


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder with two images and a file that is none."""
    for number in (1, 2):
        save(tmp_path / "in" / f"case_{number}.nii.gz", voxels(number))
    (tmp_path / "in" / "broken.nii.gz").write_bytes(b"no image")
    return tmp_path / "in"


def batch(*words: object) -> int:
    return main(["batch", *(str(word) for word in words), "--quiet"])


def table(folder: Path) -> dict[str, dict[str, str]]:
    with (folder / "cases.csv").open(encoding="utf-8", newline="") as file:
        return {row["case"]: row for row in csv.DictReader(file)}


@pytest.mark.parametrize("workers", [1, 3])
def test_one_bad_case_stops_no_other(model: Path, images: Path, tmp_path: Path, workers: int) -> None:
    out = tmp_path / "out"
    assert batch(images, "-m", model, "-o", out, "--workers", workers) == 2
    rows = table(out)
    assert [row["state"] for row in rows.values()] == ["failed", "done", "done"]
    assert "broken.nii.gz" in rows["broken"]["reason"]
    for number in (1, 2):
        labels = np.asarray(nibabel.load(out / f"case_{number}.nii.gz").dataobj)
        assert np.array_equal(labels, voxels(number) > 50)
        volume = float(rows[f"case_{number}"]["part 1 (mL)"])
        assert volume == pytest.approx(labels.sum() * 0.9 * 0.9 * 1.4 / 1000, rel=1e-4)
        assert PIL.Image.open(out / "pictures" / f"case_{number}.png").size == (256, 256)
    text = (out / "index.html").read_text(encoding="utf-8")
    assert text.index("broken") < text.index("case_1") and "pictures/case_2.png" in text


def test_a_resumed_batch_does_what_changed_and_nothing_else(model: Path, images: Path, tmp_path: Path) -> None:
    (images / "broken.nii.gz").unlink()
    out = tmp_path / "out"
    words = (images, "-m", model, "-o", out)
    assert batch(*words) == 0
    before = (out / "case_1.nii.gz").stat().st_mtime_ns
    save(images / "case_2.nii.gz", voxels(3))
    save(images / "case_4.nii.gz", voxels(4))
    assert batch(*words, "--resume") == 0
    assert [row["state"] for row in table(out).values()] == ["kept", "done", "done"]
    assert (out / "case_1.nii.gz").stat().st_mtime_ns == before
    assert np.array_equal(np.asarray(nibabel.load(out / "case_2.nii.gz").dataobj), voxels(3) > 50)

    (out / "case_4.nii.gz").unlink()
    assert batch(*words, "--resume") == 0
    assert [row["state"] for row in table(out).values()] == ["kept", "kept", "done"]
    assert batch(*words, "--resume", "--no-postprocess") == 0
    assert [row["state"] for row in table(out).values()] == ["done"] * 3
    assert batch(*words) == 0
    assert [row["state"] for row in table(out).values()] == ["done"] * 3


def test_another_model_of_the_same_name_is_another_model(model: Path, images: Path, tmp_path: Path) -> None:
    (images / "broken.nii.gz").unlink()
    out = tmp_path / "out"
    assert batch(images, "-m", model, "-o", out) == 0
    other = threshold_bundle(tmp_path / "other" / "threshold", 30.0, spacing_mm=None)
    assert batch(images, "-m", other, "-o", out, "--resume") == 0
    assert np.array_equal(np.asarray(nibabel.load(out / "case_1.nii.gz").dataobj), voxels(1) > 30)


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_killed_batch_goes_on_where_it_was(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for number in range(4):
        save(tmp_path / "in" / f"case_{number}.nii.gz", rng.normal(size=(48, 48, 48)).astype(np.float32))
    network = random_bundle(tmp_path / "model", network_entry("SegResNet"))
    for attempt in range(5):  # who looks may sleep until all of it is done
        out = tmp_path / f"out {attempt}"
        words = [sys.executable, "-m", "MedAILib", "batch", tmp_path / "in", "-m", network, "-o", out]
        process = subprocess.Popen([str(word) for word in words], stderr=subprocess.DEVNULL)
        while not list((out / "records").glob("*.json")) and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        finished = {path.stem for path in (out / "records").glob("*.json")}
        if len(finished) < 4:
            break
    assert finished and len(finished) < 4
    assert batch(tmp_path / "in", "-m", network, "-o", out, "--resume") == 0
    rows = table(out)
    assert {name for name, row in rows.items() if row["state"] == "kept"} == finished
    assert all((out / f"case_{number}.nii.gz").is_file() for number in range(4))


def test_cases_come_from_folders_channels_and_lists(tmp_path: Path) -> None:
    for name in ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii.gz", "b_0001.nii.gz"):
        save(tmp_path / "raw" / "imagesTs" / name, voxels(1))
    found = find_batch_cases(tmp_path / "raw", 2)
    assert [(case.name, [path.name for path in case.images]) for case in found] == [
        ("a", ["a_0000.nii.gz", "a_0001.nii.gz"]),
        ("b", ["b_0000.nii.gz", "b_0001.nii.gz"]),
    ]
    folder = tmp_path / "raw" / "imagesTs"
    (tmp_path / "list.csv").write_text(
        "case,t1,t2\nfirst,raw/imagesTs/a_0001.nii.gz,raw/imagesTs/b_0000.nii.gz\n", encoding="utf-8"
    )
    (case,) = find_batch_cases(tmp_path / "list.csv", 2)
    assert case.name == "first" and case.images == (folder / "a_0001.nii.gz", folder / "b_0000.nii.gz")
    (tmp_path / "list.txt").write_text(f"{folder / 'a_0000.nii.gz'}\n\nraw/imagesTs/b_0000.nii.gz\n", encoding="utf-8")
    assert [case.name for case in find_batch_cases(tmp_path / "list.txt", 1)] == ["a_0000", "b_0000"]


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("case,image\n", "no image"),
        ("case,image\nx,absent.nii.gz\n", "case 1: .*absent.nii.gz does not exist"),
        ("case,image\n../x,here.nii.gz\n", "can't be a file's name"),
        ("image\nhere.nii.gz\nhere.nii.gz\n", "would both be the case here"),
        ("a,b\nhere.nii.gz,here.nii.gz\n", "has 2 images, the model takes 1"),
    ],
)
def test_a_list_that_makes_no_sense_is_refused(tmp_path: Path, content: str, sentence: str) -> None:
    save(tmp_path / "here.nii.gz", voxels(1))
    (tmp_path / "list.csv").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=sentence):
        find_batch_cases(tmp_path / "list.csv", 1)


def test_wrong_options_leave_no_folder(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for words, said in (
        ((images, "-m", model, "-o", images), "holds the images"),
        ((tmp_path / "absent", "-m", model, "-o", tmp_path / "out"), "no folder and no list"),
        ((images, "-m", model, "-o", tmp_path / "out", "--workers", "0"), "at least 1"),
        ((images, "-m", model, "-o", tmp_path / "out", "--device", "cuda:99"), "choose one of auto, cpu"),
    ):
        assert batch(*words) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_names_cannot_put_markup_into_the_page() -> None:
    row = Row("<b>x</b>", "done", volumes_ml={"<i>": 1.0}, warnings=("<script>",))
    text = page([row], {"<b>x</b>": 'a"b.png'}, {"Model": "<u>"})
    assert not any(mark in text for mark in ("<b>x", "<i>", "<script>", "<u>", 'a"b'))


def test_records_are_json_that_others_can_read(model: Path, images: Path, tmp_path: Path) -> None:
    batch(images, "-m", model, "-o", tmp_path / "out")
    record = json.loads((tmp_path / "out" / "records" / "case_1.json").read_text(encoding="utf-8"))
    assert record["key"]["kinds"] == [".nii.gz"] and len(record["key"]["content"]) == 64
    assert record["row"]["files"] == ["case_1.nii.gz", "pictures/case_1.png"]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return classifier_bundle(tmp_path_factory.mktemp("models") / "shapes", DENSENET, ["square", "disc", "none"])


def test_classified_batch_has_probabilities_and_pictures_with_the_decision(classifier: Path, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(3):
        noise = np.random.default_rng(number).integers(0, 255, (40, 60)).astype(np.uint8)
        PIL.Image.fromarray(noise).save(tmp_path / "in" / f"scan_{number}.png")
    out = tmp_path / "out"
    assert batch(tmp_path / "in", "-m", classifier, "-o", out) == 0
    for name, row in table(out).items():
        found = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
        assert row["decision"] == found["predicted"]
        assert float(row["p(disc)"]) == pytest.approx(found["classes"][1]["probability"], rel=1e-4)
        pixels = np.asarray(PIL.Image.open(out / "pictures" / f"{name}.png"))
        assert pixels.shape == (256, 256, 3)
        assert pixels[-28:].max() > 200  # the decision is written there
        assert f"<p>{row['decision']}</p>" in (out / "index.html").read_text(encoding="utf-8")
    assert batch(tmp_path / "in", "-m", classifier, "-o", out, "--resume") == 0
    assert {row["state"] for row in table(out).values()} == {"kept"}


def test_classified_batch_counts_how_slices_were_decided(classifier: Path, images: Path, tmp_path: Path) -> None:
    (images / "broken.nii.gz").unlink()
    out = tmp_path / "out"
    assert batch(images, "-m", classifier, "-o", out) == 2
    assert "choose one slice" in table(out)["case_1"]["reason"]
    assert batch(images, "-m", classifier, "-o", out, "--each-slice", "K") == 0
    counts = [int(word[:-1]) for word in table(out)["case_1"]["decision"].replace(",", "").split()[1::2]]
    assert sum(counts) == 22


def test_options_of_another_task_are_refused(
    classifier: Path, model: Path, images: Path, tmp_path: Path, capsys
) -> None:
    assert batch(images, "-m", classifier, "-o", tmp_path / "out", "--kind", ".nii.gz") == 2
    assert "--kind" in capsys.readouterr().err
    assert batch(images, "-m", model, "-o", tmp_path / "out", "--each-slice", "K") == 2
    assert "segments images" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector_bundle(tmp_path_factory.mktemp("models") / "finder")


def test_detectors_count_their_findings_and_draw_them(detector: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    save(tmp_path / "in" / "case.nii.gz", rng.normal(size=(40, 40, 24)).astype(np.float32))
    out = tmp_path / "out"
    assert batch(tmp_path / "in", "-m", detector, "-o", out, "--kind", ".json", "--kind", ".csv") == 0
    (row,) = table(out).values()
    found = json.loads((out / "case.json").read_text(encoding="utf-8"))["findings"]
    assert sum(int(value) for name, value in row.items() if name.startswith("n(")) == len(found)
    assert row["decision"].startswith(f"{len(found)} finding" if found else "no finding")
    assert PIL.Image.open(out / "pictures" / "case.png").size == (256, 256)
    assert batch(tmp_path / "in", "-m", detector, "-o", out, "--mirror") == 2


def test_findings_are_outlined_where_they_lie() -> None:
    geometry = Geometry((10, 40, 40), np.diag([-1.0, -1.0, 2.0, 1.0]))
    box = Box("spot", 0.9, (2.0, 2.0, 3.0), (12.0, 12.0, 6.0))
    found = Detections((box,), ("spot",), geometry, 0.5)
    picture = findings_picture(Volume(np.zeros((1, 10, 40, 40), np.float32), geometry), found)
    coloured = np.argwhere(np.ptp(picture.astype(int), axis=2) > 50)
    # Voxels 2 to 12 of 40, half a voxel from the edge: the image's first voxel is the patient's right and front.
    assert np.abs(coloured.min(axis=0) - 2.5 / 40 * 256).max() < 3
    assert np.abs(coloured.max(axis=0) - 12.5 / 40 * 256).max() < 3


def test_names_that_are_alike_are_told_apart(model: Path, tmp_path: Path) -> None:
    for name in ("a b,ü/scan.nii.gz", "c/scan.nii.gz", "c/other.nii.gz"):
        save(tmp_path / "in" / name, voxels(1))
    lines = [str(path) for path in sorted((tmp_path / "in").rglob("*.nii.gz"))]
    (tmp_path / "list.txt").write_text("\n".join(lines), encoding="utf-8")
    assert batch(tmp_path / "list.txt", "-m", model, "-o", tmp_path / "out") == 0
    rows = table(tmp_path / "out")
    assert set(rows) == {"a b,ü_scan", "c_scan", "other"}
    for row in rows.values():
        assert all((tmp_path / "out" / name).is_file() for name in row["files"].split("; "))
    save(tmp_path / "c.nrrd" / "x.nii", voxels(1))
    save(tmp_path / "c.nrrd" / "x.nii.gz", voxels(2))
    assert [case.name for case in find_batch_cases(tmp_path / "c.nrrd", 1)] == ["x_nii", "x_nii_gz"]


def test_one_case_that_cannot_be_run_stops_no_other(model: Path, images: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text(
        "case,image,more\ngood,in/case_1.nii.gz,\nabsent,in/no.nii.gz,\ntwo,in/case_1.nii.gz,in/case_2.nii.gz\n",
        encoding="utf-8",
    )
    assert batch(tmp_path / "list.csv", "-m", model, "-o", tmp_path / "out") == 2
    rows = table(tmp_path / "out")
    assert [row["state"] for row in rows.values()] == ["done", "failed", "failed"]
    assert "does not exist" in rows["absent"]["reason"] and "has 2 images" in rows["two"]["reason"]


def test_results_inside_of_the_images_folder_are_no_cases(model: Path, images: Path) -> None:
    (images / "broken.nii.gz").unlink()
    for output in (images / "out", images / "more" / "out"):
        for resume in ((), ("--resume",)):
            assert batch(images, "-m", model, "-o", output, *resume) == 0
            assert set(table(output)) == {"case_1", "case_2"}


def test_two_batches_do_not_write_into_one_folder(
    model: Path, images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "broken.nii.gz").unlink()
    out = tmp_path / "out"
    with locked(out / LOCK, ""):
        assert batch(images, "-m", model, "-o", out) == 2
    assert "Another batch is writing" in capsys.readouterr().err and not (out / "cases.csv").exists()
    (out / ".medai-half").mkdir()
    (out / ".medai-half" / "case_1.nii.gz").write_bytes(b"")  # what a killed one has left
    assert batch(images, "-m", model, "-o", out) == 0
    assert not [path.name for path in out.iterdir() if path.name.startswith(".")]


def test_files_of_other_options_are_not_taken_for_those_of_a_stopped_run(
    model: Path, images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (images / "broken.nii.gz").unlink()
    words = (images, "-m", model, "-o", tmp_path / "out")
    assert batch(*words) == 0

    def killed(*_: object) -> None:
        raise KeyboardInterrupt  # between the files and their record

    with monkeypatch.context() as patched:
        patched.setattr("MedAILib.batch.run.keep_record", killed)
        assert batch(*words, "--no-postprocess") == 130
    assert batch(*words, "--resume") == 0
    assert "done" in {row["state"] for row in table(tmp_path / "out").values()}


def test_voxels_beside_their_header_count_as_the_cases_content(tmp_path: Path) -> None:
    header, voxels_of = tmp_path / "a.mhd", tmp_path / "values.raw"
    header.write_text("NDims = 3\nElementDataFile = values.raw\n", encoding="utf-8")
    voxels_of.write_bytes(b"1")
    before = content_sha256([header])
    voxels_of.write_bytes(b"2")
    assert content_sha256([header]) != before


@pytest.mark.parametrize("kind", ["bundle", "nnU-Net"])
def test_the_next_image_is_prepared_while_one_is_computed_and_labels_stay(kind: str, tmp_path: Path) -> None:
    source = threshold_bundle(tmp_path / "m", 50.0) if kind == "bundle" else nnunet(tmp_path / "m")
    model: Any = open_model(source, "cpu")
    volume = Volume(voxels(1)[None].astype(np.float32), Geometry((18, 20, 22), np.diag([-0.9, 0.9, 1.4, 1.0])))
    plain = model.run(volume, RunOptions(), Progress())
    ahead = model.prepare_ahead(volume, RunOptions(), Progress())
    assert ahead is not None
    assert np.array_equal(model.run(volume, RunOptions(), Progress(), ahead).layers, plain.layers)


def test_preparing_overlaps_with_computing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        save(tmp_path / "in" / f"case_{number}.nii.gz", voxels(number))
    prepared = threading.Semaphore(0)
    prepare, run = BundleModel.prepare_ahead, BundleModel.run

    def preparing(*arguments: Any) -> Any:
        found = prepare(*arguments)
        prepared.release()
        return found

    def running(*arguments: Any, **named: Any) -> Any:
        # The first case is computed only when the second one is prepared, too.
        assert "ahead" in named and (waited or (prepared.acquire(timeout=60) and prepared.acquire(timeout=60)))
        waited.append(1)
        return run(*arguments, **named)

    waited: list[int] = []
    monkeypatch.setattr(BundleModel, "prepare_ahead", preparing)
    monkeypatch.setattr(BundleModel, "run", running)
    assert batch(tmp_path / "in", "-m", model, "-o", tmp_path / "out") == 0


class Heard(Progress):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.warnings: list[str] = []

    def warn(self, text: str) -> None:
        self.warnings.append(text)


@pytest.mark.parametrize(("available", "most"), [(250, 2), (90, 1), (None, 4)])
def test_as_many_cases_run_at_a_time_as_memory_allows(available: int | None, most: int) -> None:
    heard, together, highest = Heard(), 0, 0
    room, lock, met = MemoryRoom(available, heard.warn), threading.Lock(), threading.Barrier(most)

    def case() -> None:
        nonlocal together, highest
        with room.taken(100, heard):
            with lock:
                together += 1
                highest = max(highest, together)
            met.wait(timeout=240)  # as many as fit are here together
            with lock:
                together -= 1

    threads = [threading.Thread(target=case) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert highest == most


def test_a_case_that_waits_for_memory_says_so_and_can_be_cancelled() -> None:
    heard, stop = Heard(), Cancellable()
    room = MemoryRoom(150, heard.warn)
    with room.taken(100, stop):
        stop.cancel()
        with pytest.raises(Cancelled), room.taken(100, stop):
            pass
    assert len(heard.warnings) == 1 and "fewer cases at a time" in heard.warnings[0]


def test_threads_wait_asleep_unless_the_user_says_otherwise() -> None:
    plain: dict[str, str] = {}
    wait_asleep(plain)
    assert int(plain["GOMP_SPINCOUNT"]) < 100_000
    chosen = {"OMP_WAIT_POLICY": "active"}
    wait_asleep(chosen)
    assert chosen == {"OMP_WAIT_POLICY": "active"}
