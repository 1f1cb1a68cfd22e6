"""Intervals and tests draw whole patients: images of one patient that are alike make nothing surer."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from balls import task_file, train, write_cases
from test_detection_measures import boxes
from test_evaluate import NAMES, TensModel, make_case, two_boxes

from MedAILib.cli import main
from MedAILib.errors import InputError
from MedAILib.progress import Progress
from MedAILib.training.classification_measures import quick_measure, resamples, with_intervals
from MedAILib.training.compare_models import compare_models, comparison_html, comparison_json
from MedAILib.training.data_folder import find_cases
from MedAILib.training.detection_measures import matches_of
from MedAILib.training.detection_measures import with_intervals as detected_with_intervals
from MedAILib.training.evaluate import evaluate_segmentation, statistics, summary
from MedAILib.training.label_measures import labels_with_intervals
from MedAILib.training.paired_test import paired_differences
from MedAILib.training.patient_draws import PatientDraws
from MedAILib.training.patients import known_patients
from MedAILib.training.report import report

RANDOM = np.random.default_rng(5)
TWINS = [f"P{n // 2}" for n in range(60)]  # each patient's two images lie side by side


def test_images_of_no_known_patient_stand_for_themselves() -> None:
    draws = PatientDraws.of(["a", "", "b", "a", ""])
    assert [places.tolist() for places in draws.members] == [[0, 3], [1], [2], [4]]
    assert draws.images(np.array([0, 3, 0])).tolist() == [0, 3, 4, 0, 3]
    assert draws.spread(np.array([True, False, False, True])).tolist() == [True, False, False, True, True]
    assert draws.told("images") == "4 patients, each with all images" and draws.shared
    alone = PatientDraws.of(["a", "", "b"])
    assert alone.told("images") == "images" and not alone.shared


def test_without_patients_images_are_drawn() -> None:
    drawn = np.random.default_rng(12345).integers(7, size=(1000, 7))
    assert np.array_equal(np.stack(list(resamples(7))), drawn)
    values = RANDOM.random(30)
    means = values[np.random.default_rng(12345).integers(30, size=(2000, 30))].mean(axis=1)
    told = statistics(values, abs)
    assert (told.low, told.high) == pytest.approx(tuple(np.percentile(means, (2.5, 97.5))), abs=1e-12)


def test_a_second_image_that_says_the_same_makes_a_mean_no_surer() -> None:
    values = np.append(RANDOM.random(29), math.inf)
    once, twice = statistics(values, abs), statistics(np.repeat(values, 2), abs, PatientDraws.of(TWINS))
    assert (twice.low, twice.high) == pytest.approx((once.low, once.high))
    naive = statistics(np.repeat(values, 2), abs)
    assert naive.high - naive.low < 0.8 * (twice.high - twice.low)


def test_cases_of_a_single_patient_tell_of_no_interval() -> None:
    told = statistics(np.array([0.7, 0.8, 0.9]), abs, PatientDraws.of(["a"] * 3))
    assert math.isnan(told.low) and told.mean == pytest.approx(0.8)


def test_nor_does_it_make_a_classifier_s_figures_surer() -> None:
    numbers = RANDOM.integers(2, size=30)
    share = np.clip(numbers * 0.3 + RANDOM.random(30) * 0.7, 0, 1)
    likely = np.stack([1 - share, share], axis=1)
    once = with_intervals(numbers, likely, likely.argmax(axis=1))
    double = (np.repeat(part, 2, axis=0) for part in (numbers, likely, likely.argmax(axis=1)))
    twice = with_intervals(*double, patients=TWINS)
    for key, found in once.items():
        assert (twice[key].low, twice[key].high) == pytest.approx((found.low, found.high)), key


def test_nor_those_of_labels_and_boxes() -> None:
    marks = RANDOM.integers(2, size=(30, 2))
    likely = np.clip(marks * 0.3 + RANDOM.random((30, 2)) * 0.7, 0, 1)
    decided = (likely > 0.5).astype(np.int64)
    once = labels_with_intervals(marks, likely, decided)
    twice = labels_with_intervals(*(np.repeat(part, 2, axis=0) for part in (marks, likely, decided)), TWINS)
    for before, after in zip(once, twice, strict=True):
        assert all((after[k].low, after[k].high) == pytest.approx((x.low, x.high)) for k, x in before.items())
    matches = [matches_of(boxes((4 * n % 11, 0, 0.9)), boxes((0, 0, 1))) for n in range(9)]
    one = detected_with_intervals(matches, 1)
    two = detected_with_intervals([x for x in matches for _ in (0, 1)], 1, TWINS[:18])
    assert (two["mAP@0.5"].low, two["mAP@0.5"].high) == pytest.approx((one["mAP@0.5"].low, one["mAP@0.5"].high))


def test_a_paired_test_tosses_patients() -> None:
    numbers = RANDOM.integers(2, size=30)
    both = [np.where(RANDOM.random(30) < share, numbers, 1 - numbers) for share in (0.6, 0.9)]

    def rows_of(times: int, draws: PatientDraws):
        truth = np.repeat(numbers, times)
        likely = [np.stack([1 - x * 0.8 - 0.1, x * 0.8 + 0.1], axis=1) for x in (np.repeat(x, times) for x in both)]

        def values(rows, swapped):
            found = []
            for first, second in ((0, 1), (1, 0)):
                share = np.where(swapped[rows][:, None], likely[second][rows], likely[first][rows])
                found.append(quick_measure(truth[rows], share, share.argmax(axis=1)))
            return found[0], found[1]

        return {row.key: row for row in paired_differences(draws, values)}

    once, twice = rows_of(1, PatientDraws.of([""] * 30)), rows_of(2, PatientDraws.of(TWINS))
    for key in ("accuracy", "auc"):
        assert twice[key].p == once[key].p
        assert (twice[key].low, twice[key].high) == pytest.approx((once[key].low, once[key].high))
    assert rows_of(2, PatientDraws.of([""] * 60))["accuracy"].p < once["accuracy"].p


def test_an_evaluation_draws_the_patients_that_the_data_tells_of(tmp_path: Path) -> None:
    data = tmp_path / "data"
    for number in range(8):
        make_case(data, f"case_{number}", two_boxes(6 + number // 2))
    cases = find_cases(data)
    assert known_patients(data, cases) == {}
    text = "case;patient\n" + "".join(f"case_{n};P{n // 2}\n" for n in range(6))
    (data / "patients.csv").write_text(text, encoding="utf-8")
    patients = known_patients(data, cases)
    assert patients["case_5"] == "P2" and "case_7" not in patients
    first, second = (
        evaluate_segmentation(TensModel(shift=n), cases, NAMES, Progress(), patients=patients) for n in (1, 2)
    )
    assert first.draws.count == 5 and summary(first)["medai"]["patients"] == 5
    page = report(first, "medai evaluate")
    assert "2000 resamples of the 5 patients, each with all cases" in page and "choice of patients" in page
    compared = compare_models(first, second)
    assert comparison_json(compared)["patients"] == 5
    html = comparison_html(compared)
    assert "of the patients&#x27; mean differences" in html or "of the patients' mean differences" in html
    assert "With fewer than 6 patients" in html  # though there are eight pairs
    plain = evaluate_segmentation(TensModel(shift=1), cases, NAMES, Progress())
    assert summary(plain)["medai"]["patients"] is None and "resamples of the cases" in report(plain, "")


def test_p_values_of_patients_that_come_twice_are_those_of_once(tmp_path: Path) -> None:
    for number in range(14):
        make_case(tmp_path / "data", f"case_{number:02d}", two_boxes(6 + number // 2))
    cases = find_cases(tmp_path / "data")
    patients = {case.name: f"P{number // 2}" for number, case in enumerate(cases)}
    models = [TensModel(shift=n) for n in (1, 2)]
    twice = compare_models(*(evaluate_segmentation(x, cases, NAMES, Progress(), patients=patients) for x in models))
    once = compare_models(*(evaluate_segmentation(x, cases[::2], NAMES, Progress()) for x in models))
    for before, after in zip(once.rows, twice.rows, strict=True):
        assert (after.p, after.low, after.high) == pytest.approx((before.p, before.low, before.high), nan_ok=True)


def test_a_training_s_validation_and_the_command_draw_patients(tmp_path: Path) -> None:
    data = write_cases(tmp_path / "data", 8)
    (data / "patients.csv").write_text("case,patient\n" + "".join(f"case_{n},P{n // 2}\n" for n in range(8)))
    assert train(task_file(data, "folds=2"), "--data", data, "-o", tmp_path / "m", "--epochs", 1) == 0
    assert "4 cases of 2 patients (whom the intervals draw)" in (tmp_path / "m" / "docs" / "README.md").read_text()
    words = ["evaluate", "-m", tmp_path / "m", "--data", data, "-o", tmp_path / "r", "--device", "cpu", "--quiet"]
    assert main([str(word) for word in words]) == 0
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["medai"]["patients"] == 4
    for part in ("images", "labels"):  # cases kept for testing that are called as those for training are
        (data / f"{part}Ts").mkdir()
        for number in range(4):
            shutil.copy(data / f"{part}Tr" / f"case_{number}.nii.gz", data / f"{part}Ts")
    assert main([str(word) for word in (*words, "--split", "test")]) == 0
    assert json.loads((tmp_path / "r" / "summary.json").read_text())["medai"]["patients"] is None


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        (["case_0,P", "case_0,Q"], "names two patients for case_0, P and Q"),
        (["case_0,"], "Line 2 of .* has no patient"),
        ([",P"], "Line 2 of .* has no case"),
    ],
)
def test_tables_of_patients_that_contradict_themselves_are_refused(rows, told, tmp_path: Path) -> None:
    make_case(tmp_path, "case_0", two_boxes())
    (tmp_path / "patients.csv").write_text("\n".join(["case,patient", *rows]), encoding="utf-8")
    with pytest.raises(InputError, match=told):
        known_patients(tmp_path, find_cases(tmp_path))
