"""Trust: by the user's word alone, for one exact content, until it is taken back."""

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import pytest
from bundles import network_entry, random_bundle
from classifier_bundles import CLASSES, DENSENET, classifier_bundle
from legitimate import random_volume
from scripts_made import Writing, script_file, scripted_bundle

from MedAILib.cli import main
from MedAILib.errors import InputError, MedAIError, SpecError, UntrustedCodeError
from MedAILib.models.open import open_model
from MedAILib.models.trust import is_trusted, revoke, tree_sha256, trust, trust_list
from MedAILib.progress import Progress
from MedAILib.request import RunOptions, RunRequest
from MedAILib.store.folders import config_folder
from MedAILib.store.trust_list import FILE
from MedAILib.worker.client import WorkerClient

NOBODY = "0" * 64


def medai(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def client() -> Iterator[WorkerClient]:
    """A worker that is gone when the tests of this file are through."""
    with WorkerClient() as client:
        yield client


@pytest.fixture
def script(tmp_path: Path) -> Path:
    return script_file(tmp_path / "parts.ts")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    nibabel.save(nibabel.Nifti1Image(random_volume().data[0].T.astype(np.int16), np.eye(4)), path)
    return path


def test_what_is_trusted_stays_so_until_it_is_revoked(script: Path) -> None:
    digest = tree_sha256(script)
    assert not is_trusted(digest) and trust_list() == ()
    trust(digest, "parts", "execute code")
    (entry,) = trust_list()
    assert (entry.sha256, entry.name, entry.allows) == (digest, "parts", "execute code") and "T" in entry.since
    assert trust(digest, "again", "execute code") == entry
    open_model(script, "cpu")
    assert revoke(digest) and not revoke(digest) and trust_list() == ()
    with pytest.raises(UntrustedCodeError):
        open_model(script, "cpu")


@pytest.mark.parametrize("change", ["weights", "a file more", "a config"])
def test_a_model_that_changes_is_no_longer_trusted(change: str, tmp_path: Path) -> None:
    bundle = scripted_bundle(tmp_path / "m")
    trust(tree_sha256(bundle), "m", "execute code")
    open_model(bundle, "cpu")
    if change == "weights":
        script_file(bundle / "models" / "model.ts", {}, Writing(tmp_path / "mark"))
    elif change == "a file more":
        (bundle / "note.txt").write_text("x", encoding="utf-8")
    else:
        path = bundle / "configs" / "inference.json"
        path.write_text(path.read_text(encoding="utf-8") + " ", encoding="utf-8")
    with pytest.raises(UntrustedCodeError):
        open_model(bundle, "cpu")
    assert not (tmp_path / "mark").exists()


def test_a_copy_of_the_same_content_is_the_same_model_and_a_copy_of_the_name_is_not(tmp_path: Path) -> None:
    first, second = script_file(tmp_path / "a.ts"), tmp_path / "b.ts"
    second.write_bytes(first.read_bytes())
    trust(tree_sha256(first), "a.ts", "execute code")
    open_model(second, "cpu")
    script_file(first, module=Writing(tmp_path / "mark"))
    with pytest.raises(UntrustedCodeError):
        open_model(first, "cpu")


def test_a_code_allows_one_content_for_one_call(script: Path) -> None:
    with pytest.raises(UntrustedCodeError, match=f"and not {NOBODY}"):
        open_model(script, "cpu", NOBODY)
    open_model(script, "cpu", tree_sha256(script).upper())
    assert trust_list() == ()


def test_a_script_that_is_trusted_really_executes_its_code(tmp_path: Path) -> None:
    source = script_file(tmp_path / "m.ts", module=Writing(tmp_path / "mark"))
    (tmp_path / "mark").unlink(missing_ok=True)
    with pytest.raises(UntrustedCodeError):
        open_model(source, "cpu")
    assert not (tmp_path / "mark").exists()
    open_model(source, "cpu", tree_sha256(source))
    assert (tmp_path / "mark").exists()


def test_a_model_in_memory_does_not_outlive_its_permission(script: Path) -> None:
    digest = tree_sha256(script)
    trust(digest, "parts", "execute code")
    model = open_model(script, "cpu")
    model.run(random_volume(), RunOptions(), Progress())
    revoke(digest)
    with pytest.raises(UntrustedCodeError):
        model.run(random_volume(), RunOptions(), Progress())


def test_the_list_is_the_users_alone(script: Path) -> None:
    trust(tree_sha256(script), "parts", "execute code")
    path = config_folder() / FILE
    if os.name == "posix":
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        path.chmod(0o622)
        with pytest.raises(SpecError, match="written by others"):
            open_model(script, "cpu")
        path.chmod(0o600)
    left = sorted(file.name for file in config_folder().iterdir())
    assert left == [FILE, f"{FILE}.lock"]


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"trusted": 1}', '{"trusted": [{}]}', '{"trusted": [{"sha256": "*", "name": "", "allows": "", '
     '"since": ""}]}'],
)  # fmt: skip
def test_a_damaged_list_allows_nothing(content: str, script: Path) -> None:
    trust(tree_sha256(script), "parts", "execute code")
    (config_folder() / FILE).write_text(content, encoding="utf-8")
    with pytest.raises(MedAIError, match=FILE):
        open_model(script, "cpu")


def test_a_list_that_is_a_link_allows_nothing(script: Path, tmp_path: Path) -> None:
    trust(tree_sha256(script), "parts", "execute code")
    path = config_folder() / FILE
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SpecError, match=r"link|others"):
        open_model(script, "cpu")


