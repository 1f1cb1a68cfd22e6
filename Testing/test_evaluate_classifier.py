"""Classifiers against reference labels: the numbers, the files, and what is refused."""

import csv
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from bundles import write_configs
from classifier_bundles import DENSENET, classifier_bundle, classifier_configs
from labelled import class_folders, medmnist, pictures
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, roc_auc_score

from MedAILib.cli import main
from MedAILib.errors import InputError, SpecError
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.training.classification_measures import (
    calibration_bins,
    calibration_error,
    measure,
    per_class,
    quick_measure,
    with_intervals,
)
from MedAILib.training.evaluate_classifier import evaluate_classifier
from MedAILib.training.labelled_images import find_labelled_images
from MedAILib.training.paired_test import paired_differences
from MedAILib.training.patient_draws import PatientDraws

SILENT = Progress()
BINARY = DENSENET | {"out_channels": 2}
FILES = ["cases.csv", "report.html", "summary.json"]
LABELS = {"labels": {"above": ["0"], "below": ["1"]}}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = {"kind": "binary", "thresholds": {"below": 0.3}, **LABELS}
    return classifier_bundle(tmp_path_factory.mktemp("model") / "squares", BINARY, ["above", "below"], own=own)


@pytest.fixture(scope="module")
def reported(model: Path) -> Path:
    data = medmnist(model.parent / "squares.npz", train=4, val=6, test=20)
    folder = model.parent / "report"
    arguments = ["evaluate", "-m", str(model), "--data", str(data), "-o", str(folder), "--device", "cpu", "--quiet"]
    assert main(arguments) == 0
    return folder


