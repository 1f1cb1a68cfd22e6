"""Bundles of MONAI's Model Zoo, and such as have what the zoo's others have, run and agree with stock MONAI."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bundles import configs, network_entry, random_bundle, write_configs
from numpy.typing import NDArray
from PIL import Image
from zoo import GRID, compared, made_volume, random_weights, stock

from MedAILib.cli import main
from MedAILib.errors import ModelError, SpecError
from MedAILib.files.images import read_image
from MedAILib.models.obstacles import why_not
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import RunOptions
from MedAILib.volume import Geometry, Volume

AGREEMENT = 0.999
QUICK = ["brats_mri_segmentation", "segmentation_template", "spleen_ct_segmentation", "ventricular_short_axis_3label"]
HEAVY = [
    "pancreas_ct_dints_segmentation",
    "renalStructures_UNEST_segmentation",
    "swin_unetr_btcv_segmentation",
    "vista3d",
    "wholeBody_ct_segmentation",
]
PRED, IMAGE = {"keys": "pred"}, {"keys": "image"}
ARGMAX = {"_target_": "AsDiscreted", **PRED, "argmax": True}
INVERT = {"_target_": "Invertd", **PRED, "transform": "@preprocessing", "orig_keys": "image", "to_tensor": True}
SAVE = {"_target_": "SaveImaged", **PRED, "output_dir": "@output_dir"}


class Listening(Progress):
    """Keeps what it is warned of."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def warn(self, text: str) -> None:
        self.heard.append(text)


def compose(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(steps)}


def ours(bundle: Path, volume: Volume, progress: Progress | None = None) -> NDArray[np.uint8]:
    return open_model(bundle, "cpu").run(volume, RunOptions(), progress or Progress()).layers[0]


