"""N4, CLAHE and denoising as parts of models: they do what their names say, in training, here and in MONAI."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from balls import planned, write_cases
from labelled import medmnist, pictures, small_task
from monai.bundle import ConfigParser
from pydicom import dcmread
from pydicom.data import get_testdata_file

from MedAILib.cli import main
from MedAILib.config import Config
from MedAILib.errors import InputError
from MedAILib.files.images import read_image
from MedAILib.inference.prepare import prepared
from MedAILib.models.corrections import CLAHE, EdgePreservingDenoise, N4BiasFieldCorrection
from MedAILib.models.open import open_model
from MedAILib.models.steps import preprocessing_steps
from MedAILib.progress import Progress
from MedAILib.request import ClassifyOptions
from MedAILib.training.augment import fixed_steps
from MedAILib.training.classification_export import inference
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.intensities import WORDS, intensity_entries
from MedAILib.training.labelled_images import find_labelled_images, read_labelled
from MedAILib.training.segmentation_export import inference as segmentation_inference
from MedAILib.training.task import read_task
from MedAILib.volume import Geometry, Volume

SILENT = Progress()


@pytest.fixture(scope="module")
def ball() -> tuple[torch.Tensor, np.ndarray]:
    """A noisy ball (1, 48, 48, 32) with a bright core under a slow field, and where it is of one tissue."""
    x, y, z = np.indices((48, 48, 32)).astype(np.float32)
    whole = (x - 24) ** 2 + (y - 24) ** 2 + (1.5 * z - 24) ** 2 < 20**2
    core = (x - 20) ** 2 + (y - 24) ** 2 + (1.5 * z - 24) ** 2 < 8**2
    field = np.exp(0.8 * (x / 48 - 0.5) + 0.4 * (y / 48 - 0.5) ** 2)
    image = (100 * whole + 60 * core) * field + np.random.default_rng(0).normal(0, 2, x.shape)
    return torch.from_numpy(image.astype(np.float32))[None], whole & ~core


def spread(values: Any, where: np.ndarray) -> float:
    inside = np.asarray(values)[0][where]
    return float(inside.std() / inside.mean())


def test_n4_evens_a_tissue_out(ball: tuple[torch.Tensor, np.ndarray]) -> None:
    image, tissue = ball
    assert spread(N4BiasFieldCorrection(shrink=2)(image), tissue) < spread(image, tissue) / 2.5


def test_n4_leaves_what_is_too_small_for_a_field(ball: tuple[torch.Tensor, np.ndarray]) -> None:
    tiny = ball[0][:, 20:23, 20:23, 10:13]
    assert torch.equal(N4BiasFieldCorrection()(tiny), tiny)


def test_noise_is_smoothed_and_an_edge_stays() -> None:
    step = torch.zeros(1, 32, 32, 16)
    step[:, 16:] = 100
    noisy = step + torch.normal(0.0, 4.0, step.shape, generator=torch.Generator().manual_seed(0))
    found = EdgePreservingDenoise()(noisy)
    assert float(found[0, 2:13].std()) < float(noisy[0, 2:13].std()) / 1.5
    assert float(found[0, 17].mean() - found[0, 14].mean()) > 90


def test_clahe_is_what_scikit_image_makes_of_a_real_slice() -> None:
    exposure = pytest.importorskip("skimage.exposure")
    values = dcmread(get_testdata_file("MR_small.dcm")).pixel_array.astype(np.float32)
    found = CLAHE()(torch.from_numpy(values)[None, :, :, None])[0, :, :, 0].numpy()
    scaled = (values - values.min()) / np.ptp(values)
    theirs = exposure.equalize_adapthist(scaled, kernel_size=8, clip_limit=0.01)
    assert np.corrcoef(found.ravel(), theirs.ravel())[0, 1] > 0.99
    assert found.min() >= 0 and found.max() <= 1


def test_contrast_within_dark_parts_grows_and_flat_images_stay_flat() -> None:
    image = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(0))
    image[:, :32] *= 0.05
    found = CLAHE(clip=0.05)(image)
    assert float(found[0, :24].std()) > 5 * float(image[0, :24].std())
    assert not CLAHE()(torch.full((2, 16, 16), 3.0)).any()


@pytest.mark.parametrize("shape", [(1, 33, 29), (2, 24, 31), (1, 24, 20, 17)])
@pytest.mark.parametrize("word", sorted({"n4", "clahe", "denoise_edges", "denoise"}))
def test_monai_and_medai_do_the_same(word: str, shape: tuple[int, ...]) -> None:
    (entry,) = intensity_entries([word])
    entry = {**entry, "keys": "image"}
    image = torch.rand(shape, generator=torch.Generator().manual_seed(1)) * 50 + 10
    theirs = ConfigParser({"step": entry}).get_parsed_content("step")({"image": image})["image"]
    component = Config({"step": entry}, Path()).get("step")
    axes = len(shape) - 1
    data = (image if axes == 3 else image[..., None]).permute(0, 3, 2, 1).numpy()
    volume = Volume(np.ascontiguousarray(data), Geometry(data.shape[1:], np.eye(4)), "image")
    ours = prepared(volume, preprocessing_steps((component,), axes), SILENT)[0]
    assert np.allclose(np.asarray(ours).reshape(shape), np.asarray(theirs), atol=1e-3)


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"_target_": f"{WORDS['clahe']['_target_']}", "clip": 3}, "clip 3 is no share"),
        ({"_target_": f"{WORDS['n4']['_target_']}", "shrink": 0}, "no whole number"),
        ({"_target_": f"{WORDS['n4']['_target_']}", "speed": 1}, "speed"),
        ({"_target_": "MedAILib.models.corrections.Sharpend"}, "no model may"),
        ("bm3d", "known are zscore"),
    ],
)
def test_steps_that_make_no_sense_are_refused(entry: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        intensity_entries([entry])


def trained(folder: Path, *words: str, **changes: object) -> Path:
    task = folder / "squares.json"
    task.write_text(json.dumps(small_task(**changes)), encoding="utf-8")
    data = medmnist(folder / "squares.npz", train=24, val=8)
    given = ["train", str(task), "--data", str(data), "-o", str(folder / "model"), "--device", "cpu", "--quiet"]
    assert main([*given, *words]) == 0
    return folder / "model"


def test_a_classifier_does_what_it_was_taught_with(tmp_path: Path) -> None:
    words = ("--set", "intensity=denoise,n4,clahe", "--set", "crop_foreground=true")
    bundle = trained(tmp_path, *words, folds=1, epochs=8)
    steps = json.loads((bundle / "configs" / "inference.json").read_text())["preprocessing"]["transforms"]
    names = [step["_target_"].rpartition(".")[2] for step in steps[2:-1]]
    assert names == [
        *("CropForegroundd", "Resized", "MedianSmoothd", "N4BiasFieldCorrectiond", "CLAHEd", "NormalizeIntensityd")
    ]
    card = " ".join((bundle / "docs" / "README.md").read_text(encoding="utf-8").split())
    assert "cut to what is above zero, resampled to" in card
    assert "Stock MONAI has no transform N4BiasFieldCorrectiond or CLAHEd" in card
    images = find_labelled_images(medmnist(tmp_path / "new.npz", test=12))
    model = open_model(bundle, "cpu")
    found = [model.run(read_labelled(image), ClassifyOptions(), SILENT).likeliest for image in images]
    assert np.mean([a == b for a, b in zip(found, ["above", "below"] * 6, strict=True)]) >= 0.75


def test_a_window_of_values_comes_before_the_z_score(tmp_path: Path) -> None:
    path = tmp_path / "squares.json"
    path.write_text(json.dumps(small_task(intensity=["window:0:100"])), encoding="utf-8")
    task = read_task(str(path))
    assert isinstance(task, ClassificationTask)
    names = [step["_target_"] for step in inference(task)["preprocessing"]["transforms"]]
    assert names.index("ScaleIntensityRanged") < names.index("NormalizeIntensityd")


@pytest.mark.parametrize(("word", "said"), [("intensity=n5", "no preprocessing 'n5'"), ("size=3", "'size'")])
def test_settings_of_a_classifier_that_make_no_sense_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], word: str, said: str
) -> None:
    task = tmp_path / "squares.json"
    task.write_text(json.dumps(small_task()), encoding="utf-8")
    images, labels = pictures(4)
    np.savez(tmp_path / "a.npz", train_images=images, train_labels=labels)
    words = ["train", str(task), "--data", str(tmp_path / "a.npz"), "-o", str(tmp_path / "m"), "--set", word]
    assert main(words) == 2
    assert said in capsys.readouterr().err and not (tmp_path / "m").exists()


def test_a_segmentation_learns_from_what_its_bundle_sees(tmp_path: Path) -> None:
    data = write_cases(tmp_path / "data", 3)
    task = replace(planned(data), intensity=intensity_entries(["n4", "denoise_edges", "clahe", "zscore"]))
    image, label = (next((data / name).iterdir()) for name in ("imagesTr", "labelsTr"))
    learnt = fixed_steps(task)({"image": [image], "label": label})["image"]
    steps = Config({"steps": segmentation_inference(task)["preprocessing"]["transforms"]}, Path()).get("steps")
    seen = prepared(read_image(image), preprocessing_steps(tuple(steps)), SILENT)[0]
    assert np.allclose(np.asarray(learnt), np.asarray(seen), atol=1e-3)
    assert float(seen.std()) == pytest.approx(1, abs=0.01)
