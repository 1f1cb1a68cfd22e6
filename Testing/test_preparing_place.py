"""Images prepared on a GPU: everything stays there, and it is what the CPU makes of them."""

from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
import torch
from monai.data import set_track_meta
from numpy.typing import NDArray
from second_device import DEVICE, There, second_device

from MedAILib.config_values import Component
from MedAILib.inference import spline
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
from MedAILib.inference.spline import spline_zoom
from MedAILib.models.intensities import percentile
from MedAILib.models.nnunet_prepare import Prepared, prepare_nnunet, view_of
from MedAILib.models.steps import INTENSITIES, OWN_INTENSITIES, intensity_step
from MedAILib.nnunet_plan import NnunetPlan, Normalization, Resampling
from MedAILib.progress import Progress
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


def volume(dtype: str = "int16", shape: tuple[int, int, int] = (18, 24, 20)) -> Volume:
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
    many[7], many[9] = 1.0, -1.0
    assert [percentile(many, share) for share in (0, 50, 100)] == [-1.0, 0.0, 1.0]


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