def test_what_is_no_hash_is_not_put_on_the_list() -> None:
    for words in ("", "*", "0" * 63, "G" * 64):
        with pytest.raises(InputError, match="no SHA-256"):
            trust(words, "x", "execute code")


def test_the_command_line_trusts_lists_and_revokes(script: Path, capsys: pytest.CaptureFixture[str]) -> None:
    digest = tree_sha256(script)
    assert medai("models", "trust", script) == 0
    assert digest in capsys.readouterr().out
    assert medai("models", "trust", "--json") == 0
    assert [entry["sha256"] for entry in json.loads(capsys.readouterr().out)] == [digest]
    assert medai("models", "info", script) == 0
    assert "Runs           yes" in capsys.readouterr().out
    script.unlink()
    assert medai("models", "trust", script, "--revoke") == 0 and trust_list() == ()
    assert medai("models", "trust", digest, "--revoke") == 2
    assert medai("models", "trust", "--revoke") == 2
    assert "--revoke needs" in capsys.readouterr().err


def test_what_executes_nothing_needs_no_trust(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert medai("models", "trust", random_bundle(tmp_path / "m", network_entry())) == 2
    assert "nothing to allow" in capsys.readouterr().err and trust_list() == ()


def test_the_command_line_says_the_hash_and_takes_it(
    script: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digest, out = tree_sha256(script), tmp_path / "labels.nii.gz"
    assert medai("segment", scan, "-m", script, "-o", out, "--quiet") == 2
    said = capsys.readouterr().err
    assert f"--trust-code {digest}" in said and said.count("\n") == 1 and not out.exists()
    assert medai("segment", scan, "-m", script, "-o", out, "--quiet", "--trust-code", digest) == 0
    assert out.exists() and trust_list() == ()


def test_findings_of_a_script_take_the_hash_too(
    script: Path, scan: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "findings.json"
    words = ["detect", scan, "-m", script, "-o", out, "--quiet", "--trust-code"]
    assert medai(*words, NOBODY) == 2
    assert f"and not {NOBODY}" in capsys.readouterr().err
    assert medai(*words, tree_sha256(script)) == 0
    assert out.exists() and trust_list() == ()


def test_the_hash_of_another_model_is_told_when_one_classifies(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    post = [{"_target_": "Activationsd", "softmax": True}, {"_target_": "AsDiscreted", "argmax": True}]
    bundle = classifier_bundle(tmp_path / "m", DENSENET, CLASSES, post=post)
    (bundle / "models" / "model.pt").unlink()
    script_file(bundle / "models" / "model.ts", {})
    PIL.Image.fromarray(np.zeros((24, 24), np.uint8)).save(tmp_path / "picture.png")
    words = ["classify", tmp_path / "picture.png", "-m", bundle, "-o", tmp_path / "found.json", "--quiet"]
    assert medai(*words, "--trust-code", NOBODY) == 2
    assert f"and not {NOBODY}" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="process groups of POSIX")
def test_the_worker_asks_for_trust_in_each_run(script: Path, client: WorkerClient) -> None:
    digest = tree_sha256(script)
    with pytest.raises(UntrustedCodeError, match=digest):
        client.submit(RunRequest(str(script), "cpu"), random_volume()).result(120)
    allowed = client.submit(RunRequest(str(script), "cpu", trust_code=digest), random_volume()).result(120)
    assert allowed.provenance["sha256"] == digest
    with pytest.raises(UntrustedCodeError):
        client.submit(RunRequest(str(script), "cpu"), random_volume()).result(120)


def test_a_request_carries_no_trust_by_itself() -> None:
    assert RunRequest("m").trust_code == ""
