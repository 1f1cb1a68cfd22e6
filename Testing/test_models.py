"""Models by name and by folder: what is found, what is refused and why, and that nothing in one is executed."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from bundles import configs, network_entry, random_bundle, write_configs

from MedAILib.bundle_plan import read_plan
from MedAILib.errors import DeviceError, InputError, MedAIError, ModelError, SpecError
from MedAILib.models.device import find_device
from MedAILib.models.open import open_model
from MedAILib.models.store import builtin_checksums, builtin_models, find_model
from MedAILib.models.trust import tree_sha256
from MedAILib.models.weights import load_weights, network_weights
from MedAILib.read_spec import read_spec


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return random_bundle(tmp_path / "model", network_entry("UNet"))


def change(bundle: Path, name: str, **entries: Any) -> None:
    path = bundle / "configs" / f"{name}.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | entries), encoding="utf-8")


def test_a_bundle_says_what_it_is_without_its_weights(bundle: Path) -> None:
    shutil.rmtree(bundle / "models")
    spec = read_spec(bundle)
    assert (spec.name, spec.version, spec.task) == ("model", "0.1.0", "segmentation")
    assert [(label.value, label.name) for label in spec.labels] == [(1, "part 1"), (2, "part 2")]
    assert (spec.orientation, spec.spacing_mm, spec.patch) == ("RAS", (1.0, 1.0, 1.0), (16, 24, 16))


def test_the_zoos_bundles_say_what_they_are(shared_data: Path) -> None:
    spec = read_spec(shared_data / "monai_bundles" / "wholeBody_ct_segmentation")
    assert spec.modality == "CT" and len(spec.labels) == 104 and spec.labels[4].name == "liver"
    assert spec.spacing_mm == (1.5, 1.5, 1.5) and "Apache" in spec.licence


@pytest.mark.parametrize("name", ["spleen_ct_segmentation", "wholeBody_ct_segmentation"])
def test_a_zoo_bundle_runs_with_weights_of_its_shape(name: str, shared_data: Path, tmp_path: Path) -> None:
    from MedAILib.models.networks import build_network

    folder = tmp_path / name
    shutil.copytree(shared_data / "monai_bundles" / name, folder)
    network = read_plan(folder).network
    (folder / "models").mkdir()
    torch.save(build_network(network.target, network.arguments).state_dict(), folder / "models" / "model.pt")
    assert open_model(folder, "cpu").spec.name == name


def test_weights_load_from_each_usual_wrapping(bundle: Path) -> None:
    path = bundle / "models" / "model.pt"
    weights = torch.load(path, weights_only=True)
    for wrapped in ({"model": weights}, {"state_dict": {f"module.{k}": v for k, v in weights.items()}, "epoch": 3}):
        torch.save(wrapped, path)
        loaded = network_weights(load_weights(path), path)
        assert all(torch.equal(value, loaded[key]) for key, value in weights.items())
        open_model(bundle, "cpu")
    path.unlink()
    safetensors.torch.save_file(weights, bundle / "models" / "model.safetensors")
    open_model(bundle, "cpu")


class Hostile:
    """Leaves a file behind if it is ever unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.mark,)


@pytest.mark.parametrize("legacy", [False, True])
def test_a_pickle_in_the_weights_is_refused_and_not_executed(bundle: Path, tmp_path: Path, legacy: bool) -> None:
    mark = tmp_path / "executed"
    path = bundle / "models" / "model.pt"
    if legacy:
        path.write_bytes(pickle.dumps({"state_dict": Hostile(mark)}))
    else:
        torch.save({"state_dict": Hostile(mark)}, path)
    with pytest.raises(ModelError, match=r"model\.pt"):
        open_model(bundle, "cpu")
    assert not mark.exists()


def no_weights(bundle: Path) -> None:
    (bundle / "models" / "model.pt").unlink()


def empty_weights(bundle: Path) -> None:
    (bundle / "models" / "model.pt").write_bytes(b"")


def damaged_weights(bundle: Path) -> None:
    path = bundle / "models" / "model.pt"
    path.write_bytes(path.read_bytes()[:2000])


def text_for_weights(bundle: Path) -> None:
    (bundle / "models" / "model.pt").write_text("<html>not found</html>", encoding="utf-8")


def a_tensor_for_weights(bundle: Path) -> None:
    torch.save(torch.zeros(3), bundle / "models" / "model.pt")


def other_shapes(bundle: Path) -> None:
    path = bundle / "models" / "model.pt"
    weights = torch.load(path, weights_only=True)
    first = next(iter(weights))
    torch.save(weights | {first: torch.zeros(9, 9)}, path)


def other_names(bundle: Path) -> None:
    path = bundle / "models" / "model.pt"
    torch.save({f"x.{k}": v for k, v in torch.load(path, weights_only=True).items()}, path)


def unknown_network(bundle: Path) -> None:
    change(bundle, "inference", network_def={"_target_": "scripts.net.MyNet", "out_channels": 3})


def network_elsewhere(bundle: Path) -> None:
    change(bundle, "inference", network_def={"_target_": "subprocess.UNet", "args": ["true"]})


