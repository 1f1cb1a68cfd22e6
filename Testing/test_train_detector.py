"""Detectors trained by the command: how well they find, how a training goes on or stops, and what data is refused."""

import csv
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
import torch
from blobs import blob_folder
from monai.apps.detection.transforms.dictionary import AffineBoxToWorldCoordinated, ClipBoxToImaged
from numpy.typing import NDArray
from test_detector_parity import corners, stock_detector

from MedAILib.cli import build_parser, main
from MedAILib.commands.train import run_train
from MedAILib.errors import InputError, ModelError
from MedAILib.files.images import read_image
from MedAILib.models.open import open_model
from MedAILib.models.weights import load_weights
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.request import DetectOptions
from MedAILib.training.boxed_images import find_boxed_cases, label_names, read_boxed
from MedAILib.training.detection import train_detector
from MedAILib.training.detection_data import Sample, prepare_image
from MedAILib.training.detection_task import DetectionTask
from MedAILib.training.task import read_task
from MedAILib.training.training_run import TrainingRun

SILENT = Progress()
HEAD = "case,label,center_r,center_a,center_s,size_r,size_a,size_s"
BACKBONE = {
    "_target_": "ResNet",
    "block": "basic",
    "layers": [1, 1, 1, 1],
    "block_inplanes": [8, 8, 8, 8],
    "conv1_t_size": [3, 3, 3],
    "conv1_t_stride": [2, 2, 2],
}


