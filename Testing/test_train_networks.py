"""What a training writes runs alike here and in stock MONAI, for each network and each preprocessing."""

import json
from dataclasses import replace
from pathlib import Path

import nibabel
import numpy as np
import pytest
from balls import SILENT, small, train, write_cases
from monai.bundle import ConfigWorkflow

from MedAILib.cli import main
from MedAILib.files.images import read_image
from MedAILib.models.open import open_model
from MedAILib.request import RunOptions
from MedAILib.training.architectures import NETWORKS


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_cases(tmp_path / "data")


@pytest.mark.parametrize("network", NETWORKS)
def test_each_network_trains_and_runs_alike_here_and_in_stock_monai(network: str, data: Path, tmp_path: Path) -> None:
    patch = [32, 32, 32] if network == "SwinUNETR" else [16, 16, 16]
    task = small(data, network=network, patch=patch)
    if network == "SwinUNETR":
        task = replace(task, network=task.network | {"feature_size": 12, "depths": [1, 1, 1, 1]})
    path = tmp_path / "task.json"
    path.write_text(json.dumps({"kind": "segmentation", **task.__dict__}), encoding="utf-8")
    bundle = tmp_path / "model"
    assert train(path, "--data", data, "-o", bundle, "--epochs", 1) == 0
    needs_medai = "stock MONAI runs this model where MedAI is installed" in (bundle / "docs" / "README.md").read_text()
    assert needs_medai == (network == "FCN")
    images = tmp_path / "images"
    images.mkdir()
    (images / "a.nii.gz").write_bytes((data / "imagesTr" / "case_0.nii.gz").read_bytes())
    assert agreement(bundle, images) >= 0.999


def agreement(bundle: Path, images: Path) -> float:
    """The share of voxels of `a.nii.gz` that stock MONAI and MedAI label alike."""
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(images),
        output_dir=str(images / "out"),
    )
    workflow.initialize()
    workflow.run()
    theirs = np.asarray(nibabel.load(images / "out" / "a_seg.nii.gz").dataobj).squeeze().transpose(2, 1, 0)
    ours = open_model(bundle, "cpu").run(read_image(images / "a.nii.gz"), RunOptions(), SILENT).layers[0]
    return float((ours == theirs).mean())


@pytest.mark.parametrize(
    "steps", ["denoise,zscore", "window:-50:150", "equalise", "percentiles,smooth", "zscore_nonzero"]
)
def test_each_preprocessing_runs_alike_here_and_in_stock_monai(steps: str, data: Path, tmp_path: Path) -> None:
    for path in (data / "imagesTr").iterdir():  # a margin of zeros that is cut off
        image = nibabel.load(path)
        voxels = np.abs(image.get_fdata()).astype(np.float32)
        voxels[:3] = voxels[:, -2:] = 0
        nibabel.save(nibabel.Nifti1Image(voxels, image.affine), path)
    settings = ["--set", f"intensity={steps}", "--set", "crop_foreground=true", "--set", "patch=16,16,16"]
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--epochs", 1, *settings) == 0
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.nii.gz").write_bytes((data / "imagesTr" / "case_0.nii.gz").read_bytes())
    assert agreement(tmp_path / "m", tmp_path / "images") >= 0.999


def test_channels_in_one_file_are_trained_and_evaluated(data: Path, tmp_path: Path) -> None:
    for path in (data / "imagesTr").iterdir():
        image = nibabel.load(path)
        both = np.stack([image.get_fdata(), -image.get_fdata()], axis=-1).astype(np.float32)
        nibabel.save(nibabel.Nifti1Image(both, image.affine), path)
    described = json.loads((data / "dataset.json").read_text()) | {"channel_names": {"0": "T1", "1": "T2"}}
    (data / "dataset.json").write_text(json.dumps(described), encoding="utf-8")
    assert train("balls", "--data", data, "-o", tmp_path / "m", "--epochs", 1, "--set", "patch=16,16,16") == 0
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.nii.gz").write_bytes((data / "imagesTr" / "case_0.nii.gz").read_bytes())
    assert agreement(tmp_path / "m", tmp_path / "images") >= 0.999
    words = ["evaluate", "-m", tmp_path / "m", "--data", data, "-o", tmp_path / "r", "--device", "cpu", "--quiet"]
    assert main([str(word) for word in words]) == 0
