"""The classifier that compares pictures by a network of photographs: what it solves, ships, refuses and explains."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled import medmnist, small_task
from torch import Tensor

from MedAILib.cli import main
from MedAILib.commands.train_classifier import read_data
from MedAILib.errors import InputError, MedAIError
from MedAILib.models.efficientnet_lite import EfficientNetLite
from MedAILib.models.kernel_classifier import KernelClassifier
from MedAILib.models.networks import build_network
from MedAILib.models.open import open_model
from MedAILib.models.weights import load_weights
from MedAILib.progress import Progress
from MedAILib.request import ClassifyOptions, Explain
from MedAILib.training import kernel_lesson
from MedAILib.training.classification_task import ClassificationTask
from MedAILib.training.cross_validation import ClassData
from MedAILib.training.kernel_lesson import (
    Seen,
    apart_from_others,
    left_out,
    photo_network,
    said,
    see_pictures,
    solve,
    steepness,
)
from MedAILib.training.labelled_images import find_labelled_images, read_labelled

SILENT = Progress()
KERNEL = {"weights": "breast_ultrasound", "size": 32, "taps": [2, 4], "gamma": 0.5, "noise": 0.1}


def task_of(**changes: object) -> ClassificationTask:
    content = small_task(**({"kernel": KERNEL, "shipped": 2, "epochs": 1} | changes))
    return ClassificationTask(**{key: value for key, value in content.items() if key != "kind"})  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kernel")
    task = folder / "squares.json"
    task.write_text(json.dumps(small_task(kernel=KERNEL, shipped=2, epochs=2, strange_quantile=0.95)), encoding="utf-8")
    data = medmnist(folder / "squares.npz", train=40)
    arguments = ["train", str(task), "--data", str(data), "-o", str(folder / "squares"), "--device", "cpu", "--quiet"]
    assert main(arguments) == 0
    return folder / "squares"


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> ClassData:
    return read_data(task_of(), medmnist(tmp_path_factory.mktemp("data") / "squares.npz", train=24), SILENT)


@pytest.fixture(scope="module")
def seen(data: ClassData) -> Seen:
    return see_pictures(task_of(), data.images, "cpu", SILENT)


def test_a_network_of_few_epochs_and_the_known_pictures_tell_new_ones_apart(trained: Path) -> None:
    model = open_model(trained, "cpu")
    images = find_labelled_images(medmnist(trained.parent / "new.npz", test=12))
    found = [model.run(read_labelled(image), ClassifyOptions(), SILENT).likeliest for image in images]
    assert found == ["above", "below"] * 6


def test_a_picture_unlike_all_known_ones_is_not_decided(trained: Path) -> None:
    model = open_model(trained, "cpu")
    usual = read_labelled(find_labelled_images(medmnist(trained.parent / "usual.npz", test=2))[0])
    stripes = (np.arange(usual.data.shape[-2]) % 4 < 2)[:, None] * np.full_like(usual.data, 200)
    strange = replace(usual, data=stripes)
    assert model.run(usual, ClassifyOptions(), SILENT).verdict().text == "above"
    assert "unlike the training data" in model.run(strange, ClassifyOptions(), SILENT).verdict().unsure


def test_the_energy_is_how_far_the_nearest_known_picture_is(seen: Seen, data: ClassData) -> None:
    machine = solve(task_of(), seen, data.numbers, np.arange(20))
    features = (seen.features[0].float() - machine.centre) / machine.spread
    apart = 0.5 * (features[:, None] - machine.known).square().mean(dim=2).amin(dim=1)
    with torch.inference_mode():
        energy = -machine(data.images).logsumexp(dim=1)
    assert torch.allclose(energy, apart, atol=1e-3)
    assert energy[:20].abs().max() < 1e-3 < energy[20:].min()


def test_how_far_known_pictures_are_is_asked_without_their_own_copies(seen: Seen, data: ClassData) -> None:
    machine = solve(task_of(), seen, data.numbers, np.arange(24))
    copies = machine.known.unflatten(0, (2, 24))
    found = apart_from_others(machine, 2)
    for picture in range(24):
        others = copies[:, torch.arange(24) != picture].flatten(0, 1)
        apart = 0.5 * (copies[:, picture, None] - others).square().mean(dim=2).amin(dim=1)
        assert found[picture] == pytest.approx(float(apart.mean()), abs=1e-4)


def test_what_is_shipped_are_plain_numbers(trained: Path) -> None:
    weights = load_weights(trained / "models" / "model.pt")
    assert weights and all(type(value) is Tensor for value in weights.values())


def test_the_card_tells_each_half_by_itself(trained: Path) -> None:
    card = (trained / "docs" / "README.md").read_text(encoding="utf-8")
    for text in ("EfficientNet-Lite0", "the kernel classifier alone", "1 networks averaged, alone", "exp(-0.5 x"):
        assert text in card


@pytest.mark.parametrize("method", ["grad-cam", "integrated-gradients"])
def test_both_halves_are_explained(trained: Path, method: str) -> None:
    image = find_labelled_images(medmnist(trained.parent / f"{method}.npz", test=2))[1]
    asked = ClassifyOptions(explain=Explain(method, "below"))  # type: ignore[arg-type]
    saliency = open_model(trained, "cpu").run(read_labelled(image), asked, SILENT).saliency
    assert saliency is not None and np.abs(saliency.values).max() == pytest.approx(1)
    if method == "grad-cam":
        assert " and " in saliency.description.partition(";")[0]


def test_features_are_known_before_any_picture_is_seen() -> None:
    network = EfficientNetLite([4, 10]).eval()
    with torch.inference_mode():
        assert network(torch.rand(2, 3, 64, 64)).shape == (2, network.features) == (2, 2 * 40 + 2 * 112)


@pytest.mark.parametrize("taps", [[], [4, 4], [10, 4], [16], [-1]])
def test_taps_that_no_network_has_are_refused(taps: list[int]) -> None:
    with pytest.raises(MedAIError, match="rising numbers of blocks"):
        build_network("EfficientNetLite", {"taps": taps})


def test_a_picture_is_seen_as_it_lies_and_many_as_one_by_one(seen: Seen, data: ClassData) -> None:
    machine = seen.machine
    many = torch.cat([data.images] * 2)[:40]
    with torch.inference_mode():
        alone = torch.cat([machine.features_of(image[None]) for image in many])
        assert torch.allclose(machine.features_of(many), alone, atol=1e-4)
        told: list[Tensor] = []
        handle = machine.backbone.register_forward_pre_hook(lambda _, inputs: told.append(inputs[0]))
        machine.features_of(data.images[:1])
        handle.remove()
    below = told[0][0, 0].unflatten(0, (2, 16)).mean(dim=(1, 2))  # upper and lower half, rows first
    upper = data.numbers[0] == 0
    assert (below[0] > below[1]) == upper


def test_gradients_of_many_pictures_are_those_of_each(seen: Seen, data: ClassData) -> None:
    machine = solve(task_of(), seen, data.numbers, np.arange(24))
    many = data.images[:10].clone().requires_grad_(True)
    (together,) = torch.autograd.grad(machine(many)[:, 1].sum(), many)
    one = data.images[3:4].clone().requires_grad_(True)
    (alone,) = torch.autograd.grad(machine(one)[:, 1].sum(), one)
    assert torch.allclose(together[3:4], alone, rtol=1e-3, atol=1e-6) and alone.abs().max() > 1e-4


def test_known_pictures_are_told_as_they_were_named(seen: Seen, data: ClassData) -> None:
    task = task_of(kernel=KERNEL | {"noise": 1e-3})
    machine = solve(task, seen, data.numbers, np.arange(24))
    assert (said(machine, seen, np.arange(24)).argmax(axis=1) == data.numbers).all()


def test_what_is_said_of_features_is_what_the_network_says_of_the_pictures(seen: Seen, data: ClassData) -> None:
    machine = solve(task_of(), seen, data.numbers, np.arange(20))
    with torch.inference_mode():
        copies = [machine(copy).softmax(dim=1) for copy in (data.images[20:], data.images[20:].flip(2))]
    expected = torch.stack(copies).mean(dim=0).log().numpy()
    assert said(machine, seen, np.arange(20, 24)) == pytest.approx(expected, abs=1e-3)


def test_a_picture_left_out_is_judged_as_by_a_solution_without_it_and_its_mirror_image() -> None:
    rng = np.random.default_rng(0)
    places, wanted = rng.normal(size=(12, 3)), rng.normal(size=(12, 2))
    kernel = np.exp(-((places[:, None] - places) ** 2).sum(axis=2)) + 0.1 * np.eye(12)
    inverse = np.linalg.inv(kernel)
    found = left_out(inverse, inverse @ wanted, wanted, copies=2)
    for picture in range(6):
        rest = [n for n in range(12) if n % 6 != picture]
        weights = np.linalg.solve(kernel[np.ix_(rest, rest)], wanted[rest])
        for copy in (picture, picture + 6):
            assert found[copy] == pytest.approx(kernel[copy, rest] @ weights)


def test_scores_are_as_steep_as_their_surprise_asks_for() -> None:
    rng = np.random.default_rng(0)
    shares = rng.random((4000, 2))
    likely = 1 / (1 + np.exp(-5 * (shares[:, 1] - shares[:, 0])))
    numbers = (rng.random(4000) < likely).astype(np.int64)
    assert steepness(shares, numbers) == pytest.approx(5, rel=0.1)


def test_weights_come_from_a_file_in_the_order_of_the_layers_too(tmp_path: Path) -> None:
    network = EfficientNetLite([4])
    path = tmp_path / "lite0.pth"
    torch.save({f"other name {n}": value for n, value in enumerate(network.state_dict().values())}, path)
    found = photo_network(str(path), (2,)).state_dict()
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in found.items())
    with pytest.raises(InputError, match=r"lite0\.pth has no weights of EfficientNet-Lite0 up to block 10"):
        photo_network(str(path), (10,))


def test_a_model_without_such_a_network_is_refused() -> None:
    with pytest.raises(InputError, match="hippocampus has no network of photographs"):
        photo_network("hippocampus", (4,))


def test_too_many_pictures_are_refused_before_they_are_looked_at(data, monkeypatch) -> None:
    monkeypatch.setattr(kernel_lesson, "MOST", 40)
    with pytest.raises(InputError, match="48 pictures, mirror images included, are too many"):
        see_pictures(task_of(), data.images, "cpu", SILENT)


@pytest.mark.parametrize(
    "changes",
    [
        {"shipped": 0},
        {"channels": ["a", "b"]},
        {"kernel": KERNEL | {"size": 30}},
        {"kernel": KERNEL | {"gamma": 0}},
        {"kernel": KERNEL | {"taps": "all"}},
        {"kernel": KERNEL | {"taps": 4}},
        {"kernel": KERNEL | {"taps": [4, 16]}},
        {"kernel": KERNEL | {"taps": []}},
        {"decision": "ordinal"},
        {"kernel": {"size": 32}},
        {"kernel": KERNEL | {"colour": 1}},
    ],
)
def test_settings_that_make_no_sense_are_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InputError, match="has 'kernel' = "):
        task_of(**changes)


def test_a_kernel_classifier_of_what_is_no_network_is_refused() -> None:
    arguments = {"backbone": 3, "classes": 2, "centres": 4, "size": 32, "gamma": 0.5}
    with pytest.raises(MedAIError):
        build_network("KernelClassifier", arguments)


def test_a_kernel_classifier_is_found_in_what_is_shipped(trained: Path) -> None:
    described = json.loads((trained / "configs" / "inference.json").read_text(encoding="utf-8"))["network_def"]
    assert described["members"][1]["centres"] == 80 and len(described["members"][0]["members"]) == 2
    assert KernelClassifier.__name__ in described["members"][1]["_target_"]
