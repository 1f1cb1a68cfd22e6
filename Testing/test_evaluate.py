"""A model against reference labels: figures, files, refusals; the models here are a few lines of numpy."""

import csv
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from MedAILib.errors import InputError, OutputError
from MedAILib.files.images import read_image
from MedAILib.progress import Cancelled, Progress
from MedAILib.request import RunOptions
from MedAILib.results import Label, Segmentation
from MedAILib.spec import ModelSpec
from MedAILib.training.cases import Case, read_labels
from MedAILib.training.data_folder import find_cases
from MedAILib.training.evaluate import (
    MEASURES,
    Picture,
    evaluate_segmentation,
    match_labels,
    statistics,
    summary,
)
from MedAILib.training.metrics import compare
from MedAILib.training.plots import as_seen
from MedAILib.training.report import report, write_evaluation

SPACING_KJI = (2.0, 1.0, 0.5)
NAMES = {1: "anterior", 2: "posterior"}
NNUNET_KEYS = {"Dice", "FN", "FP", "IoU", "TN", "TP", "n_pred", "n_ref"}
FILES = ["cases.csv", "report.html", "summary.json"]


def spec_with(names):
    labels = tuple(Label(value, name) for value, name in names.items())
    return ModelSpec("tens", "1.2.3", "segmentation", Path("tens"), "Tens of grey", "", ("image",), labels)


class TensModel:
    """Finds the label n where the image is between 10 n - 5 and 10 n + 5, `shift` voxels further along I."""

    def __init__(self, names=None, shift=0):
        self.spec = spec_with(names or NAMES)
        self.shift = shift
        self.runs = []

    def run(self, volume, options, progress):
        progress.step(0, 1, "window")
        self.runs.append((volume.name, options))
        found = np.roll(np.rint(volume.data[0] / 10), self.shift, axis=2).astype(np.uint8)
        found[~np.isin(found, [label.value for label in self.spec.labels])] = 0
        return Segmentation(found[None], self.spec.labels, volume.geometry, provenance={"sha256": "ab" * 32})


class CancelsAt(Progress):
    """Cancels when a step's text begins with `text`."""

    def __init__(self, text):
        self.text = text

    def step(self, done, total, text=""):
        if text.startswith(self.text):
            raise Cancelled


class Listener(Progress):
    def __init__(self):
        self.steps, self.warnings = [], []

    def step(self, done, total, text=""):
        self.steps.append((done, total, text))

    def warn(self, text):
        self.warnings.append(text)


def write_image(path, array, origin=(0.0, 0.0, 0.0)):
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(SPACING_KJI[::-1])
    image.SetOrigin(origin)
    path.parent.mkdir(parents=True, exist_ok=True)
    sitk.WriteImage(image, str(path))


def two_boxes(last_i=14):
    labels = np.zeros((6, 16, 24), dtype=np.uint8)
    labels[1:5, 4:12, 4:last_i] = 1
    labels[1:5, 4:12, 14:18] = 2
    return labels


def make_case(folder, name, labels, image=None):
    write_image(folder / "images" / f"{name}.nii.gz", labels.astype(np.float32) * 10 if image is None else image)
    write_image(folder / "labels" / f"{name}.nii.gz", labels)


@pytest.fixture
def cases(tmp_path):
    """Three cases, of which the last lacks the label 2."""
    for number, labels in enumerate((two_boxes(), two_boxes(10), np.minimum(two_boxes(8), 1))):
        if number == 2:
            labels[:, :, 8:] = 0
        make_case(tmp_path / "data", f"case_{number}", labels)
    return find_cases(tmp_path / "data")


@pytest.fixture
def evaluation(cases):
    return evaluate_segmentation(TensModel(shift=1), cases, NAMES, Progress())


def strict(text):
    def refuse(token):
        raise AssertionError(f"{token} is no JSON")

    return json.loads(text, parse_constant=refuse)


def test_perfect_model_gets_perfect_figures(cases):
    done = evaluate_segmentation(TensModel(), cases, NAMES, Progress())
    dice, hd95, surface = (done.values(1, measure) for measure in MEASURES[:3])
    assert (dice.tolist(), hd95.tolist(), surface.tolist()) == ([1, 1, 1], [0, 0, 0], [1, 1, 1])
    assert done.labels == NAMES


def test_figures_of_a_shifted_prediction_are_those_of_the_shift(evaluation):
    agreement = evaluation.cases[0].agreements[1]
    assert (agreement.overlap.tp, agreement.overlap.fp, agreement.overlap.fn) == (4 * 8 * 9, 32, 32)
    assert agreement.overlap.dice == pytest.approx(0.9)
    assert agreement.hd95_mm == pytest.approx(0.5)
    assert agreement.surface_dice == 1
    assert agreement.reference_ml == pytest.approx(4 * 8 * 10 / 1000)