def command(*words: object) -> int:
    return main([str(word) for word in (*words, "--device", "cpu", "--quiet")])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with data to learn from, others made the same way, and the model `balls`."""
    folder = tmp_path_factory.mktemp("detector")
    blob_folder(folder / "data", 12, 1)
    blob_folder(folder / "new", 8, 2, "boxes.csv")
    words = ["train", "detection", "--data", folder / "data", "-o", folder / "balls", "--epochs", 6]
    assert command(*words, "--set", "samples=4") == 0
    return folder


@pytest.fixture(scope="module")
def reported(trained: Path) -> Path:
    """The report on volumes that the model has not seen."""
    assert command("evaluate", "-m", trained / "balls", "--data", trained / "new", "-o", trained / "report") == 0
    return trained / "report"


def summed(report: Path) -> dict[str, Any]:
    told: dict[str, Any] = json.loads((report / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    return told


def test_a_small_detector_finds_what_is_in_volumes_made_the_same_way(reported: Path) -> None:
    told = summed(reported)
    assert told["mAP@0.5"] >= 0.9 and told["mAP@0.1:0.5"] >= 0.9 and told["froc"] >= 0.9
    assert told["per_class"]["ball"]["references"] == sum(x["found"] + x["missed"] for x in told["metric_per_case"])
    assert list(told["sensitivity_at_false_per_image"]) == ["0.125", "0.25", "0.5", "1", "2", "4", "8"]
    low, high = told["intervals_95"]["mAP@0.5"]
    assert low <= told["mAP@0.5"] <= high


def test_the_report_needs_nothing_else_and_its_table_has_every_box(reported: Path) -> None:
    told, page = summed(reported), (reported / "report.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in reported.iterdir()) == ["cases.csv", "report.html", "summary.json"]
    wrong = sum(bool(case["missed"] or case["false"]) for case in told["metric_per_case"])
    assert re.findall(r'src="([^"]{22})', page) == ["data:image/png;base64,"] * (1 + min(wrong, 5))
    assert "http" not in page and told["medai"]["sha256"] in page and "FROC" in page
    with (reported / "cases.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for case in told["metric_per_case"]:
        for outcome in ("found", "false", "missed"):
            assert case[outcome] == sum(r["case"] == case["case"] and r["outcome"] == outcome for r in rows)


def test_the_card_and_the_task_tell_how_the_model_came_about(trained: Path) -> None:
    card = (trained / "balls" / "docs" / "README.md").read_text(encoding="utf-8")
    for text in ("medai train detection --data data -o balls", "| mAP at an overlap of 0.5 |", "9 images for training"):
        assert text in card
    task = read_task(str(trained / "balls.training" / "task.json"))
    assert isinstance(task, DetectionTask) and task.names == ("ball",) and task.samples == 4
    assert (trained / "balls.training" / "losses.png").is_file()
    assert summed(trained / "balls.training" / "validation")["metric_per_case"]


def test_the_model_finds_the_same_in_an_image_that_lies_otherwise(trained: Path) -> None:
    image = nibabel.load(trained / "new" / "images" / "case000.nii.gz")
    turned = image.as_reoriented(nibabel.orientations.axcodes2ornt(("P", "S", "R")))
    nibabel.save(turned, trained / "turned.nii.gz")
    centers = []
    for path in (trained / "new" / "images" / "case000.nii.gz", trained / "turned.nii.gz"):
        words = ["detect", path, "-m", trained / "balls", "-o", trained / "f.json", "--min-score", "0.5"]
        assert command(*words) == 0
        found = json.loads((trained / "f.json").read_text(encoding="utf-8"))["findings"]
        centers.append(sorted(box["center_ras"] for box in found))
    assert len(centers[0]) >= 1 and np.allclose(*centers, atol=0.01)


def test_stock_monai_finds_the_same_boxes(trained: Path) -> None:
    path = trained / "new" / "images" / "case001.nii.gz"
    detector, parser = stock_detector(trained / "balls")
    data = parser.get_parsed_content("preprocessing")({"image": str(path)})
    with torch.no_grad():
        (told,) = detector([data["image"]])
    data = ClipBoxToImaged("box", "label", "image", remove_empty=True)(data | told)
    data = AffineBoxToWorldCoordinated("box", "image", affine_lps_to_ras=False)(data)
    found = open_model(trained / "balls", "cpu").run(read_image(path), DetectOptions(), SILENT)
    order = np.argsort(-np.asarray(data["label_scores"]), kind="stable")
    assert len(found.boxes) == len(order) >= 1
    assert np.allclose(corners(found), np.asarray(data["box"], np.float64).reshape(-1, 2, 3)[order], atol=1e-2)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_folder(tmp_path_factory.mktemp("small") / "data", 4, 3)


def small_detector(data: Path, epochs: int) -> DetectionTask:
    """A task that trains in a second."""
    place = data.parent / "planned"
    assert command("train", "detection", "--data", data, "-o", place, "--plan-only") == 0
    given = read_task(str(place.with_name("planned.training") / "task.json"))
    assert isinstance(given, DetectionTask)
    return replace(given, patch=[16, 16, 16], backbone=BACKBONE, epochs=epochs, samples=2, width=8, folds=2)


@pytest.fixture(scope="module")
def task(data: Path) -> DetectionTask:
    return small_detector(data, 3)


@pytest.fixture(scope="module")
def samples(task: DetectionTask, data: Path) -> list[Sample]:
    names = label_names(data, task.labels)
    return [prepare_image(read_boxed(case, names), task) for case in find_boxed_cases(data)]


def written(task: DetectionTask, path: Path, **changes: Any) -> Path:
    path.write_text(json.dumps({"kind": "detection", **asdict(task), **changes}), encoding="utf-8")
    return path


class Until(Cancellable):
    """Cancels where a step's text starts so."""

    def __init__(self, start: str) -> None:
        super().__init__()
        self.start = start

    def step(self, done: int, total: int, text: str = "") -> None:
        if text.startswith(self.start):
            self.cancel()
        super().step(done, total, text)


def test_a_stopped_training_goes_on_to_the_same_weights(
    task: DetectionTask, samples: list[Sample], tmp_path: Path
) -> None:
    whole = train_detector(task, samples, TrainingRun(tmp_path / "whole", 3), SILENT)
    run = TrainingRun(tmp_path / "parts", 3)
    for start in ("Epoch 1", "Epoch 3"):
        with pytest.raises(Cancelled):
            train_detector(task, samples, run, Until(start))
        run = replace(run, resume=True)
    resumed = train_detector(task, samples, run, SILENT)
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())


