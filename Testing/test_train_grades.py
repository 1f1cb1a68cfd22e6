"""Grades in order: learnt by the steps between them, decided, measured, and refused where their order is not known."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from labelled import class_folders, small_task
from shapes import GRADES, archive, grade_pictures
from sklearn.metrics import cohen_kappa_score

from MedAILib.cli import main
from MedAILib.commands.train_classifier import read_data
from MedAILib.errors import InputError
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.request import ClassifyOptions
from MedAILib.results import Classification, Place
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import train_classifier
from MedAILib.training.decision import LossOptions
from MedAILib.training.decisions import decision_of
from MedAILib.training.grade_measures import measure_grades, quick_grades
from MedAILib.training.labelled_images import find_labelled_images, read_labelled
from MedAILib.training.lesson import Bench
from MedAILib.training.plan_classifier import Wanted, plan_classifier
from MedAILib.volume import Geometry

SILENT = Progress()
NETWORK = {
    **{"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 1, "out_channels": 3},
    **{"init_features": 8, "growth_rate": 8, "block_config": [2, 2]},
}
NAMES = ("none", "mild", "strong", "full")


def run(*words: Any) -> int:
    return main([*map(str, words), "--device", "cpu", "--quiet"])


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with `grades.npz`, a model that was planned and trained on it, and its report."""
    folder = tmp_path_factory.mktemp("grades")
    data = archive(folder / "grades.npz", grade_pictures, train=96, val=40, test=40)
    words = ["--set", "decision=ordinal", "--set", "threshold=accuracy", "--set", f"network={json.dumps(NETWORK)}"]
    assert run("train", "grades", "--data", data, "-o", folder / "grades", "--epochs", 14, *words) == 0
    assert run("evaluate", "-m", folder / "grades", "--data", data, "-o", folder / "report") == 0
    return folder