def huge_network(bundle: Path) -> None:
    change(bundle, "inference", network_def=network_entry("UNet") | {"channels": [4, 8, 10**9]})


def network_with_wrong_arguments(bundle: Path) -> None:
    change(bundle, "inference", network_def={"_target_": "UNet", "colour": "red"})


def unknown_step(bundle: Path) -> None:
    change(bundle, "inference", preprocessing=[{"_target_": "scripts.Magic", "keys": "image"}])


def step_by_a_known_name(bundle: Path) -> None:
    change(bundle, "inference", preprocessing=[{"_target_": "scripts.mine.NormalizeIntensityd", "keys": "image"}])


def steps(bundle: Path, key: str, *entries: dict[str, Any]) -> None:
    change(bundle, "inference", **{key: {"_target_": "Compose", "transforms": list(entries)}})


def pre(bundle: Path, name: str, **arguments: Any) -> None:
    steps(bundle, "preprocessing", {"_target_": name, "keys": "image", **arguments})


def post(bundle: Path, *names: str, **arguments: Any) -> None:
    told = {"AsDiscreted": {"argmax": True}, "Activationsd": {"softmax": True}, **arguments}
    steps(bundle, "postprocessing", *({"_target_": name, "keys": "pred", **told.get(name, {})} for name in names))


def inferer(bundle: Path, size: Any) -> None:
    change(bundle, "inference", inferer={"_target_": "SlidingWindowInferer", "roi_size": size})


def executed_step(bundle: Path) -> None:
    change(bundle, "inference", preprocessing=[{"_target_": "Lambdad", "keys": "image", "func": "$lambda x: x"}])


def no_decision(bundle: Path) -> None:
    change(bundle, "inference", postprocessing=[])


def unknown_inferer(bundle: Path) -> None:
    change(bundle, "inference", inferer={"_target_": "scripts.MyInferer"})


def weights_outside(bundle: Path) -> None:
    loader = {"_target_": "CheckpointLoader", "load_path": "../../secret.pt"}
    change(bundle, "inference", checkpointloader=loader)


def metadata_without_format(bundle: Path) -> None:
    path = bundle / "configs" / "metadata.json"
    content = json.loads(path.read_text(encoding="utf-8"))
    del content["network_data_format"]
    path.write_text(json.dumps(content), encoding="utf-8")


def no_inference_config(bundle: Path) -> None:
    (bundle / "configs" / "inference.json").unlink()


def classes_that_disagree(bundle: Path) -> None:
    metadata, _ = configs(network_entry("UNet", classes=5))
    path = bundle / "configs" / "metadata.json"
    path.write_text(json.dumps(metadata), encoding="utf-8")


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (no_weights, r"weights are missing.*model\.pt"),
        (empty_weights, "0 bytes"),
        (damaged_weights, "damaged"),
        (text_for_weights, "is a web page"),
        (lambda b: (b / "models" / "model.pt").write_text("version https://git-lfs.github.com/spec/v1"), "Git LFS"),
        (a_tensor_for_weights, "holds a Tensor"),
        (other_shapes, r"has shape \[9, 9\] in the file"),
        (other_names, "is missing"),
        (unknown_network, r"scripts\.net\.MyNet"),
        (network_elsewhere, r"subprocess\.UNet"),
        (network_with_wrong_arguments, "colour"),
        (unknown_step, r"scripts\.Magic"),
        (executed_step, "lambda"),
        (step_by_a_known_name, r"scripts\.mine\.NormalizeIntensityd"),
        (lambda b: pre(b, "Resized", spatial_size=[8, 8, 8], mode="nearest"), "'nearest'"),
        (lambda b: pre(b, "Resized", spatial_size=[8, 8, 8], mode="trilinear", align_corners=True), "aligns corners"),
        (lambda b: pre(b, "Spacingd", pixdim=[1, 1, 1], mode="nearest"), "'nearest'"),
        (lambda b: pre(b, "Spacingd", pixdim=[1, None, 1]), "no sense|None"),
        (lambda b: pre(b, "Spacingd", pixdim=[1, float("nan"), 1]), "finite"),
        (lambda b: pre(b, "Spacingd", pixdim=[1, "x", 1]), r"has 'x' in the spacing of its Spacing"),
        (lambda b: inferer(b, ["$(-8) ** 0.5", 16, 16]), r"has \(.*j\) in the roi_size of its inferer"),
        (lambda b: inferer(b, [16, 16, {}]), r"has {} in the roi_size"),
        (lambda b: inferer(b, "@::#[0]"), r"has '@::#\[0\]' in the roi_size"),
        (lambda b: pre(b, "Orientationd", axcodes="RAX"), "RAX"),
        (lambda b: pre(b, "Orientationd", axcodes="RAS", labels=[["R", "L"], ["P", "A"], ["I", "S"]]), "letters"),
        (lambda b: pre(b, "DivisiblePadd", k=0), "at least 1"),
        (lambda b: pre(b, "CropForegroundd", source_key="label"), "another entry"),
        (lambda b: post(b, "AsDiscreted", "Activationsd"), "in this order"),
        (lambda b: post(b, "FillHolesd", "AsDiscreted", "Invertd"), "in this order"),
        (lambda b: post(b, "Invertd", "AsDiscreted", "Invertd"), "in this order"),
        (lambda b: post(b, "AsDiscreted", "Lambdad", Lambdad={"func": "$lambda x: x[1:]"}), r"'lambda x: x\[1:\]'"),
        (lambda b: post(b, "AsDiscreted", "Lambdad", Lambdad={"func": "$lambda x: exec(x)"}), r"exec\(x\)"),
        (lambda b: post(b, "Invertd", "AsDiscreted", Invertd={"post_func": "$lambda x: x"}), "execute a function"),
        (lambda b: post(b, "scripts.Post", "AsDiscreted"), r"needs code of its own.*scripts\.py"),
        (lambda b: pre(b, "CastToTyped", dtype="$np.uint8"), "casts to np.uint8"),
        (lambda b: pre(b, "CropForegroundd", select_fn="$lambda x: print(x)"), "print"),
        (lambda b: pre(b, "NormalizeIntensityd", subtrahend="$open('x')"), "'open'"),
        (lambda b: post(b, "AsDiscreted", AsDiscreted={"threshold": [0.5, None]}), "threshold"),
        (lambda b: post(b, "AsDiscreted", "FillHolesd", FillHolesd={"connectivity": 9}), "connectivity"),
        (huge_network, "built from|is missing|has shape"),
        (no_decision, "no AsDiscrete"),
        (unknown_inferer, r"scripts\.MyInferer"),
        (weights_outside, "outside the bundle"),
        (metadata_without_format, "network_data_format"),
        (no_inference_config, r"inference\.json does not exist"),
        (classes_that_disagree, "5 output channels, its network has 3"),
    ],
)
def test_a_spoiled_model_is_one_clear_sentence(bundle: Path, spoil: Any, words: str) -> None:
    spoil(bundle)
    with pytest.raises(MedAIError, match=words) as caught:
        open_model(bundle, "cpu")
    assert isinstance(caught.value, (SpecError, ModelError))
    assert "\n" not in str(caught.value)