@pytest.mark.parametrize("name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in HEAVY)])
def test_a_bundle_of_the_zoo_gives_the_labels_that_stock_monai_gives(
    name: str, shared_data: Path, tmp_path: Path
) -> None:
    row = compared(shared_data / "monai_bundles" / name, tmp_path)
    assert row.runs, row.reason
    assert row.agreement is not None and row.agreement >= AGREEMENT
    assert row.classes.split(" of ")[0] != "1"


def test_no_bundle_in_the_folder_asks_for_its_code(shared_data: Path) -> None:
    bundles = sorted(path.parent.parent for path in shared_data.glob("monai_bundles/*/configs/metadata.json"))
    told = {folder.name: (read_spec(folder).obstacle, why_not(folder)) for folder in bundles}
    for name in ("breast_density_classification", "pancreas_ct_dints_segmentation"):
        told.pop(name, None)  # want torchvision, which is not everywhere, and a file that is not in the folder
    assert told and set(told.values()) == {("", "")}


def test_code_under_another_name_is_found_by_the_imports(tmp_path: Path) -> None:
    net = {"_target_": "valves.Regressor", "in_channels": 1, "out_channels": 3}
    folder = write_configs(tmp_path, *configs(net, imports=["$import os", "$from scripts import valves"]))
    assert "needs code of its own" in read_spec(folder).obstacle
    assert "scripts/valves.py for its network 'valves.Regressor'" in read_spec(folder).obstacle


@pytest.mark.parametrize(
    ("output", "task", "words"),
    [
        ({"type": "image", "format": "segmentation"}, "", "segmentation"),
        ({"type": "image", "format": "labels", "spatial_shape": [96, 96, 96]}, "", "segmentation"),
        ({"type": "image", "format": "labels", "spatial_shape": [1, 4]}, "", "classification"),
        ({"type": "probabilities", "format": "classes"}, "", "classification"),
        ({"type": "probability", "format": "classification"}, "metastasis detection", "classification"),
        ({"type": "object", "format": "dict"}, "", "detection"),
        ({"type": "tuples", "format": "points"}, "", "landmark detection"),
        ({"type": "image", "format": "magnitude"}, "MR reconstruction", "reconstruction"),
        ({"type": "image", "format": "magnitude"}, "hand image registration", "registration"),
        ({"type": "image", "format": "magnitude"}, "denoising", "image-to-image"),
        ({"type": "image", "format": "magnitude"}, "MR to CT synthesis", "image-to-image"),
    ],
)
def test_the_task_is_read_from_what_comes_out(output: dict[str, Any], task: str, words: str, tmp_path: Path) -> None:
    metadata, inference = configs(network_entry())
    metadata["task"] = task
    metadata["network_data_format"]["outputs"] = {"pred": {"num_channels": 3, **output}}
    assert read_spec(write_configs(tmp_path, metadata, inference)).task == words


def test_clean_ups_before_the_way_back_are_done_on_the_networks_grid(tmp_path: Path) -> None:
    keep = {"_target_": "KeepLargestConnectedComponentd", **PRED, "applied_labels": [1, 2]}
    post = compose(ARGMAX, keep, {**INVERT, "nearest_interp": True}, SAVE)
    folder = random_bundle(tmp_path / "m", network_entry(), postprocessing=post)
    volume = made_volume(tmp_path / "images", 1)
    theirs = stock(folder, tmp_path / "images")
    assert (ours(folder, volume) == theirs).mean() >= AGREEMENT
    plain = random_bundle(tmp_path / "p", network_entry(), postprocessing=compose(ARGMAX, INVERT, SAVE))
    assert (ours(plain, volume) == theirs).mean() < AGREEMENT


def test_labels_are_never_mixed_on_the_way_back_and_the_user_is_told(tmp_path: Path) -> None:
    mixed = random_bundle(
        tmp_path / "a", network_entry(), postprocessing=compose(ARGMAX, {**INVERT, "nearest_interp": False})
    )
    nearest = random_bundle(
        tmp_path / "b", network_entry(), postprocessing=compose(ARGMAX, {**INVERT, "nearest_interp": True})
    )
    volume, progress = made_volume(tmp_path / "images", 1), Listening()
    assert np.array_equal(ours(mixed, volume, progress), ours(nearest, volume))
    assert any("nearest label" in text for text in progress.heard)


def test_asking_for_probabilities_changes_no_label_that_is_decided_first(tmp_path: Path) -> None:
    folder = random_bundle(tmp_path / "a", network_entry(), postprocessing=compose(ARGMAX, INVERT))
    volume = made_volume(tmp_path / "images", 1)
    model = open_model(folder, "cpu")
    asked = model.run(volume, RunOptions(probabilities=True), Progress())
    assert asked.probabilities is not None and asked.probabilities.shape[1:] == volume.data.shape[1:]
    assert np.array_equal(asked.layers, model.run(volume, RunOptions(), Progress()).layers)


def tool_bundle(folder: Path, size: list[int]) -> Path:
    """A model of colour pictures in the way of the zoo's endoscopic tool segmentation, smaller."""
    net = {"_target_": "FlexibleUNet", "in_channels": 3, "out_channels": 2, "backbone": "efficientnet-b0"}
    net |= {"spatial_dims": 2, "pretrained": True, "is_pad": False, "decoder_channels": [32, 24, 16, 16, 8]}
    pre = compose(
        {"_target_": "LoadImaged", **IMAGE},
        {"_target_": "EnsureChannelFirstd", **IMAGE, "channel_dim": -1},
        {"_target_": "Resized", "keys": ["image"], "spatial_size": size, "mode": ["bilinear"]},
        {"_target_": "ScaleIntensityd", "keys": ["image"]},
    )
    post = compose(
        {**INVERT, "nearest_interp": False},
        {"_target_": "AsDiscreted", "argmax": True, "to_onehot": 2, "keys": ["pred"]},
        {"_target_": "Lambdad", "keys": ["pred"], "func": "$lambda x : x[1:]"},
        {**SAVE, "output_ext": ".png", "scale": 255},
    )
    metadata, inference = configs(net, preprocessing=pre, postprocessing=post, inferer={"_target_": "SimpleInferer"})
    return write_configs(folder, metadata, inference)


def picture(path: Path, seed: int = 0, shape: tuple[int, int] = (70, 90)) -> Volume:
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 255, (9, 11, 3), dtype=np.uint8))
    path.parent.mkdir(exist_ok=True, parents=True)
    coarse.resize(shape[::-1], Image.Resampling.BICUBIC).save(path)
    return read_image(path)