def test_looking_at_a_box_around_each_structure_changes_no_figure(evaluation, cases):
    for case, result in zip(cases, evaluation.cases, strict=True):
        reference = sitk.GetArrayFromImage(sitk.ReadImage(str(case.label)))
        predicted = np.roll(reference, 1, axis=2)
        for value, agreement in result.agreements.items():
            whole = compare(reference == value, predicted == value, SPACING_KJI)
            assert agreement.overlap == whole.overlap
            np.testing.assert_equal(agreement.hd95_mm, whole.hd95_mm)
            np.testing.assert_allclose(agreement.surface_dice, whole.surface_dice)


def test_structure_absent_from_a_case_does_not_count_for_it(evaluation):
    assert math.isnan(evaluation.values(2, MEASURES[0])[2])
    assert evaluation.cases[2].mean_dice == evaluation.cases[2].agreements[1].overlap.dice


def test_worst_cases_come_first_and_five_at_most(tmp_path):
    for width in range(2, 10):
        make_case(tmp_path, f"width_{width}", two_boxes(4 + width))
    done = evaluate_segmentation(TensModel(shift=1), find_cases(tmp_path), {1: "anterior"}, Progress())
    assert [picture.case for picture in done.worst] == [f"width_{width}" for width in range(2, 7)]
    assert done.worst[0].slice_k == 2
    assert done.worst[0].spacing_ji_mm == (1.0, 0.5)


def test_options_and_steps_pass_through(cases):
    model, listener = TensModel(), Listener()
    evaluate_segmentation(model, cases, NAMES, listener, RunOptions(mirror=True))
    assert [options.mirror for _, options in model.runs] == [True] * 3
    assert (1, 3, "Case 2 of 3: case_1") in listener.steps
    assert listener.steps[-1][:2] == (3, 3)


def test_label_on_another_grid_is_refused_before_the_model_runs(cases):
    write_image(cases[2].label, two_boxes(), origin=(0.0, 0.0, 3.0))
    model = TensModel()
    with pytest.raises(InputError) as caught:
        evaluate_segmentation(model, cases, NAMES, Progress())
    assert str(cases[2].label) in str(caught.value)
    assert str(cases[2].images[0]) in str(caught.value)
    assert model.runs == []


def test_label_value_the_model_does_not_know_is_named_with_its_file(cases):
    write_image(cases[1].label, two_boxes() * 3)
    with pytest.raises(InputError, match=rf"{re.escape(str(cases[1].label))} has the label value 3"):
        evaluate_segmentation(TensModel(), cases, NAMES, Progress())


@pytest.mark.parametrize("wrong", [0.5, -1.0, 70000.0])
def test_values_that_are_no_labels_are_refused(cases, wrong):
    labels = two_boxes().astype(np.float32)
    labels[0, 0, 0] = wrong
    write_image(cases[0].label, labels)
    with pytest.raises(InputError, match="no label map"):
        evaluate_segmentation(TensModel(), cases, NAMES, Progress())


def test_colour_label_is_refused(cases):
    colour = sitk.GetImageFromArray(np.stack([two_boxes()] * 3, axis=-1), isVector=True)
    sitk.WriteImage(colour, str(cases[0].label.with_name("colour.nrrd")))
    case = replace(cases[0], label=cases[0].label.with_name("colour.nrrd"))
    with pytest.raises(InputError, match="3 values per voxel"):
        evaluate_segmentation(TensModel(), [case], NAMES, Progress())


def test_no_cases_is_an_error():
    with pytest.raises(InputError, match="no cases"):
        evaluate_segmentation(TensModel(), [], NAMES, Progress())


def test_same_name_under_another_value_is_refused():
    with pytest.raises(InputError, match=r"'Posterior' has the value 1 in the data and 2 in the model"):
        match_labels(spec_with(NAMES), {1: "Posterior", 2: "Anterior"}, Progress())


def test_no_value_in_common_is_refused():
    with pytest.raises(InputError, match="none in common"):
        match_labels(spec_with(NAMES), {7: "liver"}, Progress())


def test_longer_names_of_the_same_structure_match_silently():
    listener = Listener()
    data = {1: "Anterior hippocampus", 2: "hippocampus_posterior"}
    assert [label.value for label in match_labels(spec_with(NAMES), data, listener)] == [1, 2]
    assert listener.warnings == []


def test_other_names_and_missing_references_are_told_of():
    listener = Listener()
    assert [label.value for label in match_labels(spec_with(NAMES), {1: "liver"}, listener)] == [1]
    assert "'liver'" in listener.warnings[0]
    assert "posterior" in listener.warnings[1]


