"""nnU-Net result folders: read without weights, refused with a reason, and the labels of nnU-Net's own predictor."""

import json
import os
import shutil
import sys
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from MedAILib.errors import MedAIError
from MedAILib.models.nnunet import NnunetModel
from MedAILib.models.nnunet_windows import NnunetWindows
from MedAILib.models.open import open_model
from MedAILib.nnunet_plan import read_nnunet_plan
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import RunOptions
from MedAILib.results import Segmentation
from MedAILib.volume import Geometry, Roi, Volume

pytest.importorskip("nnunetv2", reason="nnU-Net itself, to compare with, is not installed")

from nnunets import (
    REGIONS,
    THREE,
    TORCH_RESAMPLING,
    architecture,
    configuration,
    dataset,
    fitted_network,
    old_architecture,
    picture,
    plans,
    predicted,
    result_folder,
    save_checkpoint,
)
from nnunetv2.inference.sliding_window_prediction import compute_gaussian

CPU = torch.device("cpu")
PATCH = [16, 16, 16]


@dataclass(frozen=True)
class Case:
    """A configuration, and the image that it is to see."""

    settings: dict[str, Any]
    name: str = "3d_fullres"
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    transpose: tuple[int, ...] = (0, 1, 2)
    labels: dict[str, Any] = field(default_factory=lambda: THREE)
    folds: int = 1
    stage: dict[str, Any] | None = None

    @property
    def channels(self) -> int:
        return len(self.settings["normalization_schemes"])


MANY = ("CTNormalization", "RescaleTo01Normalization", "NoNormalization", "RGBTo01Normalization")
CASES = {
    "plain network, isotropic": Case(configuration(PATCH, [1.2, 1.2, 1.2])),
    "coarse slices resampled on their own, axes transposed": Case(
        configuration([16, 28, 28], [3.4, 0.8, 0.7]), spacing=(0.7, 0.8, 4.0), transpose=(2, 0, 1)
    ),
    "2D": Case(configuration([24, 24], [1.1, 0.9]), "2d", spacing=(3.0, 1.0, 1.0)),
    "regions, two channels, masked": Case(
        configuration(PATCH, [0.9, 1.0, 1.0], ("ZScoreNormalization",) * 2, use_mask_for_norm=[True, True]),
        labels=REGIONS,
    ),
    "two folds": Case(configuration(PATCH, [1.0, 1.0, 1.0]), folds=2),
    "residual encoder, CT and all other normalisations": Case(
        configuration(PATCH, [1.0, 1.3, 0.9], MANY, architecture=architecture(residual=True))
    ),
    "plans of nnU-Net 2.0": Case(configuration([16, 24, 16], [1.0, 0.8, 1.0], **old_architecture())),
    "resampling by torch, coarse slices": Case(
        configuration([8, 24, 24], [4.0, 0.9, 0.9], **TORCH_RESAMPLING), spacing=(5.0, 1.0, 1.0)
    ),
    "cascade": Case(
        {"inherits_from": "3d_fullres", "previous_stage": "3d_lowres", **configuration(PATCH, [1.0, 1.1, 1.0])},
        "3d_cascade_fullres",
        stage=configuration(PATCH, [1.8, 1.8, 1.8], next_stage="3d_cascade_fullres"),
    ),
    "cascade with coarse slices": Case(
        {"previous_stage": "3d_lowres", **configuration([8, 24, 24], [4.0, 0.9, 0.9])},
        "3d_cascade_fullres",
        spacing=(5.0, 1.0, 1.0),
        stage=configuration([8, 16, 16], [5.0, 1.6, 1.6], next_stage="3d_cascade_fullres"),
    ),
}


