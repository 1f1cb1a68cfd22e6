"""Prepare, slide and restore: voxels go to the network and labels come back to where they belong."""

from pathlib import Path

import numpy as np
import pytest
import torch
from bundles import network_entry, random_bundle, threshold_bundle
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.inferers import SlidingWindowInferer
from monai.transforms import NormalizeIntensity
from nibabel.orientations import io_orientation
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from MedAILib.errors import InputError, ModelError
from MedAILib.inference.cleanup import FillHoles, KeepLargest, RemoveSmall
from MedAILib.inference.frame import input_frame
from MedAILib.inference.interpolate import linear_taps, nearest_taps
from MedAILib.inference.prepare import CenterCrop, CropForeground, Intensity, Orient, Pad, Resize, Space, prepare
from MedAILib.inference.restore import Decision, restore
from MedAILib.inference.window import Planes, Windows, slide
from MedAILib.models.open import open_model
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.request import RunOptions
from MedAILib.volume import Geometry, Roi, Volume, closest_axes

SILENT = Progress()


@st.composite
def geometries(draw: st.DrawFn, largest: int = 14) -> Geometry:
    """Any grid: 48 axis orders and directions, oblique, anisotropic from 0.3 to 7 mm, down to one voxel."""
    order = draw(st.permutations([0, 1, 2]))
    signs = np.array([draw(st.sampled_from([-1, 1])) for _ in range(3)])
    angles = [draw(st.floats(-30, 30)) for _ in range(3)]
    spacing = np.array([draw(st.floats(0.3, 7)) for _ in range(3)])
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()[:, order] * signs * spacing
    matrix[:3, 3] = [draw(st.floats(-300, 300)) for _ in range(3)]
    shape = [draw(st.integers(1, largest)) for _ in range(3)]
    return Geometry((shape[0], shape[1], shape[2]), matrix)


def image_on(geometry: Geometry, seed: int = 0) -> Volume:
    """Smooth noise."""
    noise = np.random.default_rng(seed).normal(size=geometry.shape_kji)
    return Volume(ndimage.gaussian_filter(noise, 1.0)[None].astype(np.float32), geometry, "noise")


@given(geometries())
def test_axes_are_named_as_nibabel_names_them(geometry: Geometry) -> None:
    ours = closest_axes(geometry.ijk_to_ras)
    assert np.array_equal(np.array(ours), io_orientation(geometry.ijk_to_ras))


@settings(max_examples=200, deadline=None)
@given(geometries(), st.sampled_from(["RAS", "LPS", "SRA", "PIR"]), st.floats(0.5, 4))
def test_every_working_voxel_knows_its_place_in_the_world(geometry: Geometry, codes: str, spacing: float) -> None:
    """An image whose value is the world position keeps that value at every working voxel, through all steps."""
    grid = np.stack(np.meshgrid(*[np.arange(n) for n in geometry.shape_kji], indexing="ij"), -1)[..., ::-1]
    world = geometry.ras_of(grid.reshape(-1, 3)).reshape(*geometry.shape_kji, 3)
    volume = Volume(np.moveaxis(world, -1, 0).astype(np.float64), geometry)
    image, frame = input_frame_of(volume)
    for step in (Orient(codes), Space((spacing,) * 3)):
        image, frame = step(image, frame, geometry.ijk_to_ras)
    affine = frame.affine(geometry.ijk_to_ras)
    index = np.stack(np.meshgrid(*[np.arange(n) for n in frame.shape], indexing="ij"), -1)
    expected = index @ affine[:3, :3].T + affine[:3, 3]
    inside = np.ones(frame.shape, bool)
    for axis, size in enumerate(frame.shape):  # border values are repeated beyond the input's outermost voxels
        where = frame.scale[axis] * np.arange(size) + frame.offset[axis]
        kept = (where >= -1e-6) & (where <= geometry.shape_kji[2 - frame.axes[axis]] - 1 + 1e-6)
        inside &= kept.reshape([-1 if a == axis else 1 for a in range(3)])
    difference = np.abs(np.moveaxis(image.numpy(), 0, -1) - expected)[inside]
    assert difference.size == 0 or difference.max() < 1e-3
    assert "".join("RAS"[w] if s > 0 else "LPI"[w] for w, s in closest_axes(affine)) == codes


def input_frame_of(volume: Volume):  # type: ignore[no-untyped-def]
    return torch.from_numpy(volume.data.astype(np.float32)).permute(0, 3, 2, 1), input_frame(volume.geometry.shape_kji)


