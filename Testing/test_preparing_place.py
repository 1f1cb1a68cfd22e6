"""Images prepared on a GPU: everything stays there, and it is what the CPU makes of them."""

from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from legitimate import nnunet, random_volume
from monai.data import set_track_meta
from numpy.typing import NDArray
from scipy import ndimage
from second_device import DEVICE, Held, There, second_device
from test_memory import Listener
from torch import Tensor, nn

from MedAILib.config_values import Component
from MedAILib.estimate import FLOAT, WIDE_PREPARING, demand
from MedAILib.inference import ladder, spline
from MedAILib.inference.classify import ClassifyRecipe, classify
from MedAILib.inference.detect import BOXES, LABELS, SCORES, DetectRecipe, find_boxes
from MedAILib.inference.ladder import CPU, PREPARED_ON_CPU, Memory, Preparing
from MedAILib.inference.place import preparing_place
from MedAILib.inference.prepare import (
    AddChannels,
    CenterCrop,
    CropForeground,
    Intensity,
    Orient,
    Pad,
    Resize,
    Space,
    Step,
    prepared,
)
from MedAILib.inference.restore import Decision
from MedAILib.inference.segment import Recipe, Segmented, prepare_ahead, segment
from MedAILib.inference.spline import spline_zoom
from MedAILib.inference.window import Windows
from MedAILib.models.intensities import percentile
from MedAILib.models.nnunet import NnunetModel
from MedAILib.models.nnunet_prepare import Prepared, prepare_nnunet, view_of
from MedAILib.models.open import open_model
from MedAILib.models.steps import INTENSITIES, OWN_INTENSITIES, intensity_step
from MedAILib.nnunet_plan import NnunetPlan, Normalization, Resampling
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import ClassifyOptions, DetectOptions, RunOptions, Slices
from MedAILib.spec import Classes
from MedAILib.volume import Geometry, Volume

TURNED = np.array([[0, 0, -2.0, 3], [1.1, 0, 0, 5], [0, -0.7, 0, 9], [0, 0, 0, 1]])
ARGUMENTS: dict[str, list[dict[str, Any]]] = {
    "AdjustContrast": [{"gamma": 1.5}],
    "ClipIntensityPercentiles": [
        {"lower": 5, "upper": 95},
        {"lower": None, "upper": 90, "channel_wise": True},
        {"lower": 3.3, "upper": 95, "sharpness_factor": 0.1},
    ],
    "GaussianSmooth": [{"sigma": 0.8}, {"sigma": [1.0, 0.5, 2.0], "approx": "sampled"}],
    "HistogramNormalize": [{"num_bins": 64}],
    "MedianSmooth": [{"radius": 1}],
    "NormalizeIntensity": [
        {},
        {"nonzero": True, "channel_wise": True},
        {"nonzero": True},
        {"subtrahend": [3.0, 4.0], "divisor": [2.0, 2.5], "channel_wise": True},
        {"nonzero": True, "subtrahend": 3.0, "divisor": 2.0},
    ],
    "ScaleIntensity": [{"minv": 0.0, "maxv": 1.0}, {"minv": -1.0, "maxv": 1.0, "channel_wise": True}],
    "ScaleIntensityRange": [{"a_min": -100, "a_max": 300, "b_min": 0.0, "b_max": 1.0, "clip": True}],
    "ScaleIntensityRangePercentiles": [
        {"lower": 1, "upper": 99, "b_min": 0.0, "b_max": 1.0, "clip": True},
        {"lower": 0, "upper": 99.5, "b_min": -1.0, "b_max": 1.0, "channel_wise": True, "relative": True},
    ],
    "ShiftIntensity": [{"offset": 5.0}],
    "ThresholdIntensity": [{"threshold": 10.0, "above": False, "cval": 3.0}],
} | {name: [{}] for name in OWN_INTENSITIES}
SPATIAL: list[Step] = [
    Orient("RAS"),
    Space((1.3, 0.9, 0)),
    Resize((11, -1, 30)),
    Resize((7, 9, 30), area=True),
    AddChannels(1),
    CropForeground((2, 1, 0), (4, 1, 2)),
    CropForeground(above=1e9),
    Pad((40, 1, 1), (1, 8, 1), -3.0),
    CenterCrop((9, 0, 4)),
]