def test_a_training_that_may_stop_early_goes_on_to_the_same_weights_and_keeps_the_best(
    task: DetectionTask, samples: list[Sample], tmp_path: Path
) -> None:
    task = replace(task, patience=3)
    learnt, watched = samples[:3], samples[3:]
    whole = train_detector(task, learnt, TrainingRun(tmp_path / "whole", 3), SILENT, watched)
    run = TrainingRun(tmp_path / "parts", 3)
    with pytest.raises(Cancelled):
        train_detector(task, learnt, run, Until("Epoch 3"), watched)
    resumed = train_detector(task, learnt, replace(run, resume=True), SILENT, watched)
    assert all(torch.equal(value, resumed[key]) for key, value in whole.items())
    rows = list(csv.DictReader((tmp_path / "whole" / "losses.csv").open()))
    assert (tmp_path / "whole" / "losses.csv").read_bytes() == (tmp_path / "parts" / "losses.csv").read_bytes()
    kept = [float(row["loss_kept_aside"]) for row in rows]
    best = load_weights(tmp_path / "whole" / "checkpoint.pt")["best"]
    assert len(kept) == 3 and best["epoch"] == 1 + kept.index(min(kept))
    assert all(torch.equal(value, whole[key]) for key, value in best["weights"].items())


def test_without_gain_training_ends_and_the_card_tells_who_decided(
    task: DetectionTask, data: Path, tmp_path: Path
) -> None:
    path = written(task, tmp_path / "t.json", epochs=9, patience=1, learning_rate=1e-30)
    assert command("train", path, "--data", data, "-o", tmp_path / "m", "--set", "precision=bfloat16") == 0
    assert len((tmp_path / "m.training" / "losses.csv").read_text().splitlines()) == 3  # the second brings nothing
    card = (tmp_path / "m" / "docs" / "README.md").read_text(encoding="utf-8")
    assert "1 images for training and 2 for validation" in card and "1 more images decided when to stop" in card
    assert "computed in bfloat16" in card


def test_a_detector_is_taught_in_the_numbers_asked_for(
    task: DetectionTask, samples: list[Sample], tmp_path: Path
) -> None:
    task = replace(task, patch=[32, 32, 32], epochs=1, samples=1, patience=1)
    for precision in (torch.float32, torch.bfloat16):
        seen: set[torch.dtype] = set()

        def look(part: torch.nn.Module, _: Any, output: Any, seen: set[torch.dtype] = seen) -> None:
            if part.training and isinstance(part, torch.nn.Conv3d) and output.shape[2] > 2:
                seen.add(output.dtype)

        hook = torch.nn.modules.module.register_module_forward_hook(look)
        name = str(precision).removeprefix("torch.")
        weights = train_detector(
            replace(task, precision=name), samples, TrainingRun(tmp_path / name, 1), SILENT, samples[:1]
        )
        hook.remove()
        assert seen == {precision}
        assert all(value.dtype == torch.float32 for value in weights.values() if value.is_floating_point())


def test_schedule_and_accumulation_change_what_is_learnt(
    task: DetectionTask, samples: list[Sample], tmp_path: Path
) -> None:
    short = replace(task, epochs=1)

    def learnt(name: str, **changes: Any) -> torch.Tensor:
        weights = train_detector(replace(short, **changes), samples, TrainingRun(tmp_path / name, 1), SILENT)
        return torch.cat([value.flatten().float() for value in weights.values()])

    plain = learnt("plain")
    assert not torch.equal(plain, learnt("summed", accumulate=2))
    assert not torch.equal(plain, learnt("level", schedule="constant"))
    rates = [line.split(",")[2] for line in (tmp_path / "level" / "losses.csv").read_text().splitlines()[1:]]
    assert rates == [f"{task.learning_rate:g}"]