def test_summary_has_nnunets_layout(evaluation, cases):
    written = strict(json.dumps(summary(evaluation), allow_nan=False))
    assert {"foreground_mean", "mean", "metric_per_case"} <= written.keys()
    assert written["mean"].keys() == {"1", "2"}
    assert written["mean"]["1"].keys() >= NNUNET_KEYS | {"HD95", "SurfaceDice_1mm", "VolumeDifference_mL"}
    first = written["metric_per_case"][0]
    assert first.keys() == {"metrics", "prediction_file", "reference_file"}
    assert first["reference_file"] == str(cases[0].label)
    assert first["metrics"]["1"]["TP"] == 288
    assert written["metric_per_case"][2]["metrics"]["2"]["Dice"] is None
    dice = [case["metrics"]["1"]["Dice"] for case in written["metric_per_case"]]
    assert written["mean"]["1"]["Dice"] == pytest.approx(np.mean(dice))
    means = [written["mean"][label]["Dice"] for label in "12"]
    assert written["foreground_mean"]["Dice"] == pytest.approx(np.mean(means))


def test_missed_structure_stays_out_of_mean_distance_and_in_the_worst(cases):
    write_image(cases[0].images[0], np.zeros((6, 16, 24), dtype=np.float32))
    done = evaluate_segmentation(TensModel(), cases, NAMES, Progress())
    distance = done.values(1, MEASURES[1])
    told = statistics(distance, MEASURES[1].badness)
    assert (told.cases, told.infinite, told.mean, told.worst) == (3, 1, 0, math.inf)
    assert summary(done)["metric_per_case"][0]["metrics"]["1"]["HD95"] is None
    assert "anterior was not found in 1 of 3 (case_0)" in report(done)


def test_cases_table_has_a_row_per_case_and_label(evaluation, tmp_path):
    write_evaluation(evaluation, tmp_path / "report")
    with (tmp_path / "report" / "cases.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [(row["case"], row["label"]) for row in rows] == [(f"case_{c}", str(x)) for c in range(3) for x in (1, 2)]
    assert float(rows[0]["Dice"]) == pytest.approx(0.9)
    assert (rows[5]["Dice"], rows[5]["n_ref"]) == ("", "0")
    assert rows[0]["name"] == "anterior"


def test_report_needs_nothing_else_and_says_what_was_run(evaluation, tmp_path):
    write_evaluation(evaluation, tmp_path / "report", "medai evaluate -m tens --data 'data & more'")
    page = (tmp_path / "report" / "report.html").read_text(encoding="utf-8")
    sources = re.findall(r'src="([^"]{22})', page)
    assert sources == ["data:image/png;base64,"] * (2 + 3)
    assert "http" not in page
    for text in (
        "Tens of grey",
        "version 1.2.3",
        "ab" * 32,
        "data &#x27;data &amp; more&#x27;",
        str(tmp_path / "data"),
    ):
        assert text in page
    assert sorted(path.name for path in (tmp_path / "report").iterdir()) == FILES


def test_names_from_files_cannot_put_markup_into_the_report(cases):
    names = {1: "<script>alert(1)</script>", 2: "posterior"}
    page = report(evaluate_segmentation(TensModel(names), cases, names, Progress()))
    assert "<script" not in page
    assert "&lt;script&gt;" in page


def test_report_of_a_single_empty_case_is_written(tmp_path):
    make_case(tmp_path / "data", "empty", np.zeros((2, 8, 8), dtype=np.uint8))
    done = evaluate_segmentation(TensModel(), find_cases(tmp_path / "data"), NAMES, Progress())
    write_evaluation(done, tmp_path / "report")
    assert strict((tmp_path / "report" / "summary.json").read_text(encoding="utf-8"))["mean"]["1"]["Dice"] is None


def test_report_of_many_structures_shows_all_in_the_table(tmp_path):
    names = {value: f"structure number {value}" for value in range(1, 31)}
    labels = np.zeros((4, 10, 64), dtype=np.uint8)
    for value in names:
        labels[1:3, 2:8, 2 * value : 2 * value + 2] = value
    make_case(tmp_path / "data", "many", labels)
    page = report(evaluate_segmentation(TensModel(names, shift=1), find_cases(tmp_path / "data"), names, Progress()))
    assert all(f">{name}</th>" in page for name in names.values())
    assert "Mean Dice over 30 structures <b>0.5" in page


def test_cancel_between_two_cases_leaves_an_older_report(cases, evaluation, tmp_path):
    write_evaluation(evaluation, tmp_path / "report")
    before = {name: (tmp_path / "report" / name).read_bytes() for name in FILES}
    model = TensModel()
    with pytest.raises(Cancelled):
        write_evaluation(evaluate_segmentation(model, cases, NAMES, CancelsAt("Case 2 of 3")), tmp_path / "report")
    assert len(model.runs) == 1
    assert {path.name: path.read_bytes() for path in (tmp_path / "report").iterdir()} == before


def test_cancel_while_files_are_checked_is_heard(cases):
    model = TensModel()
    with pytest.raises(Cancelled):
        evaluate_segmentation(model, cases, NAMES, CancelsAt("Checking case_1"))
    assert model.runs == []


def test_older_report_survives_a_failed_one_and_strange_files_stay(evaluation, tmp_path):
    folder = tmp_path / "report"
    write_evaluation(evaluation, folder)
    (folder / "notes.txt").write_text("mine")
    (folder / "report.html").unlink()
    (folder / "report.html").mkdir()
    before = (folder / "summary.json").read_bytes()
    changed = replace(evaluation, labels={1: "other", 2: "name"})
    with pytest.raises(OutputError, match=r"report\.html"):
        write_evaluation(changed, folder)
    assert (folder / "summary.json").read_bytes() == before
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, "notes.txt"])