@settings(max_examples=100, deadline=None)
@given(geometries(), st.floats(0.5, 3), st.integers(0, 2))
def test_labels_decided_before_or_after_interpolation_agree_away_from_borders(
    geometry: Geometry, spacing: float, axis: int
) -> None:
    """A constant class everywhere comes back everywhere, whichever axis the planes walk along."""
    image, frame = input_frame_of(image_on(geometry))
    for step in (Orient("RAS"), Space((spacing,) * 3)):
        image, frame = step(image, frame, geometry.ijk_to_ras)
    logits = torch.zeros(3, *frame.shape)
    logits[2] = 1
    for first in (False, True):
        planes = Planes(axis, iter(logits.movedim(axis + 1, 0)), "")
        restored = restore(planes, frame, geometry.shape_kji, Decision(first=first), probabilities=False)
        assert restored.layers.shape == (1, *geometry.shape_kji)
        assert (restored.layers == 2).all()


def test_restored_probabilities_are_those_of_a_trilinear_resampling() -> None:
    geometry = Geometry((9, 11, 13), np.diag([1.5, 0.7, 2.0, 1.0]))
    image, frame = input_frame_of(image_on(geometry))
    image, frame = Space((1.0, 1.0, 1.0))(image, frame, geometry.ijk_to_ras)
    logits = torch.randn(4, *frame.shape, generator=torch.Generator().manual_seed(0))
    planes = Planes(1, iter(logits.movedim(2, 0)), "")
    restored = restore(planes, frame, geometry.shape_kji, Decision("softmax"), probabilities=True)
    positions = [frame.coordinates(a, geometry.shape_kji[2 - a]) for a in range(3)]
    mesh = np.stack(np.meshgrid(*positions, indexing="ij"))
    expected = np.stack(
        [ndimage.map_coordinates(c, mesh, order=1, mode="nearest") for c in logits.softmax(0).double().numpy()]
    ).transpose(0, 3, 2, 1)
    assert restored.probabilities is not None
    assert np.abs(restored.probabilities - expected).max() < 1e-5
    assert (restored.layers[0] == expected.argmax(0)).mean() > 0.9999


@settings(max_examples=60, deadline=None)
@given(
    st.tuples(*[st.integers(3, 30)] * 3),
    st.tuples(*[st.integers(4, 20)] * 3),
    st.sampled_from([0.0, 0.25, 0.5, 0.7]),
    st.booleans(),
)
def test_windows_blend_as_monai_blends_them(
    shape: tuple[int, ...], roi: tuple[int, ...], overlap: float, gaussian: bool
) -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 3, 3, padding=1)
    image = torch.randn(1, *shape)
    windows = Windows(roi, (overlap,) * 3, gaussian)
    with torch.inference_mode():
        planes = slide(network, image, windows, (), 3, SILENT)
        ours = torch.stack(list(planes.values), dim=1).movedim(1, planes.axis + 1)
        theirs = SlidingWindowInferer(roi, overlap=overlap, mode="gaussian" if gaussian else "constant")
        assert torch.allclose(ours, theirs(image[None], network)[0], atol=1e-5)


def test_mirroring_averages_over_every_combination_of_axes() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 2, 3, padding=1)
    image = torch.randn(1, 6, 7, 8)
    with torch.inference_mode():
        planes = slide(network, image, Windows(), (0, 2), 2, SILENT)
        ours = torch.stack(list(planes.values), dim=1).movedim(1, planes.axis + 1)
        flips = [(), (2,), (4,), (2, 4)]
        copies = [network(image[None].flip(axes)).flip(axes)[0] for axes in flips]
        assert torch.allclose(ours, torch.stack(copies).mean(0), atol=1e-6)


def test_a_run_stops_between_windows_when_cancelled() -> None:
    seen: list[int] = []

    class AtThird(Cancellable):
        def step(self, done: int, total: int, text: str = "") -> None:
            seen.append(total)
            if done == 2:
                self.cancel()
            super().step(done, total, text)

    windows = Windows((4, 4, 4), (0.5,) * 3)
    with pytest.raises(Cancelled):
        list(slide(torch.nn.Identity(), torch.zeros(1, 8, 8, 8), windows, (), 1, AtThird()).values)
    assert seen == [27, 27, 27]