def test_a_planned_model_tells_how_large_a_disc_is(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = open_model(place / "grades", "cpu")
    images = find_labelled_images(archive(tmp_path / "new.npz", grade_pictures, test=40))
    assert model.spec.classes is not None and model.spec.classes.kind == "ordinal"
    found = [model.run(read_labelled(image), ClassifyOptions(), SILENT) for image in images]
    apart = [abs(int(result.likeliest) - int(x.label)) for result, x in zip(found, images, strict=True)]
    assert np.mean(apart) < 0.4 and found[0].scores.shape == (1, GRADES - 1)
    PIL.Image.fromarray(images[2].array).save(tmp_path / "disc.png")
    words = ["classify", tmp_path / "disc.png", "-m", place / "grades", "-o", tmp_path / "a.json"]
    assert run(*words, "--explain", tmp_path / "why.nii.gz", "--json") == 0
    told = json.loads(capsys.readouterr().out)
    assert told["predicted"] == found[2].verdict().classes[0]
    assert sum(entry["probability"] for entry in told["classes"]) == pytest.approx(1)


def test_the_training_reports_grades_too(place: Path) -> None:
    folder = place / "grades.training" / "validation"
    told = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    assert told["kind"] == "ordinal" and told["cases"] == 40 and told["kappa"] > 0
    assert "quadratic-weighted kappa" in (folder / "report.html").read_text(encoding="utf-8").lower()


def test_the_report_has_kappa_and_distance_with_intervals(place: Path) -> None:
    told = json.loads((place / "report" / "summary.json").read_text(encoding="utf-8"))
    truth = [int(case["reference"]) for case in told["metric_per_case"]]
    decided = [int(case["predicted"]) for case in told["metric_per_case"]]
    assert told["kappa"] == pytest.approx(cohen_kappa_score(truth, decided, weights="quadratic"))
    assert told["mae"] == pytest.approx(np.mean(np.abs(np.subtract(truth, decided))))
    low, high = told["intervals_95"]["kappa"]
    assert low <= told["kappa"] <= high and len(told["confusion"]) == GRADES
    report = (place / "report" / "report.html").read_text(encoding="utf-8")
    assert "Quadratic-weighted kappa" in report and "in the order 0, 1, 2, 3" in report
    card = (place / "grades" / "docs" / "README.md").read_text(encoding="utf-8")
    assert "| Mean absolute error, grades |" in card and "the last of the grades `0`, `1`, `2`, `3`" in card


def test_decisions_are_those_of_the_finished_model() -> None:
    rng = np.random.default_rng(0)
    decision = decision_of("ordinal", NAMES)
    likely = decision.probabilities(rng.normal(0, 2, (60, 3)), 1.5)
    thresholds = (0.5, 0.3, 0.6, 0.4)
    grid = Geometry((1, 4, 4), np.eye(4))
    places = tuple(Place("image", str(n), None, ((0, 1), (0, 4), (0, 4))) for n in range(60))
    result = Classification(NAMES, "ordinal", likely, np.zeros((60, 3)), thresholds, places, grid)
    decided = decision.decide(likely, thresholds)
    assert [NAMES[n] for n in decided] == [result.verdict(row).classes[0] for row in range(60)]


def test_a_grade_far_away_costs_more_and_a_rare_one_counts_more() -> None:
    decision = decision_of("ordinal", NAMES)
    assert decision.outputs == 3
    targets = decision.targets(np.array([0, 3]))
    assert targets.tolist() == [[0, 0, 0], [1, 1, 1]]
    loss = decision.loss(LossOptions("cross-entropy", 0.0, "none"), targets)
    near, far = torch.tensor([[2.0, -2.0, -2.0]]), torch.tensor([[2.0, 2.0, 2.0]])
    assert loss(near, targets[:1]) < loss(far, targets[:1])
    many = decision.targets(np.array([0] * 9 + [1]))
    weighted = decision.loss(LossOptions("focal", 0.0, "balanced"), many)
    zero = torch.zeros(1, 3)
    assert float(weighted(zero, many[9:]) / weighted(zero, many[:1])) == pytest.approx(9)
    assert float(decision.draw_shares(many)[9]) == pytest.approx(9 * float(decision.draw_shares(many)[0]))


@pytest.mark.parametrize("seed", range(4))
def test_what_resampling_measures_is_what_the_libraries_measure(seed: int) -> None:
    rng = np.random.default_rng(seed)
    numbers, likely = rng.integers(4, size=50), rng.dirichlet(np.ones(4), 50)
    decided = likely.argmax(axis=1)
    quick, whole = quick_grades(numbers, likely, decided), measure_grades(numbers, likely, decided)
    assert quick == pytest.approx(whole, abs=1e-6, nan_ok=True)
    alike = np.ones(3, np.int64)
    assert np.isnan(measure_grades(alike, likely[:3], alike)["kappa"])
    assert np.isnan(quick_grades(alike, likely[:3], alike)["kappa"])


def test_a_task_becomes_one_of_grades_and_its_networks_are_averaged(tmp_path: Path) -> None:
    plain = {key: value for key, value in small_task().items() if key != "kind"}
    classes = [{"name": name, "labels": [str(n)]} for n, name in enumerate(NAMES)]
    task = ClassificationTask(**(plain | {"classes": classes, "decision": "ordinal", "epochs": 2, "distil_epochs": 2}))
    task = replace(task, size=[16, 16], network=task.network | {"in_shape": [16, 16]}, sampling="balanced")
    assert task.network["out_channels"] == 3
    assert replace(task, decision="multiclass", threshold="balanced").network["out_channels"] == 4
    task = replace(task, strange_quantile=1.0)
    data = read_data(task, archive(tmp_path / "g.npz", grade_pictures, train=24), SILENT)
    for shipped in (0, 2):
        done = train_classifier(replace(task, shipped=shipped), data, Bench(tmp_path, "cpu", bool(shipped), ""), SILENT)
        assert done.judged.scores.shape == (24, 3) and len(done.calibration.thresholds) == 4
        assert done.calibration.strange_above is not None and 0 < done.calibration.strange_above <= 1  # of entropy


def test_numbers_are_ordered_as_such_and_the_choice_is_told(tmp_path: Path) -> None:
    images, labels = grade_pictures(24)
    np.savez(tmp_path / "g.npz", train_images=images, train_labels=(labels + 8).astype(np.int64))
    task, choices = plan_classifier("g", tmp_path / "g.npz", Wanted(decision="ordinal"), SILENT)
    assert task.names == ("8", "9", "10", "11") and task.network["out_channels"] == 3
    usual = plan_classifier("g", tmp_path / "g.npz", Wanted(), SILENT)
    assert usual[0].decision == "multiclass"
    assert any("--set decision=ordinal" in choice.reason for choice in usual[1])
    assert any(choice.key == "decision" and "8 to 11, in this order" in choice.reason for choice in choices)


def test_grades_without_an_order_are_refused_until_it_is_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = class_folders(tmp_path / "data", 8)
    words = ["train", "g", "--data", data, "-o", tmp_path / "m", "--set", "decision=ordinal", "--plan-only"]
    assert run(*words) == 2
    assert "the order of these grades can't be told" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]
    order = [{"name": name, "labels": [name]} for name in ("below", "above")]
    assert run(*words, "--set", f"classes={json.dumps(order)}") == 0
    told = json.loads((tmp_path / "m.training" / "task.json").read_text(encoding="utf-8"))
    assert [entry["name"] for entry in told["classes"]] == ["below", "above"] and told["decision"] == "ordinal"


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"threshold": "f1"}, "'threshold' = f1"), ({"class_weights": [1.0]}, "'class_weights'")],
)
def test_choices_that_make_no_sense_for_grades_are_refused(changes: dict[str, Any], words: str) -> None:
    plain = {key: value for key, value in small_task().items() if key != "kind"}
    with pytest.raises(InputError, match=words):
        ClassificationTask(**(plain | {"decision": "ordinal"} | changes))
