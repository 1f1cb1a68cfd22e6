"""Segmentation of pictures: planned, trained, run on pictures and on the slices of volumes."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import PIL.Image
import pytest
import torch
from balls import SILENT, planned, train, write_cases
from discs import SIZE, write_discs
from monai.bundle import ConfigParser

from MedAILib.cli import main
from MedAILib.files.images import read_image
from MedAILib.inference.prepare import prepared
from MedAILib.models.networks import build_network
from MedAILib.models.steps import preprocessing_steps
from MedAILib.plans import read_any_plan
from MedAILib.training.architectures import NETWORKS
from MedAILib.training.augment import fixed_steps, random_steps
from MedAILib.training.data_folder import open_folder
from MedAILib.training.overrides import read_settings, with_settings
from MedAILib.training.recipe import PARAMETERS
from MedAILib.training.task import SegmentationTask, read_task

SMALL = ("--set", "precision=float32", "--set", "learning_rate=0.01")


@pytest.fixture(scope="module")
def grey(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_discs(tmp_path_factory.mktemp("grey"))


@pytest.fixture(scope="module")
def model(grey: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of grey pictures, trained by the command line for a few seconds."""
    folder = tmp_path_factory.mktemp("trained") / "discs"
    network = ["--set", "network=UNet", "--set", "augmentation=flip"]
    assert train("auto", "--data", grey, "-o", folder, "--epochs", 20, *SMALL, *network) == 0
    return folder


def dice(a: Any, b: Any) -> float:
    return 2 * float((a & b).sum()) / float(a.sum() + b.sum())


def case_of(data: Path) -> dict[str, Any]:
    case = open_folder(data).cases[0]
    return {"image": [str(path) for path in case.images], "label": str(case.label)}


# --- planning


def test_pictures_are_planned_with_two_axes(grey: Path) -> None:
    task = planned(grey)
    assert task.patch == [SIZE[1], SIZE[0]] and task.spacing_mm == [] and task.orientation == ""
    assert task.network["spatial_dims"] == 2 and task.mirror_axes == [0, 1]
    assert task.augmentation["rotation"]["degrees"] == [180.0]


def test_slices_with_a_grid_are_resampled_to_the_median_pixel(tmp_path: Path) -> None:
    assert planned(write_discs(tmp_path, "nifti", inside=1)).spacing_mm == [0.5, 0.5]


def test_colour_makes_three_channels(tmp_path: Path) -> None:
    task = planned(write_discs(tmp_path, "colour"))
    assert task.channels == ["red", "green", "blue"] and task.network["in_channels"] == 3


def test_large_pictures_have_patches_that_fit(grey: Path) -> None:
    assert np.prod(planned(grey, memory_gb=0.004).patch) < np.prod(SIZE)


@pytest.mark.parametrize(("name", "axes"), [("left lobe", [1]), ("upper lobe", [0]), ("lobe", [0, 1])])
def test_sides_of_pictures_with_names_are_not_mirrored(tmp_path: Path, name: str, axes: list[int]) -> None:
    data = write_discs(tmp_path, count=3)
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, name: 255}}), encoding="utf-8")
    task = planned(data)
    assert task.mirror_axes == axes
    assert task.augmentation["rotation"]["degrees"] == [180.0 if len(axes) == 2 else 15.0]


@pytest.mark.parametrize("name", [name for name in NETWORKS if name != "SwinUNETR"])
def test_each_network_takes_pictures(name: str, grey: Path) -> None:
    task = planned(grey, network=name)
    network = build_network(name, {key: value for key, value in task.network.items() if key != "_target_"})
    with torch.inference_mode():
        assert network.eval()(torch.zeros(1, 1, *task.patch)).shape == (1, 2, *task.patch)


# --- samples


@pytest.mark.parametrize("name", [name for name in PARAMETERS if name != "mixup"])  # which batches alone have
def test_each_augmentation_changes_pictures(name: str, grey: Path) -> None:
    task = with_settings(planned(grey), read_settings([f"augmentation={name}"]))
    task.augmentation[name]["prob"] = 1.0
    fixed = fixed_steps(task)(case_of(grey))
    steps, plain = random_steps(task), random_steps(replace(task, augmentation={}))
    changed = 0
    for seed in range(4):
        sample, before = (s.set_random_state(seed)(dict(fixed)) for s in (steps, plain))
        assert sample["image"].shape == (1, *task.patch)
        assert set(sample["label"].unique().tolist()) <= {0.0, 1.0}
        changed += not torch.allclose(sample["image"], before["image"], atol=1e-4)
    assert changed >= 2


