"""Boxes follow images that are turned, scaled, shifted and mirrored; which changes a detector's task may name."""

import json
import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from blobs import blob_folder
from numpy.typing import NDArray
from test_train_detector import command

from MedAILib.cli import main
from MedAILib.detections import Box
from MedAILib.errors import InputError
from MedAILib.training.boxed_changes import extents
from MedAILib.training.boxed_images import BoxedCase, BoxedImage, outermost_voxels
from MedAILib.training.detection_data import Sample, changed_patches, prepare_image
from MedAILib.training.detection_task import DetectionTask, former_recipe
from MedAILib.training.plan_augmentation import planned_for_boxes
from MedAILib.training.recipe import PARAMETERS
from MedAILib.training.task import read_task
from MedAILib.volume import Geometry, Volume

TOLD = ("version", "title", "description", "authors", "copyright", "licence", "data_source", "intended_use", "modality")
SHAPE = (40, 36, 44)  # I, J, K
MOVES = {name: {**PARAMETERS[name], "prob": 1.0} for name in ("rotation", "scaling", "translation")}


def task_of(**changes: Any) -> DetectionTask:
    told: dict[str, Any] = {**dict.fromkeys(TOLD, "none"), "references": [], "warnings": []}
    told |= {"name": "t", "channels": ["MRI"], "classes": [{"name": "ball"}], "patch": [32, 32, 32], "epochs": 1}
    told |= {"spacing_mm": [1.0, 1.0, 1.0], "anchors": [[8.0, 8.0, 8.0]], "intensity": [], "samples": 4}
    return DetectionTask(
        **(told | {"augmentation": MOVES | {"flip": {"prob": 0.5}}, "mirror_axes": [0, 1, 2]} | changes)
    )


def boxed(mask: NDArray[np.bool_], shapes_known: bool) -> BoxedImage:
    """An image that is 1 in a mask (I, J, K) and 0 elsewhere, with the mask's box; axes are R, A, S, voxels 1 mm."""
    places = np.argwhere(mask)
    low, high = places.min(axis=0) - 0.5, places.max(axis=0) + 0.5
    box = Box("ball", 1.0, (low[0], low[1], low[2]), (high[0], high[1], high[2]))
    volume = Volume(mask.T[None].astype(np.float32), Geometry(mask.shape[::-1], np.eye(4)))
    outermost = (outermost_voxels(mask),) if shapes_known else ()
    return BoxedImage(BoxedCase("a", (Path("a"),)), volume, (box,), outermost)


def rod() -> NDArray[np.bool_]:
    """Long and bent: its box says little of its shape."""
    mask = np.zeros(SHAPE, bool)
    for step in range(18):
        mask[10 + step : 13 + step, 14 : 17 + step // 3, 18 + step // 2 : 21 + step // 2] = True
    return mask


def ellipsoid() -> NDArray[np.bool_]:
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in SHAPE], indexing="ij")).astype(float)
    away = (grid - np.reshape((20, 18, 22), (3, 1, 1, 1))) / np.reshape((12.5, 5.5, 8.5), (3, 1, 1, 1))
    inside: NDArray[np.bool_] = (away**2).sum(axis=0) <= 1
    return inside