@pytest.fixture(autouse=True)
def _plain_tensors() -> Iterator[None]:
    """MONAI's own kind of tensor can't be made of the second device's."""
    set_track_meta(False)
    yield
    set_track_meta(True)


def volume(dtype: str = "int16", shape: tuple[int, int, int] = (12, 18, 15)) -> Volume:
    rng = np.random.default_rng(0)
    data = np.abs(rng.normal(size=(2, *shape)) * 200)
    data[:, :3], data[:, :, :, -5:] = 0, 0
    data = data.astype(dtype)
    data.flags.writeable = False
    return Volume(data, Geometry(shape, TURNED), "image")


def both(image: Volume, steps: list[Step]) -> tuple[torch.Tensor, torch.Tensor]:
    """What steps make on the CPU, and on the second device."""
    here, frame = prepared(image, steps, Progress())
    with torch.inference_mode(), second_device():
        there, its = prepared(image, steps, Progress(), DEVICE)
        assert isinstance(there, There) and its == frame
        return here, there.cpu()


@pytest.mark.parametrize("dtype", ["int16", "uint8", "uint16", "float32", "float64", ">i2"])
def test_voxels_of_every_kind_get_there(dtype: str) -> None:
    here, there = both(volume(dtype), [])
    assert torch.equal(here, there) and there.dtype == torch.float32


@pytest.mark.parametrize("step", SPATIAL, ids=str)
def test_steps_that_move_voxels_are_done_where_the_image_is(step: Step) -> None:
    here, there = both(volume(), [Orient("LPS"), step])
    torch.testing.assert_close(there, here, rtol=1e-6, atol=1e-4)


def test_each_step_that_changes_values_is_tried_here() -> None:
    assert set(ARGUMENTS) == {*INTENSITIES, *OWN_INTENSITIES}


@pytest.mark.parametrize(
    ("name", "arguments"), [(name, one) for name, each in ARGUMENTS.items() for one in each], ids=str
)
def test_steps_that_change_values_do_the_same_there(name: str, arguments: dict[str, Any]) -> None:
    step = Intensity(intensity_step(name, Component(f"{name}d", {"keys": "image"} | arguments)))
    here, there = both(volume(), [step])
    torch.testing.assert_close(there, here, rtol=1e-5, atol=1e-4)


def test_percentiles_are_numpys_however_many_values() -> None:
    values = np.random.default_rng(0).integers(-1000, 1000, 5000).astype(np.float32)
    for share in (0, 0.01, 37.77, 99.5, 100):
        assert percentile(torch.from_numpy(values), share) == pytest.approx(np.percentile(values.astype(float), share))
    many = torch.zeros((1 << 24) + 5)
    with pytest.raises(RuntimeError, match="too large"):
        torch.quantile(many, 0.5)
    many[7] = -1.0
    assert percentile(many, 0) == -1.0


NORMALIZATIONS = {
    "z": Normalization("ZScoreNormalization", False),
    "z inside": Normalization("ZScoreNormalization", True),
    "ct": Normalization("CTNormalization", False, (-20.0, 300.0), 31.7, 88.1),
    "01": Normalization("RescaleTo01Normalization", False),
    "colour": Normalization("RGBTo01Normalization", False),
    "none": Normalization("NoNormalization", False),
}
NATIVE, TORCH = "resample_data_or_seg_to_shape", "resample_torch_fornnunet"
RESAMPLINGS = {
    "order 3": Resampling(NATIVE),
    "order 1": Resampling(NATIVE, order=1),
    "order 0": Resampling(NATIVE, order=0, separate=False),
    "axis by itself": Resampling(NATIVE, separate=True),
    "linear": Resampling(TORCH),
    "linear, axis by itself": Resampling(TORCH, separate=True),
    "as it is": Resampling("no_resampling_hack"),
}