def made(case: Case, root: Path) -> tuple[Path, np.ndarray]:
    """The case's result folder, with fitted networks, and its image (C, K, J, I) with the labels as last channel."""
    image = picture(case.channels, parts=3 if case.labels is REGIONS else 2)
    plan = plans({case.name: case.settings}, case.transpose)
    if case.stage is not None:
        whole = {key: value for key, value in case.settings.items() if key not in ("inherits_from", "previous_stage")}
        plan["configurations"] |= {"3d_lowres": case.stage, "3d_fullres": whole}
    data, previous = dataset(case.channels, case.labels), None
    if case.stage is not None:
        stage = result_folder(root, plan, data, "3d_lowres")
        save_checkpoint(stage, fitted_network(stage, image, case.spacing))
        previous = predicted(stage, image[:-1], case.spacing)
    folder = result_folder(root, plan, data, case.name)
    for fold in range(case.folds):
        save_checkpoint(folder, fitted_network(folder, image, case.spacing, previous, seed=fold), str(fold))
    return folder, image


def volume_of(image: np.ndarray, spacing: tuple[float, ...]) -> Volume:
    return Volume(image, Geometry(image.shape[1:], np.diag([*spacing[::-1], 1.0])), "picture")


def run(folder: Path, image: np.ndarray, case: Case, parity: bool = True, **options: Any) -> Segmentation:
    return NnunetModel(folder, CPU, parity=parity).run(
        volume_of(image[:-1], case.spacing), RunOptions(**options), Progress()
    )


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_labels_are_those_of_nnunet_itself(case: Case, tmp_path: Path) -> None:
    folder, image = made(case, tmp_path)
    stage = folder.with_name("nnUNetTrainer__nnUNetPlans__3d_lowres")
    previous = predicted(stage, image[:-1], case.spacing, mirror=True) if case.stage else None
    theirs = predicted(folder, image[:-1], case.spacing, mirror=True, previous=previous)
    ours = run(folder, image, case, mirror=True).layers[0]
    assert set(np.unique(theirs)) == ({0, 1, 2, 3} if case.labels is REGIONS else {0, 1, 2})
    assert np.array_equal(ours, theirs), f"only {np.mean(ours == theirs):.5%} equal"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, np.ndarray]:
    return made(PLAIN, tmp_path_factory.mktemp("trained"))


@pytest.fixture
def copied(trained: tuple[Path, np.ndarray], tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained[0], tmp_path / "Dataset001_Test" / trained[0].name))


PLAIN = Case(configuration(PATCH, [1.2, 1.2, 1.2]))


@pytest.mark.parametrize("roi", [(128, 96, 112), (40, 56, 40), (1, 320, 256), (1, 7, 9), (16, 33, 5)])
def test_windows_are_weighed_as_nnunet_weighs_them(roi: tuple[int, ...]) -> None:
    sizes = roi[1:] if roi[0] == 1 else roi
    theirs = compute_gaussian(sizes, sigma_scale=1 / 8, value_scaling_factor=10, device=CPU)
    assert torch.equal(NnunetWindows(roi, (0.5,) * 3, gaussian=True).weights(roi).view(sizes), theirs.float())


def test_a_folder_says_what_it_is_without_its_weights(copied: Path) -> None:
    (copied / "fold_0" / "checkpoint_final.pth").write_bytes(b"no weights")
    spec = read_spec(copied)
    assert spec.name == "nnUNetTrainer__nnUNetPlans__3d_fullres"
    assert spec.title == "Test, nnU-Net 3d_fullres"
    assert [(label.value, label.name) for label in spec.labels] == [(1, "shell"), (2, "core")]
    assert (spec.channels, spec.spacing_mm, spec.patch) == (("sequence 0",), (1.2, 1.2, 1.2), (16, 16, 16))
    assert (spec.mirror_axes, spec.orientation) == ((0, 1, 2), None)


def test_regions_are_named_for_what_is_left_of_them(tmp_path: Path) -> None:
    folder = result_folder(tmp_path, plans({"3d_fullres": PLAIN.settings}), dataset(1, REGIONS), "3d_fullres")
    (folder / "fold_0").mkdir()
    (folder / "fold_0" / "checkpoint_best.pth").touch()
    names = {label.value: label.name for label in read_spec(folder).labels}
    assert names == {1: "whole without core", 2: "core without seed", 3: "seed"}


