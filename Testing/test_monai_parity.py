"""The same bundle, weights and image through stock MONAI and through MedAI give the same labels."""

from pathlib import Path

import monai.transforms
import nibabel
import numpy as np
import pytest
from bundles import network_entry, random_bundle
from monai.bundle import ConfigWorkflow
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from MedAILib.inference.cleanup import FillHoles, KeepLargest, RemoveSmall
from MedAILib.models.open import open_model
from MedAILib.progress import Progress
from MedAILib.request import RunOptions
from MedAILib.volume import Geometry, Volume

AGREEMENT = 0.999


def affine(
    spacing: tuple[float, ...], angles: tuple[float, ...], order: list[int], signs: list[int]
) -> NDArray[np.float64]:
    matrix = np.eye(4)
    matrix[:3, :3] = Rotation.from_euler("xyz", angles, degrees=True).as_matrix()[:, order] * signs * np.array(spacing)
    matrix[:3, 3] = (10, -20, 33)
    return matrix


GRIDS = {
    "plain": ((30, 40, 36), affine((1, 1, 1), (0, 0, 0), [0, 1, 2], [1, 1, 1])),
    "anisotropic": ((40, 33, 12), affine((0.8, 0.8, 3.3), (0, 0, 0), [0, 1, 2], [-1, -1, 1])),
    "oblique": ((30, 20, 45), affine((0.7, 2.2, 0.9), (10, -15, 20), [2, 0, 1], [1, -1, 1])),
    "without ties": ((40, 33, 12), affine((0.83, 0.77, 2.91), (0, 0, 0), [1, 0, 2], [-1, -1, 1])),
    "small": ((12, 9, 17), affine((3, 1.7, 0.5), (5, 3, -8), [1, 0, 2], [-1, 1, 1])),
}


def image(folder: Path, shape: tuple[int, ...], matrix: NDArray[np.float64]) -> Volume:
    """Write noise as `a.nii.gz` and give it back as a volume."""
    voxels = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 1.5).astype(np.float32) * 100
    folder.mkdir(exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(voxels, matrix), folder / "a.nii.gz")
    stored = nibabel.load(folder / "a.nii.gz").affine
    return Volume(np.ascontiguousarray(voxels.transpose(2, 1, 0))[None], Geometry(shape[::-1], stored), "a.nii.gz")


def stock(bundle: Path, images: Path) -> NDArray[np.uint8]:
    """Labels (K, J, I) by MONAI's own workflow on the bundle's own config."""
    workflow = ConfigWorkflow(
        config_file=str(bundle / "configs" / "inference.json"),
        workflow_type="infer",
        logging_file=False,
        bundle_root=str(bundle),
        dataset_dir=str(images),
        output_dir=str(images / "out"),
    )
    workflow.initialize()
    workflow.run()
    labels = np.asarray(nibabel.load(images / "out" / "a_seg.nii.gz").dataobj)
    return labels.reshape(labels.shape[:3]).transpose(2, 1, 0)


def ours(bundle: Path, volume: Volume) -> NDArray[np.uint8]:
    return open_model(bundle, "cpu").run(volume, RunOptions(), Progress()).layers[0]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("network", ["UNet", "BasicUNet", "SegResNet", "DynUNet"])
def test_labels_agree_for_each_network_on_each_grid(network: str, grid: str, tmp_path: Path) -> None:
    inferer = {"_target_": "SlidingWindowInferer", "roi_size": [32, 32, 32], "overlap": 0.5, "mode": "gaussian"}
    bundle = random_bundle(tmp_path / "bundle", network_entry(network), inferer=inferer)
    volume = image(tmp_path / "images", *GRIDS[grid])
    labels = ours(bundle, volume)
    assert len(np.unique(labels)) > 1
    assert (labels == stock(bundle, tmp_path / "images")).mean() >= AGREEMENT


SPACING = {"_target_": "Spacingd", "keys": "image", "pixdim": [1.2, 0.9, 1.6], "mode": "bilinear"}
STEPS = {
    "ScaleIntensityRanged": {"a_min": -57, "a_max": 164, "b_min": 0, "b_max": 1, "clip": True},
    "ScaleIntensityRangePercentilesd": {"lower": 1, "upper": 99, "b_min": 0, "b_max": 1},
    "ScaleIntensityd": {"minv": -1.0, "maxv": 1.0},
    "NormalizeIntensityd": {"nonzero": True},
    "ThresholdIntensityd": {"threshold": -20.0, "above": True, "cval": -20.0},
    "CropForegroundd": {"source_key": "image", "margin": [2, 1, 3], "k_divisible": [4, 4, 4]},
    "SpatialPadd": {"spatial_size": [48, 48, 48]},
    "DivisiblePadd": {"k": 16},
    "CenterSpatialCropd": {"roi_size": [24, 24, 24]},
    "Resized": {"spatial_size": [32, 32, 32], "mode": "trilinear"},
}


