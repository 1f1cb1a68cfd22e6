"""Explanations point at what decides: networks trained here on images where only a known square tells the class."""

from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor, nn

from MedAILib.errors import InputError
from MedAILib.inference.classify import ClassifyRecipe, classify
from MedAILib.inference.frame import input_frame
from MedAILib.inference.layers import last_spatial_layer
from MedAILib.inference.onto_input import onto_input
from MedAILib.inference.prepare import CenterCrop, Orient, Resize
from MedAILib.inference.saliency import explain
from MedAILib.models.networks import build_network
from MedAILib.progress import Cancelled, Progress
from MedAILib.request import EXPLANATIONS, ClassifyOptions, Explain, Slices
from MedAILib.results import Saliency
from MedAILib.spec import Classes
from MedAILib.volume import Geometry, Volume

NAMES = ("rows", "columns", "neither")
SIDE = {2: 32, 3: 16}
STEP = {2: 4, 3: 8}
SQUARE = 8
IMAGES = {2: 20, 3: 10}
NEEDED = 0.95


@dataclass(frozen=True)
class Example:
    """An image (K, J, I), its class, and the square that tells it; a brighter square elsewhere tells nothing."""

    data: NDArray[np.float32]
    label: int
    square: tuple[slice, ...]


def example(random: np.random.Generator, dims: int, label: int) -> Example:
    """Stripes along one axis or another, or none, inside of the square; noise and a stronger pattern elsewhere."""
    side, step = SIDE[dims], STEP[dims]
    data = random.normal(0, 0.2, (side,) * dims).astype(np.float32)
    starts = [random.integers(0, (side - SQUARE) // step + 1, dims) * step for _ in range(100)]
    place = starts[0]
    other = next(start for start in starts if np.abs(start - place).max() >= SQUARE)
    signs = (-1.0) ** np.indices((SQUARE,) * dims)
    data[tuple(slice(n, n + SQUARE) for n in other)] += 2 * signs.prod(axis=0) + random.uniform(0, 2)
    square = tuple(slice(n, n + SQUARE) for n in place)
    if label < 2:
        data[square] += signs[dims - 1 - label]
    if dims == 2:
        return Example(data[None], label, (slice(0, 1), *square))
    return Example(data, label, square)


def network(dims: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    conv = nn.Conv2d if dims == 2 else nn.Conv3d
    pool = nn.AdaptiveAvgPool2d(1) if dims == 2 else nn.AdaptiveAvgPool3d(1)
    maps = nn.Sequential(conv(1, 8, 3, padding=1), nn.ReLU(), conv(8, 8, 3, padding=1), nn.ReLU())
    return nn.Sequential(maps, pool, nn.Flatten(), nn.Linear(8, 3))


def batch(examples: list[Example], dims: int) -> Tensor:
    images = np.stack([one.data[0].T if dims == 2 else one.data.transpose(2, 1, 0) for one in examples])
    return torch.from_numpy(images[:, None].copy())


@pytest.fixture(scope="module", params=[2, 3])
def dims(request: pytest.FixtureRequest) -> int:
    return int(request.param)


@pytest.fixture(scope="module")
def trained(dims: int) -> nn.Module:
    random, net = np.random.default_rng(dims), network(dims, 0)
    optimizer = torch.optim.Adam(net.parameters(), 0.02)
    for _ in range(100):
        examples = [example(random, dims, n % 3) for n in range(12)]
        loss = nn.functional.cross_entropy(net(batch(examples, dims)), torch.tensor([one.label for one in examples]))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def examples(dims: int) -> list[Example]:
    random = np.random.default_rng(100)
    return [example(random, dims, n % 2) for n in range(IMAGES[dims])]


def recipe(dims: int) -> ClassifyRecipe:
    return ClassifyRecipe((), Classes(NAMES, "multiclass", dims, (0.0, 0.0, 0.0)), 1, 3, "softmax")


def saliency_of(
    net: nn.Module, volume: Volume, asked: Explain, told: ClassifyRecipe, progress: Progress | None = None
) -> Saliency:
    progress = progress or Progress()
    with torch.inference_mode():
        done = classify(volume, net, told, ClassifyOptions(explain=asked), progress)
    return explain(net, told, done, volume.geometry, asked, progress)


def pointed(net: nn.Module, examples: list[Example], method: str, dims: int) -> float:
    """Share of images whose largest saliency lies in the square that decides."""
    hits = 0
    for one in examples:
        volume = Volume(one.data[None], Geometry(one.data.shape, np.eye(4)), "example")
        found = saliency_of(net, volume, Explain(method, NAMES[one.label]), recipe(dims)).values
        if method == "integrated-gradients":  # speaks voxel by voxel, where noise does too: take neighbours together
            found = ndimage.uniform_filter(found, [min(size, 5) for size in found.shape])
        hits += bool(found.max() > 0 and found[one.square].max() == found.max())
    return hits / len(examples)


def test_the_network_has_learnt_what_decides(trained: nn.Module, examples: list[Example], dims: int) -> None:
    guessed = trained(batch(examples, dims)).argmax(1)
    assert (guessed == torch.tensor([one.label for one in examples])).all()


@pytest.mark.parametrize("method", EXPLANATIONS)
def test_saliency_points_at_the_square_that_decides(
    trained: nn.Module, examples: list[Example], dims: int, method: str
) -> None:
    assert pointed(trained, examples, method, dims) >= NEEDED


@pytest.mark.parametrize("method", EXPLANATIONS)
def test_saliency_of_random_weights_does_not(examples: list[Example], dims: int, method: str) -> None:
    net = network(dims, 7).eval().requires_grad_(False)
    assert pointed(net, examples[:6], method, dims) <= 0.5


def test_largest_magnitude_is_one_and_the_scale_is_told(trained: nn.Module, examples: list[Example], dims: int) -> None:
    one = examples[0]
    volume = Volume(one.data[None], Geometry(one.data.shape, np.eye(4)), "example")
    found = saliency_of(trained, volume, Explain("occlusion", NAMES[one.label]), recipe(dims))
    assert np.abs(found.values).max() == pytest.approx(1)
    assert f"{found.scale:.6g}" in found.description and found.scale > 0


def test_the_network_is_left_as_it_was(trained: nn.Module, examples: list[Example], dims: int) -> None:
    one = examples[0]
    volume = Volume(one.data[None], Geometry(one.data.shape, np.eye(4)), "example")
    for method in ("grad-cam", "grad-cam++", "integrated-gradients"):
        saliency_of(trained, volume, Explain(method, NAMES[one.label]), recipe(dims))
    for module in trained.modules():
        assert not module._forward_hooks and not module._backward_hooks
    assert all(not p.requires_grad and p.grad is None for p in trained.parameters())


@pytest.mark.parametrize("method", EXPLANATIONS)
def test_progress_is_told_and_cancelling_ends_within_the_method(
    trained: nn.Module, examples: list[Example], dims: int, method: str
) -> None:
    class StopsAtTheSecondPass(Progress):
        heard = 0

        def step(self, done: int, total: int, text: str = "") -> None:
            assert 0 <= done <= total
            self.heard += text == "Explaining"
            if self.heard == 2:
                raise Cancelled

    one = examples[0]
    volume = Volume(one.data[None], Geometry(one.data.shape, np.eye(4)), "example")
    listener = StopsAtTheSecondPass()
    if method.startswith("grad-cam"):  # a single pass
        saliency_of(trained, volume, Explain(method, NAMES[0]), recipe(dims), listener)
        assert listener.heard == 1
        return
    with pytest.raises(Cancelled):
        saliency_of(trained, volume, Explain(method, NAMES[0]), recipe(dims), listener)


def test_values_come_back_where_they_were_computed() -> None:
    """Against the world: a value that is the place itself is found again at each voxel of the input."""
    matrix = np.array([[0, -1.3, 0, 4], [0.7, 0, 0, -2], [0, 0, -2.1, 9], [0, 0, 0, 1]])
    shape = (9, 14, 17)
    frame, image = input_frame(shape), torch.zeros(1, 17, 14, 9)
    for step in (Orient("RAS"), Resize((24, 10, 20))):
        image, frame = step(image, frame, matrix)
    affine = frame.affine(matrix)
    index = np.stack([*np.indices(frame.shape), np.ones(frame.shape)])
    grid = Geometry(shape, matrix)
    ijk = np.indices(shape)[::-1].reshape(3, -1).T
    inside = tuple(slice(1, -1) for _ in range(3))
    for axis in range(3):
        world = torch.from_numpy(np.tensordot(affine, index, axes=1)[axis])
        back = onto_input(world, frame, shape)
        assert back.shape == shape
        assert np.allclose(back[inside], grid.ras_of(ijk)[:, axis].reshape(shape)[inside], atol=1e-3)


def test_what_the_model_cuts_away_says_nothing() -> None:
    frame, image = input_frame((6, 6, 12)), torch.zeros(1, 12, 6, 6)
    image, frame = CenterCrop((4, 0, 0))(image, frame, np.eye(4))
    back = onto_input(torch.ones(frame.shape), frame, (6, 6, 12))
    assert (back[..., :4] == 0).all() and (back[..., 4:8] == 1).all() and (back[..., 8:] == 0).all()


@pytest.mark.parametrize("dims", [2], indirect=True)
def test_a_slice_is_explained_in_its_own_place(trained: nn.Module, dims: int) -> None:
    one = example(np.random.default_rng(4), 2, 0)
    data = np.random.default_rng(0).normal(0, 0.2, (5, 32, 32)).astype(np.float32)
    data[3] = one.data[0]
    volume = Volume(data[None], Geometry(data.shape, np.eye(4)), "stack")
    asked = Explain("grad-cam", NAMES[0])
    with torch.inference_mode():
        options = ClassifyOptions(slices=Slices("K", 3), explain=asked)
        done = classify(volume, trained, recipe(2), options, Progress())
    found = explain(trained, recipe(2), done, volume.geometry, asked, Progress()).values
    assert not found[[0, 1, 2, 4]].any()
    assert found[3][one.square[1:]].max() == found.max() == pytest.approx(1)


LAYERS = {
    "DenseNet121": ({"spatial_dims": 2, "in_channels": 1, "out_channels": 3}, "class_layers.relu"),
    "EfficientNetBN": ({"model_name": "efficientnet-b0", "in_channels": 1, "num_classes": 2}, "_bn1"),
    "SEResNet50": ({"spatial_dims": 2, "in_channels": 1, "num_classes": 2}, "layer4"),
    "resnet18": ({"spatial_dims": 2, "n_input_channels": 1, "num_classes": 2}, "layer4"),
}


@pytest.mark.parametrize("name", LAYERS)
def test_the_layer_of_each_network_is_the_one_its_authors_advise(name: str) -> None:
    arguments, layer = LAYERS[name]
    net = build_network(name, arguments).eval().requires_grad_(False)
    assert last_spatial_layer(net, torch.rand(1, 1, 64, 64)) == layer
    volume = Volume(np.random.default_rng(0).random((1, 1, 64, 64)), Geometry((1, 64, 64), np.eye(4)), "noise")
    count = 3 if name == "DenseNet121" else 2
    classes = Classes(NAMES[:count], "multiclass", 2, (0.0,) * count)
    told = replace(recipe(2), classes=classes, outputs=count)
    for method in ("grad-cam", "grad-cam++"):
        assert np.isfinite(saliency_of(net, volume, Explain(method, "rows"), told).values).all()


def test_a_transformer_has_no_maps_and_says_what_to_choose_instead() -> None:
    arguments = {"in_channels": 1, "img_size": [32, 32], "patch_size": [8, 8], "spatial_dims": 2, "num_heads": 4}
    sizes = {"classification": True, "num_classes": 2, "hidden_size": 24, "mlp_dim": 32, "num_layers": 2}
    net = build_network("ViT", arguments | sizes).eval()
    with pytest.raises(InputError, match="occlusion"):
        last_spatial_layer(net, torch.rand(1, 1, 32, 32))