def test_mirroring_is_what_the_checkpoint_allows(copied: Path) -> None:
    checkpoint = copied / "fold_0" / "checkpoint_final.pth"
    content = torch.load(checkpoint, weights_only=False)
    torch.save(content | {"inference_allowed_mirroring_axes": None}, checkpoint)
    model = open_model(copied, "cpu")
    assert model.spec.mirror_axes == ()
    with pytest.raises(MedAIError, match="trained without mirroring"):
        model.run(volume_of(picture()[:-1], (1, 1, 1)), RunOptions(mirror=True), Progress())


def test_probabilities_are_those_of_nnunet(trained: tuple[Path, np.ndarray]) -> None:
    folder, image = trained
    theirs = predicted(folder, image[:-1], (1, 1, 1), probabilities=True)
    ours = run(folder, image, PLAIN, probabilities=True)
    assert ours.probability_names == ("background", "shell", "core")
    assert np.abs(ours.probabilities - theirs).max() < 1e-3  # a rounding of half precision
    assert np.array_equal(ours.layers, run(folder, image, PLAIN).layers)


def test_float32_sums_give_nearly_the_same_labels(trained: tuple[Path, np.ndarray]) -> None:
    folder, image = trained
    half, single = run(folder, image, PLAIN), run(folder, image, PLAIN, parity=False)
    assert (half.provenance["accumulation"], single.provenance["accumulation"]) == ("float16", "float32")
    assert np.mean(half.layers == single.layers) >= 0.999


def test_a_region_of_interest_leaves_the_rest_background(trained: tuple[Path, np.ndarray]) -> None:
    folder, image = trained
    layers = run(folder, image, PLAIN, roi=Roi((13.0, 14.0, 11.0), (16.0, 16.0, 16.0))).layers[0]
    outside = np.ones(layers.shape, bool)
    outside[3:20, 6:23, 5:22] = False
    assert layers.any() and not layers[outside].any()


def test_more_overlap_takes_more_windows(trained: tuple[Path, np.ndarray]) -> None:
    class Counting(Progress):
        windows = 0

        def step(self, done: int, total: int, text: str = "") -> None:
            self.windows = max(self.windows, total if text == "Segmenting" else 0)

    counts = []
    for overlap in (0.95, None):
        progress = Counting()
        NnunetModel(trained[0], CPU).run(volume_of(trained[1][:-1], (1, 1, 1)), RunOptions(overlap=overlap), progress)
        counts.append(progress.windows)
    assert counts[0] > counts[1] > 1


def test_a_run_can_be_cancelled_between_two_windows(trained: tuple[Path, np.ndarray]) -> None:
    class AtThird(Cancellable):
        def step(self, done: int, total: int, text: str = "") -> None:
            self.cancelled = text == "Segmenting" and done == 3
            super().step(done, total, text)

    with pytest.raises(Cancelled):
        NnunetModel(trained[0], CPU).run(volume_of(trained[1][:-1], (1, 1, 1)), RunOptions(), AtThird())


def test_totalsegmentator_sees_the_image_in_ras_however_it_lies(copied: Path, trained: tuple[Path, np.ndarray]) -> None:
    plan = json.loads((copied / "plans.json").read_text()) | {"dataset_name": "Dataset291_TotalSegmentator_part1"}
    (copied / "plans.json").write_text(json.dumps(plan))
    model = open_model(copied, "cpu")
    assert model.spec.orientation == "SAR"
    straight = volume_of(trained[1][:-1], PLAIN.spacing)
    turned = straight.data[:, ::-1].transpose(0, 2, 3, 1)  # axes J, I, K with K running down
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0, 1, 0], [0, 0, 1], [-1, 0, 0]])
    matrix[2, 3] = straight.data.shape[1] - 1
    lying = Volume(np.ascontiguousarray(turned), Geometry(turned.shape[1:], matrix), "lying")
    here, there = (model.run(one, RunOptions(probabilities=True), Progress()) for one in (straight, lying))
    assert here.layers.any()
    assert np.array_equal(here.layers[:, ::-1].transpose(0, 2, 3, 1), there.layers)
    assert np.array_equal(here.probabilities[:, ::-1].transpose(0, 2, 3, 1), there.probabilities)