def plan(normalization: Normalization, resampling: Resampling, **changes: Any) -> NnunetPlan:
    """As far as preparing reads it."""
    told: dict[str, Any] = {field.name: None for field in fields(NnunetPlan)} | {
        "to_ras": True, "transpose": (2, 0, 1), "spacing_mm": (3.2, 1.1, 0.8), "channels": ("a", "b"),
        "normalizations": (normalization, NORMALIZATIONS["none"]), "image_resampling": resampling,
        "label_resampling": replace(resampling, order=1), "output_resampling": resampling, "stage_values": (1, 2),
    }  # fmt: skip
    return NnunetPlan(**told | changes)


def nnunet_both(image: Volume, told: NnunetPlan, labels: NDArray[Any] | None = None) -> tuple[Prepared, Prepared]:
    """What nnU-Net's preparing makes on the CPU, and on the second device (its image brought here)."""
    view = view_of(told, image.geometry)
    here = prepare_nnunet(image, told, view, labels, Progress())
    with torch.inference_mode(), second_device():
        there = prepare_nnunet(image, told, view, labels, Progress(), DEVICE)
        assert isinstance(there.image, There)
        return here, replace(there, image=there.image.cpu())


@pytest.mark.parametrize("resampling", RESAMPLINGS.values(), ids=RESAMPLINGS.keys())
def test_nnunets_resampling_is_done_there(resampling: Resampling) -> None:
    here, there = nnunet_both(volume(), plan(NORMALIZATIONS["ct"], resampling, to_ras=False))
    torch.testing.assert_close(there.image, here.image, rtol=1e-6, atol=1e-6)
    assert (there.frame, there.box, there.stepped) == (here.frame, here.box, here.stepped)


@pytest.mark.parametrize("normalization", NORMALIZATIONS.values(), ids=NORMALIZATIONS.keys())
def test_nnunets_normalization_is_done_there_in_the_image_s_own_direction(normalization: Normalization) -> None:
    here, there = nnunet_both(volume("uint8"), plan(normalization, RESAMPLINGS["order 1"]))
    torch.testing.assert_close(there.image, here.image, rtol=1e-5, atol=1e-5)
    assert there.box == here.box


@pytest.mark.parametrize("resampling", ["order 3", "linear"])
def test_labels_of_a_first_stage_get_there(resampling: str) -> None:
    image = volume()
    labels = np.random.default_rng(1).integers(0, 3, image.geometry.shape_kji).astype(np.uint8)
    here, there = nnunet_both(image, plan(NORMALIZATIONS["z inside"], RESAMPLINGS[resampling]), labels)
    assert len(here.image) == 4 and torch.equal(there.image[2:], here.image[2:])


def test_matrices_that_are_kept_lie_in_main_memory() -> None:
    with torch.inference_mode(), second_device():
        spline_zoom(torch.rand(5, 31, 27).to(DEVICE), (5, 17, 27), 3)
    kept = spline._matrix(31, 17, 3)
    assert kept is not None and not any(isinstance(block, There) for *_, block in kept.blocks)


def test_a_device_without_float64_has_its_images_prepared_on_the_cpu() -> None:
    assert [preparing_place(torch.device(name)).type for name in ("cpu", "cuda", "mps")] == ["cpu", "cuda", "cpu"]


