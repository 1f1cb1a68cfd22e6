"""The benchmark against nnU-Net's own training, end to end on made-up images for a moment."""

import json
import os
from pathlib import Path

import nibabel
import numpy as np
import pytest
from benchmarks.nnunet_training import fitting, main


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six small images of a ball, its front and its back labelled."""
    folder = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    grid = np.stack(np.meshgrid(*[np.arange(16)] * 3, indexing="ij"))
    for number in range(6):
        center = rng.uniform(6, 10, 3)
        ball = np.linalg.norm(grid - center[:, None, None, None], axis=0) < 5
        label = np.where(ball, np.where(grid[1] > center[1], 1, 2), 0).astype(np.uint8)
        image = (rng.normal(size=ball.shape) * 20 + ball * 100 + 50 * (label == 1)).astype(np.float32)
        for name, voxels in (("images", image), ("labels", label)):
            (folder / name).mkdir(exist_ok=True)
            nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), folder / name / f"case_{number:02d}.nii.gz")
    content = {"labels": {"background": 0, "front": 1, "back": 2}, "channel_names": {"0": "MRI"}}
    (folder / "dataset.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def test_as_many_epochs_as_fit_are_trained():
    assert fitting({"prepare": 27, "epoch": 10}, 100) == 7
    assert fitting({"prepare": 200, "epoch": 10}, 100) == 1


@pytest.mark.slow  # nnU-Net starts processes that load PyTorch
def test_both_learn_from_the_same_cases_and_are_judged_on_the_same(data, tmp_path):
    pytest.importorskip("nnunetv2.training.nnUNetTrainer.nnUNetTrainer", reason="nnU-Net is not installed")
    manner = ["--one-after-another"] if len(os.sched_getaffinity(0)) < 2 else []
    pace = {"prepare": 0.0, "epoch": 1.0}  # as a pilot would have said: two epochs in the 0.04 minutes
    (tmp_path / "pilot.json").write_text(json.dumps({"MedAI": pace, "nnU-Net": pace}), encoding="utf-8")
    words = [str(data), "-o", str(tmp_path), "--minutes", "0.04", "--iterations", "2", "--curve-cases", "1"]
    main([*words, *manner])
    found = json.loads((tmp_path / "nnunet_training.json").read_text())
    assert not set(found["training"]) & set(found["judged"])
    assert found["nnU-Net plan"]["cases"] == found["training"]
    assert found["trained"]["MedAI"]["epochs"] == 2
    assert found["trained"]["nnU-Net"]["epochs"] >= 2  # it follows the other, whenever that ended
    assert set(found["dice"]) == {"MedAI", "MedAI, mirrored", "nnU-Net", "nnU-Net, mirrored"}
    assert all(one["wall"] > 0 and one["cpu"] > 0 and one["peak"] > 0 for one in found["trained"].values())
    table = (tmp_path / "nnunet_training.md").read_text()
    assert "MedAI less nnU-Net, mirrored | front" in table
    assert (tmp_path / "nnunet_training.png").stat().st_size > 1000