def test_numbers_of_numpy_1_in_a_checkpoint_are_read(copied: Path) -> None:
    checkpoint = copied / "fold_0" / "checkpoint_final.pth"
    with zipfile.ZipFile(checkpoint) as archive:
        content = {entry.filename: archive.read(entry) for entry in archive.infolist()}
    (pickled,) = (name for name in content if name.endswith("data.pkl"))
    assert b"numpy._core.multiarray" in content[pickled]
    content[pickled] = content[pickled].replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    with zipfile.ZipFile(checkpoint, "w", zipfile.ZIP_STORED) as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    assert open_model(copied, "cpu").spec.labels


def test_a_fold_or_a_folder_above_is_enough(copied: Path, trained: tuple[Path, np.ndarray]) -> None:
    shutil.copytree(copied / "fold_0", copied / "fold_1")
    shutil.copytree(copied, copied.with_name("nnUNetTrainer__nnUNetPlans__2d"))
    plan = json.loads((copied / "plans.json").read_text())
    plan["configurations"]["2d"] = configuration([24, 24], [1.0, 1.0])
    for folder in copied.parent.iterdir():
        (folder / "plans.json").write_text(json.dumps(plan))
    for source, folds in ((copied, "fold_0, fold_1"), (copied / "fold_1", "fold_1"), (copied.parent, "fold_0, fold_1")):
        plan_read = read_nnunet_plan(source)
        assert plan_read.results.configuration == "3d_fullres"
        assert ", ".join(path.parent.name for path in plan_read.results.checkpoints) == folds
    assert open_model(copied / "fold_1", "cpu").spec.name == "fold_1"


def test_the_best_checkpoint_serves_where_no_training_is_finished(copied: Path) -> None:
    fold = copied / "fold_0"
    (fold / "checkpoint_final.pth").rename(fold / "checkpoint_best.pth")
    (fold / "checkpoint_final.pkl").write_bytes(b"never read")
    assert read_nnunet_plan(copied).results.checkpoints == (fold / "checkpoint_best.pth",)