@pytest.mark.parametrize("short", ["foretold", "met"])
def test_a_gpu_that_is_too_small_for_preparing_leaves_that_to_the_cpu(short: str, hippocampus: Path) -> None:
    tried: list[torch.device] = []

    def attempt(device: torch.device) -> str:
        tried.append(device)
        if device == DEVICE:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return "prepared"

    need = demand(read_spec(hippocampus), Geometry((300, 512, 512), np.eye(4)), np.int16, RunOptions())
    there = need.preparing_on_gpu() - (1 if short == "foretold" else 0)
    listener = Listener()
    preparing = Preparing(listener, lambda _: Memory(1 << 40, there))
    assert preparing(DEVICE, attempt, need) == "prepared" and preparing.gave_way == (PREPARED_ON_CPU,)
    assert tried == ([CPU] if short == "foretold" else [DEVICE, CPU])
    assert preparing(DEVICE, attempt) == "prepared" and tried.pop() == tried.pop() == CPU  # the next one too
    assert len(listener.warnings) == 1 and listener.warnings[0].endswith(": the image is prepared on the CPU.")


def test_other_failures_of_preparing_are_handed_on() -> None:
    def attempt(device: torch.device) -> None:
        raise RuntimeError("wrong shape")

    with pytest.raises(RuntimeError, match="shape"):
        Preparing(Progress(), lambda _: Memory(None))(DEVICE, attempt)


class Bright(nn.Module):
    """As many classes as brightnesses, one for each `step`; runs out of memory so many times."""

    def __init__(self, classes: int, fails: int = 0, step: float = 40, device: torch.device = DEVICE) -> None:
        super().__init__()
        self.classes, self.fails, self.step = classes, fails, step
        self.one = nn.Parameter(torch.ones(()).to(device), False)

    def forward(self, window: Tensor) -> Tensor:
        assert window.device == self.one.device
        if self.fails:
            self.fails -= 1
            raise torch.OutOfMemoryError("CUDA out of memory.")
        far = [(window[:, :1] - self.step * n) / (0.75 * self.step) for n in range(self.classes)]
        return torch.cat([1 - one.square() for one in far], dim=1) * self.one


@pytest.fixture
def there(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """The second device with memory enough, and networks that stay where they are."""
    monkeypatch.setattr(ladder, "free_memory", lambda device: Memory(1 << 40, 1 << 40))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "second device")
    monkeypatch.setattr(nn.Module, "to", lambda module, device: module)
    with torch.inference_mode(), second_device() as held:
        yield held


STEPS: tuple[Step, ...] = (Orient("RAS"), Space((1.7, 1.2, 1.5)), Intensity(lambda image: image / 2), CropForeground())
DECISIONS = {
    "largest": Decision(),
    "largest, probable": Decision("softmax"),
    "layers": Decision("sigmoid", threshold=0.5),
    "before": Decision(first=True),
    "nearest": Decision(nearest=True),
    "regions, in halves": Decision(priority=(1, 2, 3), late=True, half=True),
    "largest, in halves": Decision(half=True, late=True),
    "stepped": Decision(stepped=(0,)),
}


def bright_labels(network: nn.Module, decision: Decision, **options: Any) -> Segmented:
    """The image through a network and back."""
    steps = STEPS if not (decision.half or decision.stepped) else STEPS[:-1]
    windows = Windows((16, 16, 16), gaussian=True)
    recipe = Recipe(steps, windows, decision, (), 2, network.classes, (0, 1))  # type: ignore[arg-type]
    return segment(volume("uint8"), network, recipe, RunOptions(**options), Progress())


@pytest.mark.parametrize("decision", DECISIONS.values(), ids=DECISIONS.keys())
def test_from_the_volume_to_labels_all_stays_there_and_labels_alone_come_back(decision: Decision, there: Held) -> None:
    found = bright_labels(Bright(3), decision)
    # Numbers for the host are few; all else that came is labels.
    assert {one.dtype for one in there.fetched if one.numel() > 16} == {torch.uint8}
    here = bright_labels(Bright(3, device=CPU), decision)
    assert found.layers.any() and (found.layers == here.layers).mean() > 0.9999


