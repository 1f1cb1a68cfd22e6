"""Boxes, scores and classes against MONAI's own detector: the zoo's config as it is, several classes, two axes."""

import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from bundles import write_configs
from detector_bundles import detector_bundle, detector_configs
from monai.apps.detection.networks.retinanet_detector import RetinaNetDetector
from monai.apps.detection.transforms.dictionary import AffineBoxToWorldCoordinated, ClipBoxToImaged
from monai.bundle import ConfigParser
from numpy.typing import NDArray
from torch import Tensor, nn

from MedAILib.detections import Detections
from MedAILib.errors import ModelError
from MedAILib.files.images import read_image
from MedAILib.inference.detect import DetectRecipe, find_boxes
from MedAILib.models.bundle import bundle_network
from MedAILib.models.faster_rcnn import TorchvisionDetector
from MedAILib.models.obstacles import why_not
from MedAILib.models.open import open_model
from MedAILib.models.weights import load_weights
from MedAILib.plans import read_any_plan
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import DetectOptions
from MedAILib.volume import Geometry, Volume

SILENT = Progress()


def lively(folder: Path, bias: float = -1.0) -> None:
    """Random weights whose scores and boxes differ from place to place, as the bundle's own file of weights."""
    torch.manual_seed(4)
    network = bundle_network(read_any_plan(folder))
    with torch.no_grad():
        network.classification_head.cls_logits.weight.mul_(30)
        network.classification_head.cls_logits.bias.fill_(bias)
        network.regression_head.bbox_reg.weight.mul_(10)
    (folder / "models").mkdir(exist_ok=True)
    torch.save(network.state_dict(), folder / "models" / "model.pt")


def stock_detector(folder: Path) -> tuple[RetinaNetDetector, ConfigParser]:
    """MONAI's detector, built and set up by MONAI's parser from the bundle's config; the network alone is ours."""
    parser = ConfigParser()
    parser.read_config(str(folder / "configs" / "inference.json"))
    network = bundle_network(read_any_plan(folder))
    network.load_state_dict(load_weights(folder / "models" / "model.pt"))
    parser["network"] = network
    parser["detector"] = RetinaNetDetector(network, parser.get_parsed_content("anchor_generator"))
    parser.get_parsed_content("detector_ops")
    return parser.get_parsed_content("detector").eval(), parser


def corners(found: Detections) -> NDArray[np.float64]:
    """The lowest and the highest corner of each box in the world (N, 2, 3)."""
    every = np.array([found.corners_ras(box) for box in found.boxes])
    return np.stack([every.min(axis=1), every.max(axis=1)], axis=1)


