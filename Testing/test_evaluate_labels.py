"""Models of several labels against reference labels: the numbers of each label and of all, the report, comparisons."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classifier_bundles import DENSENET, classifier_bundle
from shapes import SHAPES, shape_pictures, tabled
from sklearn.metrics import average_precision_score, f1_score, roc_auc_score

from MedAILib.cli import main
from MedAILib.training.label_measures import LabelRanks, labels_with_intervals, measure_labels

OWN = {"kind": "multilabel", "thresholds": {"block": 0.4, "row": 0.6}}
SIGMOID = [{"_target_": "Activationsd", "sigmoid": True}]


def run(*words: Any) -> int:
    return main(["evaluate", *map(str, words), "--device", "cpu", "--quiet"])


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "shapes"
    return classifier_bundle(folder, DENSENET, list(SHAPES), own=OWN, post=SIGMOID)


@pytest.fixture(scope="module")
def reported(model: Path) -> Path:
    """A report on pictures of which none has a row."""
    table = tabled(model.parent / "data", 24, columns=True)
    lines = [line.rsplit(",", 1)[0] + ",0" for line in table.read_text(encoding="utf-8").splitlines()[1:]]
    table.write_text("\n".join(["path,block,column,row", *lines]) + "\n", encoding="utf-8")
    other = classifier_bundle(model.parent / "other", DENSENET, list(SHAPES), 3, own=OWN, post=SIGMOID)
    assert run("-m", model, "--data", table, "-o", model.parent / "report", "--compare", other) == 0
    return model.parent / "report"


def test_figures_are_those_of_the_cases_and_absent_labels_are_left_out(reported: Path) -> None:
    told = json.loads((reported / "summary.json").read_text(encoding="utf-8"), parse_constant=pytest.fail)
    truth = shape_pictures(24)[1][:, :2]
    likely = np.array([[case["probabilities"][name] for name in SHAPES[:2]] for case in told["metric_per_case"]])
    decided = likely >= (0.4, 0.5)
    assert told["auc"] == pytest.approx(roc_auc_score(truth, likely, average="macro"))
    assert told["ap"] == pytest.approx(average_precision_score(truth, likely, average="macro"))
    assert told["micro_f1"] == pytest.approx(f1_score(truth, decided, average="micro"))
    assert told["micro_auc"] == pytest.approx(roc_auc_score(truth, likely, average="micro"))
    assert told["f1"] == pytest.approx(f1_score(truth, decided, average="macro"))
    row = told["per_class"]["row"]
    assert row["cases"] == 0 and row["auc"] is None and row["f1"] is None and row["specificity"] is not None
    assert told["per_class"]["block"]["intervals_95"]["auc"][0] <= told["per_class"]["block"]["auc"]
    assert np.array(told["confusion"]).shape == (3, 2, 2) and told["metric_per_case"][0]["reference"] == []


def test_the_report_says_which_labels_no_image_has(reported: Path) -> None:
    report = (reported / "report.html").read_text(encoding="utf-8")
    assert "No image has row" in report and "left out of means" in report and "<td>–</td>" in report
    assert "Comparison with other" in report and "All labels of an image right" in report
    table = (reported / "cases.csv").read_text(encoding="utf-8").splitlines()
    assert table[2].startswith("01.png,block;column,")
    told = json.loads((reported / "summary.json").read_text(encoding="utf-8"))
    compared = told["comparison"]["rows"]
    assert {"auc", "micro_ap", "exact"} <= {row["key"] for row in compared}
    assert [row["first"] for row in compared] == pytest.approx([told[row["key"]] for row in compared], abs=1e-6)
    assert any(row["first"] != row["second"] for row in compared)
    assert all(0 < row["p"] <= 1 for row in compared)


def test_columns_that_are_not_all_labels_of_the_model_are_refused(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tabled(tmp_path / "data", 6, columns=True)
    lines = [line.rsplit(",", 1)[0] for line in table.read_text(encoding="utf-8").splitlines()]
    table.write_text("\n".join(lines) + "\n", encoding="utf-8")
    assert run("-m", model, "--data", table, "-o", tmp_path / "r") == 2
    assert "only for block, column; so it can't be told which images have it" in capsys.readouterr().err
    assert not (tmp_path / "r").exists()


def test_models_of_another_kind_are_not_compared(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    table = tabled(tmp_path / "data", 6, columns=False)
    table.write_text("path,label\n01.png,block\n02.png,column\n", encoding="utf-8")
    one = classifier_bundle(tmp_path / "one", DENSENET, list(SHAPES))
    assert run("-m", one, "--data", table, "-o", tmp_path / "r", "--compare", model) == 2
    assert "different kinds of decision (multiclass, multilabel)" in capsys.readouterr().err


@pytest.mark.parametrize("seed", range(4))
def test_what_resampling_measures_is_what_the_libraries_measure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    marks = (rng.random((40, 4)) < (0.5, 0.2, 0.1, 0.0 if seed else 1.0)).astype(np.int64)
    likely = (0.6 * rng.random((40, 4)) + 0.3 * marks).round(1 + seed)  # with ties, and on the edges of bins
    decided = (likely >= 0.5).astype(np.int64)
    drawn = rng.integers(40, size=40)
    quick = LabelRanks(marks, likely, decided).measured(drawn)
    whole = measure_labels(marks[drawn], likely[drawn], decided[drawn])
    assert quick == pytest.approx(whole, abs=1e-6, nan_ok=True)


def test_intervals_of_a_label_hold_its_value_and_grow_with_rarity() -> None:
    rng = np.random.default_rng(0)
    marks = (rng.random((200, 2)) < (0.5, 0.05)).astype(np.int64)
    likely = np.clip(0.5 * marks + rng.normal(0.25, 0.2, marks.shape), 0, 1)
    often, rare = (x["ap"] for x in labels_with_intervals(marks, likely, (likely > 0.5).astype(np.int64)))
    assert often.low <= often.value <= often.high
    assert rare.high - rare.low > often.high - often.low


def test_a_label_that_nobody_has_and_nobody_said_has_no_figures() -> None:
    nothing = np.zeros((5, 1), np.int64)
    found = LabelRanks(nothing, np.full((5, 1), 0.2), nothing).arrays(np.arange(5))
    assert all(math.isnan(found[key][0]) for key in ("auc", "ap", "sensitivity", "precision", "f1"))
    assert found["accuracy"][0] == found["specificity"][0] == 1