def test_probabilities_and_agreement_are_those_of_the_cpu(there: Held) -> None:
    asked: dict[str, Any] = {"probabilities": True, "uncertainty": True, "mirror": True}
    found, here = (
        bright_labels(Bright(3), Decision(), **asked),
        bright_labels(Bright(3, device=CPU), Decision(), **asked),
    )
    np.testing.assert_allclose(found.probabilities, here.probabilities, atol=1e-5)
    np.testing.assert_allclose(found.uncertainty, here.uncertainty, atol=1e-5)
    assert found.agreement is not None and found.agreement.dice(0, 1) == 1


def test_a_way_that_fails_on_the_gpu_leaves_no_prepared_image_there(there: Held) -> None:
    held: list[int] = []

    class Watched(Bright):
        def forward(self, window: Tensor) -> Tensor:
            held.append(sum(there.held.values()) - 4 * window.numel())
            return super().forward(window)

    found = bright_labels(Watched(3, fails=1), Decision())
    assert found.gave_way == ("overlapping windows are added up in main memory",)
    assert np.array_equal(found.layers, bright_labels(Bright(3, device=CPU), Decision()).layers)
    assert held[0] > 4 * 16**3 and held[1] < 100


def test_an_image_made_of_an_image_is_changed_where_it_is(there: Held) -> None:
    whole = Decision("identity")
    change = intensity_step("ScaleIntensityRange", Component("ScaleIntensityRanged", {"a_min": 0, "a_max": 2}))
    recipe = Recipe(STEPS[:-1], Windows((16, 16, 16)), whole, (), 2, 3, on_planes=change)
    found, here = (
        segment(volume("uint8"), network, recipe, RunOptions(probabilities=True), Progress())
        for network in (Bright(3), Bright(3, device=CPU))
    )
    np.testing.assert_allclose(found.probabilities, here.probabilities, atol=1e-4)


def test_nnunets_way_stays_there_too(tmp_path: Path, there: Held) -> None:
    model = open_model(nnunet(tmp_path), "cpu")
    assert isinstance(model, NnunetModel)
    (stage,), image = model._stages, random_volume()
    found = []
    for place in (CPU, DEVICE):
        network = Bright(stage.plan.outputs, step=0.5, device=place)
        model._stages, model._device = [replace(stage, networks=(network,), device=place, sums=place)], place
        found.append(model.run(image, RunOptions(), Progress()).layers)
    assert {one.dtype for one in there.fetched if one.numel() > 16} == {torch.uint8}
    assert found[0].any() and (found[0] == found[1]).mean() > 0.9999


@pytest.mark.parametrize("masked", [False, True])
def test_on_the_cpu_means_are_summed_as_nnunet_sums_them(masked: bool) -> None:
    image = volume("float32")
    told = plan(Normalization("ZScoreNormalization", masked), RESAMPLINGS["as it is"])
    view = view_of(told, image.geometry)
    found = prepare_nnunet(image, told, view, None, Progress())
    values, inside = (view.of(one)[0][found.box] for one in (image.data, (image.data != 0).any(axis=0)[None]))
    part = values[ndimage.binary_fill_holes(inside)] if masked else values
    assert np.array_equal(found.image[0].numpy()[inside], ((values - part.mean()) / part.std())[inside])


@pytest.mark.parametrize("spacing_mm", [(2.0, 2.2, 1.4), (1.0, 0.8, 0.5)], ids=["coarser", "finer"])
@pytest.mark.parametrize("way", ["z inside", "ct", "bundle"])
def test_preparing_holds_no_more_than_is_foretold(
    way: str, spacing_mm: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spline, "BLOCK_BYTES_GPU", 1 << 12)  # blocks are small beside a real image
    image = volume(shape=(20, 30, 24))
    with torch.no_grad(), second_device() as held:
        if way == "bundle":
            window = intensity_step("ScaleIntensityRange", Component("ScaleIntensityRanged", {"a_min": 0, "a_max": 9}))
            found, _ = prepared(image, [Orient("RAS"), Space(spacing_mm), Intensity(window)], Progress(), DEVICE)
        else:
            told = plan(NORMALIZATIONS[way], RESAMPLINGS["order 3"], spacing_mm=spacing_mm)
            found = prepare_nnunet(image, told, view_of(told, image.geometry), None, Progress(), DEVICE).image
    voxels, working = image.data[0].size, found[0].numel()
    foretold = 2 * FLOAT * (voxels + 2 * max(voxels, working))
    assert held.peak <= WIDE_PREPARING * foretold


