"""Two models on the same cases: who is better is told with an interval and a paired test."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from balls import small, train, write_cases
from bundles import network_entry, random_bundle
from scipy.stats import wilcoxon

from MedAILib.cli import main
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.training.cases import read_labels
from MedAILib.training.compare_models import compare_models, holm
from MedAILib.training.data_folder import find_cases
from MedAILib.training.evaluate import evaluate_segmentation


def test_a_trained_model_is_told_to_be_better_than_an_untrained_one(tmp_path: Path) -> None:
    data = write_cases(tmp_path / "data", 8)
    # No mirroring: above and below are what tells one structure from the other.
    task = replace(small(data, patch=[24, 24, 24]), learning_rate=0.01, ema_decay=0.5, mirror_axes=[], augmentation={})
    path = tmp_path / "task.json"
    path.write_text(json.dumps({"kind": "segmentation", **task.__dict__}), encoding="utf-8")
    trained, poor = tmp_path / "trained", tmp_path / "poor"
    assert train(path, "--data", data, "-o", trained, "--epochs", 25) == 0
    assert train(path, "--data", data, "-o", poor, "--epochs", 1, "--set", "learning_rate=1e-9") == 0
    words = ["evaluate", "-m", poor, "--compare", trained, "--data", data, "-o", tmp_path / "r", "--device", "cpu"]
    assert main([*map(str, words), "--quiet"]) == 0
    told = json.loads((tmp_path / "r" / "summary.json").read_text(encoding="utf-8"))["comparison"]
    dice = next(row for row in told["rows"] if row["key"] == "Dice")
    assert dice["cases"] == 8 and dice["better"] == 8 and dice["worse"] == 0
    assert dice["low"] <= dice["difference"] <= dice["high"] and dice["low"] > 0
    assert dice["p"] == pytest.approx(2 / 2**8) and dice["p_holm"] > dice["p"]
    assert "Comparison with trained" in (tmp_path / "r" / "report.html").read_text(encoding="utf-8")


def test_a_model_does_not_differ_from_itself(tmp_path: Path) -> None:
    data = write_cases(tmp_path / "data", 3)
    bundle = random_bundle(tmp_path / "bundle", network_entry("UNet"))
    spec = {"1": "part 1", "2": "part 2"}
    described = {"labels": {"background": 0, **{name: int(value) for value, name in spec.items()}}}
    (data / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    evaluation = evaluate_segmentation(open_model(bundle, "cpu"), find_cases(data), read_labels(data), Progress())
    rows = compare_models(evaluation, evaluation).rows
    assert all(row.p == 1 and row.difference == 0 for row in rows if row.cases)


def test_holms_correction_never_falls_and_never_exceeds_one() -> None:
    assert holm([0.01, 0.04, 0.03, float("nan"), 0.9])[:3] == pytest.approx([0.04, 0.09, 0.09])
    assert max(holm([0.5, 0.6, 0.9])) == 1.0
    assert wilcoxon(np.arange(1, 7)).pvalue == pytest.approx(2 / 64)