def whole(patches: list[Sample]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """The box of each patch that no edge cuts, and the box of what is bright in it."""
    for patch in patches:
        bright = np.argwhere(patch["image"][0].numpy() > 0.5)
        for box in patch["box"].numpy():
            if box.min() > 0 and box.max() < 31:
                yield box, np.concatenate([bright.min(axis=0) - 0.5, bright.max(axis=0) + 0.5])


@pytest.mark.parametrize(("mask", "shapes_known"), [(rod(), True), (ellipsoid(), True), (ellipsoid(), False)])
def test_boxes_are_as_near_around_a_moved_finding_as_around_one_at_rest(
    mask: NDArray[np.bool_], shapes_known: bool
) -> None:
    task = task_of()
    sample = prepare_image(boxed(mask, shapes_known), task)
    seen = [pair for seed in range(8) for pair in whole(changed_patches(sample, task, seed))]
    assert len(seen) > 10
    away = np.array([box - bright for box, bright in seen])
    assert abs(away).max() < 1.2 and abs(away.mean(axis=0)).max() < 0.5  # voxels; tips are blurred away


def test_a_patch_that_is_not_moved_has_the_datas_box_to_the_voxel() -> None:
    task = task_of(augmentation={"rotation": {"prob": 0.0}, "flip": {"prob": 0.5}})
    for shapes_known in (True, False):
        sample = prepare_image(boxed(rod(), shapes_known), task)
        seen = [pair for seed in range(4) for pair in whole(changed_patches(sample, task, seed))]
        assert seen and all(np.array_equal(box, bright) for box, bright in seen)


def test_moved_and_unmoved_patches_in_turn_keep_their_boxes() -> None:
    task = task_of(augmentation={name: {**told, "prob": 0.5} for name, told in MOVES.items()}, samples=8)
    sample = prepare_image(boxed(ellipsoid(), True), task)
    seen = [pair for seed in range(5) for pair in whole(changed_patches(sample, task, seed))]
    assert all(abs(box - bright).max() < 1.2 for box, bright in seen)
    sizes = [tuple(np.round(box[3:] - box[:3], 3)) for box, _ in seen]
    assert sizes.count((25, 11, 17)) >= 2 and len(set(sizes)) >= 3


def test_a_balls_box_stays_as_large_however_it_is_turned() -> None:
    sample = {"points": torch.zeros(1, 3), "reach": torch.full((1, 3), 5.0), "owner": torch.zeros(1, dtype=torch.int64)}
    turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
    matrix = np.eye(4)
    matrix[:3, :3] = turn
    low, high = extents({**sample, "label": torch.zeros(1)}, matrix)
    assert np.allclose(high - low, 10)


def test_a_rods_box_is_that_of_its_ends() -> None:
    sample = {"points": torch.tensor([[-9.0, 0, 0], [9, 0, 0]]), "reach": torch.zeros(2, 3), "owner": torch.zeros(2)}
    matrix = np.eye(4)
    matrix[:2, :2] = [[0.8, -0.6], [0.6, 0.8]]
    low, high = extents({**sample, "owner": sample["owner"].long(), "label": torch.zeros(1)}, matrix)
    assert np.allclose(high - low, [[14.4, 10.8, 0]])


def test_images_without_findings_are_changed_too_and_of_the_patchs_size() -> None:
    image = replace(boxed(ellipsoid(), True), boxes=(), outermost=())
    task = task_of(patch=[48, 32, 64])  # larger than the image along two axes
    patches = changed_patches(prepare_image(image, task), task, 0)
    assert [tuple(patch["image"].shape) for patch in patches] == [(1, 48, 32, 64)] * 4
    assert all(patch["box"].shape == (0, 6) and patch["label"].shape == (0,) for patch in patches)


def test_changes_of_values_leave_the_boxes_alone() -> None:
    names = [name for name in PARAMETERS if name not in ("elastic", "flip", "mixup", *MOVES)]
    plain = task_of(augmentation={})
    varied = task_of(augmentation={name: {**PARAMETERS[name], "prob": 1.0} for name in names})
    sample = prepare_image(boxed(rod(), True), plain)
    before = {key: value.clone() for key, value in sample.items()}
    pairs = list(zip(*(changed_patches(sample, task, 3) for task in (plain, varied)), strict=True))
    assert all(torch.equal(one["box"], other["box"]) for one, other in pairs)
    assert all(not torch.equal(one["image"], other["image"]) for one, other in pairs)
    assert all(torch.equal(value, sample[key]) for key, value in before.items())


# --- what a task may say


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return blob_folder(tmp_path_factory.mktemp("small") / "data", 4, 3)


def planned(data: Path, place: Path, *settings: str) -> DetectionTask:
    words = [word for setting in settings for word in ("--set", setting)]
    assert command("train", "detection", "--data", data, "-o", place, "--plan-only", *words) == 0
    task = read_task(str(place.with_name(place.name + ".training") / "task.json"))
    assert isinstance(task, DetectionTask)
    return task


def test_augmentations_are_named_as_for_segmentation(data: Path, tmp_path: Path) -> None:
    usual = planned(data, tmp_path / "a")
    assert {"rotation", "scaling", "translation", "flip", "gamma", "blur", "low_resolution"} < set(usual.augmentation)
    changed = planned(data, tmp_path / "b", "augmentation=+ghosting,-gamma")
    assert set(changed.augmentation) == {*usual.augmentation, "ghosting"} - {"gamma"}
    assert list(planned(data, tmp_path / "c", "augmentation=flip").augmentation) == ["flip"]
    assert planned(data, tmp_path / "d", "augmentation=none").augmentation == {}


@pytest.mark.parametrize(
    ("setting", "sentence"),
    [
        ("augmentation=+elastic", "elastic bends images, and boxes can't follow"),
        ("augmentation=+mixup", "mixup blends images, and a box can't be there in part"),
        ("augmentation=shaking", "no augmentation 'shaking'"),
        ('augmentation={"blur": {"width": 3}}', "'blur' has the parameters prob, sigma"),
        ('augmentation={"blur": {"sigma": 3}}', "'blur' has 'sigma' = 3; give what is like"),
        ('augmentation={"noise": {"std": "much"}}', "'noise' has 'std' = much"),
        ('augmentation={"rotation": {"degrees": [9]}}', "a number for each of three axes"),
        ("precision=half", "'precision' = half"),
        ("patience=-1", "'patience' = -1"),
    ],
)
def test_what_boxes_can_not_follow_is_refused_before_anything_is_written(
    setting: str, sentence: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("train", "detection", "--data", data, "-o", tmp_path / "m", "--set", setting) == 2
    assert re.search(sentence, capsys.readouterr().err) and not list(tmp_path.iterdir())


def test_thick_slices_are_turned_in_their_plane() -> None:
    recipe, why = planned_for_boxes([0.8, 0.8, 5.0], [64, 64, 32], named_sides=False)
    assert recipe["rotation"]["degrees"] == [0, 0, 180] and "plane" in why
    assert planned_for_boxes([0.8, 0.8, 5.0], [64, 64, 32], True)[0]["rotation"]["degrees"] == [0, 0, 15]
    assert planned_for_boxes([1, 1, 2], [64, 64, 32], False)[0] == planned_for_boxes([1, 1, 1], [64] * 3, True)[0]


def test_a_task_from_before_is_read_and_trains_as_it_did(data: Path, tmp_path: Path) -> None:
    task = planned(data, tmp_path / "m", "epochs=1", "samples=1")
    content = {"kind": "detection", **asdict(task), "noise": 0.2}
    for key in ("augmentation", "precision", "patience"):
        del content[key]
    (tmp_path / "old.json").write_text(json.dumps(content), encoding="utf-8")
    read = read_task(str(tmp_path / "old.json"))
    assert isinstance(read, DetectionTask) and read.augmentation == former_recipe(0.2)
    assert (read.precision, read.patience) == ("float32", 0)
    picture = tmp_path / "a.png"
    words = ["train", tmp_path / "old.json", "--data", data, "-o", tmp_path / "n", "--show-augmentation", picture]
    assert command(*words) == 0 and picture.is_file()
    (tmp_path / "old.json").write_text(json.dumps({**content, "augmentation": {}}), encoding="utf-8")
    with pytest.raises(InputError, match="unknown \\['noise'\\]"):
        read_task(str(tmp_path / "old.json"))


def test_what_was_asked_for_is_told(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["train", "detection", "--data", data, "-o", tmp_path / "m", "--plan-only", "--device", "cpu"]
    assert main([*map(str, words), "--set", "augmentation=rotation,flip"]) == 0
    told = capsys.readouterr().out
    assert re.search(r"augmentation +rotation, flip\n +\(asked for by --set\)", told)