def hungry(image: Tensor) -> Tensor:
    if isinstance(image, There):
        raise torch.OutOfMemoryError("CUDA out of memory.")
    return image


def test_what_runs_out_while_preparing_is_told_and_the_network_still_runs_on_the_gpu(there: Held) -> None:
    recipe = Recipe((*STEPS, Intensity(hungry)), Windows((16, 16, 16)), Decision(), (), 2, 3)
    listener = Listener()
    found, here = (
        segment(volume("uint8"), Bright(3, device=place), recipe, RunOptions(), listener) for place in (DEVICE, CPU)
    )
    assert (found.device, found.gave_way) == (DEVICE, (PREPARED_ON_CPU,)) and here.gave_way == ()
    assert len(listener.warnings) == 1 and np.array_equal(found.layers, here.layers)


class Brightness(nn.Module):
    """Two scores of a picture (B, C, X, Y), or a detector's one box in it, on the device that it is on."""

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()).to(device), False)
        self.network = self

    def forward(self, images: Any, use_inferer: bool | None = None) -> Any:
        if use_inferer is None:
            return images.mean(dim=(1, 2, 3))[:, None] * torch.tensor([[1.0, -1.0]]).to(images.device) * self.one
        box = torch.tensor([[1.0, 2.0, 5.0, 6.0]])
        return [{BOXES: box, LABELS: torch.tensor([0]), SCORES: images[0].mean()[None].sigmoid()}]


def short(listener: Listener) -> list[str]:
    return [text for text in listener.warnings if text.startswith("Memory is short")]


def test_slices_are_classified_and_looked_through_on_the_gpu_after_the_first_had_to_be_prepared_on_the_cpu(
    there: Held,
) -> None:
    image, steps = volume("uint8"), (Intensity(hungry), Intensity(lambda image: image / 100))
    recipe = ClassifyRecipe(steps, Classes(("dark", "bright"), "multiclass", 2, (0.0, 0.0)), 2, 2, "softmax")
    asked, listener = ClassifyOptions(slices=Slices("K")), Listener()
    found, here = (classify(image, Brightness(place), recipe, asked, listener) for place in (DEVICE, CPU))
    assert (found.gave_way, here.gave_way) == ((PREPARED_ON_CPU,), ()) and len(short(listener)) == 1
    np.testing.assert_allclose(found.scores, here.scores, atol=1e-5)

    boxed = DetectRecipe(steps, ("thing",), 2, None, 0.0, False, (1, 1), True)
    listener = Listener()
    (boxes, gave_way), (same, none) = (
        find_boxes(image, Brightness(place), boxed, DetectOptions(), listener) for place in (DEVICE, CPU)
    )
    assert (gave_way, none) == ((PREPARED_ON_CPU,), ()) and len(short(listener)) == 1
    assert len(boxes) == image.geometry.shape_kji[0] and [box.low_ijk for box in boxes] == [box.low_ijk for box in same]


def test_an_image_that_waits_for_its_turn_takes_no_memory_of_the_gpu(there: Held) -> None:
    recipe = Recipe(STEPS, Windows((16, 16, 16)), Decision(), (), 2, 3)
    image = volume("uint8")
    ahead = prepare_ahead(image, recipe, RunOptions(), Progress())
    assert ahead is not None and ahead[0].device == CPU and not there.held
    found, plain = (segment(image, Bright(3), recipe, RunOptions(), Progress(), ahead=one) for one in (ahead, None))
    assert (found.layers == plain.layers).mean() > 0.9999