def test_a_model_of_colour_pictures_agrees_with_stock_monai(tmp_path: Path) -> None:
    folder = tool_bundle(tmp_path / "tool", [96, 64])
    volume = picture(tmp_path / "images" / "a.png")
    random_weights(folder, volume)
    labels = ours(folder, volume)
    theirs = stock(folder, tmp_path / "images", **{"network_def#pretrained": False})  # or it would be fetched
    assert labels.shape == (1, 70, 90) and set(np.unique(labels)) == {0, 1}
    assert (labels[0] == theirs[0]).mean() >= AGREEMENT


def test_a_volume_is_run_slice_by_slice_by_a_model_of_pictures(tmp_path: Path) -> None:
    folder = tool_bundle(tmp_path / "tool", [64, 64])
    one, other = picture(tmp_path / "images" / "a.png"), picture(tmp_path / "images" / "b.png", 1)
    random_weights(folder, one)
    stacked = np.concatenate([one.data, other.data, one.data * 0], axis=1)
    volume = Volume(stacked, Geometry((3, 70, 90), np.eye(4)), "stack")
    labels = ours(folder, volume)
    assert np.array_equal(labels[:1], ours(folder, one)) and np.array_equal(labels[1:2], ours(folder, other))


def test_structures_that_overlap_are_layers_and_the_background_is_none(shared_data: Path, tmp_path: Path) -> None:
    spec = read_spec(shared_data / "monai_bundles" / "brats_mri_segmentation")
    assert [(label.layer, label.value, label.name) for label in spec.labels] == [
        (0, 1, "Tumor core"),
        (1, 1, "Whole tumor"),
        (2, 1, "Enhancing tumor"),
    ]
    post = compose({"_target_": "AsDiscreted", "keys": ["pred", "label"], "threshold": [0.5, None]})
    spec = read_spec(write_configs(tmp_path, *configs(network_entry(classes=3), postprocessing=post)))
    assert [(label.layer, label.name) for label in spec.labels] == [(1, "part 1"), (2, "part 2")]


def test_names_that_the_zoo_gives_oddly_are_still_read(tmp_path: Path) -> None:
    metadata, inference = configs(network_entry(classes=4, channels=2))
    outputs = metadata["network_data_format"]["outputs"]["pred"]
    outputs |= {"num_channels": 1, "channel_def": None, "label_def": {"0": "background", "1": "liver", "2": "liver"}}
    metadata["network_data_format"]["inputs"]["image"] |= {"num_channels": 1, "channel_def": {"0": "image"}}
    spec = read_spec(write_configs(tmp_path, metadata, inference))
    assert [label.name for label in spec.labels] == ["liver", "liver (2)", "structure 3"]
    assert spec.channels == ("image", "channel 1")


@pytest.mark.parametrize("stored", ["../../secret.pt", "/etc/passwd", "C:\\x.pt"])
def test_numbers_for_a_network_come_from_within_the_model(stored: str, tmp_path: Path) -> None:
    net = {"_target_": "DiNTS", "in_channels": 1, "out_channels": 3, "node_a": "$torch.load(@code)['node_a']"}
    folder = write_configs(tmp_path, *configs(net, code=stored))
    with pytest.raises((SpecError, ModelError), match="outside"):
        raise SpecError(why_not(folder))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"act": "$torch.nn.ReLU"}, "nothing to build it from"),
        ({"act": {"_target_": "torch.nn.ReLU"}}, "does not build"),
        ({"act": "$lambda x: x"}, "nothing to build it from"),
        ({"channels": [4, 8, 10**12]}, "can't be built"),
        ({"channels": "$open('x')"}, "'open'"),
    ],
)
def test_arguments_that_are_no_plain_values_are_refused(change: dict[str, Any], words: str, tmp_path: Path) -> None:
    assert words in why_not(write_configs(tmp_path, *configs(network_entry() | change)))


