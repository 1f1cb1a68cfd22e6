"""Average precision and FROC of boxes, against counts by hand and MONAI's functions."""

import math

import numpy as np
import pytest
from monai.metrics import compute_froc_curve_data, compute_froc_score

from MedAILib.training import paired_test
from MedAILib.training.compare_detectors import differences
from MedAILib.training.detection_measures import RATES, Boxes, matches_of, measure, per_class, with_intervals
from MedAILib.training.patient_draws import PatientDraws

ALONE = PatientDraws.of([""] * 10)


def boxes(*rows: tuple[float, int, float]) -> Boxes:
    """Of (first coordinate, class, score), each a cube of edge 10."""
    faces = np.array([[x, 0, 0, x + 10, 10, 10] for x, _, _ in rows], float).reshape(-1, 6)
    numbers = np.array([n for _, n, _ in rows], np.int64)
    return Boxes(faces, numbers, np.array([s for _, _, s in rows], float))


def test_figures_are_those_counted_by_hand() -> None:
    matches = [
        matches_of(boxes((0, 0, 0.9), (40, 0, 0.8)), boxes((0, 0, 1), (20, 0, 1))),  # right, false; one missed
        matches_of(boxes((2, 0, 0.7), (50, 1, 0.6)), boxes((0, 0, 1))),  # right by 2/3; a class that is not there
    ]
    found = measure(matches, 2)
    assert found["mAP@0.5"] == pytest.approx((34 + 33 * 2 / 3) / 101, abs=0.01)
    assert found["sensitivity@0.125"] == pytest.approx(1 / 3)
    assert found["sensitivity@0.5"] == found["sensitivity@8"] == pytest.approx(2 / 3)
    assert math.isnan(per_class(matches, 1)["mAP@0.5"])


def test_what_finds_nothing_has_zero_and_what_has_nothing_to_find_no_figure() -> None:
    nothing = measure([matches_of(boxes(), boxes((0, 0, 1)))], 1)
    assert nothing["mAP@0.5"] == nothing["froc"] == 0
    assert math.isnan(measure([matches_of(boxes((0, 0, 1)), boxes())], 1)["froc"])


def test_a_box_counts_as_found_from_the_overlap_on_that_the_figure_names() -> None:
    (found,) = [measure([matches_of(boxes((5, 0, 1)), boxes((0, 0, 1)))], 1)]  # they overlap by a third
    assert (found["mAP@0.1"], found["froc"]) == pytest.approx((1, 1)) and found["mAP@0.5"] == 0
    assert found["mAP@0.1:0.5"] == pytest.approx(5 / 9)  # 0.1, 0.15, ... 0.3 of nine limits


def test_the_curve_is_monais() -> None:
    random = np.random.default_rng(0)
    matches = []
    for _ in range(12):
        truth = [(40.0 * n, 0, 1.0) for n in range(3)]
        told = [(float(random.uniform(0, 120)), 0, float(random.random())) for _ in range(9)]
        matches.append(matches_of(boxes(*told), boxes(*truth)))
    right = np.concatenate([entry[0]["dtMatches"][0] for entry in matches]).astype(bool)
    scores = np.concatenate([entry[0]["dtScores"] for entry in matches])
    alarms = np.append(scores[~right], -1.0)  # MONAI leaves the lowest score out
    false, sensitivity = compute_froc_curve_data(alarms, scores[right], 36, 12)
    expected = compute_froc_score(false, sensitivity, RATES)
    assert measure(matches, 1)["froc"] == pytest.approx(float(expected))


def test_intervals_hold_the_figure_and_are_the_same_each_time() -> None:
    matches = [matches_of(boxes((4 * n % 11, 0, 0.9)), boxes((0, 0, 1))) for n in range(9)]
    found = with_intervals(matches, 1)
    assert found == with_intervals(matches, 1)
    assert all(x.low <= x.value <= x.high for x in found.values())
    assert found["mAP@0.5"].low < found["mAP@0.5"].high


def test_a_better_detector_is_told_from_a_worse_one_and_from_its_equal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paired_test, "RESAMPLES", 200)
    right = [matches_of(boxes((0, 0, 0.9)), boxes((0, 0, 1))) for _ in range(10)]
    wrong = [matches_of(boxes((40, 0, 0.9)), boxes((0, 0, 1))) if n < 8 else right[n] for n in range(10)]
    (row,) = [row for row in differences(wrong, right, 1, ALONE) if row.key == "mAP@0.5"]
    assert row.difference > 0.7 and row.low > 0 and row.p < 0.05 and row.p <= row.p_holm < 0.1
    assert {row.p for row in differences(right, right, 1, ALONE)} == {1.0}
