"""Formats are told by content; weights with a description and TorchScript run; what is no model says why."""

import json
import re
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bundles import configs, network_entry, random_bundle
from legitimate import described, random_volume, state_dict, stored_as
from scripts_made import script_file, scripted_bundle

from MedAILib.errors import MedAIError, ModelError, SpecError, UntrustedCodeError
from MedAILib.formats import Format, find_format
from MedAILib.models.open import open_model
from MedAILib.models.trust import tree_sha256
from MedAILib.progress import Progress
from MedAILib.read_spec import read_spec
from MedAILib.request import RunOptions

DOCS = Path(__file__).parents[1] / "docs" / "models.md"


def segmented(source: Path, trust_code: str = "") -> np.ndarray:
    return open_model(source, "cpu", trust_code).run(random_volume(), RunOptions(), Progress()).layers


def test_weights_with_a_description_run_as_the_same_bundle_does(tmp_path: Path) -> None:
    folder = described(tmp_path / "parts")
    assert find_format(folder) is Format.STATE_DICT
    spec = read_spec(folder)
    assert (spec.title, spec.channels) == ("Two parts", ("T1",))
    assert [(label.value, label.name) for label in spec.labels] == [(1, "left"), (2, "right")]
    bundle = random_bundle(tmp_path / "bundle", network_entry())
    torch.save(state_dict(), bundle / "models" / "model.pt")
    labels = segmented(folder)
    assert np.array_equal(labels, segmented(bundle)) and len(np.unique(labels)) > 1


def test_the_example_of_the_documentation_runs(tmp_path: Path) -> None:
    text = DOCS.read_text(encoding="utf-8").partition("## Weights of any origin")[2]
    (description,) = re.findall(r"```json\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
    (code,) = re.findall(r"```python\n(.*?)```", text.partition("\n## ")[0], re.DOTALL)
    (tmp_path / "knee").mkdir()
    (tmp_path / "knee" / "medai.json").write_text(description, encoding="utf-8")
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True)
    assert segmented(tmp_path / "knee").any()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channels": None}, "no list 'channels'"),
        ({"labels": []}, "no list 'labels'"),
        ({"labels": ["background", "left"]}, "contradicts itself"),
        ({"network_def": None}, "network_def"),
        ({"network_def": {"_target_": "my.Net"}}, r"my\.py"),
        ({"preprocessing": None}, "no 'preprocessing'"),
        ({"weights": "../model.pt"}, "outside of the folder"),
        ({"weights": "other.pt"}, r"other\.pt does not exist"),
    ],
)
def test_a_description_that_lacks_something_says_what(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(MedAIError, match=words):
        open_model(described(tmp_path / "m", **changes), "cpu")


def test_of_several_files_of_weights_one_has_to_be_named(tmp_path: Path) -> None:
    folder = stored_as(tmp_path / "m", "a.pt", state_dict())
    torch.save(state_dict(), folder / "b.pt")
    with pytest.raises(SpecError, match="'weights'"):
        open_model(folder, "cpu")


def zip_of(*names: str) -> Any:
    def write(path: Path) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(name, "{}")

    return write


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("model.zip", b"<!DOCTYPE html><html><body>Sign in</body></html>", "web page"),
        ("model.ts", b"", "empty"),
        ("model.pkl", b"\x80\x04\x95\x10", "pickle"),
        ("model.pth", lambda path: torch.save(state_dict(), path), r"medai\.json"),
        ("old.pth", lambda path: torch.save({}, path, _use_new_zipfile_serialization=False), r"medai\.json"),
        ("model.onnx", b"\x08\x08\x12\x07pytorch", "ONNX"),
        ("model.h5", b"\x89HDF\r\n\x1a\n", "Keras"),
        ("model.keras", zip_of("config.json", "metadata.json", "model.weights.h5"), "Keras"),
        ("model.safetensors", b"\x02\0\0\0\0\0\0\0{}", "safetensors"),
        ("model.bin", b"version https://git-lfs.github.com/spec/v1", "Git LFS"),
        ("model.gz", b"\x1f\x8b\x08", "ends in .tar.gz"),
        ("model", zip_of("a/notes.txt"), "without a model's folder"),
        ("half.zip", b"PK\x03\x04 and no more", "damaged zip"),
        ("metadata.json", b'{"a": 1}', "give its folder"),
        ("notes.txt", b"hello", "neither TorchScript nor"),
    ],
)
def test_what_is_no_model_says_what_it_is(name: str, content: Any, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content(path)
    with pytest.raises(SpecError, match=f"no model that MedAI knows: .*{words}"):
        read_spec(path)


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ((), "empty"),
        (("model.pth",), r"add a medai\.json"),
        (("saved_model.pb", "variables"), "TensorFlow"),
        (("constants.pkl", "data.pkl"), r"ends in \.ts"),
        (("readme.txt",), r"configs/metadata\.json"),
    ],
)
def test_a_folder_that_is_no_model_says_what_it_lacks(files: tuple[str, ...], words: str, tmp_path: Path) -> None:
    for name in files:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(SpecError, match=words):
        read_spec(tmp_path)