def test_the_zoos_config_gives_the_boxes_scores_and_classes_of_monais_detector(
    shared_data: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "lung_nodule_ct_detection"
    shutil.copytree(shared_data / "monai_bundles" / "lung_nodule_ct_detection", folder)
    lively(folder)
    scan = tmp_path / "scan.nii.gz"
    noise = np.random.default_rng(2).normal(size=(40, 36, 20)).astype(np.float32)
    affine = np.diag([-0.703125, -0.703125, 1.25, 1])  # the grid on which the zoo's images lie already
    affine[:3, 3] = 20, 30, -40
    nibabel.save(nibabel.Nifti1Image(noise * 300 - 400, affine), scan)

    detector, parser = stock_detector(folder)
    data = parser.get_parsed_content("preprocessing")({"image": str(scan)})
    with torch.no_grad():
        (told,) = detector([data["image"]])
    data |= told
    data = ClipBoxToImaged("box", "label", "image", remove_empty=True)(data)
    data = AffineBoxToWorldCoordinated("box", "image", affine_lps_to_ras=False)(data)
    found = open_model(folder, "cpu").run(read_image(scan), DetectOptions(), SILENT)

    order = np.argsort(-np.asarray(data["label_scores"]), kind="stable")
    assert len(found.boxes) == len(order) > 20
    assert np.allclose([box.score for box in found.boxes], np.asarray(data["label_scores"])[order], atol=1e-5)
    assert [found.classes.index(box.label) for box in found.boxes] == np.asarray(data["label"])[order].tolist()
    assert np.allclose(corners(found), np.asarray(data["box"], np.float64).reshape(-1, 2, 3)[order], atol=1e-3)


FLAT: dict[str, Any] = {
    "size_divisible": [16, 16],
    "anchor_generator": {
        "_target_": "AnchorGeneratorWithAnchorShape",
        "feature_map_scales": [1, 2, 4],
        "base_anchor_shapes": [[6, 8], [8, 6], [10, 10]],
    },
    "backbone": "$monai.networks.nets.resnet.resnet10(spatial_dims=2,n_input_channels=1,conv1_t_stride=[2,2],"
    "conv1_t_size=[7,7])",
    "feature_extractor": "$monai.apps.detection.networks.retinanet_network.resnet_fpn_feature_extractor("
    "@backbone,2,False,[1,2],None)",
    "network_def": {
        "_target_": "RetinaNet",
        "spatial_dims": 2,
        "num_classes": 2,
        "num_anchors": 3,
        "feature_extractor": "@feature_extractor",
        "size_divisible": "@size_divisible",
    },
    "detector_ops": ["$@detector.set_target_keys(box_key='box', label_key='label')"],
    "preprocessing": {
        "_target_": "Compose",
        "transforms": [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "ScaleIntensityd", "keys": "image"}],
    },
}


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A detector of two classes in pictures."""
    metadata, inference = detector_configs(**FLAT)
    metadata["medai"]["detection"]["classes"] = ["mass", "calcification"]
    folder = write_configs(tmp_path / "flat", metadata, inference)
    lively(folder, 0.0)
    return folder


def test_a_detector_of_pictures_finds_what_monais_finds_and_looks_at_each_slice(flat: Path) -> None:
    random, matrix = np.random.default_rng(3), np.array([[0, -0.8, 0, 5], [0.7, 0, 0, 6], [0, 0, 3.0, 7], [0, 0, 0, 1]])
    stack = random.normal(size=(1, 3, 50, 44)).astype(np.float32)
    volume = Volume(stack, Geometry((3, 50, 44), matrix), "stack")
    found = open_model(flat, "cpu").run(volume, DetectOptions(), SILENT)
    detector, _ = stock_detector(flat)
    told: list[tuple[float, str, float, list[float]]] = []
    for k, plane in enumerate(stack[0]):
        scaled = torch.from_numpy(plane.T[None])
        scaled = (scaled - scaled.min()) / (scaled.max() - scaled.min())
        with torch.no_grad():
            (one,) = detector([scaled])
        rows = zip(one["label_scores"].tolist(), one["label"].tolist(), one["box"].tolist(), strict=True)
        told += [(float(k), found.classes[label], score, box) for score, label, box in rows]
    ours = sorted((b.low_ijk[2] + 0.5, b.label, b.score, [*b.low_ijk[:2], *b.high_ijk[:2]]) for b in found.boxes)
    assert len(ours) == len(told) > 20 and {label for _, label, _, _ in told} == set(found.classes)
    assert [row[:2] for row in ours] == [row[:2] for row in sorted(told)]
    for one, other in zip(ours, sorted(told), strict=True):
        assert np.allclose(one[2], other[2], atol=1e-5) and np.allclose(one[3], other[3], atol=1e-3)
    assert all(box.high_ijk[2] - box.low_ijk[2] == 1 for box in found.boxes)


def test_an_image_without_findings_gives_none_and_says_so(tmp_path: Path) -> None:
    heard: list[str] = []

    class Heard(Progress):
        def warn(self, text: str) -> None:
            heard.append(text)

    volume = Volume(np.random.default_rng(0).normal(size=(1, 16, 32, 32)), Geometry((16, 32, 32), np.eye(4)), "scan")
    model = open_model(detector_bundle(tmp_path / "m"), "cpu")
    assert model.run(volume, DetectOptions(score_threshold=1.0), Heard()).boxes == ()
    assert any("found nothing in scan" in text for text in heard)


def rcnn_folder(folder: Path) -> Path:
    """A detector of torchvision's as its author would describe it, with a file where its weights belong."""
    metadata, _ = detector_configs()
    metadata["network_data_format"]["inputs"]["image"] |= {"num_channels": 3, "channel_def": None}
    metadata["medai"]["detection"]["classes"] = ["mass", "calcification"]
    steps = [{"_target_": "LoadImaged", "keys": "image"}, {"_target_": "ScaleIntensityd", "keys": "image"}]
    inference = {
        "network_def": {"_target_": "torchvision.models.detection.fasterrcnn_resnet50_fpn", "num_classes": 3},
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "postprocessing": {"_target_": "Compose", "transforms": []},
    }
    write_configs(folder, metadata, inference)
    (folder / "models").mkdir()
    torch.save({"weight": torch.zeros(1)}, folder / "models" / "model.pt")
    return folder


def test_a_detector_of_torchvisions_is_described_and_refused_in_a_sentence_where_torchvision_is_not(
    tmp_path: Path,
) -> None:
    folder = rcnn_folder(tmp_path / "rcnn")
    spec = read_spec(folder)
    assert (spec.task, spec.findings, spec.obstacle) == ("detection", ("mass", "calcification"), "")
    try:
        import torchvision.models  # noqa: F401
    except (ImportError, RuntimeError):
        with pytest.raises(ModelError, match="comes from torchvision") as caught:
            open_model(folder, "cpu")
        assert "install the torchvision of the same build" in str(caught.value) and "\n" not in str(caught.value)
        assert why_not(folder) == str(caught.value)
        return
    torch.save(bundle_network(read_any_plan(folder)).state_dict(), folder / "models" / "model.pt")
    picture = Volume(np.random.default_rng(0).random((3, 1, 40, 60), np.float32), Geometry((1, 40, 60), np.eye(4)))
    assert open_model(folder, "cpu").run(picture, DetectOptions(score_threshold=0.0), SILENT).boxes


class Rows(nn.Module):
    """Answers as torchvision says that its detectors do: a box around what is bright, in columns and rows."""

    def __init__(self) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))

    def forward(self, pictures: list[Tensor]) -> list[dict[str, Tensor]]:
        rows, columns = torch.nonzero(pictures[0][0] > 0.5, as_tuple=True)
        box = torch.tensor([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1], dtype=torch.float32)
        return [{"boxes": box[None], "labels": torch.tensor([2]), "scores": torch.tensor([0.75])}]


def test_boxes_in_torchvisions_way_of_writing_lie_around_the_same_pixels() -> None:
    data = np.zeros((1, 1, 30, 40), np.float32)
    data[0, 0, 0:9, 12:20] = 1
    volume = Volume(data, Geometry((1, 30, 40), np.diag([0.5, 2.0, 1.0, 1.0])), "picture")
    recipe = DetectRecipe((), ("mass", "calcification"), 3, None, 0.0, False, (1, 1), True)
    ((box,), _) = find_boxes(volume, TorchvisionDetector(Rows()), recipe, DetectOptions(), SILENT)
    assert (box.label, box.score) == ("calcification", 0.75)
    assert (box.low_ijk, box.high_ijk) == ((11.5, -0.5, -0.5), (19.5, 8.5, 0.5))
