"""Several models as one: the average decides, and how sure and how agreed they are is told."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from bundles import network_entry, random_bundle, threshold_bundle
from legitimate import by_threshold, nnunet, random_volume
from scripts_made import script_file

from MedAILib.cli import main
from MedAILib.errors import InputError, ModelError, SpecError, UntrustedCodeError
from MedAILib.estimate import estimate_memory
from MedAILib.models import ensemble as ensemble_module
from MedAILib.models.open import open_model
from MedAILib.models.trust import tree_sha256
from MedAILib.models.uncertainty import voxel_entropy
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import RunOptions, RunRequest
from MedAILib.results import Segmentation
from MedAILib.volume import Geometry, Volume
from MedAILib.worker.client import WorkerClient

BOTH = RunOptions(probabilities=True, uncertainty=True)


def listed(folder: Path, *names: str, **entries: Any) -> Path:
    content = {"name": "Together", "version": "2", "members": list(names)} | entries
    (folder / "medai.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    """A worker that is gone when the tests of this file are through."""
    with WorkerClient() as client:
        yield client


@pytest.fixture
def ensemble(tmp_path: Path) -> Path:
    folder = tmp_path / "all"
    for seed in (0, 1, 2):
        random_bundle(folder / f"m{seed}", network_entry(), seed)
    return listed(folder, "m0", "m1", "m2")


def run(source: Path, options: RunOptions = BOTH, trust_code: str = "") -> Segmentation:
    found = open_model(source, "cpu", trust_code).run(random_volume(), options, Progress())
    assert isinstance(found, Segmentation)
    return found


def test_the_average_of_the_members_decides(ensemble: Path) -> None:
    found = run(ensemble)
    each = [run(ensemble / name).probabilities for name in ("m0", "m1", "m2")]
    mean = np.mean(each, axis=0)
    assert np.allclose(found.probabilities, mean, atol=1e-6)
    assert np.array_equal(found.layers[0], mean.argmax(axis=0))
    assert found.provenance["members"] == "m0, m1, m2" and found.provenance["sha256"] == tree_sha256(ensemble)


def test_it_says_what_it_is(ensemble: Path) -> None:
    spec = read_spec(ensemble)
    assert (spec.name, spec.title, spec.version) == ("all", "Together", "2")
    assert [label.name for label in spec.labels] == ["part 1", "part 2"]


def test_agreement_is_the_mean_dice_of_the_members(ensemble: Path) -> None:
    found = run(ensemble)
    members = [run(ensemble / name).layers[0] for name in ("m0", "m1", "m2")]
    for label, agreement in zip(found.labels, found.agreement, strict=True):
        ours = found.layers[0] == label.value
        dice = [2 * (ours & (one == label.value)).sum() / (ours.sum() + (one == label.value).sum()) for one in members]
        assert agreement == pytest.approx(np.mean(dice))


def test_models_that_are_the_same_agree_entirely(tmp_path: Path) -> None:
    for name in "ab":
        threshold_bundle(tmp_path / name, 100.0, spacing_mm=None)
    found = run(listed(tmp_path, "a", "b"))
    assert found.agreement == (1.0,)
    assert np.array_equal(found.layers, run(tmp_path / "a").layers)


@pytest.mark.parametrize(
    ("likely", "exclusive", "entropy"),
    [
        ([1.0, 0.0], True, 0.0),
        ([0.5, 0.5], True, 1.0),
        ([1 / 3, 1 / 3, 1 / 3], True, 1.0),
        ([0.0, 0.0], True, 0.0),
        ([0.9, 0.1], True, 0.469),
        ([0.5, 1.0], False, 1.0),
        ([0.0, 1.0], False, 0.0),
    ],
)
def test_entropy_is_0_where_a_model_is_sure_and_1_where_it_is_not(
    likely: list[float], exclusive: bool, entropy: float
) -> None:
    probabilities = np.array(likely, np.float32)[:, None, None, None] * np.ones((1, 2, 3, 4), np.float32)
    assert np.allclose(voxel_entropy(probabilities, exclusive), entropy, atol=1e-3)


@pytest.mark.parametrize("make", [lambda f: random_bundle(f, network_entry()), nnunet, by_threshold])
def test_one_model_tells_its_uncertainty_too_and_finds_the_same(make: Any, tmp_path: Path) -> None:
    source = make(tmp_path / "m")
    plain, sure = run(source, RunOptions()), run(source, RunOptions(uncertainty=True))
    assert np.array_equal(plain.layers, sure.layers) and plain.uncertainty is None
    assert sure.probabilities is None and sure.uncertainty is not None
    assert sure.uncertainty.shape == plain.geometry.shape_kji and 0 < sure.uncertainty.max() <= 1


def test_formats_may_be_mixed(tmp_path: Path) -> None:
    random_bundle(tmp_path / "bundle", network_entry())
    script_file(tmp_path / "script.ts")
    folder = listed(tmp_path, "bundle", "script.ts")
    with pytest.raises(UntrustedCodeError):
        open_model(folder, "cpu")
    found = run(folder, trust_code=tree_sha256(tmp_path / "script.ts"))
    assert np.array_equal(found.layers, run(tmp_path / "bundle").layers)


@pytest.mark.parametrize(
    ("members", "words"),
    [
        (["m0"], "2 to 32"),
        (["m0", "m0"], "different"),
        ("m0", "2 to 32"),
        (["m0", 3], "outside"),
        (["m0", "../m1"], "outside"),
        (["m0", "/etc"], "outside"),
        (["m0", "."], "itself an ensemble"),
        (["m0", "none"], "no model at"),
    ],
)
def test_a_list_that_is_none_is_refused(members: Any, words: str, ensemble: Path) -> None:
    listed(ensemble, members=members)
    with pytest.raises(SpecError, match=words):
        open_model(ensemble, "cpu")


def test_members_of_other_labels_or_channels_are_refused(ensemble: Path) -> None:
    random_bundle(ensemble / "other", network_entry(classes=4))
    with pytest.raises(SpecError, match="differ in their labels"):
        read_spec(listed(ensemble, "m0", "other"))
    random_bundle(ensemble / "two", network_entry(channels=2))
    with pytest.raises(SpecError, match="differ in their channels"):
        read_spec(listed(ensemble, "m0", "two"))


def test_what_would_not_fit_into_memory_is_refused_before_a_run(
    ensemble: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ensemble_module, "available_memory", lambda: 1000)
    with pytest.raises(InputError, match="average of 3 models"):
        run(ensemble)


def test_overlapping_structures_are_averaged_each_by_itself(tmp_path: Path) -> None:
    for name in "ab":
        by_threshold(tmp_path / name)
    found = run(listed(tmp_path, "a", "b"))
    assert np.array_equal(found.layers, run(tmp_path / "a").layers)


def test_the_command_line_writes_uncertainty_and_agreement(ensemble: Path, tmp_path: Path) -> None:
    scan, out = tmp_path / "scan.nii.gz", tmp_path / "out"
    out.mkdir()
    nibabel.save(nibabel.Nifti1Image(random_volume().data[0].T, np.eye(4)), scan)
    words = ["segment", str(scan), "-m", str(ensemble), "-o", str(out / "l.nii.gz"), "--quiet"]
    words += ["--table", str(out / "t.csv"), "--uncertainty", str(out / "u.nii.gz")]
    assert main(words) == 0
    rows = list(csv.DictReader((out / "t.csv").open(encoding="utf-8")))
    assert all(0 <= float(row["agreement"]) <= 1 for row in rows)
    written = np.asarray(nibabel.load(out / "u.nii.gz").dataobj)
    assert written.shape == (24, 22, 20) and 0 < written.max() <= 1


def test_the_worker_sends_uncertainty_and_agreement(ensemble: Path, client: WorkerClient) -> None:
    here = run(ensemble, RunOptions(uncertainty=True))
    there = client.submit(RunRequest(str(ensemble), "cpu", RunOptions(uncertainty=True)), random_volume()).result(120)
    assert there.uncertainty is not None and here.uncertainty is not None
    assert np.allclose(there.uncertainty, here.uncertainty, atol=1e-4) and there.probabilities is None
    assert there.agreement == pytest.approx(here.agreement)


def test_a_member_that_fails_fails_the_whole(ensemble: Path) -> None:
    (ensemble / "m1" / "models" / "model.pt").unlink()
    with pytest.raises(ModelError, match="missing"):
        open_model(ensemble, "cpu")


def dice(one: Any, other: Any) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


def test_mirrored_copies_tell_how_far_they_agree(tmp_path: Path) -> None:
    folder = mirrored_bundle(tmp_path / "m")
    found, plain = run(folder, RunOptions(mirror=True)), run(folder, RunOptions())
    assert plain.agreement == () and found.uncertainty is None
    volume = random_volume()
    model, passes = open_model(folder, "cpu"), []
    for axes in ((), (3,), (2,), (2, 3)):  # of C, K, J, I: along R and A, which are I and J here
        flipped = model.run(Volume(np.flip(volume.data, axes).copy(), volume.geometry), RunOptions(), Progress())
        passes.append(np.flip(flipped.layers, axes)[0])
    for label, agreement in zip(found.labels, found.agreement, strict=True):
        ours = found.layers[0] == label.value
        assert agreement == pytest.approx(np.mean([dice(ours, one == label.value) for one in passes]), abs=1e-6)
    assert min(a for a in found.agreement if a is not None) < 0.999


def mirrored_bundle(folder: Path) -> Path:
    """A model that takes images whole and may be mirrored along its first two axes."""
    steps = [{"_target_": name, "keys": "image"} for name in ("LoadImaged", "EnsureChannelFirstd")]
    post = [
        {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "nearest_interp": False},
        {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    ]
    changes = {
        "preprocessing": {"_target_": "Compose", "transforms": steps},
        "postprocessing": {"_target_": "Compose", "transforms": post},
        "inferer": {"_target_": "SlidingWindowInferer", "roi_size": [24, 22, 20]},
    }
    network = network_entry() | {"channels": [4, 8], "strides": [1], "num_res_units": 0}
    random_bundle(folder, network, seed=1, **changes)
    path = folder / "configs" / "metadata.json"
    content = json.loads(path.read_text("utf-8")) | {"medai": {"mirror_axes": [0, 1]}}
    path.write_text(json.dumps(content), encoding="utf-8")
    return folder


@pytest.mark.parametrize("parity", [True, False])
def test_folds_of_nnunet_tell_how_far_they_agree(parity: bool, tmp_path: Path) -> None:
    from MedAILib.models.nnunet import NnunetModel

    folder = nnunet(tmp_path / "m", folds=(0, 1))
    weights = torch.load(folder / "fold_1" / "checkpoint_final.pth", weights_only=False)
    torch.manual_seed(5)
    for value in weights["network_weights"].values():
        value.add_(0.05 * torch.randn_like(value))
    torch.save(weights, folder / "fold_1" / "checkpoint_final.pth")
    model = NnunetModel(folder, torch.device("cpu"), parity=parity)
    found = model.run(random_volume(), RunOptions(uncertainty=True), Progress())
    each = [open_model(folder / f"fold_{n}", "cpu").run(random_volume(), RunOptions(), Progress()) for n in (0, 1)]
    assert each[0].agreement == () and found.probabilities is None
    assert found.uncertainty is not None and 0 < found.uncertainty.max() <= 1
    for label, agreement in zip(found.labels, found.agreement, strict=True):
        ours = found.layers[0] == label.value
        expected = np.mean([dice(ours, one.layers[0] == label.value) for one in each])
        assert agreement == pytest.approx(expected, abs=1e-6 if parity else 0.1) and agreement < 0.999


def test_uncertainty_takes_no_memory_for_all_classes_at_once(tmp_path: Path) -> None:
    spec = read_spec(random_bundle(tmp_path / "m", network_entry(classes=40)))
    grid = Geometry((200, 200, 200), np.eye(4))
    plain, unsure, likely = (
        estimate_memory(spec, grid, np.float32, options)
        for options in (RunOptions(), RunOptions(uncertainty=True), RunOptions(probabilities=True))
    )
    assert unsure - plain < 0.2 * (likely - plain)


def test_uncertainty_becomes_a_volume_node(ensemble: Path, scene: Any) -> None:
    from MedAILib.scene.arrays import voxels_of
    from MedAILib.scene.volume_node import add_volume_nodes
    from MedAILib.scene.write import Outputs, write_result

    found = run(ensemble, RunOptions(uncertainty=True))
    source = add_volume_nodes(scene, random_volume())[0]
    nodes = write_result(found, source, Outputs(uncertainty=True))
    node = next(node for node in nodes if node.GetName().endswith("uncertainty"))
    assert np.array_equal(voxels_of(node.GetImageData())[0], found.uncertainty)
    with pytest.raises(InputError, match="has no uncertainty"):
        write_result(run(ensemble, RunOptions()), source, Outputs(uncertainty=True))