def test_a_format_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    for name in ("model.ts", "model.pt", "model.zip", "model"):
        assert find_format(script_file(tmp_path / name)) is Format.TORCHSCRIPT


def test_torchscript_says_what_it_is_without_being_loaded(tmp_path: Path) -> None:
    spec = read_spec(script_file(tmp_path / "parts.ts"))
    assert [label.name for label in spec.labels] == ["part 1", "part 2"] and spec.patch == (16, 24, 16)


@pytest.mark.parametrize("make", [lambda folder: script_file(folder / "m.ts"), lambda f: scripted_bundle(f / "m")])
def test_torchscript_runs_once_it_is_trusted_and_gives_what_the_network_gives(make: Any, tmp_path: Path) -> None:
    source = make(tmp_path)
    with pytest.raises(UntrustedCodeError, match=f"--trust-code {tree_sha256(source)}"):
        open_model(source, "cpu")
    same = random_bundle(tmp_path / "same", network_entry())
    assert np.array_equal(segmented(source, tree_sha256(source)), segmented(same))


def test_torchscript_without_a_description_says_how_it_gets_one(tmp_path: Path) -> None:
    path = script_file(tmp_path / "bare.ts", extras={})
    with pytest.raises(SpecError, match="ckpt_export"):
        open_model(path, "cpu", tree_sha256(path))


def test_torchscript_in_place_of_weights_is_refused_by_name(tmp_path: Path) -> None:
    bundle = random_bundle(tmp_path / "m", network_entry())
    script_file(bundle / "models" / "model.pt")
    with pytest.raises(ModelError, match=r"is TorchScript.*models/model\.ts"):
        open_model(bundle, "cpu")


def test_a_damaged_script_is_one_sentence_even_when_trusted(tmp_path: Path) -> None:
    path = script_file(tmp_path / "m.ts")
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, b"def (" if "/code/__torch__" in name else content)
    with pytest.raises(ModelError, match="can't be loaded") as caught:
        open_model(path, "cpu", tree_sha256(path))
    assert "\n" not in str(caught.value)


def test_a_bundle_with_both_takes_the_weights_that_need_no_trust(tmp_path: Path) -> None:
    bundle = scripted_bundle(tmp_path / "m")
    torch.save(state_dict(), bundle / "models" / "model.pt")
    assert read_spec(bundle).obstacle == "" and open_model(bundle, "cpu").spec.name == "m"


def test_a_script_stands_for_a_network_of_the_authors_own(tmp_path: Path) -> None:
    bundle = scripted_bundle(tmp_path / "m", network_def={"_target_": "scripts.net.Mine", "in_channels": 1})
    assert segmented(bundle, tree_sha256(bundle)).any()


def test_a_step_of_the_authors_own_is_refused_beside_a_trusted_script(tmp_path: Path) -> None:
    bundle = scripted_bundle(tmp_path / "m", preprocessing=[{"_target_": "scripts.mine.Step", "keys": "image"}])
    with pytest.raises(UntrustedCodeError, match=r"scripts/mine\.py"):
        open_model(bundle, "cpu", tree_sha256(bundle))


def test_metadata_of_a_script_is_bounded(tmp_path: Path) -> None:
    metadata, inference = configs(network_entry())
    extras = {"metadata.json": json.dumps(metadata) + " " * 9_000_000, "inference.json": json.dumps(inference)}
    with pytest.raises(SpecError, match="larger than 8 MB"):
        read_spec(script_file(tmp_path / "m.ts", extras))
