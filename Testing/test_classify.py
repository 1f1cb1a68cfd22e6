"""Classification models: what they take and refuse, and what comes out, against stock MONAI and plain arithmetic."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from classifier_bundles import DENSENET, classifier_bundle
from monai.transforms import Compose, EnsureChannelFirst, NormalizeIntensity, Resize, ScaleIntensity

from MedAILib.errors import InputError, ModelError, SpecError
from MedAILib.models.networks import build_network
from MedAILib.models.open import open_model
from MedAILib.progress import Cancelled, Progress
from MedAILib.request import ClassifyOptions, RunOptions, Slices
from MedAILib.results import Classification
from MedAILib.volume import Geometry, Roi, Volume

CLASSES = ["benign", "malignant", "normal"]
OBLIQUE = np.array([[0.8, 0.2, 0, 5], [-0.2, 0.8, 0, 7], [0, 0, 2.0, -3], [0, 0, 0, 1]])
OBLIQUE[:2, :2] *= 1 / np.hypot(0.8, 0.2)


def image(*shape_ckji: int, seed: int = 0) -> Volume:
    data = np.random.default_rng(seed).integers(0, 255, shape_ckji).astype(np.uint8)
    return Volume(data, Geometry(shape_ckji[1:], OBLIQUE), "scan.nii.gz")


class Heard(Progress):
    def __init__(self) -> None:
        self.said: list[str] = []
        self.steps: list[tuple[int, int, str]] = []

    def step(self, done: int, total: int, text: str = "") -> None:
        self.steps.append((done, total, text))

    def warn(self, text: str) -> None:
        self.said.append(text)


def run(bundle: Path, volume: Volume, progress: Progress | None = None, **options: Any) -> Classification:
    return open_model(bundle, "cpu").run(volume, ClassifyOptions(**options), progress or Progress())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of grey pictures."""
    steps = [{"_target_": "ScaleIntensityd"}, {"_target_": "Resized", "spatial_size": [24, 20]}]
    return classifier_bundle(tmp_path_factory.mktemp("bundles") / "pictures", DENSENET, CLASSES, steps=steps)