def test_another_spelling_of_a_network_is_the_same(tmp_path: Path) -> None:
    for target in ("monai.networks.nets.UNet", "monai.networks.nets.unet.UNet", "Unet", "unet.UNet", "os.UNet"):
        reason = why_not(write_configs(tmp_path, *configs(network_entry() | {"_target_": target})))
        assert bool(reason) == (target in ("unet.UNet", "os.UNet")), target


def test_a_bundle_of_yaml_runs(tmp_path: Path) -> None:
    import yaml

    folder = random_bundle(tmp_path / "m", network_entry())
    path = folder / "configs" / "inference.json"
    (folder / "configs" / "inference.yaml").write_text(yaml.safe_dump(json.loads(path.read_text("utf-8"))))
    volume = made_volume(tmp_path / "images", 1, ((18, 20, 16), GRID[1]))
    labels = ours(folder, volume)
    path.unlink()
    assert np.array_equal(ours(folder, volume), labels)


def test_the_classes_that_vista3d_is_asked_for_are_its_labels(shared_data: Path) -> None:
    spec = read_spec(shared_data / "monai_bundles" / "vista3d")
    assert len(spec.labels) == 117 and spec.obstacle == ""
    assert [(label.value, label.name) for label in spec.labels][:2] == [(1, "liver"), (3, "spleen")]


def test_lists_with_a_value_for_each_entry_agree_with_stock_monai(tmp_path: Path) -> None:
    pre = compose(
        {"_target_": "LoadImaged", **IMAGE},
        {"_target_": "EnsureChannelFirstd", **IMAGE},
        {"_target_": "Orientationd", **IMAGE, "axcodes": "LPS"},
        {"_target_": "Spacingd", "keys": ["image"], "pixdim": [1.5, -1], "mode": ["bilinear"]},
        {
            "_target_": "ScaleIntensityRanged",
            **IMAGE,
            "a_min": -250,
            "a_max": 400,
            "b_min": 0,
            "b_max": 1,
            "clip": True,
        },
        {"_target_": "CropForegroundd", "keys": ["image"], "source_key": "image", "mode": ["minimum"]},
        {"_target_": "CastToTyped", **IMAGE, "dtype": "$torch.float32"},
        compose({"_target_": "EnsureTyped", **IMAGE}),
    )
    folder = random_bundle(tmp_path / "m", network_entry("DynUNet"), preprocessing=pre)
    volume = made_volume(tmp_path / "images", 1)
    labels = ours(folder, volume)
    assert len(np.unique(labels)) > 1
    assert (labels == stock(folder, tmp_path / "images")).mean() >= AGREEMENT


@pytest.mark.parametrize(
    ("step", "named"),
    [
        ({"_target_": "RandGaussianNoised", **IMAGE}, "RandGaussianNoised"),
        ({"_target_": "monai.apps.nuclick.transforms.AddClickSignalsd", "image": "image"}, "nuclick.transforms"),
        ({"_target_": "scripts.my_transforms.JoinImages"}, "scripts/my_transforms.py for its preprocessing"),
        ({"_target_": "os.system", **IMAGE}, "preprocessing uses 'os.system'"),
        ({"_target_": "torch.load", **IMAGE}, "'torch.load'"),
        ({"_target_": "Lambdad", **IMAGE, "func": "$lambda x: x * 2"}, "'lambda x: x * 2'"),
    ],
)
def test_a_step_that_is_not_on_the_list_is_refused_by_its_name(
    step: dict[str, Any], named: str, tmp_path: Path
) -> None:
    assert named in why_not(write_configs(tmp_path, *configs(network_entry(), preprocessing=compose(step))))


@pytest.mark.parametrize(
    ("name", "answer"),
    [
        ("spleen_ct_segmentation", "yes"),
        ("renalStructures_UNEST_segmentation", "yes"),
        ("mednist_gan", "yes"),
    ],
)
def test_the_command_line_says_whether_a_model_runs(
    name: str, answer: str, shared_data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(shared_data / "monai_bundles" / name)
    assert main(["models", "info", path]) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("Runs"))
    assert line.split(maxsplit=1)[1].startswith(answer)
    assert main(["models", "info", path, "--json"]) == 0
    assert bool(json.loads(capsys.readouterr().out)["obstacle"]) == answer.startswith("no")