@pytest.mark.parametrize(
    ("step", "shape"),
    [
        (Pad(shape=(12, 3, 9)), (12, 8, 9)),
        (Pad(k=(4, 4, 4)), (8, 8, 8)),
        (CenterCrop((4, -1, 20)), (4, 8, 8)),
        (Resize((5, 16, -1)), (5, 16, 8)),
        (CropForeground(margin=(1, 1, 1)), (4, 5, 6)),
        (CropForeground(margin=(1, 1, 1), k=(4, 4, 4)), (4, 8, 8)),
    ],
)
def test_what_a_spatial_step_shows_comes_back_to_its_place(step, shape) -> None:  # type: ignore[no-untyped-def]
    geometry = Geometry((8, 8, 7), np.eye(4))
    data = np.zeros((8, 8, 7), np.float32)
    data[2:6, 3:6, 3:5] = 1
    image, frame = input_frame_of(Volume(data[None], geometry))
    image, frame = step(image, frame, geometry.ijk_to_ras)
    assert frame.shape == tuple(image.shape[1:]) == shape
    logits = torch.stack([torch.full(frame.shape, 0.5), image[0]])
    planes = Planes(0, iter(logits.movedim(1, 0)), "")
    back = restore(planes, frame, geometry.shape_kji, Decision(), probabilities=False).layers[0]
    if isinstance(step, Resize):
        assert (back == data).mean() > 0.9
    else:
        assert np.array_equal(back, data)


def test_what_monai_changed_is_a_plain_tensor_again() -> None:
    image, _ = prepare(image_on(Geometry((6, 7, 8), np.eye(4))), [Intensity(NormalizeIntensity())], SILENT)
    assert type(image) is torch.Tensor


def test_interpolation_at_whole_positions_is_exact() -> None:
    values = torch.arange(7.0)
    for taps in (linear_taps, nearest_taps):
        assert torch.equal(taps(np.arange(7.0), 7).apply(values, 0), values)
        assert torch.equal(taps(np.array([6.0, 0.0, -3.0, 9.0]), 7).apply(values, 0), torch.tensor([6.0, 0, 0, 6]))
    assert torch.equal(linear_taps(np.array([1.25, 5.5]), 7).apply(values, 0), torch.tensor([1.25, 5.5]))


def test_cleanups_change_only_what_they_name() -> None:
    labels = np.zeros((6, 9, 9), np.uint8)
    labels[1:4, 1:6, 1:6] = 1
    labels[2, 3, 3] = 0
    labels[5, 8, 8] = 1
    labels[5, 0, 0] = 2
    labels[5, 0, 8] = 2
    kept, filled, large = labels.copy(), labels.copy(), labels.copy()
    KeepLargest(values=(1,))(kept[None], 0.001)
    assert kept[5, 8, 8] == 0 and (kept == 2).sum() == 2
    FillHoles(connectivity=1)(filled[None], 0.001)
    assert filled[2, 3, 3] == 1 and (filled == 2).sum() == 2
    RemoveSmall(3, in_mm3=True)(large[None], 0.001)
    assert set(np.unique(large)) == {0, 1}
    large[labels == 2] = 0
    RemoveSmall(2)(large[None], 0.001)
    assert large[5, 8, 8] == 0 and large[1, 1, 1] == 1


def run(folder: Path, volume: Volume, **options: object) -> NDArray[np.uint8]:
    return open_model(folder, "cpu").run(volume, RunOptions(**options), SILENT).layers[0]  # type: ignore[arg-type]


def test_a_threshold_model_finds_exactly_the_bright_voxels(tmp_path: Path) -> None:
    geometry = Geometry((20, 18, 23), np.diag([-1.3, 0.8, 2.5, 1.0]))
    volume = image_on(geometry)
    model = threshold_bundle(tmp_path, 0.1, spacing_mm=None)
    assert np.array_equal(run(model, volume), volume.data[0] > np.float32(0.1))


def test_a_region_of_interest_limits_the_answer_to_its_box(tmp_path: Path) -> None:
    volume = image_on(Geometry((20, 20, 20), np.eye(4)))
    model = threshold_bundle(tmp_path, 0.0, spacing_mm=None)
    roi = Roi((9.5, 9.5, 9.5), (8.0, 6.0, 4.0))
    inside = np.zeros((20, 20, 20), bool)
    inside[8:12, 7:13, 6:14] = True
    assert np.array_equal(run(model, volume, roi=roi), (volume.data[0] > 0) & inside)


def test_probabilities_sum_to_one_and_agree_with_the_labels(tmp_path: Path) -> None:
    model = open_model(random_bundle(tmp_path, network_entry("UNet")), "cpu")
    result = model.run(image_on(Geometry((20, 24, 18), np.eye(4))), RunOptions(probabilities=True), SILENT)
    assert result.probabilities is not None
    assert result.probability_names == ("background", "part 1", "part 2")
    assert np.allclose(result.probabilities.sum(0), 1, atol=1e-5)
    assert np.array_equal(result.probabilities.argmax(0), result.layers[0])


