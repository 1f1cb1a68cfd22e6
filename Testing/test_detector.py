"""Detectors from bundles: the boxes that stock MONAI finds, where they are in the world; bad input."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from bundles import write_configs
from detector_bundles import WINDOW, detector_bundle, detector_configs
from grids import matrices
from hypothesis import given, settings
from hypothesis import strategies as st
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.transforms.dictionary import AffineBoxToWorldCoordinated, ClipBoxToImaged
from monai.apps.detection.utils.anchor_utils import AnchorGeneratorWithAnchorShape
from monai.bundle import ConfigParser
from torch import Tensor, nn

from MedAILib.bundle_spec import bundle_spec
from MedAILib.cli import main
from MedAILib.detection_plan import DetectionPlan
from MedAILib.errors import InputError, MedAIError, SpecError
from MedAILib.files.images import read_image
from MedAILib.inference.detect import DetectRecipe, find_boxes
from MedAILib.inference.prepare import Orient, Space
from MedAILib.models.bundle import bundle_network
from MedAILib.models.detector import build_anchors, build_detector
from MedAILib.models.open import open_model
from MedAILib.models.weights import load_weights
from MedAILib.plans import read_any_plan
from MedAILib.progress import Cancellable, Cancelled, Progress
from MedAILib.request import ClassifyOptions, DetectOptions
from MedAILib.volume import Geometry, Roi, Volume

SILENT = Progress()


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return detector_bundle(tmp_path_factory.mktemp("models") / "nodules")


@pytest.fixture(scope="module")
def scan(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A made-up scan, larger than a window, with oblique axes that run to the left, backwards and down."""
    path = tmp_path_factory.mktemp("images") / "scan.nii.gz"
    rng = np.random.default_rng(0)
    noise = rng.normal(size=(44, 40, 26)).astype(np.float32)
    angle = math.radians(8)
    turn = np.array([[math.cos(angle), -math.sin(angle), 0], [math.sin(angle), math.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-1.1, -0.9, -1.4])
    affine[:3, 3] = 30, -20, 50
    nibabel.save(nibabel.Nifti1Image(noise * 300 - 400, affine), path)
    return path


def stock_boxes(bundle: Path, scan: Path, windows: bool) -> tuple[np.ndarray, np.ndarray]:
    """Corners in the world (N, 2, 3) and scores of MONAI's own detector and transforms; only the network is ours."""
    parser = ConfigParser()
    parser.read_config(str(bundle / "configs" / "inference.json"))
    plan = read_any_plan(bundle)
    network = bundle_network(plan)
    network.load_state_dict(load_weights(bundle / "models" / "model.pt"))
    anchors = parser.get_parsed_content("anchor_generator")
    detector = RetinaNetDetector(network=network, anchor_generator=anchors, debug=False)
    detector.set_target_keys(box_key="box", label_key="label")
    detector.set_box_selector_parameters(
        score_thresh=0.02, topk_candidates_per_level=1000, nms_thresh=0.22, detections_per_img=300
    )
    detector.set_sliding_window_inferer(roi_size=WINDOW, overlap=0.25, sw_batch_size=1, mode="constant", device="cpu")
    detector.eval()
    data = parser.get_parsed_content("preprocessing")({"image": str(scan)})
    with torch.no_grad():
        (found,) = detector([data["image"]], use_inferer=windows)
    data |= found
    data = ClipBoxToImaged("box", "label", "image", remove_empty=True)(data)
    data = AffineBoxToWorldCoordinated("box", "image", affine_lps_to_ras=False)(data)
    boxes = np.asarray(data["box"], np.float64)
    return boxes.reshape(-1, 2, 3), np.asarray(found["label_scores"], np.float64)


@pytest.mark.parametrize("roi_size", [None, [64, 64, 32]])
def test_boxes_are_those_of_stock_monai(tmp_path: Path, bundle: Path, scan: Path, roi_size: list[int] | None) -> None:
    windows = roi_size is None
    folder = bundle
    if roi_size:  # an image smaller than a window is seen whole
        folder = tmp_path / "whole"
        shutil.copytree(bundle, folder)
        metadata, inference = detector_configs(infer_patch_size=roi_size)
        write_configs(folder, metadata, inference)
    volume = read_image(scan)
    found = open_model(folder, "cpu").run(volume, DetectOptions(), SILENT)
    corners, scores = stock_boxes(bundle, scan, windows)
    assert len(found.boxes) == len(corners) > 5
    order = np.argsort(-scores, kind="stable")
    assert np.allclose([box.score for box in found.boxes], scores[order], atol=1e-5)
    # On an oblique grid MONAI's corners are those of a box along the world's axes; the centres are the same.
    centers = np.array([found.center_ras(box) for box in found.boxes])
    assert np.allclose(centers, corners.mean(axis=1)[order], atol=1e-2)


def test_the_zoos_detector_of_lung_nodules_runs_with_random_weights(shared_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "lung_nodule_ct_detection"
    shutil.copytree(shared_data / "monai_bundles" / "lung_nodule_ct_detection", folder)
    plan = read_any_plan(folder)
    spec = bundle_spec(plan)
    assert (spec.task, spec.obstacle, spec.findings) == ("detection", "", ("finding",))
    assert spec.patch == (512, 512, 192) and spec.spacing_mm == (0.703125, 0.703125, 1.25)
    network = bundle_network(plan)
    assert "feature_extractor.body.layer2.3.conv3.weight" in network.state_dict()  # as MONAI's own names it
    (folder / "models").mkdir(exist_ok=True)
    torch.save(network.state_dict(), folder / "models" / "model.pt")
    noise = np.random.default_rng(0).normal(size=(1, 12, 32, 30)).astype(np.float32) * 300 - 400
    volume = Volume(noise, Geometry((12, 32, 30), np.diag([-1.0, -1.0, 1.6, 1.0])))
    found = open_model(folder, "cpu").run(volume, DetectOptions(score_threshold=0.0), SILENT)
    assert 0 < len(found.boxes) <= 300 and found.provenance["model"] == "lung_nodule_ct_detection"


class Lights(nn.Module):
    """Stands where a trained network does: sure of the anchor at each bright voxel, and of no other."""

    spatial_dims, num_classes, num_anchors, size_divisible = 3, 1, 1, 1
    cls_key, box_reg_key = "classification", "box_regression"

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, image: Tensor) -> dict[str, list[Tensor]]:
        peak = (image == image.amax()).float()
        correction = torch.zeros(image.shape[0], 6, *image.shape[2:])
        return {self.cls_key: [peak * 40 - 20], self.box_reg_key: [correction]}


@settings(max_examples=200)
@given(matrices(), st.tuples(*[st.integers(2, 7)] * 3), st.booleans())
def test_the_centre_of_a_box_lies_where_the_finding_is(
    matrix: Any, place: tuple[int, int, int], resampled: bool
) -> None:
    shape = (10, 10, 10)
    grid = np.stack(np.meshgrid(*[np.arange(10)] * 3, indexing="ij"))
    away = np.linalg.norm(grid - np.array(place).reshape(3, 1, 1, 1), axis=0)
    volume = Volume(np.exp(-(away**2) / 4).astype(np.float32)[None], Geometry(shape, matrix))
    anchors = AnchorGeneratorWithAnchorShape(feature_map_scales=(1,), base_anchor_shapes=((3, 4, 5),))
    plan = DetectionPlan(anchors=None)  # type: ignore[arg-type]  # the anchors are built
    detector = build_detector(Lights(), anchors, plan, DetectOptions())
    least = float(min(np.linalg.norm(matrix[:3, :3], axis=0)))
    steps = (Orient("RAS"), *((Space((least,) * 3),) if resampled else ()))
    recipe = DetectRecipe(steps, ("light",), 1, None, 0.5, False, (1, 1, 1), False)
    ((box, *_), _) = find_boxes(volume, detector, recipe, DetectOptions(overlap_limit=0.0), SILENT)
    middle = (np.array(box.low_ijk) + np.array(box.high_ijk)) / 2
    assert np.abs(middle - np.array(place)[::-1]).max() <= 1.0 + 1e-6


def test_a_region_is_all_that_is_looked_at(bundle: Path, scan: Path) -> None:
    volume = read_image(scan)
    model = open_model(bundle, "cpu")
    center = volume.geometry.ras_of(np.array([[22, 20, 13]]))[0]
    roi = Roi(tuple(center), (24.0, 20.0, 16.0))
    found = model.run(volume, DetectOptions(roi=roi, score_threshold=0.0), SILENT)
    box = volume.geometry.box_of_roi(roi)
    low, high = (np.array([getattr(side, end) for side in reversed(box)]) for end in ("start", "stop"))
    assert found.boxes
    for one in found.boxes:
        assert (np.array(one.low_ijk) >= low - 2).all() and (np.array(one.high_ijk) <= high + 2).all()


def test_scores_and_overlaps_are_the_users_where_he_says_so(bundle: Path, scan: Path) -> None:
    volume, model = read_image(scan), open_model(bundle, "cpu")
    few = model.run(volume, DetectOptions(score_threshold=0.5), SILENT)
    many = model.run(volume, DetectOptions(score_threshold=0.02, overlap_limit=0.9), SILENT)
    assert len(few.boxes) < len(many.boxes) and all(box.score >= 0.5 for box in few.boxes)
    assert (few.threshold, many.threshold) == (0.5, 0.02)


def test_cancelling_stops_between_two_windows(bundle: Path, scan: Path) -> None:
    class AtThird(Cancellable):
        def step(self, done: int, total: int, text: str = "") -> None:
            if text == "Looking for findings" and done == 2:
                assert total > 3
                self.cancel()
            super().step(done, total, text)

    with pytest.raises(Cancelled):
        open_model(bundle, "cpu").run(read_image(scan), DetectOptions(), AtThird())


def test_the_command_line_writes_what_a_detector_found(bundle: Path, scan: Path, tmp_path: Path) -> None:
    out = tmp_path / "findings.json"
    words = ["detect", scan, "-m", bundle, "-o", out, "--min-score", "0.3", "--quiet"]
    assert main([str(word) for word in words]) == 0
    found = json.loads(out.read_text())
    assert found["classes"] == ["nodule"] and found["threshold"] == 0.3
    assert found["findings"] and all(entry["score"] >= 0.3 for entry in found["findings"])


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"detector_ops": ["$@detector.set_evil(a=1)"]}, "set_evil"),
        ({"detector_ops": ["$__import__('os').system('true')"]}, "no call that sets up the detector"),
        ({"detector_ops": ["$@detector.set_box_selector_parameters(nms_thresh=2.0)"]}, "from 0 to 1"),
        ({"detector_ops": ["$@detector.set_box_selector_parameters(color='red')"]}, "color"),
        ({"anchor_generator": {"_target_": "os.system", "command": "true"}}, "none that MedAI makes"),
        ({"detector": {"_target_": "MyDetector"}}, "none that MedAI runs"),
        ({"feature_extractor": "$torchvision.models.resnet18()"}, "torchvision|does not build"),
    ],
)
def test_a_detector_that_is_not_known_is_refused_in_one_sentence(
    tmp_path: Path, changes: dict[str, Any], sentence: str
) -> None:
    write_configs(tmp_path / "model", *detector_configs(**changes))
    (tmp_path / "model" / "models").mkdir()
    torch.save({"weight": torch.zeros(1)}, tmp_path / "model" / "models" / "model.pt")
    with pytest.raises(MedAIError, match=sentence) as caught:
        open_model(tmp_path / "model", "cpu")
    assert "\n" not in str(caught.value)