def test_a_resume_of_another_training_names_what_differs(
    task: DetectionTask, samples: list[Sample], tmp_path: Path
) -> None:
    task = replace(task, epochs=1)
    run = TrainingRun(tmp_path / "t", 1)
    train_detector(task, samples, run, SILENT)
    with pytest.raises(InputError, match="another training: box_loss differ"):
        train_detector(replace(task, box_loss="smooth_l1"), samples, replace(run, resume=True), SILENT)
    with pytest.raises(InputError, match="data differ"):
        train_detector(task, samples, replace(run, resume=True, data_sha256="other"), SILENT)


def test_another_fold_is_not_resumed_by_what_learnt_from_its_images(
    task: DetectionTask, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["train", written(task, tmp_path / "t.json", epochs=1), "--data", data, "-o", tmp_path / "m"]
    assert command(*words, "--fold", 0) == 0
    assert command(*words, "--fold", 1, "--resume") == 2
    assert "is of another training: cases differ" in capsys.readouterr().err
    assert command(*words, "--fold", 0, "--resume") == 0


def test_folds_that_begin_anew_forget_what_an_older_training_left(
    task: DetectionTask, data: Path, tmp_path: Path
) -> None:
    places = [tmp_path / "m.training" / name for name in ("fold_1", "fold_7", "all")]
    for place in places:
        place.mkdir(parents=True)
        (place / "started.json").write_text("{}", encoding="utf-8")
    words = ["train", written(task, tmp_path / "t.json", epochs=1), "--data", data, "-o", tmp_path / "m"]
    with pytest.raises(Cancelled):
        run_train(build_parser().parse_args([*map(str, words), "--fold", "all", "--quiet"]), Until("Preparing"))
    assert not any((place / "started.json").exists() for place in places)


def test_a_loss_that_is_no_number_ends_the_training_with_the_reason(
    task: DetectionTask, samples: list[Sample], tmp_path: Path
) -> None:
    with pytest.raises(ModelError, match="no finite number in epoch 1; most likely the learning rate"):
        train_detector(replace(task, learning_rate=1e36), samples, TrainingRun(tmp_path / "t", 3), SILENT)


def test_other_losses_initial_weights_and_a_comparison_of_both(task: DetectionTask, data: Path, tmp_path: Path) -> None:
    path = written(task, tmp_path / "t.json", class_loss="focal", box_loss="smooth_l1", hard_negatives={}, epochs=1)
    assert command("train", path, "--data", data, "-o", tmp_path / "one") == 0
    words = ["train", path, "--data", data, "-o", tmp_path / "two", "--initial", tmp_path / "one", "--fold", 1]
    assert command(*words) == 0
    words = ["evaluate", "-m", tmp_path / "one", "--compare", tmp_path / "two", "--data", data, "-o", tmp_path / "r"]
    assert command(*words) == 0
    rows = summed(tmp_path / "r")["comparison"]["rows"]
    assert all(row["difference"] == pytest.approx(row["second"] - row["first"]) for row in rows)
    assert "Comparison with two" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")
    assert "started from one" in (tmp_path / "two" / "docs" / "README.md").read_text(encoding="utf-8")
    assert open_model(tmp_path / "two", "cpu").spec.finding_labels == (("ball", "1"),)


def test_all_folds_judge_every_image_and_the_model_learns_from_all(
    task: DetectionTask, data: Path, tmp_path: Path
) -> None:
    words = ["train", written(task, tmp_path / "task.json"), "--data", data, "-o", tmp_path / "m", "--fold", "all"]
    assert command(*words, "--epochs", 1) == 0
    told = summed(tmp_path / "m.training" / "cross_validation")
    cases = sorted(path.name.partition(".")[0] for path in (data / "images").iterdir())
    assert sorted(case["case"] for case in told["metric_per_case"]) == cases
    card = (tmp_path / "m" / "docs" / "README.md").read_text(encoding="utf-8")
    assert f"learnt from all {len(cases)} images" in card and "2-fold cross-validation" in card


def test_what_a_detector_learns_from_is_drawn_with_its_boxes(task: DetectionTask, data: Path, tmp_path: Path) -> None:
    words = ["train", written(task, tmp_path / "task.json"), "--data", data, "-o", tmp_path / "m"]
    assert command(*words, "--show-augmentation", tmp_path / "a.png") == 0
    with PIL.Image.open(tmp_path / "a.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    orange = (abs(pixels - [230, 159, 0]) < 30).all(axis=2)  # of the first class's boxes
    assert orange.sum() > 100 and not (tmp_path / "m").exists()


def test_lists_and_label_maps_tell_the_same_boxes(tmp_path: Path) -> None:
    told = []
    for kind in ("labels", "boxes.csv", "boxes.json"):
        folder = blob_folder(tmp_path / kind, 1, 7, kind)
        (case,) = find_boxed_cases(folder)
        image = read_boxed(case, label_names(folder, {"ball": ("1",)}))
        told.append(np.array(sorted((*box.low_ijk, *box.high_ijk) for box in image.boxes)))
    assert len(told[0]) and np.allclose(told[0], told[1], atol=1e-4) and np.allclose(told[0], told[2], atol=1e-4)


def test_channels_are_files_of_their_own_or_one_files_fourth_dimension(tmp_path: Path) -> None:
    for number, names in enumerate((("a_0000", "a_0001"), ("a",))):
        folder = tmp_path / str(number)
        (folder / "images").mkdir(parents=True)
        noise = np.random.default_rng(0).random((24, 24, 24, 2))
        for channel, name in enumerate(names):
            image = noise if len(names) == 1 else noise[..., channel]
            nibabel.save(nibabel.Nifti1Image(image, np.eye(4)), folder / "images" / f"{name}.nii.gz")
        (folder / "boxes.csv").write_text(f"{HEAD}\na,ball,9,9,9,5,5,5", encoding="utf-8")
        (case,) = find_boxed_cases(folder, 2)
        image = read_boxed(case, {"ball": "ball"})
        assert image.volume.channels == 2 and image.boxes[0].low_ijk == (6.5, 6.5, 6.5)


def test_a_box_along_the_world_is_the_smallest_around_it_along_the_image(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    turn = np.deg2rad(45)
    affine = np.eye(4)
    affine[:2, :2] = [[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]
    nibabel.save(nibabel.Nifti1Image(np.random.default_rng(0).random((30, 30, 9)), affine), tmp_path / "images/a.nii")
    middle = (affine @ [15, 15, 4, 1])[:3].tolist()
    entry = {"label": "ball", "center_ras": middle, "size_ras_mm": [4, 4, 2]}
    (tmp_path / "boxes.json").write_text(json.dumps({"a": [entry]}), encoding="utf-8")
    (case,) = find_boxed_cases(tmp_path)
    (box,) = read_boxed(case, {"ball": "ball"}).boxes
    assert np.allclose(np.sort(np.subtract(box.high_ijk, box.low_ijk)), [2, 4 * 2**0.5, 4 * 2**0.5], atol=1e-5)


def save(path: Path, image: NDArray[Any], affine: NDArray[np.float64] | None = None) -> None:
    nibabel.save(nibabel.Nifti1Image(image, nibabel.load(path).affine if affine is None else affine), path)


def voxels(path: Path) -> NDArray[Any]:
    return np.asarray(nibabel.load(path).dataobj).copy()


def moved_label(data: Path) -> None:
    save(data / "labels/case001.nii.gz", voxels(data / "labels/case001.nii.gz"), np.eye(4))


def cut_label(data: Path) -> None:
    save(data / "labels/case001.nii.gz", voxels(data / "labels/case001.nii.gz")[:20])


def no_boxes(data: Path) -> None:
    for path in (data / "labels").iterdir():
        save(path, voxels(path) * 0)


def nothing_for_training(data: Path) -> None:
    for name in ("case001", "case002"):
        save(data / "labels" / f"{name}.nii.gz", voxels(data / "labels" / f"{name}.nii.gz") * 0)
    splits = [{"train": ["case001", "case002"], "val": ["case000", "case003"]}]
    (data / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")


def one_slice(data: Path) -> None:
    for room in ("images", "labels"):
        save(data / room / "case002.nii.gz", voxels(data / room / "case002.nii.gz")[..., 20:21])


def only_slices(data: Path) -> None:
    for path in (*(data / "images").iterdir(), *(data / "labels").iterdir()):
        save(path, voxels(path)[..., 20:21])


def not_a_number(data: Path) -> None:
    image = voxels(data / "images/case003.nii.gz")
    image[3, 3, 3] = np.nan
    save(data / "images/case003.nii.gz", image)


def unknown_value(data: Path) -> None:
    save(data / "labels/case001.nii.gz", voxels(data / "labels/case001.nii.gz") * 4)
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "ball": 1, "rod": 4}}))


def blank(data: Path) -> None:
    save(data / "images/case001.nii.gz", np.zeros_like(voxels(data / "images/case001.nii.gz")))


def copy_for_testing(data: Path) -> None:
    (data / "imagesTs").mkdir()
    shutil.copy(data / "images/case001.nii.gz", data / "imagesTs/new.nii.gz")


def half_values(data: Path) -> None:
    save(data / "labels/case001.nii.gz", voxels(data / "labels/case001.nii.gz") * 0.5)


def unpaired(data: Path) -> None:
    (data / "labels/case001.nii.gz").unlink()


def one_patient(data: Path) -> None:
    lines = ["case,patient", *(f"case{n:03d},A" for n in range(4))]
    (data / "patients.csv").write_text("\n".join(lines), encoding="utf-8")


def a_patient_on_both_sides(data: Path) -> None:
    one_patient(data)
    splits = [{"train": ["case000", "case002"], "val": ["case001", "case003"]}]
    (data / "splits_final.json").write_text(json.dumps(splits), encoding="utf-8")


def two_channels(data: Path) -> None:
    image = voxels(data / "images/case001.nii.gz")
    save(data / "images/case001.nii.gz", np.stack([image, image], axis=-1))


def no_images(data: Path) -> None:
    shutil.rmtree(data / "images")


def of_list(*rows: str, head: str = HEAD) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        (data / "boxes.csv").write_text("\n".join([head, *rows]), encoding="utf-8")

    return change


def of_json(content: str) -> Callable[[Path], None]:
    def change(data: Path) -> None:
        (data / "boxes.json").write_text(content, encoding="utf-8")

    return change


@pytest.mark.parametrize(
    ("spoil", "words", "sentence"),
    [
        (moved_label, [], r"case001\.nii\.gz is on another grid than its image .*case001\.nii\.gz"),
        (cut_label, [], r"case001.* is on another grid .*20 x 48 x 48 voxels, not 48 x 48 x 48"),
        (no_boxes, [], "no box in .*nothing to learn"),
        (nothing_for_training, [], "no box in the images that are for training"),
        (one_slice, [], r"case002\.nii\.gz is a single slice, unlike the others"),
        (only_slices, [], "single slices; a detector is trained on volumes"),
        (not_a_number, [], r"case003\.nii\.gz has 1 NaN"),
        (blank, [], r"case001\.nii\.gz has the value 0.0 in every voxel"),
        (copy_for_testing, [], r"new\.nii\.gz is the same image as case001, which is for training"),
        (half_values, [], r"case001\.nii\.gz is no label map"),
        (unpaired, [], r"case001\.nii\.gz has no label"),
        (one_patient, [], "All images in .* are of one patient"),
        (a_patient_on_both_sides, [], "and case001 are of the same patient"),
        (two_channels, [], r"case001\.nii\.gz has 2 channels"),
        (no_images, [], "no data folder"),
        (of_list("case000,ball,0,0,0,5,5"), [], "line 2, has a centre or a size that is no three numbers"),
        (of_list("case000,ball,0,0,0,5,5,-1"), [], "line 2, .*the sizes above 0"),
        (of_list("case000,ball,900,0,0,5,5,5"), [], "line 2, has a box at .*outside of"),
        (of_list("case000, ,0,0,20,5,5,5"), [], "line 2, has no label"),
        (of_list(",ball,0,0,20,5,5,5"), [], "line 2, names no case"),
        (of_list("case009,ball,0,0,0,5,5,5"), [], "boxes for 'case009', of which there is no image"),
        (of_list("case000,ball", head="case,label"), [], "has no column 'center_r'"),
        (of_list(), [], "no box in"),
        (of_json("{"), [], "can't be read as JSON"),
        (of_json("[]"), [], "no object with a list of boxes"),
        (of_json('{"case000": [{"center_ras": [0, 0, 0]}]}'), [], "'case000' box 1, has no label"),
        (None, ["--fold", "7"], "no fold 7"),
        (None, ["--fold", "some"], "--fold some is no fold"),
        (None, ["--set", "anchor=3"], "there is no such key"),
        (None, ["--set", "patch=20,20,20"], "20 is no multiple of its network's"),
        (None, ["--set", "batch=two"], "batch is 'two'"),
        (None, ["--set", "class_loss=hinge"], "'class_loss' = hinge"),
        (None, ["--set", 'backbone={"_target_": "UNet"}'], "backbone"),
        (None, ["--resume"], "nothing to resume"),
        (None, ["--show-augmentation", "x.gif"], "has to end in .png"),
    ],
)
def test_what_is_wrong_is_told_before_the_training_starts(
    spoil: Callable[[Path], None] | None,
    words: list[str],
    sentence: str,
    data: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    own = tmp_path / "data"
    shutil.copytree(data, own)
    if spoil is not None:
        spoil(own)
    assert command("train", "detection", "--data", own, "-o", tmp_path / "m", *words) == 2
    error = capsys.readouterr().err.strip()
    assert re.search(sentence, error) and "Traceback" not in error, error
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_label_that_no_class_is_called_is_refused(task: DetectionTask, data: Path, tmp_path: Path, capsys) -> None:
    own = tmp_path / "data"
    shutil.copytree(data, own)
    unknown_value(own)
    assert command("train", written(task, tmp_path / "t.json"), "--data", own, "-o", tmp_path / "m") == 2
    assert "case001.nii.gz has the value 4, which is none of the classes ball" in capsys.readouterr().err
    of_list("case000,cube,0,0,20,5,5,5")(own)
    assert command("train", tmp_path / "t.json", "--data", own, "-o", tmp_path / "m") == 2
    assert "line 2, has the label 'cube', which is none of the classes ball" in capsys.readouterr().err


def test_a_plan_is_told_and_left_to_be_edited(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "detection", "--data", data, "-o", tmp_path / "m", "--device", "cpu", "--plan-only"]
    assert main([*map(str, words), "--set", "spacing=2,2,2", "--set", "lr=0.001"]) == 0
    told = capsys.readouterr().out
    assert "anchors" in told and "asked for by --set" in told and not (tmp_path / "m").exists()
    task = read_task(str(tmp_path / "m.training" / "task.json"))
    assert isinstance(task, DetectionTask) and task.spacing_mm == [2, 2, 2] and task.learning_rate == 0.001
    assert all(5 <= edge <= 10 for shape in task.anchors for edge in shape)  # half of 13 to 18 voxels


def test_a_task_file_may_have_words_for_intensities_and_a_value_of_a_wrong_kind_is_told(
    task: DetectionTask, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--data", data, "-o", tmp_path / "m", "--plan-only"]
    assert command("train", written(task, tmp_path / "t.json", intensity=["denoise", "zscore"]), *words) == 0
    told = read_task(str(tmp_path / "m.training" / "task.json"))
    assert [step["_target_"] for step in told.intensity] == ["MedianSmoothd", "NormalizeIntensityd"]
    assert command("train", written(task, tmp_path / "t.json", mirror_axes={}), *words) == 2
    assert "mirror_axes is {}; it has to be a list" in capsys.readouterr().err


def test_as_many_folds_are_planned_as_there_are_patients_and_lists_may_have_marks_and_spaces(tmp_path: Path) -> None:
    data = blob_folder(tmp_path / "data", 4, 3, "boxes.json")
    content = json.loads((data / "boxes.json").read_text(encoding="utf-8"))
    (data / "boxes.json").write_text(json.dumps(content), encoding="utf-8-sig")
    (data / "patients.csv").write_text("case,patient\n" + "".join(f"case00{n},p{n // 2}\n" for n in range(4)))
    assert command("train", "detection", "--data", data, "-o", tmp_path / "m", "--plan-only") == 0
    assert read_task(str(tmp_path / "m.training" / "task.json")).folds == 2
    (data / "boxes.json").unlink()
    of_list(" case000 ,ball,0,0,20,5,5,5")(data)
    assert [len(case.boxes) for case in find_boxed_cases(data)] == [1, 0, 0, 0]


def test_a_new_name_is_planned_as_a_detector_where_the_data_has_a_list_of_boxes(tmp_path: Path) -> None:
    data = blob_folder(tmp_path / "data", 4, 3, "boxes.json")
    assert command("train", "spheres", "--data", data, "-o", tmp_path / "m", "--plan-only") == 0
    task = read_task(str(tmp_path / "m.training" / "task.json"))
    assert isinstance(task, DetectionTask) and (task.name, task.names) == ("spheres", ("ball",))


@pytest.mark.parametrize("axes", ["RAS", "LPS", "SRA", "AIL"])
def test_boxes_stay_around_their_findings_on_the_networks_axes(
    axes: str, task: DetectionTask, data: Path, tmp_path: Path
) -> None:
    own = tmp_path / "data"
    shutil.copytree(data, own)
    for path in (own / "images" / "case000.nii.gz", own / "labels" / "case000.nii.gz"):
        image = nibabel.load(path)
        stretched = nibabel.Nifti1Image(voxels(path), image.affine @ np.diag([1.0, 1.5, 0.8, 1.0]))
        turned = stretched.as_reoriented(
            nibabel.orientations.ornt_transform(
                nibabel.io_orientation(stretched.affine), nibabel.orientations.axcodes2ornt(tuple(axes))
            )
        )
        nibabel.save(turned, path)
    sample = prepare_image(read_boxed(find_boxed_cases(own)[0], label_names(own, task.labels)), task)
    bright = sample["image"][0] > 2.5
    assert len(sample["box"])
    for box in sample["box"].round().int():
        parts = [slice(int(low), int(high)) for low, high in zip(box[:3], box[3:], strict=True)]
        assert 0.4 < float(bright[tuple(parts)].float().mean()) < 0.65  # a ball fills 52 % of its box
        outside = [slice(max(part.start - 2, 0), part.stop + 2) for part in parts]
        assert float(bright[tuple(outside)].sum()) < 1.02 * float(bright[tuple(parts)].sum()) + 8


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--split", "test"], "not for detectors"),
        (["--compare", "hippocampus"], "is no detector"),
        (["--only", "{place}/list.txt"], "which .* has not"),
    ],
)
def test_what_a_detector_can_not_be_evaluated_by_is_refused(
    trained: Path, words: list[str], sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "list.txt").write_text("nobody", encoding="utf-8")
    usual = ["evaluate", "-m", trained / "balls", "--data", trained / "new", "-o", tmp_path / "r"]
    assert command(*usual, *(word.format(place=tmp_path) for word in words)) == 2
    assert re.search(sentence, capsys.readouterr().err) and not (tmp_path / "r").exists()