def test_full_disk_leaves_no_folder_behind(evaluation, tmp_path):
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    try:
        with pytest.raises(OutputError, match="can't be written"):
            write_evaluation(evaluation, tmp_path / "new" / "report")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (tmp_path / "new").exists()


def test_report_below_a_file_is_refused(evaluation, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't be written"):
        write_evaluation(evaluation, tmp_path / "file" / "report")


def test_interval_is_that_of_normal_theory_for_many_cases():
    values = np.random.default_rng(3).normal(0.9, 0.03, 400)
    told = statistics(values, abs)
    half = 1.96 * values.std(ddof=1) / 20
    assert told.low == pytest.approx(values.mean() - half, abs=half / 8)
    assert told.high == pytest.approx(values.mean() + half, abs=half / 8)
    assert told == statistics(values, abs)


def test_worst_volume_difference_is_the_largest_either_way():
    assert statistics(np.array([0.1, -0.5, 0.3]), abs).worst == -0.5


def test_one_case_has_a_mean_and_no_spread():
    told = statistics(np.array([0.8, math.nan]), abs)
    assert (told.cases, told.mean, told.median) == (1, 0.8, 0.8)
    assert math.isnan(told.sd)
    assert math.isnan(told.low)


@pytest.mark.parametrize(
    ("orientation", "row", "column", "letters"),
    [("RAS", -1, -1, "RA"), ("LPS", 0, 0, "RA"), ("LIP", 0, 0, "RS"), ("PIR", 0, 0, "AS"), ("ARS", -1, -1, "RA")],
)
def test_slices_are_shown_as_radiologists_see_them(orientation, row, column, letters):
    """The voxel (0, 0) appears in the corner where the patient's side of the lowest indices is shown."""
    image = np.zeros((3, 4))
    image[0, 0] = 1
    labels = np.zeros((3, 4), dtype=np.uint16)
    (shown, _, _), spacing, seen = as_seen(Picture("case", image, labels, labels, (2.0, 1.0), orientation, 0))
    assert shown[row, column] == 1
    assert "".join(seen) == letters
    assert (shown.shape, spacing) == (((4, 3), (1.0, 2.0)) if orientation == "ARS" else ((3, 4), (2.0, 1.0)))


class CopyOfLabels:
    """Gives each hippocampus case's own label, `shift` voxels further along I."""

    def __init__(self, cases: tuple[Case, ...], shift: int) -> None:
        self.spec = spec_with(NAMES)
        self.labels = {case.images[0].name: case.label for case in cases}
        self.shift = shift

    def run(self, volume, options, progress):
        found = np.roll(read_image(self.labels[volume.name]).data[0], self.shift, axis=2).astype(np.uint8)
        return Segmentation(found[None], self.spec.labels, volume.geometry)


@pytest.mark.parametrize("shift", [0, 1])
def test_real_labels_against_themselves_and_against_a_shifted_copy(shared_data, shift):
    folder = shared_data / "hippocampus"
    cases = find_cases(folder)[:6]
    done = evaluate_segmentation(CopyOfLabels(cases, shift), cases, read_labels(folder), Progress())
    for label in NAMES:
        assert done.values(label, MEASURES[1]) == pytest.approx(shift)
        assert done.values(label, MEASURES[2]) == pytest.approx(1)
        dice = done.values(label, MEASURES[0])
        assert (dice == 1).all() if shift == 0 else ((dice > 0.7) & (dice < 0.95)).all()