def test_bad_images_and_options_are_refused(bundle: Path, scan: Path) -> None:
    model, volume = open_model(bundle, "cpu"), read_image(scan)
    with pytest.raises(SpecError, match="looks for findings"):
        model.run(volume, ClassifyOptions(), SILENT)
    with pytest.raises(InputError, match="2 channels"):
        model.run(Volume(np.repeat(volume.data, 2, axis=0), volume.geometry), DetectOptions(), SILENT)
    holes = volume.data.copy()
    holes[0, 0, 0, 0] = np.nan
    with pytest.raises(InputError, match="NaN or infinite"):
        model.run(Volume(holes, volume.geometry), DetectOptions(), SILENT)


def test_options_of_segmentation_are_refused_for_a_detector(
    bundle: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["detect", scan, "-m", bundle, "-o", tmp_path / "f.json", "--mirror", "--quiet"]
    assert main([str(word) for word in words]) == 2
    assert "takes no --mirror" in capsys.readouterr().err and not (tmp_path / "f.json").exists()


def test_anchors_are_made_or_refused() -> None:
    from MedAILib.config_values import Component

    with pytest.raises(MedAIError, match="can't be made"):
        build_anchors(Component("AnchorGenerator", {"sizes": 3}))
    shapes = {"feature_map_scales": [1], "base_anchor_shapes": "x"}
    with pytest.raises(MedAIError, match="can't be made") as caught:
        build_anchors(Component("AnchorGeneratorWithAnchorShape", shapes))
    assert "\n" not in str(caught.value) and not str(caught.value).endswith("..")