def edited(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "plans.json"
    plan = json.loads(path.read_text())
    change(plan["configurations"]["3d_fullres"])
    path.write_text(json.dumps(plan))


def with_checkpoint(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    path = folder / "fold_0" / "checkpoint_final.pth"
    content = torch.load(path, weights_only=False)
    change(content)
    torch.save(content, path)


class Harmful:
    def __reduce__(self):
        return os.system, ("touch harm_was_done",)


BAD: dict[str, tuple[str, Callable[[Path], Any]]] = {
    "no checkpoint": ("has no weights", lambda f: shutil.rmtree(f / "fold_0")),
    "no plans": ("plans.json and dataset.json", lambda f: (f / "plans.json").unlink()),
    "no configurations": ("names no 'configurations'", lambda f: (f / "plans.json").write_text("{}")),
    "plans without this configuration": (
        "no configuration '3d_fullres'",
        lambda f: (f / "plans.json").write_text(json.dumps(plans({"2d": configuration([24, 24], [1.0, 1.0])}))),
    ),
    "an unknown architecture": (
        "'os.system' is not one that MedAI builds",
        lambda f: edited(f, lambda c: c["architecture"].update(network_class_name="os.system")),
    ),
    "a known architecture of another package": (
        "'evil.PlainConvUNet' is not one that MedAI builds",
        lambda f: edited(f, lambda c: c["architecture"].update(network_class_name="evil.PlainConvUNet")),
    ),
    "a dotted name as an operation": (
        "'nonlin' = 'os.system'",
        lambda f: edited(f, lambda c: c["architecture"]["arch_kwargs"].update(nonlin="os.system")),
    ),
    "an argument nobody knows": (
        "an argument 'hook'",
        lambda f: edited(f, lambda c: c["architecture"]["arch_kwargs"].update(hook="print")),
    ),
    "stages without end": (
        "'n_stages' = 1000000000",
        lambda f: edited(f, lambda c: c["architecture"]["arch_kwargs"].update(n_stages=10**9)),
    ),
    "features that don't fit each other": (
        "can't be built",
        lambda f: edited(f, lambda c: c["architecture"]["arch_kwargs"].update(n_conv_per_stage_decoder=[1])),
    ),
    "weights of other shapes": (
        "don't fit the described network",
        lambda f: edited(f, lambda c: c["architecture"]["arch_kwargs"].update(features_per_stage=[4, 8, 8])),
    ),
    "a normalisation nobody knows": (
        "'os.system' is not one that MedAI does",
        lambda f: edited(f, lambda c: c.update(normalization_schemes=["os.system"])),
    ),
    "a resampling nobody knows": (
        "'os.system' is not one that MedAI does",
        lambda f: edited(f, lambda c: c.update(resampling_fn_data="os.system")),
    ),
    "a patch of nothing": ("is not possible", lambda f: edited(f, lambda c: c.update(patch_size=[0, 16, 16]))),
    "no spacing": ("lacks or garbles an entry: KeyError('spacing')", lambda f: edited(f, lambda c: c.pop("spacing"))),
    "inheritance in a circle": (
        "inherits from itself",
        lambda f: edited(f, lambda c: c.update(inherits_from="3d_fullres")),
    ),
    "a cascade without its previous stage": (
        "needs the model of its previous stage '3d_lowres'",
        lambda f: edited(f, lambda c: c.update(previous_stage="3d_lowres")),
    ),
    "labels with gaps": (
        "not consecutive",
        lambda f: (f / "dataset.json").write_text(json.dumps(dataset(1, {"background": 0, "a": 5}))),
    ),
    "labels in the way of nnU-Net 1": (
        "dataset.json: the label '0' is 'background', which is no whole number; they are nnU-Net 1's",
        lambda f: (f / "dataset.json").write_text(json.dumps(dataset(1, {"0": "background", "1": "a"}))),
    ),
    "labels that are no numbers": (
        "the label 'a' is 1.5, which is no whole number",
        lambda f: (f / "dataset.json").write_text(json.dumps(dataset(1, {"background": 0, "a": 1.5}))),
    ),
    "labels in a list": (
        "the labels are no object of names and numbers",
        lambda f: (f / "dataset.json").write_text(json.dumps(dataset(1, ["background", "a"]))),
    ),
    "two channels in the dataset, one in the plans": (
        "normalises 1 channels",
        lambda f: (f / "dataset.json").write_text(json.dumps(dataset(2))),
    ),
    "weights of another configuration": (
        "of the configuration '2d'",
        lambda f: with_checkpoint(f, lambda c: c["init_args"].update(configuration="2d")),
    ),
    "no nnU-Net checkpoint": ("has no 'network_weights'", lambda f: with_checkpoint(f, lambda c: c.clear())),
    "a checkpoint that would execute code": (
        "hold more than tensors and plain values",
        lambda f: with_checkpoint(f, lambda c: c.update(logging=Harmful())),
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_folder_is_said_in_one_sentence(
    copied: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    sentence, spoil = BAD[name]
    with monkeypatch.context() as patch:
        patch.chdir(copied.parent)
        spoil(copied)
        with pytest.raises(MedAIError) as caught:
            open_model(copied, "cpu")
    assert sentence in str(caught.value)
    assert str(caught.value).endswith(".") and "\n" not in str(caught.value)
    assert not (copied.parent / "harm_was_done").exists()


def test_an_image_with_other_channels_is_refused(trained: tuple[Path, np.ndarray]) -> None:
    with pytest.raises(MedAIError, match=r"picture has 2 channels, but the model takes 1 \(sequence 0\)"):
        NnunetModel(trained[0], CPU).run(volume_of(picture(2)[:-1], (1, 1, 1)), RunOptions(), Progress())


def test_a_missing_package_is_named_and_stops_no_other_format(
    trained: tuple[Path, np.ndarray], hippocampus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = "dynamic_network_architectures"

    class Absent:
        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            if name == package:
                raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    for name in [name for name in sys.modules if name.startswith((package, "MedAILib.models.nnunet"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(sys, "meta_path", [Absent, *sys.meta_path])
    with pytest.raises(MedAIError, match="need the Python package dynamic-network-architectures"):
        open_model(trained[0], "cpu")
    assert open_model(hippocampus, "cpu").spec.name == "hippocampus"