@pytest.mark.parametrize("kind", ["grey", "nifti"])
@pytest.mark.parametrize("intensity", ["zscore", "denoise,smooth,zscore"])
def test_training_sees_what_the_finished_model_sees(kind: str, intensity: str, tmp_path: Path) -> None:
    from MedAILib.training.segmentation_export import Bundle, write_bundle

    data = write_discs(tmp_path / "data", kind, 3, inside=1)
    words = [f"intensity={intensity}", *(["spacing=0.7,0.4"] if kind == "nifti" else [])]
    task = with_settings(planned(data), read_settings(words))
    network = build_network("DynUNet", {key: value for key, value in task.network.items() if key != "_target_"})
    write_bundle(Bundle(task, dict(network.state_dict()), ""), tmp_path / "model")
    steps = preprocessing_steps(read_any_plan(tmp_path / "model").preprocessing, 2)
    volume = read_image(Path(case_of(data)["image"][0]))
    seen, _ = prepared(volume, steps, SILENT)
    assert torch.allclose(seen[..., 0], fixed_steps(task)(case_of(data))["image"], atol=1e-4)


def test_the_picture_of_samples_shows_pictures(grey: Path, tmp_path: Path) -> None:
    assert train("auto", "--data", grey, "-o", tmp_path / "m", "--show-augmentation", tmp_path / "a.png") == 0
    assert (tmp_path / "a.png").read_bytes()[:4] == b"\x89PNG"


# --- the whole way


def test_a_trained_model_segments_a_picture(model: Path, grey: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.png"
    assert main(["segment", str(grey / "images" / "disc_0.png"), "-m", str(model), "-o", str(out), "--quiet"]) == 0
    found, truth = (np.asarray(PIL.Image.open(path)) for path in (out, grey / "labels" / "disc_0.png"))
    assert dice(found == 1, truth == 255) > 0.8


def test_a_trained_model_segments_each_slice_of_a_volume(model: Path, grey: Path, tmp_path: Path) -> None:
    slices, truth = (
        np.stack([np.asarray(PIL.Image.open(grey / name / f"disc_{k}.png")).T for k in range(3)], -1)
        for name in ("images", "labels")
    )
    nibabel.save(nibabel.Nifti1Image(slices.astype(np.float32), np.diag([0.7, 0.7, 4, 1])), tmp_path / "v.nii.gz")
    out = tmp_path / "out.nii.gz"
    assert main(["segment", str(tmp_path / "v.nii.gz"), "-m", str(model), "-o", str(out), "--quiet"]) == 0
    found = np.asarray(nibabel.load(out).dataobj)
    assert min(dice(found[..., k] == 1, truth[..., k] == 255) for k in range(3)) > 0.8


@pytest.mark.parametrize("described", [True, False])
def test_a_trained_model_is_evaluated(model: Path, tmp_path: Path, described: bool) -> None:
    data = write_discs(tmp_path / "data", count=2)
    if described:
        (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "label 1": 255}}), encoding="utf-8")
    assert main(["evaluate", "-m", str(model), "--data", str(data), "-o", str(tmp_path / "r"), "--quiet"]) == 0
    summary = json.loads((tmp_path / "r" / "summary.json").read_text())
    assert summary["mean"]["1"]["Dice"] > 0.8


def test_stock_monai_finds_the_same_in_a_picture(model: Path, grey: Path, tmp_path: Path) -> None:
    out = tmp_path / "own.png"
    picture = grey / "images" / "disc_1.png"
    assert main(["segment", str(picture), "-m", str(model), "-o", str(out), "--quiet"]) == 0
    parser = ConfigParser()
    parser.read_config(str(model / "configs" / "inference.json"))
    parser["bundle_root"], parser["device"] = str(model), "$torch.device('cpu')"
    parser["datalist"], parser["output_dir"] = [str(picture)], str(tmp_path)
    for key in ("initialize", "run"):
        parser.get_parsed_content(key)
    found = np.asarray(PIL.Image.open(next(tmp_path.glob("disc_1_seg.*"))))
    assert (found == np.asarray(PIL.Image.open(out))).mean() > 0.995