@pytest.mark.parametrize("name", STEPS)
def test_labels_agree_for_each_step_of_preprocessing(name: str, tmp_path: Path) -> None:
    steps = [
        {"_target_": "LoadImaged", "keys": "image"},
        {"_target_": "EnsureChannelFirstd", "keys": "image"},
        {"_target_": "Orientationd", "keys": "image", "axcodes": "LPS"},
        *([] if name == "Resized" else [SPACING]),  # one interpolation on the way back here, two in MONAI
        {"_target_": name, "keys": "image", **STEPS[name]},
    ]
    preprocessing = {"_target_": "Compose", "transforms": steps}
    bundle = random_bundle(tmp_path / "bundle", network_entry("UNet"), preprocessing=preprocessing)
    volume = image(tmp_path / "images", *GRIDS["anisotropic"])
    labels = ours(bundle, volume)
    assert (labels == stock(bundle, tmp_path / "images")).mean() >= AGREEMENT


def test_labels_agree_when_decided_before_the_way_back(tmp_path: Path) -> None:
    steps = [
        {"_target_": "Activationsd", "keys": "pred", "softmax": True},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
        {
            "_target_": "Invertd",
            "keys": "pred",
            "transform": "@preprocessing",
            "orig_keys": "image",
            "nearest_interp": True,
            "to_tensor": True,
        },
        {
            "_target_": "SaveImaged",
            "keys": "pred",
            "output_dir": "@output_dir",
            "output_postfix": "seg",
            "separate_folder": False,
        },
    ]
    postprocessing = {"_target_": "Compose", "transforms": steps}
    bundle = random_bundle(tmp_path / "bundle", network_entry("UNet"), postprocessing=postprocessing)
    volume = image(tmp_path / "images", *GRIDS["without ties"])  # halfway between voxels, rounding decides
    assert (ours(bundle, volume) == stock(bundle, tmp_path / "images")).mean() >= AGREEMENT


def test_the_built_in_model_agrees_on_a_real_crop(hippocampus: Path, shared_data: Path, tmp_path: Path) -> None:
    source = sorted((shared_data / "hippocampus" / "images").glob("*.nii.gz"))[0]
    loaded = nibabel.load(source)
    (tmp_path / "images").mkdir()
    nibabel.save(loaded, tmp_path / "images" / "a.nii.gz")
    voxels = np.asarray(loaded.dataobj).transpose(2, 1, 0)
    volume = Volume(voxels[None], Geometry(voxels.shape, loaded.affine), "a.nii.gz")
    labels = ours(hippocampus, volume)
    assert set(np.unique(labels)) == {0, 1, 2}
    assert (labels == stock(hippocampus, tmp_path / "images")).mean() >= AGREEMENT


def blobs(layers: int, values: int, seed: int, shape: tuple[int, ...] = (24, 26, 22)) -> NDArray[np.uint8]:
    """Labels (L, X, Y, Z) of several parts and with holes: values up to `values`, or layers of 0 and 1."""
    random = np.random.default_rng(seed)
    smooth = ndimage.gaussian_filter(random.normal(size=(layers, values + 1, *shape)), (0, 0, 1.3, 1.3, 1.3))
    smooth[:, 0] += 0.05 if layers == 1 else 0.02
    labels = smooth.argmax(axis=1).astype(np.uint8)
    labels[:, 5:12, 5:12, 5:12] = 1
    labels[:, 7:9, 7:9, 7:9] = 0
    return labels


CLEANUPS = {
    "fill": (FillHoles(), "FillHoles", {}),
    "fill one over faces": (FillHoles((2,), 1), "FillHoles", {"applied_labels": [2], "connectivity": 1}),
    "largest": (KeepLargest(), "KeepLargestConnectedComponent", {}),
    "largest of one": (KeepLargest((1,), 1), "KeepLargestConnectedComponent", {"applied_labels": 1, "connectivity": 1}),
    "two largest": (KeepLargest(components=2), "KeepLargestConnectedComponent", {"num_components": 2}),
    "largest of all": (KeepLargest(independent=False), "KeepLargestConnectedComponent", {"independent": False}),
    "small": (RemoveSmall(40), "RemoveSmallObjects", {"min_size": 40}),
    "small over corners": (RemoveSmall(300, 3), "RemoveSmallObjects", {"min_size": 300, "connectivity": 3}),
    "small of all": (
        RemoveSmall(30, independent=False),
        "RemoveSmallObjects",
        {"min_size": 30, "independent_channels": False},
    ),
    "small by volume": (
        RemoveSmall(100, in_mm3=True),
        "RemoveSmallObjects",
        {"min_size": 100, "by_measure": True, "pixdim": [1, 1.5, 2]},
    ),
}


@pytest.mark.parametrize("kind", [(1, 1), (1, 3), (3, 1)])
@pytest.mark.parametrize("name", CLEANUPS)
def test_a_clean_up_does_what_monais_transform_does(name: str, kind: tuple[int, int]) -> None:
    cleanup, transform, arguments = CLEANUPS[name]
    changed = 0
    for seed in range(3):
        labels = blobs(*kind, seed)
        theirs = np.asarray(getattr(monai.transforms, transform)(**arguments)(labels.copy()))
        mine = labels.copy()
        cleanup(mine, 0.003)
        assert np.array_equal(mine, theirs)
        changed += int((mine != labels).sum())
    assert changed or name in ("fill one over faces", "small over corners") or kind == (1, 3)