@pytest.mark.parametrize("post", [[], [{"_target_": "Activationsd", "keys": "pred", "softmax": True}]])
def test_asking_for_probabilities_changes_no_label(post: list[dict[str, object]], tmp_path: Path) -> None:
    steps = [*post, {"_target_": "Invertd", "keys": "pred", "nearest_interp": False}]
    steps.append({"_target_": "AsDiscreted", "keys": "pred", "argmax": True})
    changed = {"_target_": "Compose", "transforms": steps}
    model = open_model(random_bundle(tmp_path, network_entry("UNet"), postprocessing=changed), "cpu")
    volume = image_on(Geometry((20, 24, 18), np.diag([1.3, 0.7, 2.1, 1.0])))
    plain, asked = (model.run(volume, RunOptions(probabilities=wanted), SILENT) for wanted in (False, True))
    assert np.array_equal(plain.layers, asked.layers)


def test_overlapping_structures_get_a_layer_each(tmp_path: Path) -> None:
    post = [
        {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
        {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
    ]
    network = network_entry("UNet", classes=2)
    model = open_model(
        random_bundle(tmp_path, network, postprocessing={"_target_": "Compose", "transforms": post}), "cpu"
    )
    result = model.run(image_on(Geometry((16, 16, 16), np.eye(4))), RunOptions(probabilities=True), SILENT)
    assert result.layers.shape[0] == 2
    assert [(label.layer, label.name) for label in result.labels] == [(1, "part 1")]  # channel 0 is the background
    assert result.probabilities is not None
    assert np.array_equal(result.probabilities >= 0.5, result.layers == 1)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (np.full((1, 4, 4, 4), np.nan, np.float32), "64 NaN or infinite voxels"),
        (np.where(np.arange(64).reshape(1, 4, 4, 4) == 5, np.inf, 1.0), "1 NaN or infinite voxel;"),
        (np.full((1, 4, 4, 4), 7, np.int16), "value 7 in every voxel"),
        (np.zeros((2, 4, 4, 4), np.int16), "has 2 channels, but the model takes 1"),
    ],
)
def test_images_without_a_meaningful_answer_are_refused(data: NDArray[np.float64], words: str, tmp_path: Path) -> None:
    volume = Volume(data, Geometry((4, 4, 4), np.eye(4)), "scan.nii.gz")
    with pytest.raises(InputError, match=words) as caught:
        run(threshold_bundle(tmp_path, 0.0), volume)
    assert str(caught.value).startswith("scan.nii.gz")


def test_options_that_do_not_suit_are_refused(tmp_path: Path) -> None:
    volume = image_on(Geometry((8, 8, 8), np.eye(4)))
    model = threshold_bundle(tmp_path, 0.0)
    with pytest.raises(InputError, match="mirrored"):
        run(model, volume, mirror=True)
    with pytest.raises(InputError, match="outside the image"):
        run(model, volume, roi=Roi((100.0, 0.0, 0.0), (5.0, 5.0, 5.0)))
    with pytest.raises(InputError, match="overlap"):
        RunOptions(overlap=1.0)


def test_a_window_that_the_network_cannot_take_is_a_sentence(tmp_path: Path) -> None:
    inferer = {"_target_": "SlidingWindowInferer", "roi_size": [15, 15, 15]}
    model = random_bundle(tmp_path, network_entry("SegResNet"), inferer=inferer)
    with pytest.raises(ModelError, match=r"can't take a window of \[15, 15, 15\]"):
        run(model, image_on(Geometry((20, 20, 20), np.eye(4))))


def test_weights_that_are_not_finite_are_noticed(tmp_path: Path) -> None:
    model = random_bundle(tmp_path, network_entry("UNet"))
    weights = torch.load(tmp_path / "models" / "model.pt", weights_only=True)
    torch.save({key: value * float("nan") for key, value in weights.items()}, tmp_path / "models" / "model.pt")
    with pytest.raises(ModelError, match="not finite"):
        run(model, image_on(Geometry((16, 16, 16), np.eye(4))))


def test_one_constant_channel_of_several_is_a_warning() -> None:
    class Listening(Progress):
        heard: tuple[str, ...] = ()

        def warn(self, text: str) -> None:
            self.heard += (text,)

    data = np.stack([np.arange(8.0).reshape(2, 2, 2), np.zeros((2, 2, 2))])
    progress = Listening()
    prepare(Volume(data, Geometry((2, 2, 2), np.eye(4)), "study"), (), progress)
    assert progress.heard == ("Channel 2 of study has the same value in every voxel.",)