@pytest.mark.parametrize("kind", ["colour", "nifti", "jpeg"])
def test_other_kinds_of_pictures_train_to_a_model(kind: str, tmp_path: Path) -> None:
    data = write_discs(tmp_path / "data", kind, 4, inside=1)
    words = [*SMALL, "--set", "network=UNet", "--set", "augmentation=flip", "--epochs", 1]
    assert train("auto", "--data", data, "-o", tmp_path / "m", *words) == 0
    task = read_task(str(tmp_path / "m.training" / "task.json"))
    assert isinstance(task, SegmentationTask) and task.axes == 2
    assert train(tmp_path / "m.training" / "task.json", "--data", data, "-o", tmp_path / "n", "--plan-only") == 0


def test_masks_of_black_and_white_and_nnunets_names_are_read(tmp_path: Path) -> None:
    data = write_discs(tmp_path, "colour", 3)
    for path in list((data / "images").iterdir()):
        path.rename(path.with_name(f"{path.stem}_0000.PNG"))
    named = {"channel_names": {"0": "R", "1": "G", "2": "B"}, "labels": {"background": 0, "disc": 255}}
    (data / "dataset.json").write_text(json.dumps(named), encoding="utf-8")
    task = planned(data)
    assert task.channels == ["R", "G", "B"] and task.labels == [{"value": 1, "name": "disc"}]


def test_labels_with_a_palette_are_read_by_number(tmp_path: Path) -> None:
    data = write_discs(tmp_path, count=3, inside=1)
    for path in (data / "labels").iterdir():
        numbers = PIL.Image.fromarray(np.asarray(PIL.Image.open(path)))
        numbers.putpalette([0, 0, 0, 255, 0, 0, *[0] * (3 * 254)])
        assert numbers.mode == "P"
        numbers.save(path)
    assert planned(data).labels == [{"value": 1, "name": "label 1"}]


# --- what is wrong


def as_colour(path: Path) -> None:
    PIL.Image.open(path).convert("RGB").save(path)


def as_volume(data: Path) -> None:
    made = write_cases(data / "made", 1)
    for name, there in (("images", "imagesTr"), ("labels", "labelsTr")):
        (made / there / "case_0.nii.gz").rename(data / name / "volume.nii.gz")


def as_jpeg(path: Path) -> None:
    PIL.Image.open(path).save(path.with_suffix(".jpg"))
    path.unlink()


FAULTS: dict[str, tuple[Any, str]] = {
    "colour among grey": (lambda d: as_colour(d / "images/disc_1.png"), r"disc_1.*3 channels.*most have 1"),
    "a label in colour": (lambda d: as_colour(d / "labels/disc_1.png"), r"disc_1.*3 values per voxel"),
    "a volume among pictures": (as_volume, r"volume\.nii\.gz is a volume, unlike the others"),
    "a JPEG as a label": (lambda d: as_jpeg(d / "labels/disc_1.png"), r"disc_1\.jpg is a JPEG"),
    "two images of one name": (
        lambda d: (d / "images/disc_1.jpg").write_bytes((d / "images/disc_1.png").read_bytes()),
        r"disc_1\.jpg and .*disc_1\.png are of one name",
    ),
    "another size": (
        lambda d: PIL.Image.new("L", (9, 9)).save(d / "labels/disc_1.png"),
        r"another grid.*9 x 9 x 1 voxels, not 32 x 40 x 1",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_pictures_are_told(fault: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil, words = FAULTS[fault]
    data = write_discs(tmp_path / "data", count=3)
    spoil(data)
    assert train("auto", "--data", data, "-o", tmp_path / "m") == 2
    told = capsys.readouterr().err
    assert re.search(words, told, re.DOTALL), told
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_task_for_volumes_is_refused_on_pictures(grey: Path, tmp_path: Path, capsys: Any) -> None:
    task = {"kind": "segmentation", **planned(write_cases(tmp_path / "balls")).__dict__}
    task |= {"labels": task["labels"][:1], "network": task["network"] | {"out_channels": 2}}
    (tmp_path / "task.json").write_text(json.dumps(task), encoding="utf-8")
    assert train(tmp_path / "task.json", "--data", grey, "-o", tmp_path / "m") == 2
    assert "is for volumes" in capsys.readouterr().err