def summed(folder: Path) -> dict:
    return json.loads((folder / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)


def test_figures_are_those_of_the_cases(reported: Path) -> None:
    told = summed(reported)
    assert told["cases"] == 20 and told["medai"]["part"] == "test"
    truth = np.array([case["reference"] == "below" for case in told["metric_per_case"]])
    likely = np.array([case["probabilities"]["below"] for case in told["metric_per_case"]])
    decided = likely >= 0.3
    assert told["accuracy"] == pytest.approx(accuracy_score(truth, decided))
    assert told["auc"] == pytest.approx(roc_auc_score(truth, likely))
    assert told["f1"] == pytest.approx(f1_score(truth, decided)) if decided.any() else told["f1"] in (0, None)
    (tn, fp), (fn, tp) = told["confusion"]
    assert (tp + fn, tn + fp) == (10, 10)
    assert told["sensitivity"] == tp / 10 and told["specificity"] == tn / 10
    assert told["intervals_95"]["auc"][0] <= told["auc"] <= told["intervals_95"]["auc"][1]
    assert told["per_class"]["above"]["sensitivity"] == told["specificity"]
    assert (told["positive"], told["classes"]) == ("below", ["above", "below"])


def test_the_table_has_a_row_for_each_image(reported: Path) -> None:
    with (reported / "cases.csv").open(encoding="utf-8", newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [row["case"] for row in rows] == [f"test_{n:04d}" for n in range(20)]
    assert [row["reference"] for row in rows[:2]] == ["above", "below"]
    assert all(
        float(r["probability above"]) + float(r["probability below"]) == pytest.approx(1, abs=1e-5) for r in rows
    )


def test_the_report_needs_nothing_else(reported: Path) -> None:
    page = (reported / "report.html").read_text(encoding="utf-8")
    assert sorted(path.name for path in reported.iterdir()) == FILES
    told = summed(reported)
    assert re.findall(r'src="([^"]{22})', page) == ["data:image/png;base64,"] * (3 + 5)
    assert "http" not in page
    for text in (
        "Expected calibration error",
        told["medai"]["sha256"],
        "medai evaluate",
        "least sure of the truth",
    ):
        assert text in page


def test_a_part_and_a_list_of_cases_can_be_chosen(model: Path, tmp_path: Path) -> None:
    data = medmnist(tmp_path / "squares.npz", train=4, val=6, test=8)
    (tmp_path / "list.txt").write_text("val_0001\nval_0002\nval_0003\n", encoding="utf-8")
    arguments = ["evaluate", "-m", str(model), "--data", str(data), "-o", str(tmp_path / "out"), "--quiet"]
    assert main([*arguments, "--split", "val", "--only", str(tmp_path / "list.txt"), "--device", "cpu"]) == 0
    assert [case["case"] for case in summed(tmp_path / "out")["metric_per_case"]] == [
        "val_0001",
        "val_0002",
        "val_0003",
    ]


def test_folders_and_several_classes(tmp_path: Path) -> None:
    names = ["above", "beside", "below"]
    model = classifier_bundle(tmp_path / "three", DENSENET, names, own={"kind": "multiclass"})
    evaluation = evaluate_classifier(
        open_model(model, "cpu"), find_labelled_images(class_folders(tmp_path / "d", 8)), SILENT
    )
    assert evaluation.confusion.sum() == 8 and evaluation.confusion[1].sum() == 0
    assert math.isnan(evaluation.each[1]["auc"]) and evaluation.each[1]["cases"] == 0
    assert math.isfinite(evaluation.measured["auc"].value)


def test_what_the_model_is_not_sure_of_counts_and_is_told(tmp_path: Path) -> None:
    own = {"kind": "binary", "unsure_below": 1.0, **LABELS}
    model = classifier_bundle(tmp_path / "unsure", BINARY, ["above", "below"], own=own)
    images = find_labelled_images(medmnist(tmp_path / "squares.npz", test=8))
    evaluation = evaluate_classifier(open_model(model, "cpu"), images, SILENT)
    assert all(case.unsure for case in evaluation.cases)
    assert evaluation.confusion.sum() == 8


@pytest.mark.parametrize("command", [["--split", "test"], ["--mirror"]])
def test_choices_that_do_not_suit_are_refused(
    model: Path, tmp_path: Path, command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    data = medmnist(tmp_path / "squares.npz", train=6)
    assert main(["evaluate", "-m", str(model), "--data", str(data), "-o", str(tmp_path / "out"), *command]) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1
    assert not (tmp_path / "out").exists()


def test_labels_that_the_model_does_not_know_are_refused(model: Path, tmp_path: Path) -> None:
    images, labels = pictures(6)
    np.savez(tmp_path / "squares.npz", test_images=images, test_labels=labels + 1)
    with pytest.raises(InputError, match=r"label '2' of test_0001, test_0003, test_0005 is none of the classes"):
        evaluate_classifier(open_model(model, "cpu"), find_labelled_images(tmp_path / "squares.npz"), SILENT)


def test_a_label_for_a_class_that_is_none_is_a_contradiction(tmp_path: Path) -> None:
    folder = tmp_path / "wrong"
    write_configs(folder, *classifier_configs(BINARY, ["above", "below"], {"labels": {"aside": ["2"]}}))
    with pytest.raises(SpecError, match="label for 'aside'"):
        open_model(folder, "cpu")


def test_calibrated_probabilities_have_no_calibration_error() -> None:
    rng = np.random.default_rng(0)
    likely = rng.random(20_000)
    numbers = (rng.random(20_000) < likely).astype(np.int64)
    both = np.stack([1 - likely, likely], axis=1)
    assert calibration_error(numbers, both) < 0.01
    sure = np.stack([likely < 0.5, likely >= 0.5], axis=1).astype(float)
    assert calibration_error(numbers, sure) == pytest.approx(0.25, abs=0.01)
    assert sum(found.cases for found in calibration_bins(numbers, sure)) == 20_000


def test_intervals_are_those_of_normal_theory_for_many_cases() -> None:
    rng = np.random.default_rng(1)
    numbers = rng.integers(0, 2, 400)
    decided = np.where(rng.random(400) < 0.8, numbers, 1 - numbers)
    likely = np.eye(2)[decided]
    found = with_intervals(numbers, likely, decided)["accuracy"]
    half = 1.96 * math.sqrt(found.value * (1 - found.value) / 400)
    assert (found.low, found.high) == pytest.approx((found.value - half, found.value + half), abs=half / 6)


def test_a_class_without_cases_is_left_out_of_means() -> None:
    numbers, likely = np.array([0, 0, 1, 1]), np.array([[0.8, 0.2, 0], [0.6, 0.4, 0], [0.3, 0.7, 0], [0.2, 0.8, 0]])
    found = measure(numbers, likely, likely.argmax(axis=1))
    assert found["accuracy"] == found["auc"] == found["sensitivity"] == 1


@pytest.mark.parametrize("classes", [2, 3, 5])
@pytest.mark.parametrize("seed", range(4))
def test_what_resampling_measures_is_what_the_libraries_measure(classes: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    numbers = random.integers(classes - (seed == 3), size=60)  # once a class without cases
    likely = random.dirichlet(np.ones(classes), 60).round(1 + seed)  # with ties, and on the edges of bins
    likely /= likely.sum(axis=1, keepdims=True)
    decided = likely.argmax(axis=1)
    quick, whole = quick_measure(numbers, likely, decided), measure(numbers, likely, decided)
    assert quick == pytest.approx(whole, abs=1e-6, nan_ok=True)


def test_each_class_has_accuracy_and_calibration_of_its_own() -> None:
    numbers, likely = np.array([0, 0, 1, 2]), np.array([[0.9, 0.1, 0.0], [0.2, 0.7, 0.1], [0.1, 0.9, 0.0], [0, 0, 1.0]])
    first, second, third = per_class(numbers, likely, likely.argmax(axis=1))
    assert (first["accuracy"], second["accuracy"], third["accuracy"]) == (0.75, 0.75, 1.0)
    assert first["ece"] == pytest.approx((0.1 + 0.8 + 0.1 + 0.0) / 4)  # each alone in its tenth
    assert third["ece"] == pytest.approx((0.0 * 2 + 0.1 + 0.0) / 4)


def test_two_classifiers_are_compared_pair_by_pair(model: Path, tmp_path: Path, capsys) -> None:
    data = medmnist(tmp_path / "squares.npz", test=12)
    words = ["evaluate", "-m", str(model), "--data", str(data), "-o", str(tmp_path / "r"), "--device", "cpu", "--quiet"]
    assert main([*words, "--compare", str(model)]) == 0
    same = json.loads((tmp_path / "r/summary.json").read_text())["comparison"]
    assert {(row["difference"], row["p"]) for row in same["rows"]} == {(0.0, 1.0)}
    assert "Comparison with" in (tmp_path / "r/report.html").read_text()
    assert main([*words, "--compare", "hippocampus"]) == 2
    assert "is no classifier" in capsys.readouterr().err


def test_a_better_classifier_is_told_from_a_worse_one() -> None:
    random = np.random.default_rng(0)
    numbers = random.integers(2, size=80)
    good = np.where(random.random(80) < 0.95, numbers, 1 - numbers)
    poor = np.where(random.random(80) < 0.6, numbers, 1 - numbers)
    likely = [np.stack([1 - x * 0.8 - 0.1, x * 0.8 + 0.1], axis=1) for x in (poor, good)]

    def values(rows, swapped):
        found = []
        for first, second in ((0, 1), (1, 0)):
            share = np.where(swapped[rows][:, None], likely[second][rows], likely[first][rows])
            found.append(quick_measure(numbers[rows], share, share.argmax(axis=1)))
        return found[0], found[1]

    accuracy = next(row for row in paired_differences(PatientDraws.of([""] * 80), values) if row.key == "accuracy")
    assert accuracy.difference == pytest.approx((good == numbers).mean() - (poor == numbers).mean())
    both = [(good == numbers) & (poor != numbers), (good != numbers) & (poor == numbers)]
    exact = binomtest(int(both[0].sum()), int(both[0].sum() + both[1].sum())).pvalue  # McNemar's exact test
    assert accuracy.p == pytest.approx(exact, abs=0.01)
    assert accuracy.low > 0