def test_what_is_no_model_is_refused_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello", encoding="utf-8")
    for path in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(SpecError, match="no model that MedAI knows"):
            open_model(path, "cpu")
    with pytest.raises(SpecError, match="no model at"):
        open_model(tmp_path / "nowhere", "cpu")


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(InputError, match="did you mean 'hippocampus'"):
        find_model("hipocampus")
    with pytest.raises(InputError, match="known are breast_ultrasound, hippocampus"):
        find_model("zzz")


def test_an_unknown_device_gets_the_known_ones() -> None:
    for name in ("tpu", "cuda:99", ""):
        with pytest.raises(DeviceError, match="auto, cpu"):
            find_device(name)


def test_each_built_in_model_is_whole_and_small() -> None:
    models = builtin_models()
    assert "hippocampus" in models
    for name, folder in models.items():
        assert tree_sha256(folder) == builtin_checksums()[name]
        assert sum(path.stat().st_size for path in folder.rglob("*")) < 12e6
        assert open_model(folder, "cpu").spec.licence
        assert (folder / "docs" / "README.md").is_file() and (folder / "LICENSE").is_file()


def test_the_hash_of_a_folder_changes_with_any_byte_or_name(bundle: Path) -> None:
    seen = {tree_sha256(bundle)}
    (bundle / "docs").mkdir()
    (bundle / "docs" / "a.txt").write_text("x", encoding="utf-8")
    seen.add(tree_sha256(bundle))
    (bundle / "docs" / "a.txt").rename(bundle / "docs" / "b.txt")
    seen.add(tree_sha256(bundle))
    (bundle / "docs" / "b.txt").write_text("y", encoding="utf-8")
    seen.add(tree_sha256(bundle))
    assert len(seen) == 4


@pytest.mark.parametrize("linked", ["LICENSE", "models", "configs/metadata.json"])
def test_a_link_in_the_model_is_refused(bundle: Path, tmp_path: Path, linked: str) -> None:
    place, elsewhere = bundle / linked, tmp_path / "elsewhere"
    if place.exists():
        place.rename(elsewhere)
    else:
        elsewhere.write_text("secret", encoding="utf-8")
    place.symlink_to(elsewhere)
    with pytest.raises(MedAIError, match="link"):
        open_model(bundle, "cpu")
    if linked == "LICENSE":
        with pytest.raises(SpecError, match="link"):
            read_spec(bundle)


def test_steps_for_another_entry_than_the_image_are_left_out(bundle: Path) -> None:
    from MedAILib.models.steps import preprocessing_steps

    pre(bundle, "ScaleIntensityRanged", keys="label", a_min=0, a_max=1, b_min=0, b_max=1)
    assert preprocessing_steps(read_plan(bundle).preprocessing) == ()


def test_a_bundle_of_descriptions_alone_can_be_written_and_read(tmp_path: Path) -> None:
    assert read_spec(write_configs(tmp_path / "m", *configs(network_entry("DynUNet")))).name == "m"