@pytest.fixture(scope="module")
def volumes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of volumes."""
    network = DENSENET | {"spatial_dims": 3, "out_channels": 2}
    steps = [
        {"_target_": "Orientationd", "axcodes": "RAS"},
        {"_target_": "NormalizeIntensityd"},
        {"_target_": "Resized", "spatial_size": [12, 16, 10], "mode": "trilinear"},
    ]
    folder = tmp_path_factory.mktemp("bundles") / "volumes"
    return classifier_bundle(folder, network, ["absent", "present"], steps=steps)


def stock(bundle: Path, network: dict[str, Any], batch: torch.Tensor) -> np.ndarray:
    net = build_network(network["_target_"], {k: v for k, v in network.items() if k != "_target_"})
    net.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True))
    with torch.inference_mode():
        return net.eval()(batch).softmax(1).numpy()


def test_a_picture_is_classified_as_stock_monai_does(pictures: Path) -> None:
    volume = image(1, 1, 40, 33)
    steps = Compose([EnsureChannelFirst(channel_dim="no_channel"), ScaleIntensity(), Resize([24, 20])])
    expected = stock(pictures, DENSENET, torch.as_tensor(steps(volume.data[0, 0].T))[None])
    found = run(pictures, volume)
    assert found.classes == tuple(CLASSES) and found.kind == "multiclass"
    assert np.allclose(found.probabilities, expected, atol=1e-5)
    assert found.verdict().classes == (CLASSES[int(expected.argmax())],)
    assert found.places[0].text == "image"


def test_a_volume_is_classified_as_stock_monai_does(volumes: Path) -> None:
    volume = Volume(image(1, 9, 14, 11).data, Geometry((9, 14, 11), np.diag([1.0, 1, 1, 1])), "scan")
    steps = Compose(
        [
            EnsureChannelFirst(channel_dim="no_channel"),
            NormalizeIntensity(),
            Resize([12, 16, 10], mode="trilinear"),
        ]
    )
    batch = torch.as_tensor(steps(volume.data[0].transpose(2, 1, 0).astype(np.float32)))[None]
    network = DENSENET | {"spatial_dims": 3, "out_channels": 2}
    found = run(volumes, volume)
    assert found.kind == "binary"
    assert np.allclose(found.probabilities, stock(volumes, network, batch), atol=1e-5)


def test_a_volume_for_a_model_of_pictures_is_refused_with_the_choices(pictures: Path) -> None:
    with pytest.raises(InputError, match=r"--slice K 12.*--each-slice K"):
        run(pictures, image(1, 5, 20, 20))


@pytest.mark.parametrize(("axis", "index"), [("K", 3), ("J", 11), ("I", 0)])
def test_one_slice_of_a_volume_is_the_picture_of_that_slice(pictures: Path, axis: str, index: int) -> None:
    volume = image(1, 5, 20, 16)
    part = [slice(None)] * 4
    part[1 + "KJI".index(axis)] = slice(index, index + 1)
    data = volume.data[tuple(part)]
    alone = run(pictures, Volume(data, Geometry(data.shape[1:], np.eye(4)), "slice"))
    found = run(pictures, volume, slices=Slices(axis, index))
    assert np.allclose(found.probabilities, alone.probabilities, atol=1e-6)
    assert found.places[0].text == f"slice {axis} {index}"


def test_each_slice_has_a_row_with_its_place_along_the_axis(pictures: Path) -> None:
    volume, heard = image(1, 5, 20, 16), Heard()
    found = run(pictures, volume, heard, slices=Slices("K"))
    assert [place.index for place in found.places] == [0, 1, 2, 3, 4]
    assert [place.position_mm for place in found.places] == pytest.approx([0, 2, 4, 6, 8])
    for index in (0, 4):
        one = run(pictures, volume, slices=Slices("K", index))
        assert np.allclose(found.probabilities[index], one.probabilities[0], atol=1e-6)
    assert (2, 5, "Classifying") in heard.steps


def test_slices_that_show_nothing_are_left_out_and_said(pictures: Path) -> None:
    volume, heard = image(1, 5, 20, 16), Heard()
    data = volume.data.copy()
    data[:, 0] = 0
    found = run(pictures, Volume(data, volume.geometry, "scan"), heard, slices=Slices("K"))
    assert [place.index for place in found.places] == [1, 2, 3, 4]
    assert "1 slices of scan show nothing" in heard.said[0]


def test_a_region_is_looked_at_alone(pictures: Path) -> None:
    volume = image(1, 1, 40, 40)
    part = Volume(volume.data[:, :, 10:30, 5:20], Geometry((1, 20, 15), np.eye(4)), "part")
    found = run(pictures, volume, box_kji=((0, 1), (10, 30), (5, 20)))
    assert np.allclose(found.probabilities, run(pictures, part).probabilities, atol=1e-6)
    corners = volume.geometry.ras_of([[5, 10, 0], [19, 29, 0]])
    roi = Roi(tuple(corners.mean(axis=0)), (4.0, 4.0, 4.0))
    assert run(pictures, volume, roi=roi).places[0].box_kji[1][0] >= 10


def test_cancelling_ends_between_slices(pictures: Path) -> None:
    class AfterTwo(Progress):
        def step(self, done: int, total: int, text: str = "") -> None:
            if done == 2:
                raise Cancelled

    with pytest.raises(Cancelled):
        run(pictures, image(1, 5, 20, 16), AfterTwo(), slices=Slices("K"))


def test_a_colour_picture_becomes_grey_for_a_grey_model_and_that_is_said(pictures: Path) -> None:
    volume, heard = image(3, 1, 30, 30), Heard()
    found = run(pictures, volume, heard)
    grey = np.tensordot(np.array([0.299, 0.587, 0.114]), volume.data.astype(float), axes=1)[None]
    expected = run(pictures, Volume(grey, volume.geometry, "grey"))
    assert np.allclose(found.probabilities, expected.probabilities, atol=1e-5)
    assert "converted to grey" in heard.said[0]


def test_a_grey_picture_becomes_three_equal_colours_for_a_colour_model(tmp_path: Path) -> None:
    bundle = classifier_bundle(tmp_path / "rgb", DENSENET | {"in_channels": 3}, CLASSES, channels=3)
    volume, heard = image(1, 1, 30, 30), Heard()
    found = run(bundle, volume, heard)
    three = Volume(np.repeat(volume.data, 3, axis=0), volume.geometry, "three")
    assert np.allclose(found.probabilities, run(bundle, three).probabilities)
    assert "grey" in heard.said[0]


def test_other_numbers_of_channels_are_refused(pictures: Path, volumes: Path) -> None:
    with pytest.raises(InputError, match="2 channels, but the model takes 1"):
        run(pictures, image(2, 1, 30, 30))
    with pytest.raises(InputError, match="3 channels, but the model takes 1"):
        run(volumes, image(3, 9, 10, 11))


def test_a_model_of_volumes_refuses_slices_and_pictures(volumes: Path) -> None:
    with pytest.raises(InputError, match="whole volumes"):
        run(volumes, image(1, 9, 10, 11), slices=Slices("K"))
    with pytest.raises(InputError, match="single slice"):
        run(volumes, image(1, 1, 10, 11))


@pytest.mark.parametrize(
    ("volume", "options", "said"),
    [
        (image(1, 5, 20, 16), {"slices": Slices("K", 5)}, "no slice K 5 there; there are 0 to 4"),
        (image(1, 1, 20, 16), {"box_kji": ((0, 1), (0, 30), (0, 4))}, "no box of voxels"),
        (image(1, 1, 20, 16), {"covariates": {"age": 3.0}}, "does not know the covariate age"),
        (Volume(np.full((1, 1, 9, 9), 7), Geometry((1, 9, 9), np.eye(4)), "flat"), {}, "the value 7 in every voxel"),
        (Volume(np.full((1, 1, 9, 9), np.nan), Geometry((1, 9, 9), np.eye(4)), "bad"), {}, "81 NaN"),
    ],
)
def test_what_makes_no_sense_is_refused(pictures: Path, volume: Volume, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        run(pictures, volume, **options)


def test_a_classifier_does_not_segment_and_says_so(pictures: Path) -> None:
    with pytest.raises(SpecError, match="classifies"):
        open_model(pictures, "cpu").run(image(1, 1, 20, 20), RunOptions(), Progress())


def own_bundle(folder: Path, own: dict[str, Any], classes: list[str], outputs: int, **more: Any) -> Path:
    network = DENSENET | {"out_channels": outputs}
    return classifier_bundle(folder, network, classes, own=own, outputs=outputs, **more)


def test_temperature_softens_probabilities_as_the_formula_says(tmp_path: Path) -> None:
    plain = run(own_bundle(tmp_path / "a", {}, CLASSES, 3), image(1, 1, 24, 24))
    warm = run(own_bundle(tmp_path / "b", {"temperature": 3.0}, CLASSES, 3), image(1, 1, 24, 24))
    assert np.allclose(warm.scores, plain.scores)
    assert np.allclose(warm.probabilities, torch.tensor(plain.scores / 3).softmax(1).numpy(), atol=1e-6)


def test_one_output_of_two_classes_is_the_second_ones_probability(tmp_path: Path) -> None:
    found = run(own_bundle(tmp_path / "a", {"thresholds": {"tumour": 0.2}}, ["tumour"], 1), image(1, 1, 24, 24))
    p = 1 / (1 + np.exp(-found.scores[0, 0]))
    assert found.classes == ("not tumour", "tumour") and found.kind == "binary"
    assert found.probabilities[0] == pytest.approx([1 - p, p])
    assert found.thresholds == (0.8, 0.2)


def test_several_labels_are_independent(tmp_path: Path) -> None:
    post = [{"_target_": "Activationsd", "sigmoid": True}]
    bundle = classifier_bundle(tmp_path / "a", DENSENET, CLASSES, post=post)
    found = run(bundle, image(1, 1, 24, 24))
    assert found.kind == "multilabel"
    assert np.allclose(found.probabilities, 1 / (1 + np.exp(-found.scores)))
    assert found.verdict().classes == tuple(c for c, p in zip(CLASSES, found.probabilities[0], strict=True) if p >= 0.5)


def test_ordered_classes_come_from_the_steps_between_them(tmp_path: Path) -> None:
    own = {"kind": "ordinal", "classes": ["none", "mild", "severe"]}
    found = run(own_bundle(tmp_path / "a", own, [], 2), image(1, 1, 24, 24))
    above = np.minimum.accumulate(1 / (1 + np.exp(-found.scores[0])))
    assert found.probabilities[0] == pytest.approx([1 - above[0], above[0] - above[1], above[1]])
    assert found.verdict().classes == (("none", "mild", "severe")[int((above >= 0.5).sum())],)


@pytest.mark.parametrize(("method", "limit"), [("energy", -1e6), ("entropy", -0.1)])
def test_a_strange_image_is_not_decided(tmp_path: Path, method: str, limit: float) -> None:
    own = {"out_of_distribution": {"method": method, "threshold": limit, "validated_on": "a test"}}
    found = run(own_bundle(tmp_path / "a", own, CLASSES, 3), image(1, 1, 24, 24))
    assert found.verdict().text == "not sure" and "unlike the training data" in found.verdict().unsure


def covariate_network(sequence: bool = False) -> dict[str, Any]:
    backbone = DENSENET | {"out_channels": 5}
    if sequence:
        return {"_target_": "SequenceClassifier", "backbone": backbone, "features": 5, "out_channels": 2, "hidden": 6}
    return {"_target_": "CovariateClassifier", "backbone": backbone, "features": 5, "covariates": 2, "out_channels": 2}


@pytest.fixture(scope="module")
def with_covariates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    own = {"covariates": [{"name": "age", "mean": 60, "sd": 10}, {"name": "crp"}]}
    folder = tmp_path_factory.mktemp("bundles") / "covariates"
    return classifier_bundle(folder, covariate_network(), ["well", "ill"], own=own)


def test_covariates_change_the_answer_as_the_network_has_it(with_covariates: Path) -> None:
    volume = image(1, 1, 24, 24)
    one = run(with_covariates, volume, covariates={"age": 80, "crp": 3.0})
    other = run(with_covariates, volume, covariates={"age": 30, "crp": -3.0})
    assert not np.allclose(one.scores, other.scores)
    model: Any = open_model(with_covariates, "cpu")
    batch = torch.as_tensor(ScaleIntensity()(volume.data[0, 0].T.astype(np.float32)))[None, None]
    with torch.inference_mode():
        expected = model._network(batch, torch.tensor([[2.0, 3.0]]))
    assert np.allclose(one.scores, expected.numpy(), atol=1e-5)


def test_missing_and_non_numeric_covariates_are_refused(with_covariates: Path) -> None:
    with pytest.raises(InputError, match="crp is missing"):
        run(with_covariates, image(1, 1, 24, 24), covariates={"age": 50})
    with pytest.raises(InputError, match="no finite number"):
        ClassifyOptions(covariates={"age": "old"})  # type: ignore[dict-item]
    with pytest.raises(InputError, match="no finite number"):
        ClassifyOptions(covariates={"age": float("nan")})


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundles") / "sequence"
    return classifier_bundle(folder, covariate_network(True), ["still", "moving"], own={"sequence": True})


def test_a_sequence_is_classified_by_all_of_its_frames_in_order(sequences: Path) -> None:
    clip = image(6, 1, 24, 24)
    found = run(sequences, clip)
    turned = Volume(clip.data[::-1], clip.geometry, "turned")
    assert len(found.places) == 1
    assert not np.allclose(found.scores, run(sequences, turned).scores)
    stack = Volume(clip.data.transpose(1, 0, 2, 3), Geometry((6, 24, 24), np.eye(4)), "stack")
    assert np.allclose(found.scores, run(sequences, stack).scores)
    with pytest.raises(InputError, match="single frame"):
        run(sequences, image(1, 1, 24, 24))


def test_each_frame_can_be_classified_by_itself(pictures: Path) -> None:
    clip = image(4, 1, 30, 30)
    found = run(pictures, clip, each_frame=True)
    assert [place.text for place in found.places] == [f"frame {n}" for n in range(4)]
    alone = run(pictures, Volume(clip.data[2:3], clip.geometry, "one"))
    assert np.allclose(found.probabilities[2], alone.probabilities[0], atol=1e-6)


def test_the_entry_that_the_documentation_shows_is_read(tmp_path: Path) -> None:
    text = (Path(__file__).parents[1] / "docs" / "classifiers.md").read_text(encoding="utf-8")
    own = json.loads(text.partition("```json")[2].partition("```")[0])["medai"]["classification"]
    network = {"_target_": "CovariateClassifier", "backbone": DENSENET | {"out_channels": 5}}
    network |= {"features": 5, "covariates": 1, "out_channels": 1}
    bundle = classifier_bundle(tmp_path / "model", network, [], own=own, outputs=1)
    found = run(bundle, image(1, 1, 24, 24), covariates={"age": 40})
    assert found.thresholds == (0.65, 0.35) and found.strange_above == 9.5 and found.unsure_below == 0.6
    assert found.codes[1] is not None and found.codes[1].scheme == "SCT"


def test_frames_that_the_model_cuts_to_different_sizes_are_refused(tmp_path: Path) -> None:
    steps = [{"_target_": "CropForegroundd"}]
    bundle = classifier_bundle(
        tmp_path / "a", covariate_network(True), ["still", "moving"], own={"sequence": True}, steps=steps
    )
    clip = image(3, 1, 24, 24)
    data = clip.data.copy()
    data[1, :, :, 12:] = 0
    with pytest.raises(ModelError, match="different sizes"):
        run(bundle, Volume(data, clip.geometry, "clip"))


def broken(folder: Path, **changes: Any) -> Path:
    classes = changes.pop("classes", CLASSES)
    return classifier_bundle(folder, changes.pop("network", DENSENET), classes, **changes)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": ["a", "b"], "outputs": 3}, "names 2 classes"),
        ({"own": {"classes": ["a", "b", "c", "d"]}}, "names 4 classes"),
        ({"classes": ["a", "a", "b"]}, "not all different"),
        ({"own": {"thresholds": {"cancer": 0.5}}}, "'cancer', which is none"),
        ({"own": {"thresholds": {"benign": 1.5}}}, "no thresholds"),
        ({"own": {"temperature": 0}}, "temperature"),
        ({"own": {"kind": "fuzzy"}}, "'fuzzy'"),
        ({"own": {"kind": "binary"}}, "'binary'"),
        ({"own": {"out_of_distribution": {"method": "magic", "threshold": 1}}}, "magic"),
        (
            {
                "own": {
                    "kind": "ordinal",
                    "classes": list("abcd"),
                    "out_of_distribution": {"method": "energy", "threshold": 1},
                }
            },
            "entropy",
        ),
        ({"own": {"covariates": [{"name": "age", "sd": 0}]}}, "standard deviation"),
        ({"network": DENSENET | {"in_channels": 2}}, "in_channels is 2"),
        ({"steps": [{"_target_": "Resized", "spatial_size": [8, 8, 8]}]}, "two numbers"),
        ({"post": [{"_target_": "KeepLargestConnectedComponentd"}]}, "KeepLargest"),
    ],
)
def test_a_description_that_contradicts_itself_is_refused(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises((SpecError, ModelError), match=said):
        open_model(broken(tmp_path / "model", **changes), "cpu")


NETWORKS: dict[str, dict[str, Any]] = {
    "DenseNet121": {"spatial_dims": 3, "in_channels": 1, "out_channels": 2, "pretrained": False},
    "resnet10": {"spatial_dims": 3, "n_input_channels": 1, "num_classes": 2, "pretrained": True},
    "SEResNet50": {"spatial_dims": 2, "in_channels": 1, "num_classes": 2, "pretrained": True},
    "EfficientNetBN": {"model_name": "efficientnet-b0", "spatial_dims": 2, "in_channels": 1, "num_classes": 2},
    "ViT": {
        "in_channels": 1,
        "img_size": [32, 32],
        "patch_size": [8, 8],
        "spatial_dims": 2,
        "classification": True,
        "num_classes": 2,
        "hidden_size": 24,
        "mlp_dim": 32,
        "num_layers": 2,
        "num_heads": 4,
    },
}


@pytest.mark.parametrize("name", NETWORKS)
def test_monais_classifiers_run_without_any_download(tmp_path: Path, name: str) -> None:
    network = {"_target_": name, **NETWORKS[name]}
    dims = network["spatial_dims"]
    steps = [{"_target_": "NormalizeIntensityd"}, {"_target_": "Resized", "spatial_size": [32] * dims}]
    bundle = classifier_bundle(tmp_path / name, network, ["no", "yes"], steps=steps)
    found = run(bundle, image(1, 1 if dims == 2 else 20, 24, 28))
    assert found.probabilities.sum() == pytest.approx(1)


def test_the_spec_names_the_classes(tmp_path: Path) -> None:
    spec = open_model(classifier_bundle(tmp_path / "a", DENSENET, CLASSES), "cpu").spec
    assert spec.task == "classification" and spec.labels == ()
    assert spec.classes is not None and spec.classes.names == tuple(CLASSES)


def test_classifiers_run_without_captum_and_ask_for_it_where_it_explains(volume_classifier: str) -> None:
    program = (
        "import sys\n"
        "sys.modules.update(captum=None, sklearn=None)\n"  # as after the installation in Slicer of what models need
        "from pathlib import Path\n"
        "import numpy as np\n"
        "from MedAILib.errors import ModelError\n"
        "from MedAILib.models.open import open_model\n"
        "from MedAILib.progress import Progress\n"
        "from MedAILib.request import ClassifyOptions, Explain\n"
        "from MedAILib.volume import Geometry, Volume\n"
        "data = np.random.rand(1, 12, 14, 16).astype(np.float32)\n"
        "volume = Volume(data, Geometry((12, 14, 16), np.eye(4)), 'image')\n"
        "model = open_model(Path(sys.argv[1]), 'cpu')\n"
        "assert model.run(volume, ClassifyOptions(), Progress()).saliency is None\n"
        "assert model.run(volume, ClassifyOptions(explain=Explain('grad-cam')), Progress()).saliency is not None\n"
        "try:\n"
        "    model.run(volume, ClassifyOptions(explain=Explain('occlusion')), Progress())\n"
        "except ModelError as error:\n"
        "    print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, volume_classifier], capture_output=True, text=True, check=True
    )
    assert done.stdout.startswith("occlusion needs the Python package captum, which is not installed; install it")
